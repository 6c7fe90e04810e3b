"""The cluster at a time: events in, what every rank does out. Pure.

Nothing is stepped forward. A rank's end is computed from its course, the stops that were asked for, and
the times at which its node was down; asked for an earlier time, the answer is what was true then.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache

from clusters.engines.base import Observation, Phase, RankObservation
from clusters.engines.sim import script
from clusters.engines.sim.course import Course, chart
from clusters.engines.sim.events import Event, Fault, Launched, NodeDown, Opened, Place, Removed, StopAsked

BURIED = 24 * 3600.0
"""Seconds for which a removed key is remembered: a launch that comes later than that was lost for good."""

parsed = lru_cache(maxsize=1024)(script.parse)


@dataclass(frozen=True, slots=True)
class End:
    """How and when a rank ends, as far as is known by now; `at` may be inf."""

    at: float
    exit_code: int | None = 0
    reason: str | None = None
    message: str = ""
    case: str = ""
    stopped: bool = False
    begun: bool = True
    """Its command began."""


@dataclass
class Job:
    """One attempt that was launched."""

    launched: Launched
    stops: list[StopAsked] = field(default_factory=list)

    @cached_property
    def courses(self) -> list[Course]:
        it = self.launched
        return [
            chart(
                parsed(it.script),
                rank=rank,
                attempt=it.attempt,
                environment=it.environments[rank] if it.environments else "",
                seed=it.seed,
                speed=it.speed,
            )
            for rank in range(len(it.places))
        ]

    def term_at(self, now: float) -> float:
        """When TERM was sent, as was known at `now`; inf = it was not."""
        return self.stops[0].at if self.stops and self.stops[0].at <= now else math.inf

    def kill_at(self, now: float) -> float:
        return min((stop.at + stop.grace for stop in self.stops if stop.at <= now), default=math.inf)


class State:
    def __init__(self, planned: Collection[Fault] = ()) -> None:
        """`planned` are faults that come by themselves; their times count from when the cluster was opened."""
        self.jobs: dict[str, Job] = {}
        self.opened: float | None = None
        self._planned = planned
        self._faults: list[Fault] = []
        self.latest = 0.0
        """The time of the last event: the cluster's time does not run back behind it."""
        self.dead_events = 0
        """Events that need not be kept."""
        self._removed: dict[str, float] = {}
        self._down: dict[str, list[tuple[float, float]]] = {}
        self._losses: list[tuple[float, str, int]] = []
        """Nodes that will be lost by what is on them: when, with which job and rank."""
        self._holders: dict[tuple[Place, int | None], tuple[str, int]] = {}

    def apply(self, event: Event) -> set[str]:
        """Take note of an event. Returns the keys of the jobs for which it may change something."""
        touched = self.settle(event.at)
        self.latest = max(self.latest, event.at)
        match event:
            case Opened():
                self.opened = event.at
            case Launched(key=key):
                job = self.jobs[key] = Job(event)
                for rank, place in enumerate(event.places):
                    self._hold(key, rank, place)
                if "lose" in event.script:
                    for rank, course in enumerate(job.courses):
                        if course.loses_node is not None:
                            heapq.heappush(self._losses, (event.at + course.ends, key, rank))
                touched.add(key)
            case StopAsked(key=key):
                if key in self.jobs:
                    self.jobs[key].stops.append(event)
                    touched.add(key)
            case Removed(key=key):
                self._removed[key] = event.at
                if (gone := self.jobs.pop(key, None)) is not None:
                    self.dead_events += 1 + len(gone.stops)
                    touched.add(key)
            case NodeDown(node=node, until=until):
                touched |= self._lose(node, event.at, until)
            case Fault():
                self._faults.append(event)
        return touched

    def _hold(self, key: str, rank: int, place: Place) -> None:
        for what in _parts(place):
            self._holders[what] = (key, rank)

    def settle(self, now: float) -> set[str]:
        """Take down the nodes that ranks have lost by `now`. Returns the keys of what was on them."""
        touched: set[str] = set()
        while self._losses and self._losses[0][0] <= now:
            at, key, rank = heapq.heappop(self._losses)
            job = self.jobs.get(key)
            if job is not None:
                end = self.end(job, rank, at)
                lasts = job.courses[rank].loses_node
                if end.at == at and not end.stopped and lasts is not None:
                    touched |= self._lose(job.launched.places[rank].node, at, at + lasts)
        return touched

    def _lose(self, node: str, at: float, until: float) -> set[str]:
        self._down.setdefault(node, []).append((at, until))
        return {
            key for key, job in self.jobs.items() if any(place.node == node for place in job.launched.places)
        }

    def faults(self, kind: str) -> Iterator[Fault]:
        """All of a kind, those that are over and those to come included."""
        for fault in self._planned:
            if fault.kind == kind and self.opened is not None:
                yield replace(fault, at=self.opened + fault.at, until=self.opened + fault.until)
        yield from (fault for fault in self._faults if fault.kind == kind)

    def is_removed(self, key: str) -> bool:
        return key in self._removed

    def is_down(self, node: str, now: float) -> bool:
        return any(since <= now < until for since, until in self._down.get(node, ()))

    def holder(self, place: Place, now: float) -> str | None:
        """The key of a job that has a living rank on one of the slot and GPUs of a place."""
        for what in _parts(place):
            key, rank = self._holders.get(what, ("", 0))
            if key in self.jobs and self.end(self.jobs[key], rank, now).at > now:
                return key
        return None

    def end(self, job: Job, rank: int, now: float) -> End:
        """How and when a rank ends, by what was known at `now`."""
        course, launched = job.courses[rank], job.launched.at
        starts, natural = launched + course.starts, launched + course.ends
        term, kill = job.term_at(now), job.kill_at(now)
        it = course
        if term >= natural:
            end = End(natural, it.exit_code, it.reason, it.message, it.case, begun=starts <= natural)
        elif term < starts:
            end = End(term, 143, stopped=True, begun=False)
        elif it.on_term.ignore:
            end = End(natural, it.exit_code, it.reason, it.message, it.case, stopped=True)
            if kill < natural:
                end = End(kill, 137, stopped=True)
        else:
            leaves = term + it.on_term.after
            end = (
                End(leaves, it.on_term.code, stopped=True) if leaves <= kill else End(kill, 137, stopped=True)
            )
        node = job.launched.places[rank].node
        if self.is_down(node, launched):
            message = "the node was down when the rank came to it"
            return End(launched, None, "NodeFailure", message, begun=False)
        down = self._down_since(node, launched, now)
        if down < end.at:
            begun, stopped = starts <= down, down > term
            return End(down, None, "NodeFailure", "the node went down", stopped=stopped, begun=begun)
        return end

    def _down_since(self, node: str, launched: float, now: float) -> float:
        """When a node first went down after a launch, as was known at `now`; inf = it did not."""
        return min((at for at, _ in self._down.get(node, ()) if launched < at <= now), default=math.inf)

    def observe(self, key: str, now: float) -> Observation:
        """What is there of an attempt at `now`."""
        job = self.jobs.get(key)
        if job is None or job.launched.at > now:
            return Observation(gone=True)
        return Observation(
            tuple(self._observe_rank(job, rank, now) for rank in range(len(job.launched.places)))
        )

    def _observe_rank(self, job: Job, rank: int, now: float) -> RankObservation:
        node = job.launched.places[rank].node
        starts = job.launched.at + job.courses[rank].starts
        end = self.end(job, rank, now)
        if end.at <= now:
            return RankObservation(
                rank=rank,
                phase=Phase.EXITED,
                node=node,
                exit_code=end.exit_code,
                started_at=_time(starts) if end.begun else None,
                ended_at=_time(end.at),
                reason=end.reason,
                message=end.message,
                case=end.case,
                stopped=end.stopped,
                streams=self.streams(job, rank, now),
            )
        if starts > now:
            return RankObservation(rank=rank, phase=Phase.STARTING, node=node)
        return RankObservation(
            rank=rank,
            phase=Phase.RUNNING,
            node=node,
            started_at=_time(starts),
            streams=self.streams(job, rank, now),
        )

    def streams(self, job: Job, rank: int, now: float) -> tuple[str, ...]:
        """The streams beside MAIN to which a rank has written by `now`."""
        course, end = job.courses[rank], self.end(job, rank, now)
        until = min(now, end.at) if course.on_term.ignore else min(now, end.at, job.term_at(now))
        begun = course.streams.items() if end.begun else ()
        return tuple(stream for stream, at in begun if job.launched.at + at <= until)

    def next_change(self, key: str, now: float) -> float:
        """When, after `now`, the next rank of a job begins, ends or opens a stream by itself; inf = not by itself."""
        job = self.jobs.get(key)
        if job is None:
            return math.inf
        times = [job.launched.at + course.starts for course in job.courses]
        times += [self.end(job, rank, now).at for rank in range(len(times))]
        times += [job.launched.at + at for course in job.courses for at in course.streams.values()]
        return min((at for at in times if at > now), default=math.inf)

    def kept(self, now: float) -> Iterator[Event]:
        """The events that still matter, in their order: all that another needs to know."""
        found: list[Event] = [] if self.opened is None else [Opened(self.opened)]
        found += [fault for fault in self._faults if fault.until > now]
        found += [Removed(at, key) for key, at in self._removed.items() if at > now - BURIED]
        oldest = min((job.launched.at for job in self.jobs.values()), default=now)
        found += [
            NodeDown(at, node, until)
            for node, times in self._down.items()
            for at, until in set(times)
            if until > min(oldest, now)
        ]
        for job in self.jobs.values():
            found += [job.launched, *job.stops]
        return iter(sorted(found, key=lambda event: event.at))


def _parts(place: Place) -> Iterator[tuple[Place, int | None]]:
    """The things of a node that a rank holds alone: its slot, and its GPUs."""
    yield Place(place.node, place.slot), None
    for gpu in place.gpus:
        yield Place(place.node, -1), gpu


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
