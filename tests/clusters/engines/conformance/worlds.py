"""The worlds that the suite runs in: one for each engine. To join it, an engine brings a world of its own.

A world says what its engine cannot do, by name and with the reason: a scenario that needs it is then shown
as left out for that reason, and the table in docs/engines.md has to say the same.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from clusters.engines.base import (
    MAIN,
    Engine,
    Handle,
    LaunchSpec,
    LogChunk,
    Mark,
    NodeCapacity,
    Observation,
    Phase,
    Placement,
    RankObservation,
)
from clusters.engines.process import host
from clusters.engines.process import spawner as process_spawner
from clusters.engines.process.engine import from_config as process_engine
from clusters.engines.sim import faults
from clusters.engines.sim.clock import Clock, ManualClock
from clusters.engines.sim.config import Config
from clusters.engines.sim.engine import SimEngine
from clusters.engines.sim.journal import File, Journal, Memory
from tests.clusters.engines.conformance.steps import Step, as_bash, as_script

T = TypeVar("T")

LIMIT = 60.0
"""Seconds after which something that should have happened counts as not happening."""
NODES, GPUS = 4, 8
"""What a world's cluster has: room for so many ranks at one time, and so many GPUs in all."""


class Can(StrEnum):
    """What some engines can do and others cannot."""

    IMAGES = "images"
    """Pull an image, and say why it cannot be pulled."""
    FILES = "files"
    """Put files where the command finds them."""
    MEMORY = "memory"
    """Know that a rank was killed for memory."""
    NODES = "nodes"
    """Several nodes, which can be lost one by one."""
    ENFORCES = "enforces"
    """Refuse a launch onto what another run holds."""
    SETUP = "setup"
    """Clone repositories and install packages before the command."""
    TERMINALS = "terminals"
    """Open a terminal in a running rank."""


