"""Kinds of engine, and how fresh what we know of a cluster is. Pure data."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

CPU = "None"
"""The GPU type of what has no GPU, as the client spells it (mapi §7.16)."""


class Engine(StrEnum):
    PROCESS = "process"
    SIM = "sim"


class Sight(StrEnum):
    """Whether a cluster can be observed: an axis of its own, never a status of a run."""

    FRESH = "fresh"
    STALE = "stale"
    LOST = "lost"


STALE_AFTER = timedelta(seconds=30)
LOST_AFTER = timedelta(minutes=5)
LOOP_LATE_AFTER = timedelta(seconds=30)
"""The control loop goes over every cluster each few seconds. Not for so long: it does not run."""


def sight(seen_at: datetime | None, now: datetime) -> Sight:
    """How well a cluster that was last seen at `seen_at` can be seen `now`."""
    if seen_at is None or now - seen_at > LOST_AFTER:
        return Sight.LOST
    return Sight.STALE if now - seen_at > STALE_AFTER else Sight.FRESH


def loop_is_late(swept_at: datetime | None, created_at: datetime, now: datetime) -> bool:
    """Whether the control loop, which last looked at a cluster at `swept_at`, should have looked again by now."""
    return now - (swept_at or created_at) > LOOP_LATE_AFTER
