"""One attempt, step by step, until there is nothing to do: claim → observe → decide → act → transition.

Every step may die; the next pass repeats it safely. No transaction is open while an engine is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from clusters.connect import call, connect
from clusters.engines import failpoints
from clusters.engines.base import (
    MAIN,
    SETUP,
    Engine,
    EngineUnavailable,
    Handle,
    LaunchRejected,
    Observation,
    Phase,
    SetupResult,
)
from clusters.states import STALE_AFTER
from runs import commands, lifecycle, queries, unseal, wake
from runs.control import claim, decide
from runs.control.decide import Ending, Log, Sign, Situation
from runs.control.place import join, place
from runs.control.spec import launch_spec
from runs.lifecycle import COMPLETED, Outcome, Retry, Stale, Step
from runs.models import Attempt, LogStream, NodeState
from runs.reasons import EXPLANATIONS
from runs.states import Desired, Reason, Status
from teams.unseal import CannotOpen

log = structlog.get_logger(__name__)

LATE_AFTER = STALE_AFTER + decide.LOG_PATIENCE
"""An end that is taken up so long after it came is said to be late."""
PROBE = "clusters.probe_cluster"
"""The task that looks at what a cluster offers."""
MOST_STEPS = 20
"""A pass ends after so many steps, whatever is left to do: a bug must not hold a worker."""


_hands = threading.Lock()
_in_hand: dict[UUID, bool] = {}
"""Runs that a thread of this process looks at now → whether a bell rang meanwhile."""


def reconcile(run_id: UUID) -> None:
    """Bring every attempt of a run that is not finished and cleaned up as far as it goes now.

    Of several bells that ring at once in one process only the first costs anything.
    """
    with _hands:
        if run_id in _in_hand:
            _in_hand[run_id] = True
            return
        _in_hand[run_id] = False
    again = True
    try:
        while again:
            unfinished = Attempt.objects.filter(run=run_id, cleaned_at=None).order_by("-index")
            for attempt_id in list(unfinished.values_list("pk", flat=True)):
                reconcile_attempt(attempt_id)
            with _hands:
                again = _in_hand[run_id]
                if again:
                    _in_hand[run_id] = False
                else:
                    del _in_hand[run_id]
    except BaseException:
        with _hands:
            _in_hand.pop(run_id, None)
        raise


def reconcile_attempt(attempt_id: UUID) -> None:
    token = claim.claim(attempt_id)
    if token is None:
        return
    renew_at = time.monotonic() + settings.RUNYARD_LEASE_SECONDS / 3
    for _ in range(MOST_STEPS):
        if time.monotonic() > renew_at:
            claim.renew(attempt_id, token)
            renew_at = time.monotonic() + settings.RUNYARD_LEASE_SECONDS / 3
        attempt, now = load(attempt_id)
        if attempt.lease_token != token:
            return
        try:
            if _step(attempt, now, token):
                continue
        except Stale:
            continue
        except EngineUnavailable as problem:
            log.warning("engine unavailable", attempt=str(attempt_id), problem=str(problem))
        except BaseException:
            # The lease runs out by itself; letting go of it spares the next pass the wait.
            claim.release(attempt_id, token, attempt.rings)
            raise
        if claim.release(attempt_id, token, attempt.rings):
            return
    claim.release(attempt_id, token, load(attempt_id)[0].rings)


def load(attempt_id: UUID) -> tuple[Attempt, datetime]:
    """An attempt with what a step needs, and the time at the database."""
    # A cluster's capacity names every node, and nothing here asks for it.
    attempts = Attempt.objects.select_related("run", "cluster").defer("cluster__capacity")
    attempt = attempts.annotate(now=lifecycle.ClockTimestamp()).get(pk=attempt_id)
    return attempt, attempt.now


def situation(attempt: Attempt) -> Situation:
    """An attempt's rows as `decide` wants them."""
    run = attempt.run
    status = Status(attempt.status)
    return Situation(
        status=status,
        nodes=attempt.nodes,
        launched=attempt.handle is not None,
        streams_open=status.terminal and LogStream.objects.filter(attempt=attempt, ended_at=None).exists(),
        desired=Desired(run.desired) if not status.terminal else Desired.RUNNING,
        not_before=attempt.not_before,
        started_at=attempt.started_at,
        stop_reason=Reason(run.stop_reason) if run.stop_reason else None,
        stop_message=stop_message(run.stop_reason, run.stop_actor, run.stop_message),
        stop_grace=30.0 if run.stop_grace is None else run.stop_grace,
        stop_sent_grace=attempt.stop_sent_grace,
        max_duration_seconds=run.max_duration_seconds,
        max_retries=run.max_retries,
        retries_used=attempt.retries_used,
        tries=attempt.tries,
        failed_with=attempt.failed_with,
        failed_alike=attempt.failed_alike,
        gone_since=attempt.gone_since,
        log_due=attempt.log_due,
        retry_on_system_failure=run.retry_on_system_failure,
        deleted=run.deleted_at is not None,
    )


