"""The client inside a run: it acts for its run by the token that it finds there."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from clusters.engines.process.config import DEFAULT_PATH
from tests.client.real import HOME, Client

SCRIPT = """
import os, mcli
me = mcli.get_run(os.environ["RUN_NAME"])
print("I AM", me.name, me.status.name)
mcli.update_run_metadata(me, {"loss": 0.25})
second = mcli.create_run(mcli.RunConfig(name="second", image="python:3.11", command="echo from the second"))
for text in mcli.follow_run_logs(second):
    print("SECOND SAYS", text, end="")
print("SECOND IS", mcli.wait_for_run_status(second, "COMPLETED", timeout=60).status.name)
print("VISIBLE", sorted(run.name for run in mcli.get_runs()) == sorted([me.name, second.name]))
print("SECRETS", mcli.get_secrets() if hasattr(mcli, "get_secrets") else [])
"""


def test_a_run_submits_and_follows_a_second_run(client: Client) -> None:
    python = shutil.which("python3", path=DEFAULT_PATH)
    asked = [python or "false", "-c", "import sys; print(*sys.version_info[:2])"]
    wanted = "{} {}".format(*sys.version_info[:2])
    if subprocess.run(asked, capture_output=True, text=True).stdout.strip() != wanted:
        pytest.skip(f"runs need a python3 of version {wanted} in {DEFAULT_PATH} for the client's packages")
    outside = client.submit("true")
    client.wait(outside)
    packages = next((HOME / "lib").glob("python*/site-packages"))
    env = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": str(packages),
    }
    name = client.submit(f"python3 - <<'END'\n{SCRIPT}\nEND", env_variables=env)
    status = client.wait(name, timeout=60)
    log = client.logs(name)
    assert status == "COMPLETED", log
    assert f"I AM {name} RUNNING" in log
    assert "SECOND SAYS from the second" in log
    assert "SECOND IS COMPLETED" in log
    assert "VISIBLE True" in log
    assert outside not in log
    assert "0.25" in client.mcli("describe", "run", name)
