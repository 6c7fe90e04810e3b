"""The control loop with a real engine: what people want becomes so, whatever dies in between."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.db import transaction
from django.utils import timezone

from clusters.connect import call, connect
from clusters.engines.base import EngineUnavailable, LaunchRejected, Phase
from clusters.models import Cluster
from runs import commands, lifecycle, queries
from runs.control import claim, reconcile
from runs.control.decide import Ending
from runs.models import Allocation, Attempt, LogStream, Run
from tests.world import World, drive, latest, make_run, status, statuses, sweep, until

WHOLE = ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING"]


def unlaunchable(world: World) -> AbstractContextManager[Any]:
    """While this lasts the engine does not answer to launches."""
    return mock.patch.object(type(connect(world.cluster)), "launch", side_effect=EngineUnavailable("away"))


def test_a_run_goes_through_every_status_however_fast_it_is(world: World) -> None:
    attempt = drive(make_run(world.ada, "true"))
    assert statuses(attempt) == [*WHOLE, "COMPLETED"]
    assert (attempt.exit_code, attempt.reason) == (0, "")


def test_a_failing_run_says_which_code(world: World) -> None:
    attempt = drive(make_run(world.ada, "exit 3"))
    assert statuses(attempt) == [*WHOLE, "FAILED"]
    assert (attempt.exit_code, attempt.reason, attempt.failed_rank) == (3, "Error", 0)
    assert "exit code 3" in attempt.message


def test_a_command_that_is_not_there_is_decoded(world: World) -> None:
    attempt = drive(make_run(world.ada, "no-such-program"))
    assert "exit code 127: the command was not found" in attempt.message


def test_when_one_rank_fails_the_others_are_stopped_and_it_is_named(world: World) -> None:
    attempt = drive(make_run(world.ada, "test $NODE_RANK != 1 || exit 5; sleep 60", nodes=3))
    assert (attempt.status, attempt.exit_code, attempt.failed_rank) == ("FAILED", 5, 1)
    stopped = {row.rank: row.stopped for row in attempt.node_states.all()}
    assert stopped == {0: True, 1: False, 2: True}


@pytest.mark.parametrize("stage", ["PENDING", "QUEUED", "STARTING", "RUNNING"])
def test_it_can_be_stopped_at_every_stage(world: World, stage: str) -> None:
    if stage == "QUEUED":
        drive(make_run(world.ada, "sleep 60", nodes=8), "RUNNING")
    run = make_run(world.ada, "sleep 60")
    if stage != "PENDING":
        with unlaunchable(world) if stage == "STARTING" else nullcontext():
            drive(run, stage)
    commands.stop(world.ada, run)
    attempt = drive(run)
    assert (attempt.status, attempt.reason) == ("STOPPED", "UserStopped")
    assert statuses(attempt)[-1] == "STOPPED"
    assert ("TERMINATING" in statuses(attempt)) == (stage in {"STARTING", "RUNNING"})
    assert not Allocation.objects.filter(attempt=attempt).exists()


def test_stopping_twice_is_stopping_once(world: World) -> None:
    run = make_run(world.ada, "trap '' TERM; while true; do sleep 0.1; done")
    drive(run, "RUNNING")
    commands.stop(world.ada, run, grace=60)
    drive(run, "TERMINATING")
    commands.stop(world.ada, run, grace=0.2)
    assert drive(run).status == "STOPPED"
    assert run.events.filter(type="STOP_REQUESTED").count() == 1


def test_who_exits_zero_before_term_has_completed(world: World) -> None:
    run = make_run(world.ada, "sleep 0.2")
    reconcile.reconcile(run.pk)
    engine = connect(world.cluster)
    handle = reconcile.handle_of(latest(run))

    def ended() -> bool:
        return all(r.phase == "exited" for r in call("observe", engine.observe([handle]))[handle.key].ranks)

    until(ended)
    commands.stop(world.ada, run)
    assert drive(run).status == "COMPLETED"


def test_restarting_adds_an_attempt_from_the_beginning(world: World) -> None:
    run = make_run(world.ada, "echo attempt $RESUMPTION_INDEX; test $RESUMPTION_INDEX = 1")
    assert drive(run).status == "FAILED"
    commands.restart(world.ada, run)
    attempt = drive(run)
    assert (attempt.index, attempt.status) == (1, "COMPLETED")
    assert statuses(attempt) == [*WHOLE, "COMPLETED"]


def test_a_retry_waits_out_its_back_off_and_nobody_sees_the_run_terminal(world: World) -> None:
    run = make_run(world.ada, "exit 1", max_retries=1)
    until(lambda: latest(run).index == 1, lambda: sweep(world.cluster.pk))
    again = latest(run)
    assert (again.status, run.status, again.retries_used) == ("PENDING", "PENDING", 1)
    sweep(world.cluster.pk)
    assert latest(run).status == "PENDING"
    Attempt.objects.filter(pk=again.pk).update(not_before=timezone.now() - timedelta(seconds=1))
    last = drive(run)
    assert (last.index, last.status) == (1, "FAILED")
    assert run.attempts.count() == 2


def test_max_duration_stops_it_with_its_own_reason(world: World) -> None:
    run = make_run(world.ada, "sleep 60", max_duration_seconds=3600)
    drive(run, "RUNNING")
    long_ago = timezone.now() - timedelta(hours=2)
    Attempt.objects.filter(run=run).update(started_at=long_ago)
    attempt = drive(run)
    assert (attempt.status, attempt.reason) == ("STOPPED", "MaxDurationExceeded")


def test_deleting_a_live_run_stops_it_and_takes_it_off_the_lists_at_once(world: World) -> None:
    run = make_run(world.ada, "sleep 60")
    drive(run, "RUNNING")
    commands.delete(world.ada, run)
    run.refresh_from_db()
    assert run.deleted_at is not None
    assert drive(run).status == "STOPPED"


def test_an_engine_that_cannot_be_reached_changes_nothing(world: World) -> None:
    run = make_run(world.ada, "sleep 60")
    drive(run, "RUNNING")
    with mock.patch.object(type(connect(world.cluster)), "observe", side_effect=EngineUnavailable("away")):
        for _ in range(5):
            sweep(world.cluster.pk)
            reconcile.reconcile(run.pk)
    assert status(run) == "RUNNING"
    commands.stop(world.ada, run)
    assert drive(run).status == "STOPPED"


def test_what_ended_unseen_gets_its_true_times_and_the_news_is_said_to_be_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(world.ada, "sleep 0.2; exit 3")
    drive(run, "RUNNING")
    engine, handle = connect(world.cluster), reconcile.handle_of(latest(run))
    truth = engine.observe

    def over() -> bool:
        (rank,) = call("observe", truth([handle]))[handle.key].ranks
        return rank.phase is Phase.EXITED

    with mock.patch.object(type(engine), "observe", side_effect=EngineUnavailable("away")):
        until(lambda: sweep(world.cluster.pk) == 0 and over())
        assert status(run) == "RUNNING"
    monkeypatch.setattr(reconcile, "LATE_AFTER", timedelta(0))
    attempt = drive(run)
    assert (attempt.status, attempt.exit_code) == ("FAILED", 3)
    event = run.events.get(type="TAKEN_UP_LATE")
    assert attempt.ended_at is not None
    assert f"It had ended at {attempt.ended_at:%Y-%m-%d %H:%M:%S} UTC" in event.message
    assert event.at > attempt.ended_at


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (timedelta(seconds=39), None),
        (timedelta(seconds=45), "only 45 s later"),
        (timedelta(minutes=12, seconds=5), "only 12 min later"),
    ],
)
def test_only_an_end_that_was_seen_late_is_said_to_be_late(passed: timedelta, words: str | None) -> None:
    now = timezone.now()
    remarks = reconcile._late(Ending(None, last_exit_at=now - passed), now)
    assert bool(remarks) == bool(words)
    if words:
        assert words in remarks[0][1]


POINTS = [
    "clusters.engines.process.engine.ProcessEngine.launch",
    "runs.lifecycle.open_streams",
    "runs.lifecycle.advance",
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_at_any_point_costs_time_but_no_second_launch(
    world: World, shared: Path, point: str, when: str, settings: Any
) -> None:
    settings.RUNYARD_LEASE_SECONDS = 0
    ledger = shared / "ledger"
    ledger.touch()
    ledger.chmod(0o666)
    run = make_run(world.ada, f"echo $RUNYARD_ATTEMPT >> {ledger}")

    class Died(BaseException):
        """Not an Exception: nothing may handle it, as nothing handles SIGKILL."""

    _, name = point.rsplit(".", 1)
    owner: Any = type(connect(world.cluster)) if name == "launch" else lifecycle
    real: Callable[..., Any] = getattr(owner, name)

    def dies(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            real(*args, **kwargs)
        raise Died

    async def dies_async(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            await real(*args, **kwargs)
        raise Died

    with mock.patch.object(owner, name, dies_async if name == "launch" else dies), pytest.raises(Died):
        drive(run)
    attempt = drive(run)
    assert attempt.status == "COMPLETED"
    assert ledger.read_text().split() == [str(attempt.pk)]


def test_a_lease_is_held_by_one_and_passes_on_when_its_holder_dies(world: World) -> None:
    attempt = latest(make_run(world.ada))
    token = claim.claim(attempt.pk)
    assert token is not None
    assert claim.claim(attempt.pk) is None
    Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    heir = claim.claim(attempt.pk)
    assert heir is not None
    assert not claim.renew(attempt.pk, token)
    assert claim.renew(attempt.pk, heir)


def test_who_finds_the_lease_taken_rings_and_its_holder_looks_once_more(world: World) -> None:
    attempt = latest(make_run(world.ada))
    token = claim.claim(attempt.pk)
    assert token is not None
    rings = latest(attempt.run).rings
    claim.claim(attempt.pk)
    assert not claim.release(attempt.pk, token, rings)
    assert claim.release(attempt.pk, token, latest(attempt.run).rings)


def test_a_stale_token_lets_go_of_nothing(world: World) -> None:
    attempt = latest(make_run(world.ada))
    token = claim.claim(attempt.pk)
    assert claim.release(attempt.pk, uuid.uuid4(), 0)
    assert latest(attempt.run).lease_token == token


def test_what_has_ended_is_cleaned_up_once_its_logs_are_sealed(world: World) -> None:
    attempt = drive(make_run(world.ada))
    sweep(world.cluster.pk)
    assert latest(attempt.run).cleaned_at is None
    LogStream.objects.filter(attempt=attempt).update(ended_at=timezone.now())
    sweep(world.cluster.pk)
    assert latest(attempt.run).cleaned_at is not None
    assert not list(Path(world.cluster.config["root"]).glob(f"attempts/{attempt.pk}"))


def test_five_runs_at_once_all_end_once(world: World) -> None:
    runs = [make_run(world.bob) for _ in range(5)]
    assert len({run.name for run in runs}) == 5
    for run in runs:
        assert drive(run).status == "COMPLETED"
    assert Run.objects.filter(status="COMPLETED").count() == 5


def test_what_only_waits_is_not_looked_at_but_placed_when_there_is_room(world: World) -> None:
    blocker = make_run(world.ada, "sleep 60", nodes=8)
    drive(blocker, "RUNNING")
    waiting = make_run(world.ada)
    drive(waiting, "QUEUED")
    looked_at = queries.attempts_to_look_at(world.cluster.pk, 100)
    assert [attempt.run_id for attempt in looked_at] == [blocker.pk]
    commands.stop(world.ada, blocker)
    drive(blocker)
    assert drive(waiting).status == "COMPLETED"


def test_what_runs_and_was_seen_a_moment_ago_is_left_alone_until_something_is_to_be_done(
    world: World,
) -> None:
    run = make_run(world.ada, "sleep 60", max_duration_seconds=3600)
    attempt = drive(run, "RUNNING")
    now = timezone.now()

    def is_looked_at(**columns: Any) -> bool:
        """With these columns, for as long as it takes to ask."""
        rows, of_run = Attempt.objects.filter(pk=attempt.pk), Run.objects.filter(pk=run.pk)
        its = {name: columns[name] for name in columns if hasattr(attempt, name)}
        with transaction.atomic():
            rows.update(**{"seen_at": now, **its})
            of_run.update(
                **{"stop_actor": "", **{name: columns[name] for name in columns.keys() - its.keys()}}
            )
            found = queries.attempts_to_look_at(world.cluster.pk, 100, timedelta(minutes=1))
            transaction.set_rollback(True)
        return bool(found)

    assert not is_looked_at()
    assert is_looked_at(seen_at=now - timedelta(minutes=2))
    assert is_looked_at(seen_at=None)
    # The database's clock was set back since.
    assert is_looked_at(seen_at=now + timedelta(hours=1))
    assert is_looked_at(started_at=now - timedelta(hours=2))
    assert not is_looked_at(started_at=now - timedelta(hours=2), max_duration_seconds=None)
    assert is_looked_at(gone_since=now)
    assert is_looked_at(desired="stopped", stop_reason="UserStopped")
    assert is_looked_at(status="STARTING")


def test_a_worker_whose_lease_was_taken_while_it_launched_stores_nothing(world: World) -> None:
    run = make_run(world.ada)
    engine: Any = type(connect(world.cluster))
    real = engine.launch

    async def slow(*args: Any) -> Any:
        handle = await real(*args)
        later = timezone.now() + timedelta(minutes=1)
        await Attempt.objects.filter(run=run).aupdate(lease_token=uuid.uuid4(), lease_until=later)
        return handle

    with mock.patch.object(engine, "launch", slow):
        reconcile.reconcile(run.pk)
    attempt = latest(run)
    assert (attempt.status, attempt.handle) == ("STARTING", None)
    assert not attempt.log_streams.exists()
    Attempt.objects.filter(run=run).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert drive(run).status == "COMPLETED"


@pytest.mark.parametrize("intent", [commands.stop, commands.delete])
def test_an_intent_that_comes_while_a_failure_is_being_retried_is_not_lost(world: World, intent: Any) -> None:
    run = make_run(world.ada, "exit 1", max_retries=3)
    real = reconcile.note

    def asked_meanwhile(attempt: Attempt, seen: Any) -> None:
        real(attempt, seen)
        if any(rank.phase == "exited" for rank in seen.ranks):
            intent(world.ada, Run.objects.select_related("cluster", "creator").get(pk=run.pk))

    with mock.patch.object(reconcile, "note", asked_meanwhile):
        attempt = drive(run)
    assert attempt.status == "FAILED"
    sweep(world.cluster.pk)
    assert run.attempts.count() == 1


def test_one_attempt_that_cannot_be_dealt_with_does_not_keep_the_others_waiting(world: World) -> None:
    bad, good = make_run(world.ada), make_run(world.ada)
    real = reconcile.reconcile_attempt

    def breaks(attempt_id: uuid.UUID) -> None:
        if Attempt.objects.get(pk=attempt_id).run_id == bad.pk:
            raise RuntimeError("a bug")
        real(attempt_id)

    with mock.patch("runs.control.sweep.reconcile_attempt", breaks):
        assert drive(good).status == "COMPLETED"
    assert drive(bad).status == "COMPLETED"


@pytest.mark.parametrize(("reason", "attempts"), [("NodeFailure", 2), ("DoesNotFit", 1)])
def test_a_refused_launch_is_retried_if_its_reason_is_the_platforms_and_somebody_asked(
    world: World, reason: str, attempts: int
) -> None:
    run = make_run(world.ada, retry_on_system_failure=True)
    refusal = LaunchRejected(reason, "not here")
    with mock.patch.object(type(connect(world.cluster)), "launch", side_effect=refusal):
        until(lambda: run.attempts.filter(status="FAILED").exists(), lambda: sweep(world.cluster.pk))
    assert run.attempts.count() == attempts
    assert run.attempts.get(index=0).reason == reason


def test_a_sign_in_any_stream_of_the_rank_counts_once_all_are_complete(world: World) -> None:
    run = make_run(world.ada)
    attempt = latest(run)
    lifecycle.open_streams(attempt, ["MAIN", "gpu-1"])
    streams = LogStream.objects.filter(attempt=attempt)
    sign = {"offset": 900, "line": 9, "text": "OSError: [Errno 28] No space left on device"}
    streams.filter(name="gpu-1").update(committed=1000, findings={"signs": {"DiskFull": sign}})
    streams.update(ended_at=timezone.now())
    log = reconcile.log_of(attempt, 0)
    assert log.complete
    assert [(reason, found.stream, found.line) for reason, found in log.near_end.items()] == [
        ("DiskFull", "gpu-1", 9)
    ]
    streams.filter(name="MAIN").update(ended_at=None)
    assert not reconcile.log_of(attempt, 0).complete
    assert reconcile.log_of(attempt, 7).complete


def test_a_lease_from_before_the_clock_went_back_is_nobodys(world: World) -> None:
    run = make_run(world.ada)
    in_an_hour = timezone.now() + timedelta(hours=1)
    Attempt.objects.filter(run=run).update(lease_token=uuid.uuid4(), lease_until=in_an_hour)
    Cluster.objects.update(placed_at=in_an_hour)
    assert drive(run).status == "COMPLETED"


def test_a_back_off_from_before_the_clock_went_back_is_over(world: World) -> None:
    run = make_run(world.ada)
    Attempt.objects.filter(run=run).update(not_before=timezone.now() + timedelta(hours=1))
    assert drive(run).status == "COMPLETED"
