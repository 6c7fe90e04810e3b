"""A day with `mcli`, as published: submit, list, look at, change, stop, start again, delete."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.conftest import CLUSTER, Crew, flat
from tests.client.real import Client

YAML = """\
name: overridden
image: python:3.11
command: echo from the file
compute: {cpus: 1}
env_variables: {NUMBER: 3, TRUTH: true, WORD: said}
parameters: {lr: 0.1, layers: [1, 2]}
metadata: {purpose: session, mosaicml/depth: 3}
scheduling: {resumable: false}
"""
SLEEPS = """\
name: sleeps
image: python:3.11
command: sleep 1000
compute: {gpus: 1}
metadata: {mosaicml/depth: 17}
"""


@dataclass(frozen=True)
class Made:
    """Runs that are made once and looked at from every side, oldest first."""

    done: str
    """Three ranks, which ended well."""
    failed: str
    """Its rank 1 has failed."""
    sleeps: str
    """Holds one of the two GPUs and runs on and on."""
    waits: str
    """Queued behind it: it wants both."""

    @property
    def all(self) -> set[str]:
        return {self.done, self.failed, self.sleeps, self.waits}


@pytest.fixture(scope="module")
def sia(crew: Crew) -> Client:
    return crew.sia


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yaml")
    (folder / "run.yaml").write_text(YAML)
    (folder / "sleeps.yaml").write_text(SLEEPS)
    return folder


@pytest.fixture(scope="module")
def made(sia: Client, folder: Path) -> Made:
    done = sia.submit("echo rank $NODE_RANK; echo to be seen", name="done", compute={"nodes": 3})
    failed = sia.submit("test $NODE_RANK != 1 || exit 7; sleep 60", name="failed", compute={"nodes": 2})
    assert sia.wait(done) == "COMPLETED"
    assert sia.wait(failed, "FAILED") == "FAILED"
    sleeps = submitted(sia.mcli("run", "-f", str(folder / "sleeps.yaml")))
    assert sia.wait(sleeps, "RUNNING") == "RUNNING"
    waits = submitted(sia.mcli("run", "-f", str(folder / "sleeps.yaml"), "--gpus", "2", "--name", "waits"))
    assert sia.wait(waits, "QUEUED") == "QUEUED"
    return Made(done, failed, sleeps, waits)


def submitted(output: str) -> str:
    found = re.search(r"Run (\S+) submitted", flat(output))
    assert found is not None, output
    return found[1]


def names(client: Client, *words: str) -> set[str]:
    output = client.mcli("get", "runs", "-o", "name", *words)
    return set() if "No items found" in output else set(output.split())


def test_every_option_of_run_overrides_the_file(sia: Client, folder: Path) -> None:
    name = submitted(
        sia.mcli(
            *("run", "-f", str(folder / "run.yaml"), "--name", "other", "--image", "python:3.12"),
            *("--cluster", CLUSTER, "--gpus", "2", "--gpu-type", "declared", "--priority", "low"),
            *("--preemptible", "--max_retries", "2", "--max-duration", "0.5", "--no-follow"),
        )
    )
    assert name.startswith("other-")
    described = flat(sia.mcli("describe", "run", name))
    for words in (
        *("Image python:3.12", f"Cluster {CLUSTER}", "GPUs 2", "GPU Type declared", "Priority Low"),
        *("Preemptible True", "Max Retries 2", "Max Duration 1800 seconds", "resumable: false"),
        *("purpose session", "NUMBER: 3", "TRUTH: true", "lr: 0.1", "command: echo from the file"),
    ):
        assert words in described, (words, described)
    instance = sia.mcli(
        "run", "-f", str(folder / "run.yaml"), "--instance", "cpu", "--nodes", "2", "--no-preemptible"
    )
    described = flat(sia.mcli("describe", "run", submitted(instance)))
    assert "Nodes 2" in described
    assert "Preemptible False" in described
    for run in (name, submitted(instance)):
        assert sia.wait(run) == "COMPLETED"
        sia.mcli("delete", "run", run, "-y")


def test_what_cannot_be_is_refused_in_words_that_name_it(sia: Client, folder: Path) -> None:
    before = names(sia)
    for option, said in {
        ("--node-names", "vm-7"): "compute.nodeNames",
        ("--instance", "huge"): "huge",
        ("--gpu-type", "h100_80gb"): "h100_80gb",
        ("--gpus", "64"): "compute.gpus",
        ("--nodes", "700"): "compute.nodes",
        ("--cluster", "elsewhere"): "elsewhere",
        ("--priority", "urgent"): "priority",
        ("--max_retries", "-3"): "maxRetries",
        ("--max-duration", "-1"): "maxDuration",
        ("--name", "n" * 60): "runName",
    }.items():
        output = flat(sia.mcli("run", "-f", str(folder / "run.yaml"), *option, ok=False))
        assert "Error 400" in output, (option, output)
        assert said in output, (option, output)
    assert names(sia) == before


def test_lists_are_filtered_by_every_option(sia: Client, made: Made) -> None:
    assert names(sia) == made.all
    newest_first = sia.mcli("get", "runs", "-o", "name").split()
    assert newest_first == [made.waits, made.sleeps, made.failed, made.done]
    for words, expected in {
        (made.done, made.failed): {made.done, made.failed},
        (made.done, "never-was"): {made.done},
        ("done-*",): {made.done},
        ("fa*d-*", made.waits): {made.failed, made.waits},
        ("[sw]?*",): {made.sleeps, made.waits},
        ("-c", CLUSTER): made.all,
        ("-c", f"elsewhere,{CLUSTER}"): made.all,
        ("--cluster", "elsewhere"): set(),
        ("-t", "declared"): {made.sleeps, made.waits},
        ("-t", "none"): {made.done, made.failed},
        ("--gpu-type", "DECLARED,none"): made.all,
        ("-n", "2"): {made.waits},
        ("--gpu-num", "0,1"): {made.done, made.failed, made.sleeps},
        ("-s", "completed"): {made.done},
        ("--status", "Failed,running"): {made.failed, made.sleeps},
        ("-s", "queued", "-n", "2", "-t", "declared"): {made.waits},
        ("-s", "queued", "-n", "1"): set(),
        ("-l",): {made.waits},
        ("--limit", "2"): {made.waits, made.sleeps},
        ("--limit", "none"): made.all,
        ("--before", "2020-01-01"): set(),
        ("--after", "2020-01-01"): made.all,
        ("--after", "01-13-2020 19:20:21.9", "--before", "2190-01-01"): made.all,
        ("--include-deleted", "-s", "failed"): {made.failed},
        ("--user", "sia@example.com"): made.all,
        ("-u", "tom@example.com"): set(),
        ("-u", "SIA@example.com,tom@example.com"): made.all,
        ("--all-users",): made.all,
    }.items():
        assert names(sia, *words) == expected, words


def test_lists_show_what_is_asked_for(sia: Client, made: Made) -> None:
    table = flat(sia.mcli("get", "runs", "--ids", "--expanded"))
    assert f"{made.sleeps} " in table
    assert "1x declared" in table
    assert "Failed (Error)" in table
    assert re.search(r"Queued \(.*position 1 of 1\)", table), table
    rows = json.loads(sia.mcli("get", "runs", "-o", "json", "--ids").replace("\n", ""))
    assert {row["name"] for row in rows} == made.all
    assert all(re.fullmatch(r"[0-9a-f-]{36}", row["ID"]) for row in rows)
    assert "sia@example.com" in sia.mcli("get", "runs", "--all-users")
    assert "17" in sia.mcli("get", "runs", made.sleeps, "-m", "mosaicml/depth", "-m", "nothing")


def test_one_run_is_described(sia: Client, made: Made) -> None:
    described = flat(sia.mcli("describe", "run", made.failed))
    for words in ("Status Failed", "Run Event Log", "exit 7", "nodes: 2"):
        assert words in described, words
    latest = flat(sia.mcli("describe", "run"))
    assert made.waits in latest
    assert "Submitted Run Configuration" not in sia.mcli("describe", "run", made.done, "--no-yaml")
    only = sia.mcli("describe", "run", made.done, "--yaml-only")
    assert "name: done\n" in only
    assert "Run Details" not in only
    assert "No runs found with name: never-was" in sia.mcli("describe", "run", "never-was")


def test_two_runs_are_compared(sia: Client, made: Made) -> None:
    compared = sia.mcli("diff", "run", made.sleeps, made.waits)
    assert "gpus: 1" in compared
    assert "gpus: 2" in compared


def test_clusters_and_their_use_are_shown(sia: Client, made: Made) -> None:
    assert CLUSTER in sia.mcli("get", "clusters")
    assert sia.mcli("get", "clusters", "-o", "name").split()[-1] == CLUSTER
    listed = sia.mcli("get", "clusters", "--ids", "-o", "json").replace("\n", "")
    assert {row["name"] for row in json.loads(listed[listed.index("[{") :])} == {CLUSTER}
    for words in ((), (CLUSTER,)):
        described = flat(sia.mcli("describe", "cluster", *words))
        assert "Instance Name: declared" in described
        assert "Total GPUs: 2" in described
    assert "elsewhere" in sia.mcli("describe", "cluster", "elsewhere", ok=False)
    for options in ("", CLUSTER, "-t", f"{CLUSTER} -t"):
        used = flat(sia.mcli("util", *options.split()))
        assert re.search(rf"{CLUSTER} declared \S+ 1 1 2", used), used
        assert made.sleeps in used
        assert made.waits in used
    hidden = sia.mcli("util", "--hide-users")
    assert made.sleeps not in hidden
    assert "No clusters found" in flat(sia.mcli("util", "-i", ok=False))


def test_a_queued_run_is_changed_by_every_option_of_update(sia: Client, made: Made) -> None:
    sia.mcli("update", "run", made.waits, "--priority", "lowest", "--preemptible", "--max-retries", "4")
    sia.mcli("update", "run", made.waits, "--max-duration", "2.5")
    described = flat(sia.mcli("describe", "run", made.waits))
    for words in ("Priority Lowest", "Preemptible True", "Max Retries 4", "Max Duration 9000 seconds"):
        assert words in described, words
    sia.mcli("update", "run", made.waits, "--no-preemptible", "--priority", "auto")
    sia.mcli("watchdog", made.waits, "--max-retries", "3")
    described = flat(sia.mcli("describe", "run", made.waits))
    for words in ("Priority Auto", "Preemptible False", "Max Retries 3", "Watchdog True"):
        assert words in described, words
    sia.mcli("watchdog", made.waits)
    assert "Max Retries 10" in flat(sia.mcli("describe", "run", made.waits))
    sia.mcli("watchdog", made.waits, "--disable")
    assert "Watchdog False" in flat(sia.mcli("describe", "run", made.waits))
    assert "priority" in sia.mcli("update", "run", made.waits, "--priority", "urgent", ok=False)
    for command in (("update", "run", "never-was", "--max-retries", "1"), ("watchdog", "never-was")):
        assert "never-was" in sia.mcli(*command, ok=False)
    sia.mcli("watchdog", made.done, ok=False)


def test_runs_are_stopped_started_cloned_and_deleted(sia: Client, made: Made) -> None:
    sia.mcli("stop", "run", made.waits, "-y")
    assert sia.wait(made.waits, "STOPPED") == "STOPPED"
    sia.mcli("run", "-r", made.waits, "--priority", "low", "--max_retries", "1", "--preemptible")
    described = flat(sia.mcli("describe", "run", made.waits))
    assert "Priority Low" in described
    assert "Restarted by" in described
    clone = submitted(sia.mcli("run", "--clone", made.done, "--name", "cloned"))
    assert clone.startswith("cloned-")
    assert sia.wait(clone) == "COMPLETED"
    assert "rank 2" in sia.logs(clone, rank=2)
    same = submitted(sia.mcli("run", "--clone", clone))
    assert re.fullmatch(r"cloned-[a-z0-9]{6}", same), "a clone of a clone has one suffix"
    assert sia.wait(same) == "COMPLETED"
    assert "never-was" in sia.mcli("run", "--clone", "never-was", ok=False)

    # Nothing to stop among those that have ended, and nothing that was not named.
    assert "2 runs have already stopped" in flat(sia.mcli("stop", "runs", "cloned-*", "-y", ok=False))
    sia.mcli("stop", "runs", "-c", CLUSTER, "-s", "queued", "-n", "2", "-t", "declared", "-y")
    assert sia.wait(made.waits, "STOPPED") == "STOPPED"
    assert sia.status(made.sleeps) == "RUNNING"
    sia.mcli("delete", "runs", "cloned-*", "-y")
    assert names(sia) == made.all
    assert {clone, same} <= names(sia, "--include-deleted")
    assert "(Deleted)" in sia.mcli("get", "runs", "--include-deleted")
    sia.mcli("delete", "runs", "-s", "failed", "--before", "2190-01-01", "--after", "2020-01-01", "-y")
    assert names(sia) == made.all - {made.failed}
    assert "No runs found" in sia.mcli("delete", "run", "never-was", "-y", ok=False)
    for command in ("stop", "delete"):
        assert "at least one filter or --all" in flat(sia.mcli(command, "runs", ok=False))
    sia.mcli("stop", "runs", "--all", "-y")
    assert sia.wait(made.sleeps, "STOPPED") == "STOPPED"
    sia.mcli("delete", "run", "-l", "-y")
    sia.mcli("delete", "runs", "--all", "-y")
    assert names(sia) == set()
