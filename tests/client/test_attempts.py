"""A run of five attempts, by itself and by hand: the client, the page and the logs tell one story."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from console.templatetags.times import duration
from tests.client.real import Client
from tests.stack import ROOT, Stack
from tests.whole.browser import logged_in

CLUSTER = """
from clusters.engines.process.host import host_id
from clusters.models import Cluster
from clusters.tasks import look_at
from teams.models import Team
config = {"root": %r, "host_id": host_id(), "slots": 4, "cpus": 8, "gpus": 2, "gpu_type": "declared"}
cluster, _ = Cluster.objects.get_or_create(name="five", defaults={"engine": "process", "config": config})
cluster.teams.set(Team.objects.all())
look_at(cluster)
"""
COMMAND = """\
echo "this is attempt $RESUMPTION_INDEX"
sleep 0.5
test "$RESUMPTION_INDEX" = 4 || exit $((10 + RESUMPTION_INDEX))
echo "done at last"
"""
TOLD = """
import json, mcli
run = mcli.get_run(%r)
rows = [(n, r.status.name, r.reason, r.gpus, str(r.started_at), str(r.ended_at)) for n, r in enumerate(run.resumptions)]
print("TOLD", json.dumps(rows))
"""


@pytest.fixture(scope="module")
def run_file(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    code = CLUSTER % str(stack.home.path / "clusters" / "five")
    subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", code], cwd=ROOT, env=stack.environment, check=True
    )
    file = tmp_path_factory.mktemp("five") / "run.yaml"
    file.write_text(
        json.dumps(
            {
                "name": "five",
                "image": "python:3.11",
                "command": COMMAND,
                "compute": {"cluster": "five", "gpus": 2},
                "scheduling": {"max_retries": 2},
            }
        )
    )
    yield file
    # Where there are two clusters every other test would have to name one.
    code = "from clusters.models import Cluster; Cluster.objects.get(name='five').teams.clear()"
    subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", code], cwd=ROOT, env=stack.environment, check=True
    )


def test_five_attempts_are_told_alike_by_client_page_and_logs(
    stack: Stack, client: Client, run_file: Path
) -> None:
    # The client's own exit code says nothing here: it is 0 for what failed after it was RUNNING.
    followed = client.mcli("run", "-f", str(run_file), "--follow", timeout=150)
    assert [f"this is attempt {n}" in followed for n in range(4)] == [True, True, True, False]
    (name,) = set(re.findall(r"\bfive-[a-z0-9]{6}\b", followed))
    assert client.wait(name, "FAILED") == "FAILED"
    client.mcli("run", "-r", name)  # by hand, and with its retries before it again
    assert client.wait(name) == "COMPLETED"

    rows = _told(client, name)
    assert [row[:3] for row in rows] == [
        *([index, "FAILED", "Error"] for index in range(4)),
        [4, "COMPLETED", None],
    ]
    described = client.mcli("describe", "run", name)
    for words in ("retry 1 of 2", "retry 2 of 2", "Restarted by"):
        assert words in described
    for index in range(5):
        said = client.mcli("logs", name, "--resumption", str(index))
        assert f"this is attempt {index}" in said
        assert f"this is attempt {(index + 1) % 5}" not in said

    times = [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for *_, start, end in rows]
    spent = sum(
        ((end - start) * gpus for (start, end), (*_, gpus, _, _) in zip(times, rows, strict=True)),
        timedelta(),
    )
    with logged_in(stack) as browser:
        page = browser.get(f"/runs/{name}").text
        assert page.count("Attempt 5") and "GPU time" in page
        shown = re.search(r"GPU time</dt>\s*<dd[^>]*>([^<]+)<", page)
        assert shown is not None and shown[1].strip() == duration(spent)
        for index in range(5):
            first = browser.get(f"/runs/{name}/log/{index}/0/MAIN/raw").text
            assert first.startswith(f"this is attempt {index}\n")


def _told(client: Client, name: str) -> list[Any]:
    output = client.python(TOLD % name)
    rows: list[Any] = json.loads(output.split("TOLD ")[1].splitlines()[0])
    return rows
