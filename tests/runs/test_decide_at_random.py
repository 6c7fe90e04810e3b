"""A hundred thousand steps of table and decision alone: random, doubled and reordered observations and intents.

The reference is what really happens to the ranks. Decisions see it late, twice or in the wrong order, and may
never lead where the table does not, nor to an end that was not.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.engines.base import Observation, Phase, RankObservation
from runs.control import decide
from runs.control.decide import Ending, Log, Situation
from runs.reasons import EXPLANATIONS
from runs.states import TRANSITIONS, WAITING, Desired, Reason, Status

EXAMPLES, STEPS = 100, 1000
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORDER = (Status.PENDING, Status.QUEUED, Status.STARTING, Status.RUNNING, Status.TERMINATING)


class Ranks:
    """What really happens, and what an engine that is late says of it."""

    def __init__(self, draw: Random, nodes: int) -> None:
        self.draw, self.nodes = draw, nodes
        self.launches = 0
        self.term_at: datetime | None = None
        self.ranks: tuple[RankObservation, ...] = ()
        self.said: list[tuple[datetime, Observation]] = []

    def launch(self) -> None:
        if not self.launches:  # the same key is the same job
            self.launches += 1
            self.ranks = tuple(RankObservation(n, Phase.STARTING, f"n{n}") for n in range(self.nodes))

    def stop(self, now: datetime) -> None:
        self.term_at = self.term_at or now

    def go_on(self, now: datetime) -> None:
        self.ranks = tuple(self._later(rank, now) for rank in self.ranks)
        self.said.append((now, Observation(self.ranks) if self.ranks else Observation(gone=True)))

    def _later(self, rank: RankObservation, now: datetime) -> RankObservation:
        if rank.phase is Phase.EXITED or self.draw.random() > 0.2:
            return rank
        told = self.term_at is not None
        if rank.phase is Phase.STARTING and not told and self.draw.random() < 0.9:
            return replace(rank, phase=Phase.RUNNING, started_at=now)
        code = self.draw.choice([143, 0]) if told else self.draw.choice([0, 0, 1, 137, None])
        reason = None if code is not None else str(Reason.NODE_FAILURE)
        return replace(
            rank, phase=Phase.EXITED, exit_code=code, ended_at=now, reason=reason, stopped=told
        )  # fmt: skip

    def seen(self, now: datetime) -> Observation:
        """Now, as it was some seconds ago, or both at once and in any order."""
        fresh = self.said[-1][1]
        old = self.draw.choice([what for at, what in self.said if now - at < timedelta(seconds=8)])
        match self.draw.randrange(4):
            case 0:
                return old
            case 1 if not (old.gone or fresh.gone):
                both = [*old.ranks, *fresh.ranks]
                self.draw.shuffle(both)
                return decide.each_once(Observation(tuple(both)))
            case _:
                return fresh

    @property
    def over(self) -> bool:
        return bool(self.ranks) and all(rank.phase is Phase.EXITED for rank in self.ranks)


class Attempt:
    """The rows of one attempt, moved by decisions alone; every move is checked against the table."""

    def __init__(self, draw: Random, now: datetime) -> None:
        nodes = draw.choice([1, 1, 2, 5])
        self.draw, self.truth = draw, Ranks(draw, nodes)
        self.it = Situation(
            Status.PENDING, nodes, launched=False, streams_open=True, desired=Desired.RUNNING,
            max_retries=draw.randrange(3), max_duration_seconds=draw.choice([None, None, 30]),
            not_before=draw.choice([None, now + timedelta(seconds=3)]),
            retry_on_system_failure=draw.random() < 0.5,
        )  # fmt: skip
        self.rows: list[tuple[Status, datetime]] = [(Status.PENDING, now)]
        self.cleaned = False
        self.ending: Ending | None = None

    def step(self, now: datetime) -> None:
        self.truth.go_on(now)
        self._intend()
        for _ in range(self.draw.choice([1, 1, 1, 2])):  # a doorbell rings twice now and then
            self._look(now)

    def _intend(self) -> None:
        if self.draw.random() < 0.03 and not self.it.status.terminal:
            reason = self.draw.choice([Reason.USER_STOPPED, Reason.PREEMPTED])
            self.it = replace(self.it, desired=Desired.STOPPED, stop_reason=reason,
                              stop_grace=self.draw.choice([0.0, 30.0]))  # fmt: skip
        elif self.draw.random() < 0.02:
            self.it = replace(self.it, max_retries=self.draw.randrange(3), max_duration_seconds=20)

    def _look(self, now: datetime) -> None:
        it, seen = self.it, None
        if decide.must_look(it) and self.draw.random() < 0.8:  # else the engine could not be asked
            seen = self.truth.seen(now)
            self.it = it = replace(it, gone_since=it.gone_since if seen.gone else None)
            if decide.wants_log(it.nodes, seen) is not None:
                it = replace(it, log=Log(10, complete=self.draw.random() < 0.5))
        self._act(decide.decide(now, it, seen), now)

    def _act(self, action: decide.Action, now: datetime) -> None:
        ended = self.it.status.terminal
        assert not ended or isinstance(action, decide.Nothing | decide.CleanUp), f"{action} after the end"
        match action:
            case decide.Enqueue():
                # Placed at once, or left in the queue.
                steps = [(Status.QUEUED, now), (Status.STARTING, now)]
                self._enter(*steps[: self.draw.choice([1, 2])])
            case decide.Nothing() if self.it.status is Status.QUEUED and self.draw.random() < 0.3:
                self._enter((Status.STARTING, now))
            case decide.Launch():
                self.truth.launch()
                # The reply may be lost.
                self.it = replace(self.it, launched=self.draw.random() < 0.7)
            case decide.MarkRunning(at):
                self._enter((Status.RUNNING, at or now))
            case decide.Expire():
                self.it = replace(self.it, desired=Desired.STOPPED, stop_reason=Reason.MAX_DURATION_EXCEEDED)
            case decide.Stop(grace):
                self.truth.stop(now)
                self.it = replace(self.it, stop_sent_grace=grace)
                if self.it.status is not Status.TERMINATING:
                    self._enter((Status.TERMINATING, now))
            case decide.Vanished():
                self.it = replace(self.it, gone_since=now)
            case decide.AwaitLog(until, ending):
                self.it = replace(self.it, log_due=until)
                self._enter(*self._to_terminating(ending, now))
            case decide.Finish(ending, again):
                self._finish(ending, again, now)
            case decide.CleanUp():
                assert not self.it.streams_open
                self.cleaned = True
        if self.it.status.terminal and self.draw.random() < 0.3:
            self.it = replace(self.it, streams_open=False)

    def _to_terminating(self, ending: Ending, now: datetime) -> list[tuple[Status, datetime]]:
        if self.it.status in WAITING | {Status.TERMINATING}:
            return []
        running = self.it.status is Status.STARTING and ending.running_at is not None
        steps = [(Status.RUNNING, ending.running_at or now)] if running else []
        return [*steps, (Status.TERMINATING, ending.first_exit_at or now)]

    def _finish(self, ending: Ending, again: decide.Again | None, now: datetime) -> None:
        status = Status.COMPLETED if ending.reason is None else EXPLANATIONS[ending.reason].status
        self._enter(*self._to_terminating(ending, now), (status, ending.last_exit_at or now))
        self.ending = ending
        ranks = self.truth.ranks
        if self.truth.launches:
            assert self.truth.over, "ended while a rank lived"
            failed = [rank for rank in ranks if not rank.stopped and (rank.exit_code != 0 or rank.reason)]
            if failed:
                first = min(failed, key=lambda rank: (rank.ended_at or now, rank.rank))
                assert (ending.exit_code, ending.failed_rank) == (first.exit_code, first.rank)
                assert status is Status.FAILED
            else:
                assert status is (Status.STOPPED if any(rank.stopped for rank in ranks) else Status.COMPLETED)
        else:
            assert status is not Status.COMPLETED, "completed, and was never launched"
        if again is not None:
            assert status is not Status.COMPLETED and again.after >= timedelta(0)
            assert not again.spends_retry or self.it.retries_used < self.it.max_retries
            assert ending.reason is not Reason.USER_STOPPED, "retried what a person has stopped"

    def _enter(self, *steps: tuple[Status, datetime]) -> None:
        for status, at in steps:
            assert status in TRANSITIONS[self.it.status], f"{self.it.status} → {status}"
            started = at if status is Status.STARTING else self.it.started_at
            self.rows.append((status, max(at, self.rows[-1][1])))
            self.it = replace(self.it, status=status, started_at=started)

    def check(self) -> None:
        path = [status for status, _ in self.rows]
        assert self.truth.launches <= 1
        if self.it.status.terminal and Status.STARTING in path:
            assert path[-2] is Status.TERMINATING, path
        if not self.it.status.terminal:
            assert tuple(path) == tuple(s for s in ORDER if s in path), path


@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32))
def test_no_decision_leads_where_the_table_does_not(seed: int) -> None:
    draw, now = Random(seed), NOW
    attempt, ended = Attempt(draw, now), 0
    for _ in range(STEPS):
        now += timedelta(seconds=draw.choice([0.1, 1, 1, 5]))
        attempt.step(now)
        attempt.check()
        if attempt.cleaned:
            ended += 1
            attempt = Attempt(draw, now)
    assert ended > 5, "hardly any attempt came to its end"
