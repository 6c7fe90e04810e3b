"""The only writer of a status.

A move is one transaction: the transition table is asked, `UPDATE … WHERE status = expected` decides
who wins, the lifecycle rows are closed and opened, an event is written; watchers hear of it on commit.
Nobody else writes `status`, and a test that reads the source makes sure of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import DateTimeField, Func, Q
from django.db.models.functions import Now

from clusters.engines import failpoints
from runs import wake
from runs.models import Allocation, Attempt, LifecycleEntry, LogStream, NodeState, Run, RunEvent
from runs.reasons import EXPLANATIONS
from runs.states import TERMINAL, TRANSITIONS, Desired, Reason, Status


class IllegalMove(Exception):
    """The transition table does not know this move. A bug in the caller, never bad luck."""


class Stale(Exception):
    """Somebody else has moved the attempt, or taken its lease, meanwhile. Read again and decide anew."""


@dataclass(frozen=True)
class Outcome:
    """Why an attempt ends: the reason decides the status, the rest is its evidence."""

    status: Status
    reason: Reason | None
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    failed_rank: int | None = None

    @classmethod
    def because(cls, reason: Reason, message: str = "", **details: Any) -> Outcome:
        explanation = EXPLANATIONS[reason]
        return cls(explanation.status, reason, message or explanation.sentence, **details)


COMPLETED = Outcome(Status.COMPLETED, None, exit_code=0)


@dataclass(frozen=True)
class Retry:
    """The system's decision to make another attempt of one that has just ended: why, when, and what it is to
    know of those before it."""

    message: str
    not_before: datetime
    retries_used: int = 0
    tries: int = 0
    failed_with: str = ""
    failed_alike: int = 0

    @property
    def columns(self) -> dict[str, Any]:
        """Those of the new attempt's row."""
        columns = asdict(self)
        del columns["message"]
        return columns


class ClockTimestamp(Func):
    """The database's wall clock, also within a transaction. Every time in the lifecycle is measured by it."""

    template = "clock_timestamp()"
    output_field = DateTimeField()


def database_now() -> datetime:
    """The same, asked for alone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row = cursor.fetchone()
    now: datetime = row[0]
    return now


def create(run: Run, *, actor: str) -> Attempt:
    """Save a new run (not saved yet) with its first attempt, PENDING. Call inside a transaction."""
    run.status = Status.PENDING
    run.created_at = run.updated_at = database_now()
    run.save(force_insert=True)
    return _new_attempt(run, index=0, now=run.created_at, actor=actor, event="CREATED")


def create_next_attempt(
    run: Run,
    *,
    actor: str,
    message: str = "",
    retry: Retry | None = None,
) -> Attempt:
    """Add an attempt to a run whose latest one has ended; the run is PENDING again, from the beginning.

    Raises `Stale` if the run is not in a terminal status (any more), or deleted.
    """
    with transaction.atomic():
        last = run.attempts.order_by("-index").only("index").first()
        ended = Run.objects.filter(pk=run.pk, deleted_at=None, status__in=TERMINAL)
        moved = ended.update(
            status=Status.PENDING,
            ended_at=None,
            updated_at=Now(),
            desired=Desired.RUNNING,
            stop_reason="",
            stop_message="",
            stop_actor="",
            stop_grace=None,
            stop_requested_at=None,
        )
        if moved != 1:
            raise Stale
        index = last.index + 1 if last else 0
        return _new_attempt(
            run,
            index=index,
            now=database_now(),
            actor=actor,
            event="REQUEUED",
            message=message,
            retry=retry,
        )


def _new_attempt(
    run: Run,
    *,
    index: int,
    now: datetime,
    actor: str,
    event: str,
    message: str = "",
    retry: Retry | None = None,
) -> Attempt:
    attempt = Attempt.objects.create(
        run=run,
        index=index,
        status=Status.PENDING,
        created_at=now,
        cluster_id=run.cluster_id,
        instance=run.instance,
        gpu_type=run.gpu_type,
        gpus=run.gpus,
        nodes=run.nodes,
        cpus=run.cpus,
        priority_order=run.priority_order,
        **(retry.columns if retry else {}),
    )
    LifecycleEntry.objects.create(attempt=attempt, status=Status.PENDING, entered_at=now)
    RunEvent.objects.create(run=run, attempt=attempt, type=event, message=message, actor=actor, at=now)
    wake.run_changed(run.pk, run.team_id, Status.PENDING)
    return attempt


@dataclass(frozen=True)
class Step:
    """Enter `status`, at `at` if the engine knows better than the database's clock."""

    status: Status
    at: datetime | None = None


