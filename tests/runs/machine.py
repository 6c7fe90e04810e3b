"""A model of runs, driven at random against the real commands, loop and database on a cluster that lies.

`Machine` draws intents, time, doorbells and lies; after every step the rows must be those of a lifecycle that
could have happened. What it takes to replay one is printed by Hypothesis.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clusters.engines.sim import faults
from clusters.models import Cluster
from runs import commands, lifecycle
from runs.control.reconcile import reconcile
from runs.models import Allocation, Attempt, Run
from runs.reasons import EXPLANATIONS
from runs.states import HOLDING, TERMINAL, TRANSITIONS, Priority, Reason, Status
from teams.commands import Refused
from tests.simulated import Simulation
from tests.world import World, make_run

SCRIPTS = {
    "run 20s": (Status.COMPLETED, ""),
    "pull 5s; run 5s; exit 3": (Status.FAILED, "Error"),
    'run 2s; oom "killed"': (Status.FAILED, "OutOfMemory"),
    "run 10s; exit 1 on rank 0; hang": (Status.FAILED, "Error"),
    'run 5s; fail Evicted "pressure" on attempt 0; run 5s': (None, ""),
    "on term ignore; hang": (None, ""),
    'pull error NotFound "no such tag"': (Status.FAILED, "FailedImagePull"),
    "run 5s; lose node for 30s on attempt 0; run 5s": (None, ""),
}
"""What runs do → how each attempt must end that nobody interferes with; None: that depends."""


INTENTS: Sequence[tuple[str, Any]] = (
    ("stop", 0.0), ("stop", 30.0), ("restart", None), ("delete", None), ("undelete", None),
    ("update", {"max_duration_seconds": 4}), ("update", {"max_retries": 1}), ("update", {"priority": "high"}),
    ("update", {"retry_on_system_failure": True}), ("update", {"preemptible": True}),
)  # fmt: skip


class Model:
    """What the rows must agree with: who was told to do what, and what has ended for good."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.scripts: dict[uuid.UUID, str] = {}
        self.touched: set[uuid.UUID] = set()
        """Runs that somebody stopped, restarted, deleted or changed: their end is not known beforehand."""
        self.ended: dict[uuid.UUID, tuple[Any, ...]] = {}
        """Attempts that have ended → how. It never changes."""
        self.attempts: dict[uuid.UUID, int] = {}

    def look(self) -> None:
        """Compare everything with what could be."""
        for attempt in Attempt.objects.select_related("run").prefetch_related("lifecycle"):
            self._look_at(attempt)
        for run in Run.objects.prefetch_related("attempts"):
            attempts = sorted(run.attempts.all(), key=lambda attempt: attempt.index)
            assert [attempt.index for attempt in attempts] == list(range(len(attempts)))
            assert len(attempts) >= self.attempts.get(run.pk, 0), "an attempt has disappeared"
            self.attempts[run.pk] = len(attempts)
            assert run.status == attempts[-1].status
            assert all(attempt.status in TERMINAL for attempt in attempts[:-1]), "two live attempts"
            for earlier, later in pairwise(attempts):
                assert earlier.ended_at is not None and earlier.ended_at <= later.created_at
        holders = set(Allocation.objects.values_list("attempt__status", flat=True))
        assert holders <= HOLDING, f"nodes are held in {holders}"

    def _look_at(self, attempt: Attempt) -> None:
        rows = sorted(attempt.lifecycle.all(), key=lambda row: row.pk)
        path = [Status(row.status) for row in rows]
        assert path[0] is Status.PENDING and path[-1] == attempt.status
        for earlier, later in pairwise(rows):
            assert later.status in TRANSITIONS[Status(earlier.status)], path
            assert earlier.left_at == later.entered_at >= earlier.entered_at
        entered = {row.status: row for row in rows}
        if attempt.status in TERMINAL and Status.STARTING in path:
            assert Status.TERMINATING in path, path
            left = entered[Status.TERMINATING].left_at
            assert left is not None
            spent = left - entered[Status.STARTING].entered_at
            assert lifecycle.gpu_time(attempt, timezone.now()) == spent * attempt.gpus
        if Status.STARTING not in path:
            assert lifecycle.gpu_time(attempt, timezone.now()) == timedelta(0)
        if attempt.status in TERMINAL:
            if attempt.reason:
                assert EXPLANATIONS[Reason(attempt.reason)].status == attempt.status
            else:
                assert attempt.status == Status.COMPLETED
            now = (attempt.status, attempt.reason, attempt.exit_code, attempt.ended_at, attempt.message)
            assert self.ended.setdefault(attempt.pk, now) == now, "an end was rewritten"


