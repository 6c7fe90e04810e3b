"""What to do next with an attempt. Pure: what is known and what time it is in, one action out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from clusters.engines.base import MAIN, Observation, Phase, RankObservation
from runs.reasons import EXPLANATIONS, IMAGE_PULL, Category, decode_exit_code
from runs.states import (
    FIRST_BACKOFF,
    HOLDING,
    LONGEST_BACKOFF,
    WAITING,
    Desired,
    ImagePullCase,
    Reason,
    Status,
)

GONE_AFTER = timedelta(seconds=10)
"""An engine that holds nothing of what it has launched must say so for so long: its list may be behind."""
UNSEEN_AFTER = timedelta(minutes=1)
"""The same while it starts: it may never have been in that list yet, and to start it again would make two."""
LOG_PATIENCE = timedelta(seconds=10)
"""How long the end of a failed attempt waits for the log of the rank that failed first."""
END_OF_LOG = 64 * 2**10
"""Bytes at the end of a log where a message counts as what the rank ended with."""
CRASH_LOOP = 3
"""So many failures alike in a row, each …"""
SOON = timedelta(minutes=1)
"""… within so long of its start, are a crash loop: another try would end the same."""


@dataclass(frozen=True)
class Sign:
    """A line of a log that says what went wrong."""

    offset: int
    line: int
    text: str
    stream: str = MAIN


@dataclass(frozen=True)
class Log:
    """What is known of the log of the rank that failed first: of the one stream of it that tells most."""

    size: int
    complete: bool
    """It has its end record: nothing more will come."""
    signs: Mapping[Reason, Sign] = field(default_factory=dict)
    """The last line that is a sign of each reason."""

    @property
    def near_end(self) -> Mapping[Reason, Sign]:
        """Those signs that may say what the rank ended with; a line long before the end says nothing of it."""
        return {reason: sign for reason, sign in self.signs.items() if self.size - sign.offset <= END_OF_LOG}


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
    tries: int = 0
    """Automatic attempts in a row: the pause before the next one doubles with each."""
    failed_with: str = ""
    failed_alike: int = 0
    """What the attempts right before ended with soon after their start, and how many of them."""
    gone_since: datetime | None = None
    log_due: datetime | None = None
    """Until when its end waits for a log; None = it does not wait yet."""
    log: Log | None = None
    """Of the rank that failed first, where it was looked at."""
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

    @property
    def signature(self) -> str:
        """Equal for failures that are alike."""
        return f"{self.reason}/{self.exit_code}"


@dataclass(frozen=True)
class Again:
    """Another attempt, made in the transaction that ends this one."""

    after: timedelta
    why: str
    spends_retry: bool = False
    failed_with: str = ""
    failed_alike: int = 0


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
class Vanished(Action):
    """The engine has just begun to say that it holds nothing: take down when, and look again."""


@dataclass(frozen=True)
class AwaitLog(Action):
    """All ranks have ended, one of them badly: TERMINATING, until its log is complete or `until` has come."""

    until: datetime
    ending: Ending


@dataclass(frozen=True)
class Finish(Action):
    """Write the terminal status, through every status that leads there."""

    ending: Ending
    again: Again | None = None
    gave_up: str = ""
    """Why a failure that would be retried is not, in words."""


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
        return _gone(now, it)
    if all_exited(it.nodes, seen):
        return _over(now, it, seen.ranks)
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
        if it.not_before is not None and now < it.not_before <= now + LONGEST_BACKOFF:
            return Nothing(until=it.not_before)
        return Enqueue()
    return Nothing()


def _gone(now: datetime, it: Situation) -> Action:
    if not it.launched and it.stop_sent_grace is None:
        # The reply to a launch may be lost, and the list behind: whatever is there under our key shall end.
        return _stop(it, it.stop_grace)
    if it.gone_since is None:
        return Vanished()
    believed = it.gone_since + (UNSEEN_AFTER if it.status is Status.STARTING else GONE_AFTER)
    if now < believed:
        return Nothing(until=believed)
    if it.desired is Desired.STOPPED:
        return finish(it, Ending(it.stop_reason or Reason.USER_STOPPED, it.stop_message))
    return finish(
        it, Ending(Reason.ENGINE_ERROR, "The engine holds no trace of this attempt; its outcome is unknown.")
    )


def each_once(seen: Observation) -> Observation:
    """One entry for each rank, in order: of several, that which has come furthest. An engine may say things twice,
    and mix what is with what was."""
    phases = list(Phase)
    furthest: dict[int, RankObservation] = {}
    for rank in seen.ranks:
        known = furthest.get(rank.rank)
        if known is None or phases.index(rank.phase) > phases.index(known.phase):
            furthest[rank.rank] = rank
    return replace(seen, ranks=tuple(furthest[number] for number in sorted(furthest)))


def all_exited(nodes: int, seen: Observation) -> bool:
    return len(seen.ranks) >= nodes and all(rank.phase is Phase.EXITED for rank in seen.ranks)


def _over(now: datetime, it: Situation, ranks: tuple[RankObservation, ...]) -> Action:
    """Every rank has ended. What the log of a failed one says may be the reason: it is worth a short wait."""
    ending = judge(it, ranks)
    if it.log is not None and not it.log.complete:
        if it.log_due is None:
            return AwaitLog(now + LOG_PATIENCE, ending)
        if now < it.log_due:
            return Nothing(until=it.log_due)
    return finish(it, ending)


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


def first_failed(seen: Observation) -> RankObservation | None:
    """The first rank to fail, by its own exit time; those that were stopped for it did not fail."""
    failures = sorted(
        (rank for rank in seen.ranks if _failed(rank)),
        key=lambda rank: (rank.ended_at is None, rank.ended_at, rank.rank),
    )
    return failures[0] if failures else None


def wants_log(nodes: int, seen: Observation) -> int | None:
    """The rank whose log may say why the attempt failed; None where that is known without, or not yet asked."""
    first = first_failed(seen) if all_exited(nodes, seen) else None
    return first.rank if first is not None and first.exit_code and first.reason is None else None


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
    first = first_failed(Observation(ranks))
    if first is not None:
        return _failure(it, first, ranks, codes)
    if any(rank.stopped for rank in ranks) and it.desired is Desired.STOPPED:
        reason = it.stop_reason or Reason.USER_STOPPED
        return Ending(reason, it.stop_message, evidence={"exit_codes": codes})
    if any(rank.stopped for rank in ranks):
        reason = Reason.STOPPED_OUTSIDE
        return Ending(reason, EXPLANATIONS[reason].sentence, evidence={"exit_codes": codes})
    return Ending(None, exit_code=0, evidence={"exit_codes": codes})


def _failure(
    it: Situation, first: RankObservation, ranks: tuple[RankObservation, ...], codes: Mapping[str, Any]
) -> Ending:
    evidence: dict[str, Any] = {"exit_codes": codes, "node": first.node, "engine": first.message}
    reason, sign = Reason.ERROR, None
    if first.reason is not None:
        reason = Reason(first.reason) if first.reason in set(Reason) else Reason.ERROR
    elif first.exit_code is None:
        reason = Reason.ENGINE_ERROR
    elif it.log is not None:
        reason, sign = _from_log(it.log)
        evidence["log"] = {"complete": it.log.complete}
        if sign is not None:
            evidence["log"]["sign"] = asdict(sign)
    sentence = explain(reason, first.case)
    if first.case:
        evidence["case"] = first.case
    where = f"rank {first.rank}" + (f" on {first.node}" if first.node else "")
    parts = [sentence if len(ranks) == 1 else f"{sentence} First failed: {where}."]
    if first.exit_code is not None:
        parts.append(f"It ended with {decode_exit_code(first.exit_code)}.")
    if sign is not None:
        log = "Its log" if sign.stream == MAIN else f"Its log {sign.stream}"
        parts.append(f"{log} says, at line {sign.line}: {sign.text}")
    if first.message:
        parts.append(first.message)
    return Ending(
        reason, " ".join(parts), evidence=evidence, exit_code=first.exit_code, failed_rank=first.rank
    )


def _from_log(log: Log) -> tuple[Reason, Sign | None]:
    """What a rank that failed said last, if that is the sign of a cause; a line long before its end is not."""
    if not log.complete or not log.near_end:
        return Reason.ERROR, None
    reason, sign = max(log.near_end.items(), key=lambda found: found[1].offset)
    return reason, sign


def explain(reason: Reason, case: str = "") -> str:
    """What a reason, or a case of it, means, in one sentence."""
    if reason is Reason.FAILED_IMAGE_PULL and case in set(ImagePullCase):
        return IMAGE_PULL[ImagePullCase(case)][0]
    return EXPLANATIONS[reason].sentence


def finish(it: Situation, ending: Ending) -> Finish:
    """End like this, with or without another attempt: the reason and what people asked for decide."""
    if ending.reason is None or it.deleted:
        return Finish(ending)
    if ending.reason is Reason.PREEMPTED:
        # It did nothing wrong: nothing is spent, and it need not wait before it queues again.
        return Finish(ending, Again(timedelta(0), "was preempted and goes back to the queue"))
    making_room = it.stop_reason is Reason.PREEMPTED
    if it.desired is Desired.STOPPED and not making_room:
        return Finish(ending)
    explanation = EXPLANATIONS[ending.reason]
    if explanation.status is not Status.FAILED or not explanation.retryable:
        return Finish(ending)
    system = explanation.category is Category.SYSTEM and it.retry_on_system_failure
    if not system and it.retries_used >= it.max_retries:
        used = f"all {it.max_retries} retries are used" if it.max_retries else ""
        return Finish(ending, gave_up=used)
    alike = _alike(it, ending)
    if alike >= CRASH_LOOP:
        return Finish(
            ending,
            gave_up=f"the same failure {alike} times in a row, each within a minute of its start; "
            "another try would end the same",
        )
    return Finish(
        ending,
        Again(
            after=min(FIRST_BACKOFF * 2 ** min(it.tries, 10), LONGEST_BACKOFF),
            why=f"failed ({ending.reason}): "
            + (
                "a failure of the platform, retried by the watchdog"
                if system
                else f"retry {it.retries_used + 1} of {it.max_retries}"
            ),
            spends_retry=not system,
            failed_with=ending.signature if alike else "",
            failed_alike=alike,
        ),
    )


def _alike(it: Situation, ending: Ending) -> int:
    """How many failures in a row, with this one, were alike and soon after their start; 0: this one was not."""
    if it.started_at is None or ending.last_exit_at is None or ending.last_exit_at - it.started_at > SOON:
        return 0
    return 1 + (it.failed_alike if it.failed_with == ending.signature else 0)