def stop_message(reason: str, actor: str, message: str) -> str:
    """Who or what stopped a run, in words."""
    if not reason:
        return ""
    if actor != "system":
        return f"Stopped by {actor}: {message}" if message else f"Stopped by {actor}"
    sentence = EXPLANATIONS[Reason(reason)].sentence
    return f"{sentence.removesuffix('.')}: {message}" if message else sentence


def log_of(attempt: Attempt, rank: int) -> Log:
    """What was recognised in the log of a rank so far. One that was never opened has nothing to say.

    Of several streams (a file for each GPU's process) it is the first that has a sign near its end, MAIN before
    the others; it counts as complete once all of them are.
    """
    rows = list(queries.streams_of(attempt).filter(rank=rank))
    complete = all(row.ended_at is not None for row in rows)
    logs = [
        Log(row.committed, complete, _signs(row)) for row in sorted(rows, key=lambda row: row.name != MAIN)
    ]
    return next((log for log in logs if log.near_end), logs[0] if logs else Log(size=0, complete=True))


def _signs(stream: LogStream) -> dict[Reason, Sign]:
    return {
        Reason(code): Sign(found["offset"], found["line"], found["text"], stream.name)
        for code, found in stream.findings.get("signs", {}).items()
        if code in set(Reason)
    }


def handle_of(attempt: Attempt) -> Handle:
    return Handle(str(attempt.pk), attempt.handle or {})


def _step(attempt: Attempt, now: datetime, token: UUID) -> bool:
    """Observe and take one step. True: look again at once."""
    engine = connect(attempt.cluster)
    it, seen = situation(attempt), None
    if decide.must_look(it):
        handle = handle_of(attempt)
        failpoints.reached("observe.before")
        seen = decide.each_once(call("observe", engine.observe([handle]))[handle.key])
        failpoints.reached("observe.answered")
        note(attempt, seen)
        failpoints.reached("observe.noted")
        rank = decide.wants_log(it.nodes, seen)
        if rank is not None:
            it = replace(it, log=log_of(attempt, rank))
    return act(attempt, engine, decide.decide(now, it, seen), token, now)