class Machine(RuleBasedStateMachine):
    """Set `world` and `root` before it is run: it makes clusters of its own and removes them."""

    world: ClassVar[World]
    root: ClassVar[Path]

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        nodes = [{"name": "n", "count": 4, "gpus": 2, "gpu_type": "h100"}]
        self.sim = Simulation(self.root / uuid.uuid4().hex, nodes)
        self.sim.jump(0)  # the database's clock is still where the one before has left it
        self.sim.cluster.teams.add(self.world.vision)

    def _some(self, number: int) -> Run:
        run = self.model.runs[number % len(self.model.runs)]
        run.refresh_from_db()
        return run

    submitted = precondition(lambda self: bool(self.model.runs))
    which = st.integers(0, 7)

    @rule(
        script=st.sampled_from(list(SCRIPTS)), nodes=st.integers(1, 3), retries=st.integers(0, 2),
        watchdog=st.booleans(), preemptible=st.booleans(), priority=st.sampled_from(Priority),
    )  # fmt: skip
    def submit(self, script: str, retries: int, watchdog: bool, nodes: int, **fields: Any) -> None:
        command = "\n".join(f"# sim: {part}" for part in script.split("; "))
        run = make_run(
            self.world.ada, command, cluster=self.sim.cluster.name, nodes=nodes, gpus=2 * nodes,
            max_retries=retries, retry_on_system_failure=watchdog, **fields,
        )  # fmt: skip
        self.model.runs.append(run)
        self.model.scripts[run.pk] = script

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 20.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.sim.step(seconds)

    @submitted
    @rule(number=which, times=st.integers(1, 3))
    def doorbells(self, number: int, times: int) -> None:
        for _ in range(times):
            reconcile(self._some(number).pk)

    @rule(
        kind=st.sampled_from([faults.AWAY, faults.STALE, faults.UNORDERED, faults.TWICE, faults.LOST_REPLIES]),
        lasts=st.sampled_from([5.0, 60.0]), seconds=st.sampled_from([1.0, 8.0]),
    )  # fmt: skip
    def the_engine_lies(self, kind: str, lasts: float, seconds: float) -> None:
        self.sim.misbehave(kind, lasts, seconds)

    @submitted
    @rule(number=which)
    def a_worker_dies_with_the_lease(self, number: int) -> None:
        held = Attempt.objects.filter(run=self._some(number), cleaned_at=None)
        held.update(lease_token=uuid.uuid4(), lease_until=lifecycle.database_now() + timedelta(seconds=15))

    # One rule for all intents, so that time, lies and new runs are drawn as often as they.
    @submitted
    @rule(number=which, intent=st.sampled_from(INTENTS))
    def somebody_wants(self, number: int, intent: tuple[str, Any]) -> None:
        what, value = intent
        run = self._some(number)
        ended, deleted = run.status in TERMINAL, run.deleted_at is not None
        caller, may = self.world.ada, True
        try:
            match what:
                case "stop":
                    commands.stop(caller, run, grace=value)
                case "restart":
                    may = ended and not deleted
                    commands.restart(caller, run)
                case "delete":
                    commands.delete(caller, run)
                case "undelete":
                    commands.undelete(caller, run)
                case "update":
                    may = not deleted  # of one that has ended: for its next attempt
                    commands.update(caller, run, value)
        except Refused:
            assert not may, f"{what} was refused"
            return
        assert may, f"{what} was not refused"
        if what in {"restart", "update", "delete"} or (what == "stop" and not ended):
            self.model.touched.add(run.pk)

    @invariant()
    def what_is_shown_could_have_happened(self) -> None:
        if hasattr(self, "model"):
            self.model.look()

    def teardown(self) -> None:
        """Let it come to an end: everything that was submitted does, and nothing was launched twice."""
        if not hasattr(self, "model"):
            return
        try:
            self.sim.pass_time(130, every=65)  # the longest lie and every lease are over
            for run in self.model.runs:
                run.refresh_from_db()
                if "hang" in self.model.scripts[run.pk] and run.status not in TERMINAL:
                    with suppress(Refused):
                        commands.stop(self.world.ada, run, grace=1)
                    self.model.touched.add(run.pk)
            self.sim.until(lambda: not Run.objects.exclude(status__in=TERMINAL).exists(), every=60)
            self.model.look()
            launches = self.sim.launches()
            assert len(launches) == len(set(launches)), "an attempt was launched twice"
            for run in self.model.runs:
                self._check_end(run)
        finally:
            Run.objects.all().delete()
            Cluster.objects.filter(pk=self.sim.cluster.pk).delete()

    def _check_end(self, run: Run) -> None:
        status, reason = SCRIPTS[self.model.scripts[run.pk]]
        preempted = run.attempts.filter(reason=Reason.PREEMPTED).exists()
        if run.pk in self.model.touched or status is None or preempted:
            return
        ends = set(run.attempts.values_list("status", "reason"))
        # Another run may have taken a node down with it that was given to this one before that was known.
        assert ends <= {(status, reason), (Status.FAILED, "NodeFailure")}, (
            f"{self.model.scripts[run.pk]}: {ends}"
        )
