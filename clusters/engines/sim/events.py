"""What is recorded of a simulated cluster, and nothing else is: everything that follows from it is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    at: float
    """Unix time. Events are in its order."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one rank is."""

    node: str
    slot: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """The first event of all: faults that the configuration plans are counted from here."""


@dataclass(frozen=True, slots=True)
class Launched(Event):
    key: str
    attempt: int
    places: tuple[Place, ...]
    """One for each rank."""
    script: str
    seed: str
    speed: float
    quota: int
    environments: tuple[str, ...] = ()
    """What `env` writes, for each rank, if the script has that word: nobody else needs to know it."""


@dataclass(frozen=True, slots=True)
class StopAsked(Event):
    key: str
    grace: float


@dataclass(frozen=True, slots=True)
class Removed(Event):
    key: str


@dataclass(frozen=True, slots=True)
class NodeDown(Event):
    node: str
    until: float


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """How the engine itself misbehaves, and until when: see `faults.KINDS`."""

    kind: str
    until: float
    seconds: float = 0.0
    every: float = 0.0
    """It comes again after so long; 0 = never."""

    def active(self, now: float) -> bool:
        passed = now - self.at
        if passed < 0:
            return False
        return (passed % self.every if self.every else passed) < self.until - self.at


_KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind for kind in (Opened, Launched, StopAsked, Removed, NodeDown, Fault)
}


def encode(event: Event) -> bytes:
    """One line."""
    return (
        json.dumps({"event": type(event).__name__, **asdict(event)}, separators=(",", ":")).encode() + b"\n"
    )


def decode(line: bytes) -> Event | None:
    """None for what is no event: a line that a process has not written to its end before it died."""
    try:
        fields: dict[str, Any] = json.loads(line)
        kind = _KINDS[fields.pop("event")]
        if kind is Launched:
            fields["places"] = tuple(
                Place(place["node"], place["slot"], tuple(place["gpus"])) for place in fields["places"]
            )
            fields["environments"] = tuple(fields["environments"])
        return kind(**fields)
    except (ValueError, KeyError, TypeError):
        return None
