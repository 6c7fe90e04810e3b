"""A training that reports what it does, as Composer's logger does it, with the client as published."""

from __future__ import annotations

import json
import shutil

import pytest

from clusters.engines.process.config import DEFAULT_PATH
from tests.client.real import Client

REPLAY = """
import math, mcli, time
name = {name!r}
def log(**data):
    mcli.update_run_metadata(name, {{f"mosaicml/{{key}}": value for key, value in data.items()}})
log(model_initialized_time=time.time())
for batch in range(11):
    log(training_progress=f"[batch={{batch}}/10]", **{{"loss/train/total": 1 / (batch + 1), "metrics/train/LanguageCrossEntropy": math.nan if batch == 3 else 2.5}})
log(train_finished_time=time.time(), training_progress="[batch=10/10]")
mcli.update_run_metadata(name, {{"nested": {{"best": math.inf, "worst": math.nan}}}})
from mcli.api.runs.api_create_run_event import create_run_event
print(create_run_event(name, "CHECKPOINT_SAVED", {{"message": "step 10"}}))
"""


def test_the_calls_of_composers_logger_show_up_as_events_metadata_and_progress(client: Client) -> None:
    name = client.submit("sleep 1000", name="training")
    assert client.wait(name, "RUNNING") == "RUNNING"
    client.python(REPLAY.format(name=name))
    described = client.mcli("describe", "run", name)
    for words in ("Model initialized", "Training started", "Training finished", "step 10"):
        assert words in described
    code = f"import json, mcli; print('IS', json.dumps(mcli.get_run({name!r}).metadata))"
    metadata = json.loads(client.python(code).split("IS ")[1])
    assert metadata["mosaicml/loss/train/total"] == 1 / 11
    assert metadata["mosaicml/metrics/train/LanguageCrossEntropy"] == 2.5
    assert str(metadata["nested"]["best"]) == "Infinity"
    client.mcli("stop", "run", name, "-y")


INSIDE = """
python3 - <<'END'
import json, os, urllib.request
document = '''mutation($runs: GetRunsInput!, $news: UpdateRunMetadataInput!)
{ updateRunMetadata(getRunsData: $runs, updateRunMetadataData: $news) { id } }'''
def log(**data):
    news = {"metadata": {f"mosaicml/{key}": value for key, value in data.items()}}
    runs = {"filters": {"name": {"in": [os.environ["RUN_NAME"]]}}}
    with open(os.environ["MOSAICML_ACCESS_TOKEN_FILE"]) as file:
        token = file.read().strip()
    body = json.dumps({"query": document, "variables": {"runs": runs, "news": news}}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["MOSAICML_API_ENDPOINT"], body, headers)
    print(urllib.request.urlopen(request).read().decode())
for batch in range(5):
    log(training_progress=f"[batch={batch}/4]", loss=1 / (batch + 1))
log(train_finished_time=1.0)
END
"""


@pytest.mark.skipif(shutil.which("python3", path=DEFAULT_PATH) is None, reason="runs see no python3 here")
def test_a_run_reports_with_its_own_token(client: Client) -> None:
    """The requests that the client makes, without it: runs cannot read the environment that it is installed in."""
    name = client.submit(INSIDE, name="inside")
    assert client.wait(name) == "COMPLETED", client.logs(name)
    described = client.mcli("describe", "run", name)
    for words in ("Training started", "Training finished"):
        assert words in described
