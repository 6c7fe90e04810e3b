"""Ends a worker that hears nothing any more.

After a broker's restart a Celery worker may live on without ever consuming again; its health looks fine. The
sweep rings every few seconds, so a minute of silence means that the worker, the broker or beat is broken:
starting anew mends the first, and does no harm in the other cases. Whoever supervises it does the rest.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

SILENCE = 60.0
"""Seconds without a task."""


class Watchdog:
    """`note` every task; `end` is called once when there was none for `SILENCE` seconds."""

    def __init__(
        self, end: Callable[[], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._end = end or _exit
        self._clock = clock
        self._last = clock()

    def note(self, **_: object) -> None:
        self._last = self._clock()

    def look(self) -> bool:
        """Whether it was silent for too long; then the end is made."""
        if self._clock() - self._last < SILENCE:
            return False
        self._end()
        return True

    def start(self, **_: object) -> None:
        """Look every few seconds, in a thread of its own."""
        self.note()
        threading.Thread(target=self._keep_looking, name="watchdog", daemon=True).start()

    def _keep_looking(self) -> None:
        while not self.look():
            time.sleep(5)


def _exit() -> None:
    log.error("no task came for a minute: this worker ends, to be started anew")
    # Not sys.exit: this is a thread, and the main one may be what hangs. Every task may die (design rule 4).
    os._exit(75)
