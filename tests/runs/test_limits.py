"""`max_duration` and the watchdog, changed while a run is live. The clock is driven: hours pass in no time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runs import commands
from runs.models import Attempt, Run
from teams.commands import Refused
from tests.runs.test_simulated import clock, make_sim, people, submit
from tests.simulated import Simulation
from tests.world import World, latest

__all__ = ["clock", "make_sim", "people"]
MakeSim = Callable[..., Simulation]
HOUR = 3600


def ran(attempt: Attempt) -> float:
    """Seconds from STARTING to the moment at which the stop was asked for."""
    assert attempt.started_at is not None
    left = attempt.lifecycle.get(status="RUNNING").left_at
    assert left is not None
    return (left - attempt.started_at).total_seconds()


def set_limit(people: World, run: Run, seconds: int) -> None:
    commands.update(people.ada, run, {"max_duration_seconds": seconds})


def test_a_limit_that_passes_while_nobody_looks_counts_when_somebody_does(
    people: World, make_sim: MakeSim
) -> None:
    sim = make_sim(1)
    run = submit(people, "run 9h", max_duration_seconds=HOUR)
    sim.drive(run, "RUNNING", every=1)
    sim.jump(2 * HOUR)
    assert sim.drive(run, every=1).reason == "MaxDurationExceeded"


def test_it_can_be_raised_and_lowered_and_less_than_has_passed_stops_at_once(
    people: World, make_sim: MakeSim
) -> None:
    sim = make_sim(1)
    run = submit(people, "run 9h", max_duration_seconds=HOUR)
    sim.drive(run, "RUNNING", every=1)
    sim.pass_time(HOUR - 60, every=60)
    set_limit(people, run, 3 * HOUR)
    sim.pass_time(HOUR, every=60)
    assert latest(run).status == "RUNNING"
    set_limit(people, run, HOUR)
    attempt = sim.drive(run, every=1)
    assert (attempt.status, attempt.reason) == ("STOPPED", "MaxDurationExceeded")
    assert "3600 s" in attempt.message
    assert ran(attempt) < 2 * HOUR


def test_each_attempt_has_all_of_it(people: World, make_sim: MakeSim) -> None:
    sim = make_sim(1)
    run = submit(people, "run 50m; exit 1 on attempt 0; run 9h", max_duration_seconds=HOUR, max_retries=1)
    sim.drive(run, "RUNNING", every=1)
    sim.until(lambda: latest(run).index == 1, every=30)
    sim.drive(run, "RUNNING", every=1)
    sim.pass_time(30 * 60, every=60)
    assert latest(run).status == "RUNNING"


def test_once_it_is_over_more_comes_too_late(people: World, make_sim: MakeSim) -> None:
    sim = make_sim(1)
    run = submit(people, "run 9h", max_duration_seconds=HOUR)
    sim.drive(run, "RUNNING", every=1)
    run.refresh_from_db()
    commands.expired(run)
    with pytest.raises(Refused, match="has had its max_duration and is being stopped"):
        set_limit(people, run, 9 * HOUR)
    commands.update(people.ada, run, {"max_retries": 1})
    assert sim.drive(run, every=1).reason == "MaxDurationExceeded"


@pytest.mark.parametrize(("before", "after", "attempts"), [(False, True, 2), (True, False, 1)])
def test_the_watchdog_can_be_switched_on_a_live_run(
    people: World, make_sim: MakeSim, before: bool, after: bool, attempts: int
) -> None:
    sim = make_sim(2)
    run = submit(people, "run 1h; lose node for 2h on attempt 0", retry_on_system_failure=before)
    sim.drive(run, "RUNNING", every=1)
    commands.update(people.ada, run, {"retry_on_system_failure": after})
    ended = Attempt.objects.filter(run=run, index=0, ended_at__isnull=False)
    sim.until(ended.exists, every=30)
    run.refresh_from_db()
    assert ended.get().reason == "NodeFailure"
    assert run.attempts.count() == attempts
    assert (run.status == "FAILED") is not after
