"""How a simulated engine misbehaves towards whoever asks it, while what it runs goes on undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from random import Random

from clusters.engines.base import EngineUnavailable, Observation
from clusters.engines.sim.state import State

AWAY = "away"
STALE = "stale"
UNORDERED = "unordered"
LATE = "late"
TWICE = "twice"
LOST_REPLIES = "lost replies"

KINDS: Mapping[str, str] = {
    AWAY: "nothing is answered: EngineUnavailable",
    STALE: "what is observed is `seconds` old; what was launched since then is missing in it",
    UNORDERED: "what is observed is up to `seconds` old, one answer newer and the next one older",
    LATE: "answers are true when they are made, and arrive `seconds` later",
    TWICE: "each rank is in an answer twice, in any order, once as it is and once as it was `seconds` ago",
    LOST_REPLIES: "a launch takes place, and its first answer is lost: EngineUnavailable",
}


def active(state: State, kind: str, now: float) -> float | None:
    """The `seconds` of a fault that is on at `now`, None if it is not."""
    return max((fault.seconds for fault in state.faults(kind) if fault.active(now)), default=None)


def refuse_if_away(state: State, now: float) -> None:
    if active(state, AWAY, now) is not None:
        raise EngineUnavailable("the cluster does not answer (a simulated fault)")


def observe(state: State, key: str, now: float, draw: Random) -> Observation:
    """What the engine says of an attempt: what is true, or what a fault makes of it."""
    unordered = active(state, UNORDERED, now)
    then = now - (active(state, STALE, now) or 0.0) - (draw.uniform(0, unordered) if unordered else 0.0)
    seen = state.observe(key, then)
    before = active(state, TWICE, now)
    if before is None:
        return seen
    ranks = [*seen.ranks, *state.observe(key, then - before).ranks]
    draw.shuffle(ranks)
    return replace(seen, ranks=tuple(ranks))


async def arrive(state: State, now: float) -> None:
    """Wait as long as an answer is late: in real time, as whoever waits for it does."""
    seconds = active(state, LATE, now)
    if seconds is not None:
        await asyncio.sleep(seconds)
