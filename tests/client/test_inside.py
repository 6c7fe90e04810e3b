"""The client inside a run: it acts for its run by the token that it finds there."""

from __future__ import annotations

from tests.client.inside import environment
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
    variables = environment(HOME)
    outside = client.submit("true")
    client.wait(outside)
    name = client.submit(f"python3 - <<'END'\n{SCRIPT}\nEND", env_variables=variables)
    status = client.wait(name, timeout=60)
    log = client.logs(name)
    assert status == "COMPLETED", log
    assert f"I AM {name} RUNNING" in log
    assert "SECOND SAYS from the second" in log
    assert "SECOND IS COMPLETED" in log
    assert "VISIBLE True" in log
    assert outside not in log
    assert "0.25" in client.mcli("describe", "run", name)
