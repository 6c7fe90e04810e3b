"""A process cluster in a folder of its own, and short words for what the tests do with it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from clusters.engines.base import MAIN, Handle, LaunchSpec, LogChunk, Mark, Phase, RankObservation
from clusters.engines.process import host, procfs
from clusters.engines.process.engine import ProcessEngine, from_config
from clusters.engines.process.layout import Attempt, Cluster

LIMIT = 20.0
"""Seconds after which something that should have happened counts as not happening."""


async def until(true: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait for a condition by looking again and again; never for a fixed time."""
    end = time.monotonic() + LIMIT
    while True:
        found = true()
        if not isinstance(found, bool):
            found = await found
        if found:
            return
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)


def spec(command: str, **changes: object) -> LaunchSpec:
    values: dict[str, object] = {
        "run_name": "test",
        "attempt_index": 0,
        "image": "unused",
        "command": command,
        "nodes": 1,
        "gpus_per_node": 0,
        "cpus": 1,
        "env": {},
    }
    return LaunchSpec(**(values | changes))  # type: ignore[arg-type]


class World:
    def __init__(self, root: Path, **config: object) -> None:
        self.root = root
        self.config = {"root": str(root), "host_id": host.host_id(), **config}
        self.engine: ProcessEngine = from_config(self.config)
        self.handles: dict[str, Handle] = {}

    def another_engine(self, **changes: object) -> ProcessEngine:
        return from_config(self.config | changes)

    def attempt(self, handle: Handle) -> Attempt:
        return Cluster(self.root).attempt(handle.key)

    def private(self, handle: Handle, rank: int = 0) -> Path:
        return self.attempt(handle).rank(rank)

    def home(self, handle: Handle, rank: int = 0) -> Path:
        return self.attempt(handle).home(rank)

    def new_key(self) -> str:
        key = str(uuid.uuid4())
        self.handles[key] = Handle(key)
        return key

    async def launch(self, command: str, key: str | None = None, **changes: Any) -> Handle:
        key = key or self.new_key()
        self.handles[key] = await self.engine.launch(spec(command, **changes), key)
        return self.handles[key]

    async def see(self, handle: Handle, rank: int = 0) -> RankObservation:
        return (await self.engine.observe([handle]))[handle.key].ranks[rank]

    async def exited(self, handle: Handle, rank: int = 0) -> RankObservation:
        async def done() -> bool:
            return (await self.see(handle, rank)).phase == Phase.EXITED

        await until(done)
        return await self.see(handle, rank)

    async def running(self, handle: Handle, file: str = "ready", rank: int = 0) -> None:
        """The command has come so far as to make this file in its working folder."""
        await until(lambda: (self.home(handle, rank) / file).exists())

    async def chunks(self, handle: Handle, offset: int = 0, rank: int = 0) -> list[LogChunk]:
        async with asyncio.timeout(LIMIT):
            return [chunk async for chunk in self.engine.read_logs(handle, rank, MAIN, offset)]

    async def logs(self, handle: Handle, offset: int = 0, rank: int = 0) -> bytes:
        return b"".join(chunk.data for chunk in await self.chunks(handle, offset, rank))

    def supervisor(self, handle: Handle, rank: int = 0) -> int:
        return int((self.private(handle, rank) / "lock").read_text())

    def spooled(self, handle: Handle, rank: int = 0) -> int:
        """Bytes of output that the supervisor has written and nobody has freed."""
        return sum(path.stat().st_size for path in self.private(handle, rank).glob("*.spool"))

    async def kill_supervisor(self, handle: Handle, rank: int = 0) -> None:
        pid = self.supervisor(handle, rank)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: procfs.identify(pid) is None)

    async def close(self) -> None:
        for handle in self.handles.values():
            await self.engine.cleanup(handle)
        await self.engine.close()


def open_the_way(folder: Path) -> None:
    """Let every account walk to a folder that pytest has made."""
    for one in (folder, *folder.parents):
        if one.is_relative_to(tempfile.gettempdir()) and one != Path(tempfile.gettempdir()):
            one.chmod(0o711)


def dead(pid: int | str) -> bool:
    return procfs.identify(int(pid)) is None


def marks(chunks: list[LogChunk]) -> list[Mark]:
    return [mark for chunk in chunks for mark in chunk.marks]
