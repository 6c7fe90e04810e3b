"""The same day from Python, with futures and paging, and what an admin does for others; logs from every side."""

from __future__ import annotations

import pytest

from tests.client.conftest import CLUSTER, Crew, flat
from tests.client.real import Client


@pytest.fixture(scope="module")
def sia(crew: Crew) -> Client:
    return crew.sia


DAY = """
import mcli
from datetime import datetime, timedelta, timezone
from mcli import RunConfig, RunStatus
def config(name, command="true", **more):
    return RunConfig(name=name, image="python:3.11", command=command, **more)

begun = datetime.now(timezone.utc)

# Seven at once, by futures.
futures = [mcli.create_run(config(f"page-{n}"), future=True) for n in range(7)]
runs = [future.result(60) for future in futures]
names = [run.name for run in runs]
assert len(set(names)) == 7
# One watch after the other: the client's own connection takes no two at a time.
ended = [mcli.wait_for_run_status(run, RunStatus.COMPLETED, future=True).result(90) for run in runs]
assert {run.status for run in ended} == {RunStatus.COMPLETED}
print("STEP futures")

# Page by page: every run once, newest first, and an end.
page, seen = mcli.get_runs(limit=3), []
while page:
    seen += [run.name for run in page]
    if not page.has_next_page:
        break
    page = page.next_page()
assert [name for name in seen if name in names] == sorted(names, key=seen.index) and len(seen) == len(set(seen)) == 7
created = [run.created_at for run in mcli.get_runs(names)]
assert created == sorted(created, reverse=True)
more = mcli.get_runs(limit=2).next_page(5)
assert len(more) == 5 and not more.has_next_page
print("STEP pages")

# Every filter of get_runs.
now = datetime.now(timezone.utc)
def found(**filters):
    return len(mcli.get_runs(**filters))
assert found(cluster_names=["bench"]) == 7 == found(cluster_names=mcli.get_clusters())
assert found(before=now + timedelta(days=1), after=now - timedelta(days=1)) == 7
assert found(after=str(now + timedelta(days=1))) == 0 == found(ended_before="2020-01-01")
assert found(ended_after="2020-01-01", ended_before=now + timedelta(days=1)) == 7
assert found(gpu_types=["None"], gpu_nums=[0], statuses=["COMPLETED"], run_types=["TRAINING"]) == 7
assert found(statuses=[RunStatus.FAILED]) == 0 == found(gpu_nums=[8]) == found(user_emails=["tom@example.com"])
assert found(all_users=True, limit=4) == 4
assert mcli.get_runs(include_details=True)[0].submitted_config.command == "true"
assert mcli.get_runs(future=True).result(30)[0].name in names
assert mcli.get_runs(runs)[0].name in names
print("STEP filters")

# One run, from every side.
run = mcli.create_run(config("one", "sleep 1000", parameters={"a": {"b": [1, None]}}, env_variables={"N": 3}))
assert mcli.wait_for_run_status(run, "RUNNING").status is RunStatus.RUNNING
assert next(mcli.watch_run_status(run)).status is RunStatus.RUNNING
run = run.refresh()
assert run.submitted_config.parameters == {"a": {"b": [1, None]}} and run.submitted_config.env_variables == {"N": 3}
assert run.update_metadata({"best": 0.5}).metadata["best"] == 0.5
assert mcli.update_run_metadata(run, {"more": {"x": [1, 2]}}, future=True).result(30).metadata["best"] == 0.5
changed = run.update(priority="low", max_retries=2, max_duration=3.0, preemptible=True, retry_on_system_failure=True)
assert (changed.priority, changed.max_retries, changed.preemptible, changed.retry_on_system_failure) == ("low", 2, True, True), changed
assert mcli.get_run(run).max_duration_seconds == 3 * 3600
assert mcli.update_run(run, {"maxRetries": 0}).max_retries == 0
stopped = mcli.stop_run(run, reason="enough of it")
assert mcli.wait_for_run_status(run, "STOPPED").status is RunStatus.STOPPED
again = mcli.start_run(run)
assert again.status is RunStatus.PENDING and len(again.resumptions) == 2 and again.name == run.name
copy = run.clone(name="copied")
assert copy.name.startswith("copied-")
mcli.stop_runs([run, copy], future=True).result(30)
for one in (run, copy):
    assert mcli.wait_for_run_status(one, "STOPPED").status is RunStatus.STOPPED
assert {one.name for one in mcli.start_runs([run.name, copy.name])} == {run.name, copy.name}
mcli.stop_runs(mcli.get_runs([run.name, copy.name]))
mcli.wait_for_run_status(run, "STOPPED"), mcli.wait_for_run_status(copy, "STOPPED")
assert copy.refresh().delete().name == copy.name
print("STEP one")

# In bulk, all or nothing; and an empty list is not everything.
def refused(code, call, *args, **more):
    try:
        call(*args, **more)
    except mcli.MAPIException as problem:
        assert problem.status.value == code, problem
        return str(problem)
    raise AssertionError(f"{call} was not refused")
assert "never-was" in refused(404, mcli.delete_runs, [names[0], "never-was"])
for call in (mcli.stop_runs, mcli.delete_runs, mcli.start_runs):
    assert "filters.name.in" in refused(400, call, [])
refused(400, mcli.delete_secrets)
assert found() == 8
mcli.delete_runs(runs)
mcli.delete_run(run.name)
assert found() == 0 and found(include_deleted=True, after=begun) == 9
print("STEP bulk")

clusters = mcli.get_clusters(include_utilization=True)
assert [one.name for one in clusters] == ["bench"] and clusters[0].utilization is not None
assert mcli.get_cluster("bench").name == "bench" == mcli.get_clusters(["bench"], future=True).result(30)[0].name
session = mcli.create_interactive_run(config("shell", "sleep 100"), seconds=600)
assert session.run_type.value == "INTERACTIVE" and found(run_types=["INTERACTIVE"]) == 1
mcli.wait_for_run_status(session, "RUNNING").delete()
print("STEP clusters")
"""


