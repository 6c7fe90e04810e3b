"""The process engine: an attempt's ranks are process groups on this host."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clusters.engines.base import (
    MAIN,
    SETUP,
    AttachRefused,
    Capacity,
    Duplex,
    Engine,
    EngineUnavailable,
    Handle,
    LaunchSpec,
    LogChunk,
    NodeCapacity,
    Observation,
    gpu_stream,
)
from clusters.engines.process import (
    attach,
    claims,
    gpu_logs,
    host,
    launch,
    outcome,
    setup,
    spawner,
    spool,
    stop,
)
from clusters.engines.process.config import Config, parse
from clusters.engines.process.layout import SOCKET_ROOM, Attempt, Cluster
from clusters.engines.process.logs import FileReader, Reader
from clusters.engines.process.records import RESERVED_EXIT, read_json, read_settings
from clusters.engines.process.watch import Watcher

LOOK_EVERY = 1.0
"""Seconds after which a follower looks by itself, should inotify have told it nothing."""


class ProcessEngine(Engine):
    """Runs attempts on the host that its cluster belongs to; answers `EngineUnavailable` on any other.

    All state is in the cluster's folder: any number of engines, in any processes, may work on it at once.
    """

    kind = "process"
    places = False
    refused_setup = launch.REFUSED_SETUP

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cluster = Cluster(config.root)
        self._watcher = Watcher()

    async def launch(self, spec: LaunchSpec, key: str) -> Handle:
        self._require_host()
        self._attempt(key)
        await asyncio.to_thread(self._launch, spec, key)
        return Handle(key, {"host_id": self._config.host_id})

    def _launch(self, spec: LaunchSpec, key: str) -> None:
        spawner.shared.ready(self)
        try:
            self._cluster.create()
            launch.launch(self._config, self._cluster, spec, key)
        except OSError as error:
            raise EngineUnavailable(f"the attempt could not be started: {error}") from error

    async def observe(self, handles: Collection[Handle]) -> Mapping[str, Observation]:
        self._require_host()
        attempts = {handle.key: self._attempt(handle.key) for handle in handles}
        return await asyncio.to_thread(self._observe, attempts)

    def _observe(self, attempts: Mapping[str, Attempt]) -> dict[str, Observation]:
        spawner.shared.ready(self)  # Whoever observes launches sooner or later, or has to adopt.
        try:
            return {key: outcome.observe(attempt, self._config.hostname) for key, attempt in attempts.items()}
        except OSError as error:
            raise EngineUnavailable(f"the attempts could not be looked at: {error}") from error

    async def stop(self, handle: Handle, grace: float) -> None:
        self._require_host()
        attempt = self._attempt(handle.key)
        try:
            await asyncio.to_thread(stop.stop, attempt, grace)
        except OSError as error:
            if attempt.exists():
                raise EngineUnavailable(f"the attempt could not be stopped: {error}") from error

    async def read_logs(
        self,
        handle: Handle,
        rank: int,
        stream: str,
        offset: int,
        stored: Callable[[], int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        """MAIN, setup where the attempt has steps, and gpu-N where the rank has such a file; any other stream is
        complete and empty."""
        self._require_host()
        attempt = self._attempt(handle.key)
        if rank not in attempt.ranks():
            return
        folder = attempt.rank(rank)
        try:
            reader, places = _reader(attempt, rank, stream, offset)
        except OSError:
            return
        try:
            with self._watcher.watch(*places) as changed:
                while True:
                    changed.clear()
                    # Asked before reading: what is there after the end was there before it.
                    ended = (folder / "exit.json").exists() or (stream == SETUP and setup.over(folder))
                    try:
                        chunk = await asyncio.to_thread(reader.next)
                    except FileNotFoundError:
                        return  # Cleaned up.
                    if chunk is not None:
                        yield chunk
                        if await asyncio.to_thread(reader.release, stored() if stored else reader.offset):
                            stop.wake(folder)  # A supervisor that waits for room need not wait longer.
                    elif ended:
                        return
                    else:
                        await self._wait(changed, attempt, rank)
        finally:
            reader.close()

    async def _wait(self, changed: asyncio.Event, attempt: Attempt, rank: int) -> None:
        """Until something changes. A rank that is silent for long may have lost its supervisor: see to it."""
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the change.
            async with asyncio.timeout(LOOK_EVERY):
                await changed.wait()
        except TimeoutError:
            record = await asyncio.to_thread(read_json, str(attempt.record))
            if record is not None:
                with suppress(OSError):
                    await asyncio.to_thread(outcome.settled, attempt.rank(rank), record["boot_id"])

    async def cleanup(self, handle: Handle) -> None:
        self._require_host()
        attempt = self._attempt(handle.key)
        try:
            if await asyncio.to_thread(self._cluster.attempts.is_dir):
                await asyncio.to_thread(stop.cleanup, self._cluster, attempt)
        except OSError as error:
            raise EngineUnavailable(f"the attempt could not be removed: {error}") from error

    async def probe(self) -> Capacity:
        self._require_host()
        found = await asyncio.to_thread(host.find_gpus)
        config = self._config
        gpus = found.count if config.gpus is None else config.gpus
        declared = gpus > found.count
        node = NodeCapacity(
            name=config.hostname,
            cpus=config.cpus,
            slots=config.slots,
            gpus=gpus,
            gpu_type=(config.gpu_type or (found.type if found.count else "declared")) if gpus else "None",
        )
        notes = ["Images are not used: runs see the programs of this host."]
        if not host.is_root():
            notes.append(
                "Runyard does not run as root here, so runs share the account of the console: "
                "they can read its files, its secrets and each other's."
            )
        if len(str(self._cluster.temporary(claims.PORTS.stop, 0))) > SOCKET_ROOM:
            notes.append(
                f"The path of the cluster's folder is so long ({config.root}) that Python's multiprocessing, "
                "and with it PyTorch's data loaders, may fail in runs: put RUNYARD_HOME at a shorter one."
            )
        if declared:
            notes.append(f"{gpus} GPUs were declared for trying things out; the host has {found.count}.")
        return Capacity((node,), declared=declared, notes=tuple(notes))

    async def attach(
        self, handle: Handle, rank: int, stream: str, argv: Sequence[str], size: tuple[int, int]
    ) -> Duplex:
        self._require_host()
        if stream != MAIN:
            raise AttachRefused(f"There is no container {stream} here, only {MAIN}.")
        opening = asyncio.to_thread(attach.open_terminal, self._attempt(handle.key), rank, argv, size)
        task = asyncio.ensure_future(opening)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The thread goes on: what it opens would stay open, with nobody at it.
            task.add_done_callback(attach.hang_up)
            raise

    async def events(self) -> AsyncIterator[str]:
        """Keys of attempts of which a rank has started or ended."""
        self._require_host()
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[str] = asyncio.Queue()
        await asyncio.to_thread(self._cluster.create)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
            folder = os.open(self._cluster.events, os.O_RDONLY | os.O_DIRECTORY)
            try:
                name = f"{uuid.uuid4().hex}.sock"
                listener.bind(f"/proc/self/fd/{folder}/{name}")  # The whole path may exceed 107 bytes.

                def receive() -> None:
                    with suppress(BlockingIOError):
                        while True:
                            news.put_nowait(listener.recv(128).decode(errors="replace"))

                loop.add_reader(listener, receive)
                try:
                    while True:
                        yield await news.get()
                finally:
                    loop.remove_reader(listener)
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)

    async def close(self) -> None:
        await self._watcher.close()
        await asyncio.to_thread(spawner.shared.release, self)

    def _require_host(self) -> None:
        here = host.host_id()
        if here != self._config.host_id:
            raise EngineUnavailable(
                f"this cluster belongs to another host ({self._config.host_id}; this one is {here})"
            )

    def _attempt(self, key: str) -> Attempt:
        return self._cluster.attempt(key)


def _reader(
    attempt: Attempt, rank: int, stream: str, offset: int
) -> tuple[Reader | FileReader, tuple[Path, ...]]:
    """Who reads a stream, and where something changes when there is more of it, or its rank has ended.

    Raises `OSError` where there is no such stream.
    """
    folder = attempt.rank(rank)
    if stream == MAIN:
        return Reader(folder, offset), (folder,)
    if stream == SETUP and setup.has_steps(folder):
        return Reader(folder, offset, spool.SETUP), (folder,)
    number = next((number for number in range(gpu_logs.MOST) if gpu_stream(number) == stream), None)
    if number is None:
        raise FileNotFoundError(stream)
    path = attempt.gpu_logs(rank) / gpu_logs.file_name(number)
    quota = int(read_settings(str(folder / "settings"))["log_quota"])
    return FileReader(path, offset, quota), (path, folder / RESERVED_EXIT)


def from_config(config: Mapping[str, Any]) -> ProcessEngine:
    """Raises `ValueError`, naming the key and what is allowed, for a bad configuration."""
    return ProcessEngine(parse(config))
