"""The cluster's time: the host's, or one that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import time
from contextlib import suppress


class Clock:
    """The host's time. `jump` moves it ahead, for tests that have hours to pass and a database to keep step."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Unix time, in seconds."""
        return time.time() + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds

    async def wait(self, changed: asyncio.Event, until: float) -> None:
        """Return when `changed` is set, or at the time `until`, or somewhat earlier."""
        # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the change.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(until - self.now(), 3600.0))):
                await changed.wait()


class ManualClock(Clock):
    """Stands still until it is moved. Whoever waits for a time is woken when that has come."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._alarms: list[tuple[float, int, asyncio.Event]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds
        while self._alarms and self._alarms[0][0] <= self._now:
            heapq.heappop(self._alarms)[2].set()

    async def wait(self, changed: asyncio.Event, until: float) -> None:
        if until <= self._now:
            await asyncio.sleep(0)
            return
        self._count += 1
        heapq.heappush(self._alarms, (until, self._count, changed))
        await changed.wait()
