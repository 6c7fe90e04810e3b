"""The only writer of status: what it allows, refuses, and leaves behind."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from runs import lifecycle
from runs.lifecycle import COMPLETED, IllegalMove, Outcome, Retry, Stale, Step, advance
from runs.models import Allocation, Attempt, Run
from runs.states import LIVE, TERMINAL, TRANSITIONS, Reason, Status
from tests.world import World, latest, make_run, statuses

FULL = [Status.QUEUED, Status.STARTING, Status.RUNNING, Status.TERMINATING]


def walk(attempt: Attempt, *path: Status) -> Attempt:
    advance(attempt, [Step(status) for status in path])
    return attempt


def test_a_whole_life_is_written_in_order_without_gaps(world: World) -> None:
    attempt = latest(make_run(world.ada))
    walk(attempt, *FULL)
    advance(attempt, [Step(Status.COMPLETED)], outcome=COMPLETED)
    assert statuses(attempt) == ["PENDING", *FULL, "COMPLETED"]
    attempt.run.refresh_from_db()
    assert attempt.run.status == "COMPLETED"
    assert attempt.run.ended_at is not None


@pytest.mark.parametrize("status", list(Status))
def test_every_move_that_the_table_does_not_know_is_refused(world: World, status: Status) -> None:
    for target in Status:
        if target in TRANSITIONS[status]:
            continue
        attempt = Attempt(status=status)
        with pytest.raises(IllegalMove):
            advance(attempt, [Step(target)], outcome=COMPLETED if target.terminal else None)


def test_whatever_started_passes_through_terminating() -> None:
    for status in (Status.STARTING, Status.RUNNING):
        assert not TRANSITIONS[status] & TERMINAL
    for status in TERMINAL:
        assert not TRANSITIONS[status]


def test_of_two_who_move_the_same_attempt_one_wins_and_the_other_changes_nothing(world: World) -> None:
    run = make_run(world.ada)
    first, second = latest(run), latest(run)
    walk(first, Status.QUEUED)
    with pytest.raises(Stale):
        advance(second, [Step(Status.STOPPED)], outcome=Outcome.because(Reason.USER_STOPPED))
    assert statuses(latest(run)) == ["PENDING", "QUEUED"]


def test_a_move_with_a_lost_lease_changes_nothing(world: World) -> None:
    attempt = latest(make_run(world.ada))
    with pytest.raises(Stale):
        advance(attempt, [Step(Status.QUEUED)], token=uuid.uuid4())
    assert latest(attempt.run).status == "PENDING"


def test_a_path_that_breaks_half_way_leaves_nothing_behind(world: World) -> None:
    attempt = latest(make_run(world.ada))
    Run.objects.filter(pk=attempt.run_id).update(status="QUEUED")
    with pytest.raises(Stale):
        walk(attempt, Status.QUEUED, Status.STARTING)
    assert statuses(attempt) == ["PENDING"]


def test_times_never_run_backwards_whatever_the_nodes_clock_says(world: World) -> None:
    attempt = latest(make_run(world.ada))
    walk(attempt, Status.QUEUED, Status.STARTING)
    assert attempt.started_at is not None
    long_ago, far_off = attempt.started_at - timedelta(hours=1), attempt.started_at + timedelta(hours=1)
    advance(attempt, [Step(Status.RUNNING, long_ago), Step(Status.TERMINATING, far_off)])
    advance(attempt, [Step(Status.COMPLETED, long_ago)], outcome=COMPLETED)
    rows = list(attempt.lifecycle.order_by("id"))
    assert all(row.left_at is not None and row.left_at >= row.entered_at for row in rows)
    assert attempt.ended_at is not None
    assert attempt.ended_at < far_off
    assert lifecycle.gpu_time(attempt, attempt.ended_at) >= timedelta(0)


def test_a_retry_is_one_transaction_with_the_end_that_it_follows(world: World) -> None:
    run = make_run(world.ada)
    attempt = latest(run)
    walk(attempt, *FULL)
    advance(
        attempt,
        [Step(Status.FAILED)],
        outcome=Outcome.because(Reason.ERROR, exit_code=1),
        retry=Retry("once more", lifecycle.database_now(), retries_used=1),
    )
    run.refresh_from_db()
    assert (run.status, run.ended_at) == ("PENDING", None)
    assert [(a.index, a.status, a.retries_used) for a in run.attempts.order_by("index")] == [
        (0, "FAILED", 0),
        (1, "PENDING", 1),
    ]


def test_the_database_itself_refuses_two_live_attempts(world: World) -> None:
    run = make_run(world.ada)
    first = latest(run)
    with pytest.raises(IntegrityError, match="attempt_one_live"), transaction.atomic():
        first.pk, first.index = uuid.uuid4(), 1
        first.save(force_insert=True)


@pytest.mark.parametrize("status", sorted(LIVE))
def test_the_database_itself_refuses_an_end_time_on_a_live_attempt(world: World, status: str) -> None:
    attempt = latest(make_run(world.ada))
    with pytest.raises(IntegrityError, match="attempt_ended_iff_terminal"), transaction.atomic():
        Attempt.objects.filter(pk=attempt.pk).update(**{"status": status, "ended_at": attempt.created_at})


def test_gpu_time_counts_from_starting_to_the_end_of_terminating(world: World) -> None:
    attempt = latest(make_run(world.ada))
    now = lifecycle.database_now()
    assert lifecycle.gpu_time(attempt, now) == timedelta(0)
    attempt.started_at, attempt.gpus = now - timedelta(minutes=10), 4
    assert lifecycle.gpu_time(attempt, now) == timedelta(minutes=40)
    attempt.ended_at = now - timedelta(minutes=5)
    assert lifecycle.gpu_time(attempt, now) == timedelta(minutes=20)


def test_what_an_attempt_held_is_free_once_it_has_ended(world: World) -> None:
    attempt = latest(make_run(world.ada))
    walk(attempt, Status.QUEUED, Status.STARTING)
    Allocation.objects.create(attempt=attempt, cluster=world.cluster, rank=0, kind="slot", index=0)
    walk(attempt, Status.TERMINATING)
    assert Allocation.objects.count() == 1
    advance(attempt, [Step(Status.STOPPED)], outcome=Outcome.because(Reason.USER_STOPPED))
    assert Allocation.objects.count() == 0
