"""What is done before a run's command, as it is seen from outside: statuses, events, logs, the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from runs.commands import submit
from runs.forms import parse_run_input
from runs.models import LogStream, NodeState, RunEvent
from runs.states import Reason, Status
from teams.commands import Refused
from tests.remotes import Remote, make_remote
from tests.world import World, drive, make_run


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return make_remote(tmp_path)


def clone(name: str = "acme/tool", **params: str) -> dict[str, object]:
    return {"type": "git_repo", "params": {"gitRepo": name, "host": "git.test", **params}}


def test_the_steps_are_events_with_their_times_and_their_output_is_a_log(
    world: World, remote: Remote
) -> None:
    submitted = {"integrations": [clone(), clone(path="b")]}
    run = make_run(world.ada, "cat tool/text b/text", submitted=submitted, env=remote.env)
    attempt = drive(run)
    assert attempt.status == Status.COMPLETED, attempt.message
    said = list(
        RunEvent.objects.filter(run=run, type="INTEGRATION_DONE")
        .order_by("at")
        .values_list("message", flat=True)
    )
    assert len(said) == 2 and all(text.startswith("git_repo acme/tool done in ") for text in said)
    steps = NodeState.objects.get(attempt=attempt).setup
    assert [(step["name"], step["exit_code"]) for step in steps] == [("git_repo acme/tool", 0)] * 2
    streams = set(LogStream.objects.filter(attempt=attempt).values_list("name", flat=True))
    assert streams == {"MAIN", "setup"}


def test_a_step_that_fails_is_the_runs_reason_and_its_output_is_on_the_card(
    world: World, remote: Remote
) -> None:
    run = make_run(
        world.ada,
        "echo started",
        submitted={"integrations": [clone("acme/none")]},
        env=remote.env,
    )
    attempt = drive(run)
    assert (attempt.status, attempt.reason, attempt.exit_code) == (
        Status.FAILED,
        Reason.INTEGRATION_FAILED,
        128,
    )
    assert "git_repo acme/none: git clone ended with exit code 128" in attempt.message
    (event,) = RunEvent.objects.filter(run=run, type="INTEGRATION_FAILED")
    assert event.message.startswith("git_repo acme/none failed after ")


def test_packages_of_the_system_are_refused_where_no_run_may_install_them(world: World) -> None:
    given = {
        "runName": "hello",
        "image": "a",
        "command": "true",
        "compute": {"cluster": world.cluster.name},
        "integrations": [{"type": "apt_packages", "params": {"packages": ["htop"]}}],
    }
    with pytest.raises(Refused, match="ask an admin to install the packages on the host") as refused:
        submit(world.ada, parse_run_input(given))
    assert refused.value.field == "integrations[0]"
