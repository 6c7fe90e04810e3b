"""Terminals in a running rank, on the engine's side: asking the supervisor for one, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clusters.engines.base import AttachRefused, EngineUnavailable
from clusters.engines.process import outcome
from clusters.engines.process.layout import Attempt
from clusters.engines.process.records import read_json
from clusters.engines.process.terminal import PATIENCE, SOCKET, resize

READ = 64 << 10
LARGEST = 1000
"""Columns or lines. What programs draw grows with both."""


def open_terminal(attempt: Attempt, rank: int, argv: Sequence[str], size: tuple[int, int]) -> Terminal:
    """Blocks some ten milliseconds: call in a thread."""
    record = read_json(str(attempt.record))
    if record is None or rank not in attempt.ranks():
        raise AttachRefused(f"There is no rank {rank} there to connect to.")
    folder = attempt.rank(rank)
    if outcome.settled(folder, record["boot_id"]) is not None:
        raise AttachRefused(f"Rank {rank} has ended.")
    if not (folder / "started.json").exists():
        raise EngineUnavailable(f"rank {rank} has not started yet")
    supervisor = _connect(folder)
    try:
        request = {"argv": list(argv), "size": _checked(size)}
        supervisor.sendall(json.dumps(request).encode() + b"\n")
        text, descriptors, _, _ = socket.recv_fds(supervisor, 1 << 16, 1, socket.MSG_CMSG_CLOEXEC)
        message = json.loads(text) if text.endswith(b"\n") else {}
        if not descriptors:
            raise AttachRefused(message.get("problem") or f"Rank {rank} is about to end.")
        supervisor.setblocking(False)
        return Terminal(descriptors[0], supervisor)
    except OSError as error:
        supervisor.close()
        raise EngineUnavailable(f"the supervisor of rank {rank} did not answer: {error}") from error
    except BaseException:
        supervisor.close()
        raise


def _connect(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE / 2)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{place}/{SOCKET}")  # The whole path may exceed 107 bytes.
    except OSError as error:
        connection.close()
        raise EngineUnavailable(f"the supervisor takes no terminals now: {error}") from error
    finally:
        os.close(place)
    return connection


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    columns, lines = (min(max(1, value), LARGEST) for value in size)
    return columns, lines


def hang_up(opening: asyncio.Future[Terminal]) -> None:
    """Nobody waits for this terminal any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().hang_up()


class Terminal:
    """The end of a terminal that a person sits at. Lives in the event loop that first reads or writes."""

    def __init__(self, descriptor: int, keeper: socket.socket) -> None:
        self._descriptor = descriptor
        self._keeper = keeper
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended = False
        self._closed = False
        self._exit_code: int | None = None
        os.set_blocking(descriptor, False)

    @property
    def exit_code(self) -> int | None:
        return self._exit_code

    async def read(self) -> bytes:
        while not self._closed:
            # Asked before reading: what the command wrote before its end is there by then.
            self._listen_to_keeper()
            try:
                data = os.read(self._descriptor, READ)
            except BlockingIOError:
                if self._ended:
                    return b""
                await self._wait(read=(self._descriptor, self._keeper.fileno()))
            except OSError:  # EIO: nobody has the other end open any more.
                return await self._end()
            else:
                return data
        return b""

    async def _end(self) -> bytes:
        """Its exit code comes at once, if anybody has seen it."""
        while not (self._ended or self._closed):
            self._listen_to_keeper()
            if not self._ended:
                await self._wait(read=(self._keeper.fileno(),))
        return b""

    def _listen_to_keeper(self) -> None:
        if self._ended:
            return
        try:
            said = self._keeper.recv(1 << 12)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._ended = True
        with suppress(ValueError, KeyError):
            self._exit_code = int(json.loads(said)["exit_code"])

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not (self._closed or self._ended):
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                await self._wait(write=(self._descriptor,))
            except OSError:
                return

    async def resize(self, columns: int, lines: int) -> None:
        if not self._closed:
            with suppress(OSError):
                resize(self._descriptor, *_checked((columns, lines)))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        await asyncio.sleep(0)  # Whoever waited takes its descriptors out of the loop before they are closed.
        self.hang_up()

    def hang_up(self) -> None:
        os.close(self._descriptor)
        self._keeper.close()

    async def _wait(self, *, read: Sequence[int] = (), write: Sequence[int] = ()) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.add(waiter)
        wake = _waking(waiter)
        for descriptor in read:
            loop.add_reader(descriptor, wake)
        for descriptor in write:
            loop.add_writer(descriptor, wake)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
            for descriptor in read:
                loop.remove_reader(descriptor)
            for descriptor in write:
                loop.remove_writer(descriptor)


def _waking(waiter: asyncio.Future[None]) -> Callable[[], Any]:
    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    return wake
