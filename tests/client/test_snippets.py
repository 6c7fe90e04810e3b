"""Every snippet of the platform's "Run Lifecycle" page, with the client as published, on a whole console."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.real import ROOT, Client

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def finished(client: Client) -> str:
    """A run of three ranks that has completed."""
    name = client.submit("echo output of rank $NODE_RANK", compute={"nodes": 3})
    assert client.wait(name) == "COMPLETED"
    return name


@pytest.fixture(scope="module")
def failed(client: Client) -> str:
    name = client.submit(
        "echo rank $NODE_RANK; test $NODE_RANK != 1 || exit 7; sleep 60", compute={"nodes": 2}
    )
    assert client.wait(name, "FAILED") == "FAILED"
    return name


def test_mcli_run_follows_the_example_to_its_end(client: Client) -> None:
    output = client.mcli("run", "-f", str(EXAMPLES / "hello.yaml"), "--follow")
    assert "Hello from hello-" in output
    assert [f"step {n} of 5" in output for n in range(1, 6)] == [True] * 5
    assert "Done." in output


def test_a_followed_log_arrives_line_by_line_while_the_run_writes(client: Client) -> None:
    process = client.popen("run", "-f", str(EXAMPLES / "hello.yaml"), "--follow")
    assert process.stdout is not None
    seen = b""
    while b"step 2 of 5" not in seen:
        part = process.stdout.read1(4096)  # type: ignore[attr-defined]
        assert part, seen.decode()
        seen += part
    assert b"step 5 of 5" not in seen
    rest = process.stdout.read()
    assert b"Done." in rest
    assert process.wait(30) == 0


def test_create_run_and_watch_its_status(client: Client) -> None:
    output = client.python(
        """
import mcli
from mcli import RunConfig, RunStatus, create_run, get_run, wait_for_run_status
run = create_run(RunConfig(name="sdk", image="python:3.11", command="sleep 1; echo hi", compute={"cpus": 1}))
print("SUBMITTED", run.status.name)
run = wait_for_run_status(run, RunStatus.COMPLETED)
run = run.refresh()
print("ENDED", run.status.name, get_run(run.name).status.name, run.image)
print("LIFECYCLE", [entry.status.name for entry in run.lifecycle])
"""
    )
    assert "SUBMITTED PENDING" in output
    assert "ENDED COMPLETED COMPLETED python:3.11" in output
    for status in ("PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED"):
        assert status in output.split("LIFECYCLE")[1]


def test_get_runs_and_describe_show_it(client: Client, finished: str) -> None:
    assert finished in client.mcli("get", "runs")
    assert finished in client.mcli("get", "runs", "--status", "completed")
    assert finished not in client.mcli("get", "runs", "--status", "failed")
    described = client.mcli("describe", "run", finished)
    assert "Completed" in described
    assert "echo output of rank $NODE_RANK" in described


def test_util_and_get_cluster_agree(client: Client) -> None:
    assert "local" in client.mcli("get", "clusters")
    client.mcli("util", "local")
    output = client.python(
        """
from mcli import get_cluster
cluster = get_cluster("local")
total = sum(i.gpus_total for i in cluster.utilization.cluster_instance_utils) if cluster.utilization else 0
print("TOTAL", cluster.name, total)
"""
    )
    assert "TOTAL local" in output


def test_logs_of_a_rank_and_of_all_of_it(client: Client, finished: str) -> None:
    assert "output of rank 0" in client.mcli("logs", finished)
    assert "output of rank 2" in client.mcli("logs", finished, "--rank", "2")
    assert client.logs(finished, rank=2) == "output of rank 2\n"
    output = client.python(f"import mcli; print('GOT', ''.join(mcli.follow_run_logs({finished!r}, rank=1)))")
    assert "GOT output of rank 1" in output


def test_the_logs_of_what_failed_are_those_of_the_first_failed_rank(client: Client, failed: str) -> None:
    assert "rank 1" in client.mcli("logs", failed)
    assert "rank 1" in client.python(
        f"import mcli; print(''.join(mcli.get_run_logs({failed!r}, failed=True)))"
    )
    output = client.python(
        f"import mcli; run = mcli.get_run({failed!r}); print('WHY', run.reason, run.image)"
    )
    assert "WHY Error python:3.11" in output


def test_stop_restart_and_delete(client: Client) -> None:
    name = client.submit("echo attempt $RESUMPTION_INDEX; test $RESUMPTION_INDEX = 1 || sleep 600")
    assert client.wait(name, "RUNNING") == "RUNNING"
    client.mcli("stop", "run", name, "-y")
    assert client.wait(name, "STOPPED") == "STOPPED"
    client.mcli("run", "-r", name)
    assert client.wait(name) == "COMPLETED"
    assert "attempt 1" in client.mcli("logs", name)
    assert "attempt 0" in client.mcli("logs", name, "--resumption", "0")
    client.mcli("delete", "run", name, "-y")
    assert name not in client.mcli("get", "runs")
    assert name in client.mcli("get", "runs", "--include-deleted")


def test_the_same_by_the_sdk(client: Client) -> None:
    output = client.python(
        """
