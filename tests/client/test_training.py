"""A training that reports as Composer's logger does (mapi §4.7), from inside a run, with both lines of the client.

The logger keeps futures of protected updates and waits for them at the end; numbers, NaN too, come with the times at
which the model was there, training began and ended. `make composer` has the real one do it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.inside import environment
from tests.client.real import HOME, HOME_07, Client, install
from tests.stack import Stack
from tests.whole.browser import logged_in

REPLAY = """
import math, os, time
from concurrent.futures import wait
import mcli
from mcli.version import __version__
print("CLIENT", __version__)
name, futures = os.environ["RUN_NAME"], []
assert os.environ["MOSAICML_PLATFORM"].lower() == "true" and os.environ["MOSAICML_ACCESS_TOKEN_FILE"]
def flush(**data):
    news = {f"mosaicml/{key}": value for key, value in data.items()}
    futures.append(mcli.update_run_metadata(name, news, future=True, protect=True))
    done, _ = wait(futures, timeout=0.01)
    for future in done:
        if future.exception() is not None:
            raise future.exception()
flush(**{"num_nodes": 1, "algorithms": "None", "model_initialized_time": time.time(),
         "wandb/run_url": "https://wandb.ai/crew/spirals/runs/4f1c"})
flush(train_started_time=time.time())
for epoch in (1, 2):
    for batch in range(1, 6):
        wait(futures)  # the logger's next flush is a minute later: they do not overtake one another
        flush(**{"training_sub_progress": f"[batch={batch}/5]", "training_progress": f"[epoch={epoch}/2]",
                 "loss/train/total": 1 / (5 * epoch - 5 + batch), "time/token": 100 * batch,
                 "metrics/train/LanguageCrossEntropy": math.nan if batch == 3 else 2.5})
        if (epoch, batch) == (1, 5):
            wait(futures)
            print("HALF, AND AN END IN SIGHT", mcli.get_run(name).resumptions[-1].estimated_end_time is not None)
wait(futures)
flush(train_finished_time=time.time(), training_sub_progress="[batch=0/5]", training_progress="[epoch=2/2]")
wait(futures)
assert not any(future.exception() for future in futures)
print("REPORTED", len(futures))
"""
EVENTS = ("Model initialized", "Training started", "Training finished", "Training at epoch=1/2 batch=5/5")


@pytest.mark.parametrize("home", [HOME_07, HOME], ids=["0.7", "0.8"])
def test_the_calls_of_composers_logger_are_curves_progress_and_events(
    stack: Stack, client: Client, home: Path
) -> None:
    install(home)
    name = client.submit(
        f"python3 - <<'END'\n{REPLAY}\nEND", name="training", env_variables=environment(home)
    )
    assert client.wait(name) == "COMPLETED", client.logs(name)
    log = client.logs(name)
    assert f"CLIENT {home.name.removeprefix('client-') if home is HOME_07 else '0.8'}" in log
    assert "HALF, AND AN END IN SIGHT True" in log
    assert "REPORTED 13" in log

    described = client.mcli("describe", "run", name)
    for words in EVENTS:
        assert words in described, (words, described)
    assert described.count("Training started") == 1
    code = f"import json, mcli; print('IS', json.dumps(mcli.get_run({name!r}).metadata))"
    metadata = json.loads(client.python(code).split("IS ")[1])
    assert metadata["mosaicml/loss/train/total"] == 1 / 10
    assert metadata["mosaicml/training_progress"] == "[epoch=2/2]"

    with logged_in(stack) as browser:
        page = browser.get(f"/runs/{name}").text
        assert '<progress class="share" max="1" value="1.0">' in page
        assert 'href="https://wandb.ai/crew/spirals/runs/4f1c"' in page
        curves = browser.get(f"/runs/{name}/metrics").json()["series"]
        assert len(curves["mosaicml/loss/train/total"]) == 10
        assert len(curves["mosaicml/metrics/train/LanguageCrossEntropy"]) == 8  # without what is no number


def test_values_that_are_no_numbers_survive_in_what_is_nested(client: Client) -> None:
    name = client.submit("sleep 1000", name="nested")
    assert client.wait(name, "RUNNING") == "RUNNING"
    client.python(
        "import math, mcli\n"
        f"mcli.update_run_metadata({name!r}, {{'nested': {{'best': math.inf, 'worst': math.nan}}}})\n"
        "from mcli.api.runs.api_create_run_event import create_run_event\n"
        f"print(create_run_event({name!r}, 'CHECKPOINT_SAVED', {{'message': 'step 10'}}))"
    )
    assert "step 10" in client.mcli("describe", "run", name)
    code = f"import json, mcli; print('IS', json.dumps(mcli.get_run({name!r}).metadata))"
    assert str(json.loads(client.python(code).split("IS ")[1])["nested"]["best"]) == "Infinity"
    client.mcli("stop", "run", name, "-y")
