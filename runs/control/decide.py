"""What to do next with an attempt. Pure: what is known and what time it is in, one action out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from clusters.engines.base import Observation, Phase, RankObservation
from runs.reasons import EXPLANATIONS, Category, decode_exit_code
from runs.states import HOLDING, WAITING, Desired, Reason, Status


@dataclass(frozen=True)
class Situation:
    """Everything that a decision rests on, apart from the observation."""

    status: Status
    nodes: int
    launched: bool
    """The engine's handle is stored. False does not mean that nothing was launched: a reply may be lost."""
    streams_open: bool
    """Logs are still owed."""
    desired: Desired
    index: int = 0
    """Which attempt it is: the pause before the next one doubles with each."""
    not_before: datetime | None = None
    started_at: datetime | None = None
    stop_reason: Reason | None = None
    stop_message: str = ""
    stop_grace: float = 30.0
    stop_sent_grace: float | None = None
    """The grace that the engine was last told; None = it was not told to stop."""
    max_duration_seconds: int | None = None
    max_retries: int = 0
    retries_used: int = 0
    retry_on_system_failure: bool = False
    deleted: bool = False


@dataclass(frozen=True)
class Ending:
    """Why and when an attempt ends, as the observation has it."""

    reason: Reason | None
    """None: it completed."""
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    failed_rank: int | None = None
    running_at: datetime | None = None
    """When its command began, if it did."""
    first_exit_at: datetime | None = None
    last_exit_at: datetime | None = None


class Action:
    """One step of the loop."""


@dataclass(frozen=True)
class Nothing(Action):
    """Wait; look again by `until`, if given, or at the next doorbell."""

    until: datetime | None = None


@dataclass(frozen=True)
class Enqueue(Action):
    """PENDING → QUEUED."""


@dataclass(frozen=True)
class Launch(Action):
    """Hand it to the engine (STARTING)."""


@dataclass(frozen=True)
class MarkRunning(Action):
    """STARTING → RUNNING."""

    at: datetime | None


@dataclass(frozen=True)
class Expire(Action):
    """Write the system's intent to stop: `max_duration` has passed."""


@dataclass(frozen=True)
class Stop(Action):
    """Tell the engine to stop what is left; the attempt is TERMINATING from then on."""

    grace: float


@dataclass(frozen=True)
class Finish(Action):
    """Write the terminal status, through every status that leads there."""

    ending: Ending
    retry_in: timedelta | None = None
    """Make another attempt after so long, in the same transaction; None: do not."""
    spends_retry: bool = False


@dataclass(frozen=True)
class CleanUp(Action):
    """Remove what the engine still holds of an ended attempt."""


def must_look(it: Situation) -> bool:
    """Whether the engine has to be asked before anything can be decided."""
    return it.status in HOLDING and (it.launched or it.desired is Desired.STOPPED)


def decide(now: datetime, it: Situation, seen: Observation | None) -> Action:
    """The next step. `seen` is None where nothing was asked of the engine (before STARTING, after the end)."""
    if it.status.terminal:
        # The spool is the only copy of what was not collected yet: keep it until every log is sealed.
        return Nothing() if it.streams_open else CleanUp()
    if it.status in WAITING:
        return _waiting(now, it)
    assert it.status in HOLDING
    if not it.launched and it.desired is Desired.RUNNING:
        # Also where a reply was lost: launching again finds what is there under our key.
        return Launch()
    if seen is None:
        return Nothing()
    if seen.gone:
        return _gone(it)
    if len(seen.ranks) >= it.nodes and all(rank.phase is Phase.EXITED for rank in seen.ranks):
        return finish(it, judge(it, seen.ranks))
    if it.desired is Desired.STOPPED:
        return _stop(it, it.stop_grace)
    if any(_failed(rank) for rank in seen.ranks):
        # The others would wait for the dead one for ever.
        return _stop(it, it.stop_grace)
    if it.status is Status.STARTING and len(seen.ranks) >= it.nodes and all(r.started_at for r in seen.ranks):
        return MarkRunning(max(rank.started_at for rank in seen.ranks if rank.started_at))
    return _time_limit(now, it)


def _waiting(now: datetime, it: Situation) -> Action:
    if it.desired is Desired.STOPPED:
        return Finish(Ending(it.stop_reason or Reason.USER_STOPPED, it.stop_message))
    if it.status is Status.PENDING:
        if it.not_before is not None and it.not_before > now:
            return Nothing(until=it.not_before)
        return Enqueue()
    return Nothing()