def advance(
    attempt: Attempt,
    steps: Iterable[Step],
    *,
    outcome: Outcome | None = None,
    actor: str = "system",
    token: uuid.UUID | None = None,
    retry: Retry | None = None,
    gave_up: str = "",
    remarks: Iterable[tuple[str, str]] = (),
    **fields: Any,
) -> None:
    """Take an attempt, which must still be in `attempt.status`, through `steps` in order, in one transaction.

    `outcome` belongs to a last step that is terminal, and only there. `fields` are further columns of the
    attempt written with it. With `token`, the move is refused unless the caller still holds the lease. With
    `retry` the next attempt is made in the same transaction: nobody sees the run terminal in between; `gave_up`
    says why there is none. `remarks` are further events: type, message. Raises `IllegalMove`, or `Stale` with nothing changed.
    """
    path = list(steps)
    _check(Status(attempt.status), path, outcome)
    with transaction.atomic(savepoint=False):
        now, entered = _clock_and_entry(attempt)
        rows = []
        for step in path:
            # The engine's clock may be ahead or behind; time in the lifecycle never runs backwards.
            entered = min(max(step.at or now, entered), max(now, entered))
            rows.append((step.status, entered))
        _move(attempt, rows, outcome, token, fields, still_wanted=retry is not None)
        run = attempt.run
        run.status = attempt.status
        for kind, message in remarks:
            RunEvent.objects.create(run=run, attempt=attempt, type=kind, message=message, at=now)
        if run.status in TERMINAL:
            Allocation.objects.filter(attempt=attempt).delete()
            if retry is not None:
                failpoints.reached("retry.before")
                create_next_attempt(run, actor="system", message=retry.message, retry=retry)
                failpoints.reached("retry.made")
                return
            if gave_up:
                RunEvent.objects.create(
                    run=run,
                    attempt=attempt,
                    type="RETRIES_STOPPED",
                    message=f"Not retried: {gave_up}",
                    at=max(now, entered),
                )
        wake.run_changed(run.pk, run.team_id, run.status)


def _clock_and_entry(attempt: Attempt) -> tuple[datetime, datetime]:
    """The database's time, and when the attempt entered the status that it is in. Raises `Stale`."""
    row = (
        LifecycleEntry.objects.filter(attempt=attempt, status=attempt.status, left_at=None)
        .annotate(now=ClockTimestamp())
        .values_list("now", "entered_at")
        .first()
    )
    if row is None:
        raise Stale
    return row


def _check(current: Status, path: list[Step], outcome: Outcome | None) -> None:
    if not path:
        raise IllegalMove("no step given")
    for step in path:
        if step.status not in TRANSITIONS[current]:
            raise IllegalMove(f"{current} → {step.status}")
        current = step.status
    if current.terminal != (outcome is not None) or (outcome and outcome.status is not current):
        raise IllegalMove(f"{current} with outcome {outcome}")


def _move(
    attempt: Attempt,
    rows: Sequence[tuple[Status, datetime]],
    outcome: Outcome | None,
    token: uuid.UUID | None,
    fields: Mapping[str, Any],
    *,
    still_wanted: bool,
) -> None:
    """Write a path that was checked: the rows of attempt and run once, one lifecycle row for each status.

    With `still_wanted`, somebody who has asked meanwhile for it to stop (and not only to make room for
    another run) makes it `Stale`.
    """
    expected, (status, last) = attempt.status, rows[-1]
    changes: dict[str, Any] = {**fields, "status": status}
    of_run: dict[str, Any] = {"status": status, "updated_at": Now()}
    for entered, at in rows:
        if entered is Status.STARTING:
            changes["started_at"] = at
    if outcome is not None:
        of_run["ended_at"] = last
        changes |= {
            "ended_at": last,
            "reason": outcome.reason or "",
            "message": outcome.message,
            "evidence": dict(outcome.evidence),
            "exit_code": outcome.exit_code,
            "failed_rank": outcome.failed_rank,
            "queue_reason": "",
        }
    guard = {"lease_token": token} if token is not None else {}
    if Attempt.objects.filter(pk=attempt.pk, status=expected, **guard).update(**changes) != 1:
        raise Stale
    failpoints.reached("move.attempt_written")
    # The run follows its latest attempt; an older attempt is terminal and never moves.
    still = Q()
    if still_wanted:
        still = Q(desired=Desired.RUNNING) | Q(stop_reason=Reason.PREEMPTED)
        still &= Q(deleted_at=None)
    if Run.objects.filter(still, pk=attempt.run_id, status=expected).update(**of_run) != 1:
        raise Stale
    failpoints.reached("move.run_written")
    _write_entries(attempt, rows, outcome)
    failpoints.reached("move.entries_written")
    for name, value in changes.items():
        setattr(attempt, name, value)