class World(ABC):
    """A cluster with room for four ranks and eight GPUs, and short words for what scenarios do with it."""

    lacks: Mapping[Can, str]
    """What the engine cannot do → why."""

    def __init__(self) -> None:
        self.handles: dict[str, Handle] = {}
        self.engines: list[Engine] = []
        self.engine = self.another_engine()

    def another_engine(self) -> Engine:
        """One more on the same cluster, as another process would have it."""
        engine = self._make_engine()
        self.engines.append(engine)
        return engine

    @abstractmethod
    def _make_engine(self) -> Engine: ...

    @abstractmethod
    def _command(self, steps: tuple[Step, ...]) -> str:
        """Steps as a command that the engine can run."""

    @abstractmethod
    def placements(self, *gpus: tuple[int, ...]) -> tuple[Placement, ...]:
        """Where ranks with these GPUs are put, of the eight that there are."""

    @abstractmethod
    async def while_time_passes(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work, which ends within the limit."""

    @abstractmethod
    def now(self) -> float:
        """The time at the cluster."""

    @abstractmethod
    def unreachable(self) -> AbstractAsyncContextManager[None]:
        """While this lasts, the world's engine cannot reach its cluster, where everything goes on."""

    def new_key(self) -> str:
        key = str(uuid.uuid4())
        self.handles[key] = Handle(key)
        return key

    def spec(self, *steps: Step, **changes: Any) -> LaunchSpec:
        values: dict[str, Any] = {
            "run_name": "test",
            "attempt_index": 0,
            "image": "registry.example/image:1",
            "command": self._command(steps),
            "nodes": 1,
            "gpus_per_node": 0,
            "cpus": 1,
            "env": {},
        }
        return LaunchSpec(**(values | changes))

    async def launch(self, *steps: Step, key: str | None = None, **changes: Any) -> Handle:
        key = key or self.new_key()
        self.handles[key] = await self.engine.launch(self.spec(*steps, **changes), key)
        return self.handles[key]

    async def look(self, handle: Handle) -> Observation:
        return (await self.engine.observe([handle]))[handle.key]

    async def see(self, handle: Handle, rank: int = 0) -> RankObservation:
        return (await self.look(handle)).ranks[rank]

    async def until(self, true: Callable[[], Awaitable[bool]]) -> None:
        """Look again and again until something holds."""

        async def looking() -> None:
            while not await true():
                await asyncio.sleep(0.005)

        await self.while_time_passes(looking())

    async def exited(self, handle: Handle, rank: int = 0) -> RankObservation:
        async def done() -> bool:
            return (await self.see(handle, rank)).phase is Phase.EXITED

        await self.until(done)
        return await self.see(handle, rank)

    async def running(self, handle: Handle, rank: int = 0) -> RankObservation:
        async def begun() -> bool:
            return (await self.see(handle, rank)).phase is Phase.RUNNING

        await self.until(begun)
        return await self.see(handle, rank)

    async def said(self, handle: Handle, text: str, rank: int = 0) -> None:
        """The command has come so far as to write this."""

        async def reading() -> None:
            heard = b""
            async for chunk in self.engine.read_logs(handle, rank, MAIN, 0):
                heard += chunk.data
                if text.encode() in heard:
                    return
            raise AssertionError(f"it ended without {text!r}: {heard!r}")

        await self.while_time_passes(reading())

    async def chunks(
        self, handle: Handle, offset: int = 0, rank: int = 0, stream: str = MAIN
    ) -> list[LogChunk]:
        async def reading() -> list[LogChunk]:
            return [chunk async for chunk in self.engine.read_logs(handle, rank, stream, offset)]

        return await self.while_time_passes(reading())

    async def logs(self, handle: Handle, offset: int = 0, rank: int = 0, stream: str = MAIN) -> bytes:
        return b"".join(chunk.data for chunk in await self.chunks(handle, offset, rank, stream))

    async def close(self) -> None:
        for key in self.handles:
            await self.engine.cleanup(Handle(key))
        for engine in self.engines:
            await engine.close()


class ProcessWorld(World):
    lacks = {
        Can.IMAGES: "runs see the programs of the host",
        Can.MEMORY: "without cgroups, exit code 137 may mean anything",
        Can.NODES: "a process cluster is one host",
        Can.ENFORCES: "slots and GPUs are handed out by Runyard's queue alone",
    }

    def __init__(self, folder: Path) -> None:
        self._config = {
            "root": str(folder),
            "host_id": host.host_id(),
            "slots": NODES,
            "gpus": GPUS,
            "gpu_type": "h100",
        }
        self._spawner, process_spawner.shared = process_spawner.shared, process_spawner.Spawner()
        super().__init__()

    def _make_engine(self) -> Engine:
        return process_engine(self._config)

    def _command(self, steps: tuple[Step, ...]) -> str:
        return as_bash(steps)

    def placements(self, *gpus: tuple[int, ...]) -> tuple[Placement, ...]:
        return tuple(Placement(rank, rank, one) for rank, one in enumerate(gpus))

    async def while_time_passes(self, work: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(LIMIT):
            return await work

    def now(self) -> float:
        return time.time()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        mine, self.engine = self.engine, process_engine(self._config | {"host_id": "another"})
        try:
            yield
        finally:
            self.engine = mine

    async def close(self) -> None:
        await super().close()
        process_spawner.shared.end()
        process_spawner.shared = self._spawner


class SimWorld(World):
    """On a clock that moves only while a scenario waits. With a folder: on the journal that processes share."""

    lacks = {
        Can.FILES: "no command runs that could read them",
        Can.SETUP: "nothing is cloned or installed; a script says how it would fail",
        Can.TERMINALS: "no process runs that a terminal could be beside",
    }
    tick = 0.02

    def __init__(self, folder: Path | None) -> None:
        self.clock: Clock = ManualClock()
        self._memory = Memory()
        self._folder = folder
        each = GPUS // NODES
        self._config = Config(
            root=folder,
            seed=1,
            speed=1.0,
            nodes=tuple(NodeCapacity(f"node-{n}", 8, 1, each, "h100") for n in range(NODES)),
            script="exit 0",
            faults=(),
        )
        super().__init__()

    def _make_engine(self) -> Engine:
        journal: Journal = self._memory.another() if self._folder is None else File(self._folder)
        return SimEngine(self._config, journal, self.clock)

    def _command(self, steps: tuple[Step, ...]) -> str:
        return as_script(steps)

    def placements(self, *gpus: tuple[int, ...]) -> tuple[Placement, ...]:
        """GPU n of the suite is one of node n // 2."""
        each = GPUS // NODES
        return tuple(
            Placement(rank, 0, tuple(gpu % each for gpu in one), f"node-{one[0] // each}")
            for rank, one in enumerate(gpus)
        )

    async def while_time_passes(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        began, end = time.monotonic(), self.clock.now() + 3600
        while not task.done():
            await asyncio.wait([task], timeout=0.001)
            self.clock.jump(self.tick)
            if self.clock.now() > end or time.monotonic() - began > LIMIT:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise AssertionError("it did not happen")
        return task.result()

    def now(self) -> float:
        return self.clock.now()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        assert isinstance(self.engine, SimEngine)
        lasts = 600.0
        end = self.clock.now() + lasts
        await self.engine.misbehave(faults.AWAY, lasts)
        yield
        self.clock.jump(max(0.0, end + 1 - self.clock.now()))


WORLDS: Mapping[str, Callable[[Path], World]] = {
    "process": ProcessWorld,
    "sim": SimWorld,
    "sim-in-memory": lambda folder: SimWorld(None),
}
"""Every engine, in every way in which it can be set up that makes a difference to the contract."""


def marks(chunks: list[LogChunk]) -> list[Mark]:
    return [mark for chunk in chunks for mark in chunk.marks]