def _gone(it: Situation) -> Action:
    if it.desired is Desired.STOPPED:
        return Finish(Ending(it.stop_reason or Reason.USER_STOPPED, it.stop_message))
    return finish(
        it, Ending(Reason.ENGINE_ERROR, "The engine holds no trace of this attempt; its outcome is unknown.")
    )


def _stop(it: Situation, grace: float) -> Action:
    if it.stop_sent_grace is None or grace < it.stop_sent_grace or it.status is not Status.TERMINATING:
        return Stop(grace)
    return Nothing()


def _time_limit(now: datetime, it: Situation) -> Action:
    if it.max_duration_seconds is None or it.started_at is None or it.status is Status.TERMINATING:
        return Nothing()
    until = it.started_at + timedelta(seconds=it.max_duration_seconds)
    return Expire() if until <= now else Nothing(until=until)


def _failed(rank: RankObservation) -> bool:
    return (
        rank.phase is Phase.EXITED and not rank.stopped and (rank.exit_code != 0 or rank.reason is not None)
    )


def judge(it: Situation, ranks: tuple[RankObservation, ...]) -> Ending:
    """Why an attempt ended whose ranks have all exited: the first failure, by its own exit time, decides.

    What was not observed is said to be unknown, never guessed.
    """
    started = [rank.started_at for rank in ranks if rank.started_at]
    ended = [rank.ended_at for rank in ranks if rank.ended_at]
    return replace(
        _judge(it, ranks),
        running_at=max(started) if len(started) == len(ranks) else None,
        first_exit_at=min(ended, default=None),
        last_exit_at=max(ended, default=None),
    )


def _judge(it: Situation, ranks: tuple[RankObservation, ...]) -> Ending:
    codes = {str(rank.rank): rank.exit_code for rank in ranks}
    failures = sorted(
        (rank for rank in ranks if _failed(rank)),
        key=lambda rank: (rank.ended_at is None, rank.ended_at, rank.rank),
    )
    if failures:
        first = failures[0]
        reason = Reason(first.reason) if first.reason in set(Reason) else Reason.ERROR
        if first.reason is None and first.exit_code is None:
            reason = Reason.ENGINE_ERROR
        return Ending(
            reason,
            _failure_message(reason, first, len(ranks)),
            evidence={"exit_codes": codes, "node": first.node, "engine": first.message},
            exit_code=first.exit_code,
            failed_rank=first.rank,
        )
    if any(rank.stopped for rank in ranks) and it.desired is Desired.STOPPED:
        reason = it.stop_reason or Reason.USER_STOPPED
        return Ending(reason, it.stop_message, evidence={"exit_codes": codes})
    if any(rank.stopped for rank in ranks):
        return Ending(
            Reason.ENGINE_ERROR,
            "It was stopped, but nobody asked for it here.",
            evidence={"exit_codes": codes},
        )
    return Ending(None, exit_code=0, evidence={"exit_codes": codes})


def _failure_message(reason: Reason, rank: RankObservation, ranks: int) -> str:
    where = f"rank {rank.rank}" + (f" on {rank.node}" if rank.node else "")
    parts = [
        EXPLANATIONS[reason].sentence
        if ranks == 1
        else f"{EXPLANATIONS[reason].sentence} First failed: {where}."
    ]
    if rank.exit_code is not None:
        parts.append(f"It ended with {decode_exit_code(rank.exit_code)}.")
    if rank.message:
        parts.append(rank.message)
    return " ".join(parts)


FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=5)


def finish(it: Situation, ending: Ending) -> Finish:
    """End like this, with or without another attempt: the reason and what people asked for decide."""
    if ending.reason is None or it.desired is Desired.STOPPED or it.deleted:
        return Finish(ending)
    explanation = EXPLANATIONS[ending.reason]
    if explanation.status is not Status.FAILED or not explanation.retryable:
        return Finish(ending)
    backoff = min(FIRST_BACKOFF * 2 ** min(it.index, 10), LONGEST_BACKOFF)
    if explanation.category is Category.SYSTEM and it.retry_on_system_failure:
        return Finish(ending, retry_in=backoff)
    if it.retries_used < it.max_retries:
        return Finish(ending, retry_in=backoff, spends_retry=True)
    return Finish(ending)
