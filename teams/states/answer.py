"""What is known of an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Answer:
    """Whether the answer to one request got through to whoever asked: not known yet, it did, or it did not.

    Safe in threads: a command waits to hear of it in one, the connection is watched in another.
    """

    def __init__(self) -> None:
        self.received: bool | None = None
        self.repeatable = False
        """The request may be sent again without doing anything twice."""
        self._lock = threading.Lock()
        self._waiting: list[Callable[[bool], None]] = []

    @property
    def awaited(self) -> bool:
        """Whether somebody wants to hear of it."""
        return bool(self._waiting)

    def then(self, act: Callable[[bool], None]) -> None:
        """Call `act(received)` as soon as it is known; now, if it is."""
        with self._lock:
            if self.received is None:
                self._waiting.append(act)
                return
        act(self.received)

    def settle(self, received: bool) -> None:
        """Say so. The first word counts."""
        with self._lock:
            if self.received is not None:
                return
            self.received = received
            waiting, self._waiting = self._waiting, []
        for act in waiting:
            act(received)