import mcli
from mcli import RunConfig, RunStatus
run = mcli.create_run(RunConfig(name="sdk-stop", image="python:3.11", command="sleep 600"))
run = mcli.wait_for_run_status(run, RunStatus.RUNNING)
mcli.stop_run(run)
print("STOPPED", mcli.wait_for_run_status(run, RunStatus.STOPPED).status.name)
mcli.start_run(run)
print("AGAIN", mcli.wait_for_run_status(run, RunStatus.RUNNING).status.name)
mcli.stop_run(run)
mcli.wait_for_run_status(run, RunStatus.STOPPED)
mcli.delete_run(run)
print("LEFT", [r.name for r in mcli.get_runs() if r.name == run.name])
"""
    )
    assert "STOPPED STOPPED" in output
    assert "AGAIN RUNNING" in output
    assert "LEFT []" in output


def test_the_client_accepts_a_key_of_this_console(client: Client, tmp_path: Path) -> None:
    env = {**client.env, "MCLI_CONFIG_DIR": str(tmp_path)}
    key = env.pop("MOSAICML_API_KEY")
    other = Client(env, tmp_path)
    other.mcli("set", "api-key", key)
    assert key in (tmp_path / "mcli_config").read_text()
    other.mcli("get", "clusters")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("name: x\nimage: [unclosed", "yaml"),
        ("name: bad\ncommand: echo", "image"),
        ("name: bad\nimage: python:3.11", "missing the following required values: command"),
        (f"name: {'n' * 60}\nimage: python:3.11\ncommand: echo", "56"),
        (
            "name: bad\nimage: python:3.11\ncommand: echo\ncompute: {cluster: nowhere}",
            "there is no cluster 'nowhere'",
        ),
        ("name: bad\nimage: python:3.11\ncommand: echo\ncompute: {gpus: 4096}", "has no GPUs"),
        ("name: bad\nimage: python:3.11\ncommand: echo\ncompute: {cpus: 4096}", "compute.cpus"),
        ("name: bad\nimage: python:3.11\ncommand: echo\ncompute: {gpuz: 1}", "gpuz"),
        ("name: bad\nimage: python:3.11\ncommand: echo\nscheduling: {priority: urgent}", "priority"),
    ],
)
def test_wrong_input_names_the_field_and_stores_nothing(
    client: Client, tmp_path: Path, change: str, says: str
) -> None:
    before = client.python("import mcli; print(len(mcli.get_runs(limit=1000)))")
    file = tmp_path / "run.yaml"
    file.write_text(change)
    assert says.lower() in client.mcli("run", "-f", str(file), ok=False).lower().replace("\n", " ")
    assert client.python("import mcli; print(len(mcli.get_runs(limit=1000)))") == before


def test_a_wrong_key_is_told_so(client: Client) -> None:
    stranger = Client({**client.env, "MOSAICML_API_KEY": "ryk_" + "x" * 43}, client.folder)
    assert "401" in stranger.mcli("get", "runs", ok=False)


def test_five_identical_submissions_at_once_make_five_runs(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: five\nimage: python:3.11\ncommand: 'true'\n")
    processes = [client.popen("run", "-f", str(file), "--no-follow") for _ in range(5)]
    outputs = [process.communicate(timeout=90)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, outputs
    names = {word for output in outputs for word in output.split() if word.startswith("five-")}
    assert len(names) == 5


ELSEWHERE = {"progress.yaml", "from-git.yaml"}
"""One takes ten minutes, one clones from a public host."""


@pytest.mark.parametrize(
    "example", sorted(path.name for path in EXAMPLES.glob("*.yaml") if path.name not in ELSEWHERE)
)
def test_every_example_ends_as_it_says(client: Client, example: str) -> None:
    output = client.mcli("run", "-f", str(EXAMPLES / example))
    name = next(word for word in output.split() if word.startswith(example.removesuffix(".yaml")))
    wanted = "FAILED" if example == "failing-rank.yaml" else "COMPLETED"
    assert client.wait(name, wanted, timeout=120) == wanted, client.mcli("logs", name)
