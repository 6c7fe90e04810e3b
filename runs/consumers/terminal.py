"""A terminal in a run, whoever it is for: the one place beside the control loop and the collector that asks engines.

A `Session` lets somebody in, opens the terminal, and carries bytes until the command, the run, or the right to be
there has ended. How the bytes travel to a person is its users' business (`shell`, `screen`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from channels.db import database_sync_to_async
from django.db import DatabaseError

from clusters.connect import connect
from clusters.engines.base import MAIN, TIMEOUTS, AttachRefused, Duplex, EngineUnavailable, Handle
from runs import commands
from runs.commands import Visit
from runs.queries import still_counts
from runs.states import Status
from runs.wake import hub
from teams.commands import Refused
from teams.queries import Caller

log = structlog.get_logger(__name__)

SIZE = (80, 24)
LOOK_EVERY = 3.0
"""Seconds between two looks whether it may go on: with what a look takes, it ends within 5 s of its key."""
END_KNOWN_WITHIN = 5.0
"""Seconds in which the control loop notices, mostly, that the run has ended together with its terminal."""
MOST_TYPED = 4 << 20
"""Bytes that may wait for a command which does not read."""
MOST_EACH = 50
"""Terminals that a person may have open through one process of the console."""
HUNG_UP = frozenset({None, 128 + 1, 128 + 9, 128 + 15})
"""Exit codes of commands that may have ended because their run did."""

_open: Counter[UUID] = Counter()
_in_any_thread = partial(database_sync_to_async, thread_sensitive=False)


@dataclass(frozen=True)
class End:
    """How a session ended. `gone`: the run ended, or the right to be there; else it was the command."""

    text: str
    gone: bool = False


class Session:
    """Used once: `begin`, then `serve`. `type` and `resize` may be called meanwhile."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._typed: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting = 0
        self._size = SIZE
        self._terminal: Duplex | None = None
        self._visit: Visit | None = None
        self._began = 0.0

    async def begin(
        self,
        name: str,
        rank: int,
        *,
        container: str = MAIN,
        argv: Sequence[str] = (),
        size: tuple[int, int] = SIZE,
    ) -> None:
        """Open the terminal. Raises `Refused`; then nothing is open."""
        user = self._caller.user.pk
        if _open[user] >= MOST_EACH:
            raise Refused(f"You have {MOST_EACH} terminals open already; close some.", code=429)
        _open[user] += 1
        self._began = time.monotonic()
        try:
            visit = await _in_any_thread(commands.enter)(
                self._caller, name, rank, container=container, shell=not argv
            )
            self._visit = visit
            self._terminal = await self._attach(visit, argv, size)
        except BaseException as problem:
            await self._leave(problem.message if isinstance(problem, Refused) else "It could not be opened.")
            raise
        if self._size != SIZE:  # It came while the terminal was opened.
            await self._terminal.resize(*self._size)

    async def _attach(self, visit: Visit, argv: Sequence[str], size: tuple[int, int]) -> Duplex:
        try:
            engine = connect(visit.attempt.cluster)
            async with asyncio.timeout(TIMEOUTS["attach"]):
                return await engine.attach(_handle(visit), visit.rank, visit.container, argv, size)
        except AttachRefused as refused:
            raise Refused(str(refused), code=409) from None
        except (EngineUnavailable, TimeoutError) as problem:
            why = str(problem) or f"it did not answer within {TIMEOUTS['attach']:g} s"
            raise Refused(
                f"The cluster {visit.attempt.cluster.name} cannot open a terminal now: {why}.", code=503
            ) from None

    def type(self, data: bytes) -> bool:
        """Keys that were typed. False if so much waits already that they were not taken."""
        if self._waiting + len(data) > MOST_TYPED:
            return False
        self._waiting += len(data)
        self._typed.put_nowait(data)
        return True

    async def resize(self, columns: int, lines: int) -> None:
        self._size = (columns, lines)
        if self._terminal is not None:
            await self._terminal.resize(columns, lines)

    async def serve(self, show: Callable[[bytes], Awaitable[None]]) -> End:
        """Carry bytes to the end, which it returns. However it ends, the terminal is hung up after it."""
        assert self._terminal is not None and self._visit is not None
        end = End("The connection was lost.")
        tasks = [
            asyncio.create_task(self._show(self._terminal, show)),
            asyncio.create_task(self._mind(self._visit)),
            asyncio.create_task(self._type(self._terminal)),
        ]
        try:
            # The last of them never ends: what is typed at an end that does not hear it is dropped.
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
            reason = next(task for task in tasks[:2] if task.done()).result()
            end = End(reason, gone=True) if reason else await self._ended(self._terminal, self._visit)
            return end
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._terminal.close()
            await self._leave(end.text)

    async def _show(self, terminal: Duplex, show: Callable[[bytes], Awaitable[None]]) -> str:
        while data := await terminal.read():
            await show(data)
        return ""

    async def _type(self, terminal: Duplex) -> None:
        while True:
            data = await self._typed.get()
            await terminal.write(data)
            self._waiting -= len(data)

    async def _mind(self, visit: Visit) -> str:
        """Wait until there is a reason to end: why."""
        async with hub().subscribe(f"run:{visit.run.pk}") as mailbox:
            while True:
                await mailbox.wait(LOOK_EVERY)
                with suppress(DatabaseError):  # Not an answer: ask again.
                    why: str = await _in_any_thread(_why_not)(visit)
                    if why:
                        return why

    async def _ended(self, terminal: Duplex, visit: Visit) -> End:
        """The command has ended: by itself, or with its run, which the control loop may notice a moment later."""
        if terminal.exit_code in HUNG_UP:
            until = time.monotonic() + END_KNOWN_WITHIN
            async with hub().subscribe(f"run:{visit.run.pk}") as mailbox:
                while time.monotonic() < until:
                    with suppress(DatabaseError):
                        await _in_any_thread(visit.attempt.refresh_from_db)(fields=["status"])
                        if visit.attempt.status != Status.RUNNING:
                            return End(f"Run {visit.run.name} has ended.", gone=True)
                    await mailbox.wait(0.5)
        code = terminal.exit_code
        return End("The command has ended." if code is None else f"The command ended with exit code {code}.")

    async def _leave(self, why: str) -> None:
        _open[self._caller.user.pk] -= 1
        if self._visit is None:
            return
        seconds = time.monotonic() - self._began
        with suppress(DatabaseError):
            # Whoever is cut off here is so because the console stops; the row is written all the same.
            await asyncio.shield(_in_any_thread(commands.leave)(self._visit, seconds=seconds, why=why))


def _handle(visit: Visit) -> Handle:
    return Handle(str(visit.attempt.pk), visit.attempt.handle or {})


def _why_not(visit: Visit) -> str:
    if not still_counts(visit.caller):
        return "Your API key has been revoked or has expired."
    return commands.may_stay(visit)