def test_a_day_from_python(sia: Client) -> None:
    output = sia.python(DAY, timeout=300)
    for step in ("futures", "pages", "filters", "one", "bulk", "clusters"):
        assert f"STEP {step}" in output


@pytest.fixture(scope="module")
def chatty(sia: Client) -> str:
    """Two ranks, of which one fails in its second attempt as in its first."""
    name = sia.submit(
        "for i in 1 2 3; do echo attempt $RESUMPTION_INDEX rank $NODE_RANK line $i; done\n"
        "if [ $NODE_RANK = 1 ]; then python3 -c 'raise ValueError(\"too far\")' || exit 1; fi; sleep 20",
        name="chatty",
        compute={"nodes": 2},
        scheduling={"max_retries": 1},
    )
    assert sia.wait(name, "FAILED") == "FAILED"
    return name


def test_logs_from_every_side(sia: Client, chatty: str) -> None:
    def logs(*words: str, ok: bool = True) -> str:
        return sia.mcli("logs", *words, ok=ok)

    assert "attempt 1 rank 1 line 3" in logs(chatty)  # a failed run shows the rank that failed first
    assert "attempt 1 rank 1 line 3" in logs()  # the latest
    assert "attempt 1 rank 1 line 1" in logs(chatty, "--failed")
    for option in ("--rank", "--node-rank", "--node"):
        assert "attempt 1 rank 0 line 2" in logs(chatty, option, "0")
    assert "attempt 0 rank 0 line 1" in logs(chatty, "--resumption", "0", "--node", "0")
    assert "attempt 0 rank 1" in logs(chatty, "--prev", "--failed")
    tail = logs(chatty, "--node", "0", "--tail", "1")
    assert "line 3" in tail
    assert "line 2" not in tail
    assert "line 1" in logs(chatty, "--follow", "--node", "0")
    assert "line 1" in logs(chatty, "--no-follow", "--node", "0", "--container", "MAIN")
    assert "MODEL" in logs(chatty, "--node", "0", "-c", "MODEL", ok=False)
    exception = logs(chatty, "--first-exception")
    assert "ValueError: too far" in exception
    assert "attempt" not in exception
    assert "ValueError: too far" in logs(chatty, "--error", "--node", "1")
    assert "never-was" in logs("never-was", ok=False)
    assert "0 to 1" in flat(logs(chatty, "--node", "9", ok=False))
    logs(chatty, "--resumption", "5", ok=False)
    output = sia.python(
        "import mcli\n"
        f"one = ''.join(mcli.get_run_logs({chatty!r}, node_rank=0, resumption=0, tail=2))\n"
        "assert one.split('\\n')[:2] == ['attempt 0 rank 0 line 2', 'attempt 0 rank 0 line 3'], one\n"
        "print('READ')"
    )
    assert "READ" in output
    sia.mcli("delete", "run", chatty, "-y")


def test_an_admin_looks_after_others_and_a_member_does_not(crew: Crew) -> None:
    name = crew.sia.submit("sleep 1000", name="hers")
    assert crew.sia.wait(name, "RUNNING") == "RUNNING"
    assert name in crew.tom.mcli("get", "runs", "--user", "sia@example.com")
    assert "No runs found" in crew.tom.mcli("stop", "run", name, "-y", ok=False)  # it looks among his own
    code = f"import mcli; mcli.stop_run({name!r})"
    assert "You may not change run" in flat(crew.tom.python(code, ok=False))

    def admin(*words: str, ok: bool = True) -> str:
        return crew.uma.mcli(*words, ok=ok, program="mcli-admin")

    for words in (("get", "users"), ("get", "users", "--org", crew.team)):
        assert all(f"{who}@example.com" in admin(*words) for who in ("sia", "tom", "uma"))
    assert "crew" in admin("get", "org")
    assert "crew" in admin("describe", "user", "sia@example.com")
    assert name in admin("get", "runs", "--all-users")
    assert CLUSTER in admin("get", "clusters")
    assert CLUSTER in admin("util")
    output = crew.uma.python(
        "import mcli\n"
        "from mcli.api.users.api_get_users import get_users\n"
        "sia = next(one for one in get_users() if one.email == 'sia@example.com')\n"
        "print('SIA', sia.id)"
    )
    admin("set", "user", output.split("SIA ")[1].split()[0])
    assert name in admin("get", "runs")
    assert "Pod Status Updates" in admin("debug", "run", name, "--resumption", "0")
    admin("stop", "run", name, "-y", "--reason", "too long")
    assert crew.sia.wait(name, "STOPPED") == "STOPPED"
    assert "too long" in flat(crew.sia.mcli("describe", "run", name))
    admin("delete", "run", name, "-y")
    admin("unset", "user")
    admin("set", "org", crew.team)
    assert "No items" in admin("get", "runs", "-s", "running")
    admin("unset", "org")
    assert name not in crew.sia.mcli("get", "runs", "-o", "name")


def test_what_needs_no_server_works_beside_it(sia: Client) -> None:
    assert "0.8.3" in sia.mcli("version")
    assert "0.8.3" in sia.mcli("--version")
    for words in (("config",), ("describe", "me"), ("get", "--help")):
        sia.mcli(*words)
    assert "sia@example.com" in sia.mcli("describe", "me")
    wrong = Client({**sia.env, "MOSAICML_API_KEY": "ryk_wrong"}, sia.folder)
    assert "401" in wrong.mcli("get", "runs", ok=False)
