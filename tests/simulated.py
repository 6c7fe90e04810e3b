"""A simulated cluster under the real control loop and database, and the time of all three moved as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

from clusters.connect import call, connect, engine_loop
from clusters.engines.base import Handle, Observation
from clusters.engines.sim.engine import SimEngine
from clusters.models import Cluster
from clusters.tasks import look_at
from runs.models import Attempt, Run
from tests.world import latest, sweep

CLOCKS = ("clock_timestamp", "statement_timestamp", "transaction_timestamp", "now")

LIMIT = 150.0
"""Seconds after which something that should have happened counts as not happening."""
LOOK_EVERY = 20.0
"""Simulated seconds between two probes."""


class Simulation:
    """Time at the engine and at the database runs as it does, and `jump` moves both ahead."""

    def __init__(self, root: Path, nodes: list[dict[str, Any]], **config: Any) -> None:
        self.cluster = Cluster.objects.create(
            name="sim", engine="sim", config={"root": str(root / "sim"), "nodes": nodes, **config}
        )
        engine = connect(self.cluster)
        assert isinstance(engine, SimEngine)
        self.engine = engine
        self._ahead = 0.0
        self.look()

    def jump(self, seconds: float) -> None:
        self.engine.clock.jump(seconds)
        self._ahead += seconds
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('simulated.ahead', %s, false)", [f"{self._ahead} seconds"])

    def look(self) -> None:
        """What the periodic probe does."""
        look_at(self.cluster)
        self.cluster.refresh_from_db()
        self._look_at = self._ahead + LOOK_EVERY

    def sweep(self) -> None:
        sweep(self.cluster.pk)

    def step(self, seconds: float) -> None:
        """Let time pass, and do once what the timers do: look at the cluster now and then, go over its runs."""
        self.jump(seconds)
        if self._ahead >= self._look_at:
            self.look()
        self.sweep()

    def pass_time(self, seconds: float, every: float = 5.0) -> None:
        """Let time pass in steps of so much."""
        while seconds > 0:
            self.step(min(every, seconds))
            seconds -= every

    def until(self, true: Callable[[], bool], every: float = 5.0) -> None:
        """Let time pass until something holds."""
        end = time.monotonic() + LIMIT
        while not true():
            assert time.monotonic() < end, "it did not happen"
            self.step(every)

    def drive(self, run: Run, to: str | None = None, every: float = 5.0) -> Attempt:
        """Until a run has this status, or has ended."""

        def there() -> bool:
            run.refresh_from_db()
            return run.status == to if to else run.status in {"COMPLETED", "STOPPED", "FAILED"}

        self.sweep()
        self.until(there, every)
        return latest(run)

    def misbehave(self, kind: str, lasts: float, seconds: float = 0.0) -> None:
        done = asyncio.run_coroutine_threadsafe(self.engine.misbehave(kind, lasts, seconds), engine_loop())
        done.result(LIMIT)

    def observe(self, attempt: Attempt) -> Observation:
        handle = Handle(str(attempt.pk))
        return call("observe", self.engine.observe([handle]))[handle.key]

    def launches(self) -> list[str]:
        """The keys that were launched, by the engine's own record."""
        journal = Path(self.cluster.config["root"]) / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [line.split('"key":"')[1][:36] for line in lines if '"event":"Launched"' in line]


@contextmanager
def database_time() -> Iterator[None]:
    """While this lasts, this connection's clock is ahead by what `simulated.ahead` says."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA simulated")
        for name in CLOCKS:
            cursor.execute(
                f"CREATE FUNCTION simulated.{name}() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
                f" $$ SELECT pg_catalog.{name}() + current_setting('simulated.ahead')::interval $$"
            )
        cursor.execute("SELECT set_config('simulated.ahead', '0 seconds', false)")
        cursor.execute("SET search_path = simulated, pg_catalog, public")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET search_path")
            cursor.execute("DROP SCHEMA simulated CASCADE")