def act(attempt: Attempt, engine: Engine, action: decide.Action, token: UUID, now: datetime) -> bool:
    """Carry out one action under the lease `token`. True if the situation has changed by it."""
    match action:
        case decide.Nothing():
            return False
        case decide.Enqueue():
            failpoints.reached("enqueue.before")
            join(attempt, token)
            failpoints.reached("enqueue.done")
        case decide.Launch():
            _launch(attempt, engine, token, now)
        case decide.MarkRunning(at):
            failpoints.reached("running.before")
            lifecycle.advance(attempt, [Step(Status.RUNNING, at)], token=token)
            failpoints.reached("running.done")
        case decide.Expire():
            failpoints.reached("expire.before")
            commands.expired(attempt.run)
            failpoints.reached("expire.done")
        case decide.Stop(grace):
            failpoints.reached("stop.before")
            call("stop", engine.stop(handle_of(attempt), grace))
            failpoints.reached("stop.sent")
            Attempt.objects.filter(pk=attempt.pk, lease_token=token).update(stop_sent_grace=grace)
            failpoints.reached("stop.noted")
            if attempt.status != Status.TERMINATING:
                lifecycle.advance(attempt, [Step(Status.TERMINATING)], token=token)
            return False
        case decide.Vanished():
            Attempt.objects.filter(pk=attempt.pk, lease_token=token).update(gone_since=now)
            return False
        case decide.AwaitLog(until, ending):
            if attempt.status == Status.TERMINATING:
                Attempt.objects.filter(pk=attempt.pk, lease_token=token).update(log_due=until)
            else:
                lifecycle.advance(attempt, _to_terminating(attempt, ending), token=token, log_due=until)
            failpoints.reached("await_log.done")
            # The end of the log rings.
            return False
        case decide.Finish():
            _finish(attempt, action, token, now)
            # Cleaning up waits for the logs: their end will ring.
            return False
        case decide.CleanUp():
            failpoints.reached("cleanup.before")
            call("cleanup", engine.cleanup(handle_of(attempt)))
            failpoints.reached("cleanup.answered")
            unseal.forget(attempt.pk)
            attempt.tokens.all().delete()
            Attempt.objects.filter(pk=attempt.pk, lease_token=token).update(
                cleaned_at=Now(), lease_until=None
            )
            return False
        case _:
            raise AssertionError(f"an action that nobody carries out: {action}")
    return True


def _launch(attempt: Attempt, engine: Engine, token: UUID, now: datetime) -> None:
    failpoints.reached("launch.before")
    try:
        spec = launch_spec(attempt)
        handle = call("launch", engine.launch(spec, str(attempt.pk)))
    except CannotOpen as problem:
        message = f"{decide.explain(Reason.MISSING_SECRET, '')} {problem}"
        ending = Ending(Reason.MISSING_SECRET, message, evidence={"vault": str(problem)})
        _finish(attempt, decide.finish(situation(attempt), ending), token, now)
        return
    except LaunchRejected as refusal:
        reason = Reason(refusal.reason) if refusal.reason in set(Reason) else Reason.LAUNCH_REJECTED
        message = f"{decide.explain(reason, refusal.case)} {refusal.message}".strip()
        evidence = {"engine": refusal.message, **({"case": refusal.case} if refusal.case else {})}
        _finish(
            attempt, decide.finish(situation(attempt), Ending(reason, message, evidence=evidence)), token, now
        )
        return
    failpoints.reached("launch.answered")
    with transaction.atomic():
        held = Attempt.objects.filter(pk=attempt.pk, lease_token=token)
        if not held.update(handle=dict(handle.data)):
            raise Stale
        failpoints.reached("launch.handle_written")
        lifecycle.open_streams(attempt, [MAIN, SETUP] if spec.setup else [MAIN])
        failpoints.reached("launch.streams_written")
    failpoints.reached("launch.stored")
    wake.streams_opened()


def _to_terminating(attempt: Attempt, ending: Ending) -> list[Step]:
    """Every status up to TERMINATING, with the engine's own times where it has them."""
    steps, status = [], Status(attempt.status)
    if status is Status.STARTING and ending.running_at is not None:
        steps.append(Step(Status.RUNNING, ending.running_at))
    if status in {Status.STARTING, Status.RUNNING}:
        steps.append(Step(Status.TERMINATING, ending.first_exit_at))
    return steps