def _write_entries(
    attempt: Attempt, rows: Sequence[tuple[Status, datetime]], outcome: Outcome | None
) -> None:
    LifecycleEntry.objects.filter(attempt=attempt, left_at=None).update(left_at=rows[0][1])
    ends: list[datetime | None] = [at for _, at in rows[1:]]
    ends.append(rows[-1][1] if outcome is not None else None)
    LifecycleEntry.objects.bulk_create(
        LifecycleEntry(
            attempt=attempt,
            status=status,
            reason=(outcome.reason or "") if outcome is not None and status.terminal else "",
            entered_at=at,
            left_at=left_at,
        )
        for (status, at), left_at in zip(rows, ends, strict=True)
    )
    events = [
        RunEvent(
            run_id=attempt.run_id,
            attempt=attempt,
            type=_EVENTS[status],
            message=outcome.message if outcome is not None and status.terminal else "",
            at=at,
        )
        for status, at in rows
        if status in _EVENTS
    ]
    if events:
        RunEvent.objects.bulk_create(events)


_EVENTS: Mapping[Status, str] = {
    Status.RUNNING: "STARTED",
    Status.COMPLETED: "COMPLETED",
    Status.STOPPED: "STOPPED",
    Status.FAILED: "FAILED",
}
"""Those moves that the client's event vocabulary has a word for (mapi §3.2)."""


def gpu_time(attempt: Attempt, now: datetime) -> timedelta:
    """(leaving TERMINATING − entering STARTING) × GPUs; a live attempt counts up to `now`."""
    if attempt.started_at is None:
        return timedelta(0)
    return max(timedelta(0), (attempt.ended_at or now) - attempt.started_at) * attempt.gpus


def open_more_streams(attempt: Attempt, found: Collection[tuple[int, str]]) -> bool:
    """Make the rows of streams, by rank and name, that ranks have begun to write. Says whether any was new."""
    known = set(LogStream.objects.filter(attempt=attempt).values_list("rank", "name"))
    new = [(rank, name) for rank, name in found if (rank, name) not in known]
    LogStream.objects.bulk_create(
        [LogStream(attempt=attempt, rank=rank, name=name) for rank, name in new], ignore_conflicts=True
    )
    return bool(new)


def open_streams(attempt: Attempt, names: Iterable[str]) -> None:
    """Make the rows of an attempt's ranks and of their log streams, once, when it is launched."""
    ranks = range(attempt.nodes)
    NodeState.objects.bulk_create(
        [NodeState(attempt=attempt, rank=rank) for rank in ranks], ignore_conflicts=True
    )
    LogStream.objects.bulk_create(
        [LogStream(attempt=attempt, rank=rank, name=name) for rank in ranks for name in names],
        ignore_conflicts=True,
    )


def setup_went_on(
    attempt: Attempt, rank: int, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> None:
    """Write an event for each step before a rank's command that has ended since. In the caller's transaction."""
    ended = {index for index, step in enumerate(before) if step["ended_at"]}
    on = f" on rank {rank}" if attempt.nodes > 1 else ""
    for index, step in enumerate(now):
        if step["ended_at"] is None or index in ended:
            continue
        began, end = (datetime.fromisoformat(step[name]) for name in ("started_at", "ended_at"))
        took = f"{(end - began).total_seconds():.1f} s"
        if step["exit_code"]:
            kind = "INTEGRATION_FAILED"
            said = f"{step['name']} failed{on} after {took}: {step['command']} ended with exit code {step['exit_code']}"
        else:
            kind, said = "INTEGRATION_DONE", f"{step['name']} done{on} in {took}"
        RunEvent.objects.create(run_id=attempt.run_id, attempt=attempt, type=kind, message=said, at=end)
