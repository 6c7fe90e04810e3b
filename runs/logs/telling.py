"""Which of a rank's streams says most about why it failed: its own, or a file of one of its GPUs' processes."""

from __future__ import annotations

from collections.abc import Iterable

from clusters.engines.base import MAIN
from runs.logs import store
from runs.logs.findings import is_consequence
from runs.models import LogStream


def most_telling(streams: Iterable[LogStream]) -> LogStream | None:
    """The one with a traceback that no other one led to, the earliest of several; MAIN where nothing decides."""

    def order(stream: LogStream) -> tuple[bool, bool, float, bool]:
        found = stream.findings.get("first")
        time = (store.time_at(store.location(stream), found["offset"]) or 0.0) if found else 0.0
        return not found, bool(found) and is_consequence(found["text"]), time, stream.name != MAIN

    return min(streams, key=order, default=None)
