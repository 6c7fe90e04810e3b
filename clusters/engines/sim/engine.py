"""The sim engine: what it was told and what time it is decide everything; no rank exists anywhere."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from random import Random
from typing import Any

from clusters.engines.base import (
    MAIN,
    Capacity,
    Engine,
    EngineUnavailable,
    Handle,
    LaunchRejected,
    LaunchSpec,
    LogChunk,
    NodeCapacity,
    Observation,
    file_variables,
    rank_environment,
)
from clusters.engines.sim import faults, script
from clusters.engines.sim.clock import Clock
from clusters.engines.sim.config import Config, parse
from clusters.engines.sim.course import refusal
from clusters.engines.sim.events import Event, Fault, Launched, NodeDown, Opened, Place, Removed, StopAsked
from clusters.engines.sim.journal import File, Journal
from clusters.engines.sim.logs import Reader
from clusters.engines.sim.state import State, parsed

LOOK_EVERY = 0.1
"""Seconds between looks for what other processes have written into the journal."""
TIDY_AT = 2000
"""Events of no more use to anybody, after which the journal is written anew (and more of them than of others)."""
MASTER_PORT = 29_500
TICK = 1e-6


class SimEngine(Engine):
    """Any number of engines, in any processes, show one cluster as long as they share its journal."""

    kind = "sim"
    places = False
    refused_setup = dict.fromkeys(
        ("git_repo", "pip_packages", "apt_packages"),
        "nothing runs on a simulated cluster; leave it out there, or have the script say how it fails: "
        '# sim: fail IntegrationFailed "…" code 128',
    )

    def __init__(self, config: Config, journal: Journal, clock: Clock) -> None:
        self.clock = clock
        self._config = config
        self._journal = journal
        self._nodes = {node.name: node for node in config.nodes}
        self._state = State(config.faults)
        self._draw = Random(config.seed)
        self._bells: set[_Bell] = set()
        self._watching: asyncio.Task[None] | None = None

    async def launch(self, spec: LaunchSpec, key: str) -> Handle:
        async with self._journal.locked(alone=True):
            now = self._catch_up(TICK)
            faults.refuse_if_away(self._state, now)
            known = key in self._state.jobs
            if not known:
                self._append(self._launched(spec, key, now))
            # Pure of the journal: whoever asks again finds it there.
            lost = not known and faults.active(self._state, faults.LOST_REPLIES, now) is not None
        await faults.arrive(self._state, now)
        if lost:
            raise EngineUnavailable("the reply to the launch was lost (a simulated fault)")
        return Handle(key)

    def _launched(self, spec: LaunchSpec, key: str, now: float) -> Launched:
        """The event of a launch. Raises `LaunchRejected`."""
        if self._state.is_removed(key):
            raise LaunchRejected("LaunchRejected", "The attempt was removed before it was started.")
        wanted = script.find(spec.command, spec.env) or self._config.script
        try:
            statements = parsed(wanted)
        except ValueError as problem:
            raise LaunchRejected(
                "InvalidConfig", f"The run's script for the simulation: {problem}."
            ) from None
        seed = f"{self._config.seed}/{key}"
        refused = refusal(statements, spec.attempt_index, seed)
        if refused is not None:
            raise LaunchRejected(refused.reason, refused.message or "The script wants it so.")
        places = self._places(spec, now)
        return Launched(
            at=now,
            key=key,
            attempt=spec.attempt_index,
            places=places,
            script=wanted,
            seed=seed,
            speed=self._config.speed,
            quota=spec.log_quota,
            environments=(
                tuple(_environment(spec, key, places, rank) for rank in range(spec.nodes))
                if any(isinstance(statement, script.Env) for statement in statements)
                else ()
            ),
        )

    def _places(self, spec: LaunchSpec, now: float) -> tuple[Place, ...]:
        """Where the ranks go: where they were placed, else where there is room. Refuses what was given out."""
        if not spec.placements:
            return self._any_places(spec, now)
        found = []
        only = next(iter(self._nodes)) if len(self._nodes) == 1 else ""
        for placement in sorted(spec.placements, key=lambda placement: placement.rank):
            place = Place(placement.node or only, placement.slot, placement.gpus)
            node = self._nodes.get(place.node)
            if node is None:
                raise LaunchRejected("LaunchRejected", f"The cluster has no node {place.node!r}.")
            if place.slot >= node.slots or any(gpu >= node.gpus for gpu in place.gpus):
                raise LaunchRejected("LaunchRejected", f"Node {node.name} has no such slot or GPU: {place}.")
            if len(place.gpus) != spec.gpus_per_node:
                raise LaunchRejected(
                    "LaunchRejected", f"{spec.gpus_per_node} GPUs asked for, placed on {place}."
                )
            holder = self._state.holder(place, now)
            if holder is not None:
                raise LaunchRejected(
                    "LaunchRejected", f"{place} is held by {holder}: it was given out twice."
                )
            found.append(place)
        if len(found) != spec.nodes:
            raise LaunchRejected("LaunchRejected", f"{spec.nodes} nodes asked for, {len(found)} placed.")
        return tuple(found)

    def _any_places(self, spec: LaunchSpec, now: float) -> tuple[Place, ...]:
        found: list[Place] = []
        for node in self._nodes.values():
            free = [
                gpu
                for gpu in range(node.gpus)
                if spec.gpus_per_node and self._state.holder(Place(node.name, -1, (gpu,)), now) is None
            ]
            for slot in range(node.slots):
                if len(found) == spec.nodes or len(free) < spec.gpus_per_node:
                    break
                if self._state.holder(Place(node.name, slot), now) is None:
                    taken, free = free[: spec.gpus_per_node], free[spec.gpus_per_node :]
                    found.append(Place(node.name, slot, tuple(taken)))
        if len(found) < spec.nodes:
            each = f" with {spec.gpus_per_node} GPUs each" if spec.gpus_per_node else ""
            raise LaunchRejected(
                "DoesNotFit", f"{spec.nodes} nodes{each} asked for; there is room for {len(found)}."
            )
        return tuple(found)

    async def observe(self, handles: Collection[Handle]) -> Mapping[str, Observation]:
        state, now = await self._look()
        seen = {handle.key: faults.observe(state, handle.key, now, self._draw) for handle in handles}
        await faults.arrive(state, now)
        return seen

    async def stop(self, handle: Handle, grace: float) -> None:
        async with self._journal.locked(alone=True):
            now = self._catch_up(TICK)
            faults.refuse_if_away(self._state, now)
            job = self._state.jobs.get(handle.key)
            if job is None:
                return
            lives = any(self._state.end(job, rank, now).at > now for rank in range(len(job.courses)))
            if lives and now + max(0.0, grace) < job.kill_at(now):
                self._append(StopAsked(now, handle.key, max(0.0, grace)))

    async def read_logs(
        self,
        handle: Handle,
        rank: int,
        stream: str,
        offset: int,
        stored: Callable[[], int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        """MAIN, and gpu-N once something was written to it; any other stream is complete and empty."""
        state, now = await self._look()
        job = state.jobs.get(handle.key)
        if job is None or rank not in range(len(job.courses)):
            return
        if stream != MAIN and stream not in state.streams(job, rank, now):
            return
        reader = Reader(job, rank, stream, offset)
        with self._bell(handle.key) as bell:
            while True:
                bell.rung.clear()
                state, now = await self._look()
                job = state.jobs.get(handle.key)
                if job is None:
                    return  # Cleaned up.
                reader.job = job
                chunk = reader.read(state, now)
                if chunk is not None:
                    yield chunk
                elif reader.more:
                    await asyncio.sleep(0)
                elif reader.complete:
                    return
                else:
                    ends = state.end(job, rank, now).at
                    await self.clock.wait(bell.rung, min(reader.due if reader.due > now else math.inf, ends))

    async def cleanup(self, handle: Handle) -> None:
        async with self._journal.locked(alone=True):
            now = self._catch_up(TICK)
            faults.refuse_if_away(self._state, now)
            if handle.key in self._state.jobs or not self._state.is_removed(handle.key):
                self._append(Removed(now, handle.key))
            if self._state.dead_events > max(TIDY_AT, len(self._state.jobs)):
                self._journal.replace(self._state.kept(now))

    async def probe(self) -> Capacity:
        state, now = await self._look()
        nodes = tuple(
            replace(node, alive=False) if state.is_down(node.name, now) else node
            for node in self._config.nodes
        )
        notes = (
            "Simulated: nothing runs here. What a run would do stands in the lines of its command that begin "
            "with sim: (see the documentation of engines).",
        )
        return Capacity(nodes, declared=any(node.gpus for node in nodes), notes=notes)

    async def events(self) -> AsyncIterator[str]:
        """Keys of attempts of which a rank has begun or ended."""
        due: list[tuple[float, str]] = []
        with self._bell(None) as bell:
            state, now = await self._look()
            bell.news |= set(state.jobs)
            while True:
                bell.rung.clear()
                with suppress(EngineUnavailable):
                    state, now = await self._look()
                fresh, bell.news = bell.news, set()
                while due and due[0][0] <= now:
                    fresh.add(heapq.heappop(due)[1])
                for key in sorted(fresh):
                    if (at := state.next_change(key, now)) < math.inf:
                        heapq.heappush(due, (at, key))
                    for _ in range(1 if faults.active(state, faults.TWICE, now) is None else 2):
                        yield key
                await self.clock.wait(bell.rung, due[0][0] if due else math.inf)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    # What no engine that is real can be asked for: tests and operators of a demonstration bring it about.

    async def misbehave(self, kind: str, lasts: float, seconds: float = 0.0) -> None:
        """From now on, for so long: one of `faults.KINDS`. In every process that has the cluster."""
        if kind not in faults.KINDS:
            raise ValueError(f"kind: must be one of {', '.join(faults.KINDS)}, not {kind!r}")
        async with self._journal.locked(alone=True):
            now = self._catch_up(TICK)
            self._append(Fault(now, kind, now + lasts, seconds))

    async def lose_node(self, node: str, lasts: float = 600.0) -> None:
        """A node goes down now, with all that is on it."""
        if node not in self._nodes:
            raise ValueError(f"node: there is no {node!r}")
        async with self._journal.locked(alone=True):
            now = self._catch_up(TICK)
            self._append(NodeDown(now, node, now + lasts))

    async def _look(self) -> tuple[State, float]:
        """The cluster as of now, if it answers."""
        async with self._journal.locked(alone=False):
            now = self._catch_up()
        faults.refuse_if_away(self._state, now)
        return self._state, now

    def _catch_up(self, after: float = 0.0) -> float:
        """Take note of what others have recorded. Returns the time, which all of it is not later than, and
        earlier by `after` at the least: no two events shall have the same."""
        events, anew = self._journal.news() if self._journal.grown() else ([], False)
        if anew:
            self._state = State(self._config.faults)
        touched: set[str] = set()
        for event in events:
            touched |= self._state.apply(event)
        # A clock that was set back must not undo what was seen.
        now = max(self.clock.now(), self._state.latest + after)
        touched |= self._state.settle(now)
        self._ring(touched)
        return now

    def _append(self, event: Event) -> None:
        """Record an event, under the lock, and take note of it."""
        if self._state.opened is None:
            self._journal.append(Opened(event.at))
        self._journal.append(event)
        self._catch_up()

    @contextmanager
    def _bell(self, key: str | None) -> Iterator[_Bell]:
        """Something to wait for: news of a job, or with None of any."""
        bell = _Bell(key)
        self._bells.add(bell)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="sim engine: journal")
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    def _ring(self, keys: set[str]) -> None:
        if keys:
            for bell in self._bells:
                bell.ring(keys)

    async def _watch(self) -> None:
        """Look for what other processes write, as long as anybody waits for it."""
        while self._bells:
            await asyncio.sleep(LOOK_EVERY)
            if self._journal.grown():
                with suppress(EngineUnavailable):
                    await self._look()


class _Bell:
    """What one who waits has not heard yet."""

    def __init__(self, key: str | None) -> None:
        self._key = key
        self.rung = asyncio.Event()
        self.news: set[str] = set()

    def ring(self, keys: set[str]) -> None:
        if self._key is None:
            self.news |= keys
        if self._key is None or self._key in keys:
            self.rung.set()


def _environment(spec: LaunchSpec, key: str, places: tuple[Place, ...], rank: int) -> str:
    """What `env` would print, but for what a shell adds."""
    gpus = ",".join(map(str, places[rank].gpus))
    found = {
        **spec.env,
        **dict.fromkeys(spec.secrets, "***"),  # The journal is a file that stays.
        **file_variables(spec.files, lambda path: path),
        "CUDA_VISIBLE_DEVICES": gpus,
        "NVIDIA_VISIBLE_DEVICES": gpus or "void",
        **rank_environment(spec, rank, master_addr=places[0].node, master_port=MASTER_PORT),
        "RUNYARD_ATTEMPT": key,
    }
    return "".join(f"{name}={value}\n" for name, value in sorted(found.items()))


def from_config(config: Mapping[str, Any]) -> Engine:
    """Raises `ValueError`, naming the key, if the configuration is wrong."""
    checked = parse(config)
    assert checked.root is not None
    return SimEngine(checked, File(checked.root), Clock())


def from_nodes(
    nodes: Collection[NodeCapacity], journal: Journal, clock: Clock, *, seed: int = 0
) -> SimEngine:
    """An engine for tests, with a journal and a clock of theirs."""
    return SimEngine(Config(None, seed, 1.0, tuple(nodes), "exit 0", ()), journal, clock)