def _finish(attempt: Attempt, finish: decide.Finish, token: UUID, now: datetime) -> None:
    """Write every status up to the end, in order, and with it the next attempt if there is to be one."""
    ending, again = finish.ending, finish.again
    queued = attempt.status == Status.QUEUED
    outcome = COMPLETED
    if ending.reason is not None:
        message = ending.message
        if finish.gave_up:
            message += f" Not retried: {finish.gave_up}."
        outcome = Outcome.because(
            ending.reason,
            message,
            evidence=ending.evidence,
            exit_code=ending.exit_code,
            failed_rank=ending.failed_rank,
        )
    steps = [*_to_terminating(attempt, ending), Step(outcome.status, ending.last_exit_at)]
    retry = None
    if again is not None:
        retry = Retry(
            f"Attempt {attempt.index + 1} {again.why}",
            now + again.after,
            retries_used=attempt.retries_used + again.spends_retry,
            # What made room was no failure: the next one is a first try again.
            tries=attempt.tries + 1 if again.after else 0,
            failed_with=again.failed_with,
            failed_alike=again.failed_alike,
        )
    fields: dict[str, Any] = {} if attempt.started_at else {"cleaned_at": now}
    failpoints.reached("finish.before")
    lifecycle.advance(
        attempt,
        steps,
        outcome=outcome,
        token=token,
        retry=retry,
        gave_up=finish.gave_up,
        remarks=_late(ending, now),
        **fields,
    )
    failpoints.reached("finish.done")
    if ending.reason is Reason.NODE_FAILURE:
        # Before the next attempt is placed, it shall be known that the node is not there.
        wake.ring(PROBE, str(attempt.cluster_id), queue=attempt.cluster.queue)
    if attempt.started_at or queued:
        # What it held, or had kept for it, is others' now.
        place(attempt.cluster_id)


def _late(ending: Ending, now: datetime) -> list[tuple[str, str]]:
    """What to say of an end that nobody saw when it came: status and times are the true ones, the news is old."""
    if ending.last_exit_at is None or now - ending.last_exit_at <= LATE_AFTER:
        return []
    seconds = int((now - ending.last_exit_at).total_seconds())
    late = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
    at = f"{ending.last_exit_at:%Y-%m-%d %H:%M:%S} UTC"
    text = (
        f"It had ended at {at}; that could be seen only {late} later. Times and outcome are those of its end."
    )
    return [("TAKEN_UP_LATE", text)]


def note(attempt: Attempt, seen: Observation) -> None:
    """Keep what the engine shows of each rank, where it is new; have streams collected that it has opened. How a rank ended is never overwritten: an
    answer that comes late may be older than the one before it."""
    if attempt.gone_since is not None and not seen.gone:
        Attempt.objects.filter(pk=attempt.pk).update(gone_since=None)
        attempt.gone_since = None
    streams = {(rank.rank, stream) for rank in seen.ranks for stream in rank.streams}
    if streams and lifecycle.open_more_streams(attempt, streams):
        wake.streams_opened()
        wake.run_changed(attempt.run_id, attempt.run.team_id, attempt.status)
    known = {row.rank: row for row in attempt.node_states.all()}
    for rank in seen.ranks:
        columns: Mapping[str, Any] = {
            "node": rank.node,
            "phase": str(rank.phase),
            "exit_code": rank.exit_code,
            "started_at": rank.started_at,
            "ended_at": rank.ended_at,
            "reason": rank.reason or "",
            "message": rank.message,
            "stopped": rank.stopped,
            "setup": [_step_of(step) for step in rank.setup],
        }
        row = known.get(rank.rank)
        if row is None:
            NodeState.objects.create(attempt=attempt, rank=rank.rank, **columns)
        elif row.phase != Phase.EXITED and any(
            getattr(row, name) != value for name, value in columns.items()
        ):
            with transaction.atomic():
                NodeState.objects.filter(pk=row.pk).update(**columns)
                if row.setup != columns["setup"]:
                    lifecycle.setup_went_on(attempt, rank.rank, row.setup, columns["setup"])
        else:
            continue
        # With one rank the status moves with it, and says so itself; not so the steps before its command.
        if attempt.nodes > 1 or rank.setup:
            wake.run_changed(attempt.run_id, attempt.run.team_id, attempt.status)


def _step_of(step: SetupResult) -> dict[str, Any]:
    """A step of a rank's setup as plain data."""
    return {
        "name": step.name,
        "started_at": step.started_at.isoformat(),
        "ended_at": step.ended_at.isoformat() if step.ended_at else None,
        "exit_code": step.exit_code,
        "command": step.command,
    }
