"""One truth: whatever happens to a cluster, what was seen stays so, and every reader sees the same."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.engines.base import (
    MAIN,
    EngineUnavailable,
    Handle,
    LaunchRejected,
    NodeCapacity,
    Phase,
    RankObservation,
)
from clusters.engines.sim import faults
from clusters.engines.sim.clock import ManualClock
from clusters.engines.sim.config import Config
from clusters.engines.sim.engine import SimEngine
from clusters.engines.sim.journal import File
from tests.clusters.engines.sim.test_engine import spec

SCRIPTS = [
    'log "a"; run 5s; log "b"; exit 3',
    'log "step {n}" every 3s times 8; err "end"; exit 1 on rank 1',
    'on term ignore; log "deaf {n}" every 2s',
    'on term exit 7 after 4s log "bye"; log "ready"; hang',
    'pull 6s; log "pulled"; run 3s..30s',
    "pull 4s; pull error NotFound",
    'run 8s; lose node for 20s; log "never"',
    "env; oom on rank 1; run 20s",
]
PHASES = list(Phase)


class Witness:
    """Two engines on one journal, and what was seen of every rank so far."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock()
        nodes = tuple(NodeCapacity(f"n{n}", 4, 2) for n in range(6))
        config = Config(root, 3, 1.0, nodes, "exit 0", ())
        self.engines = [SimEngine(config, File(root), self.clock) for _ in range(2)]
        self.keys: list[str] = []
        self.seen: dict[tuple[str, int], RankObservation] = {}
        self.read: dict[tuple[str, int], bytes] = {}
        self.removed: set[str] = set()

    async def look(self) -> None:
        handles = [Handle(key) for key in self.keys]
        first, second = [await engine.observe(handles) for engine in self.engines]
        assert first == second, "two engines at one time see the same"
        for key in self.keys:
            assert first[key].gone == (key in self.removed)
            for rank in first[key].ranks:
                before = self.seen.get((key, rank.rank))
                if before is not None:
                    assert PHASES.index(rank.phase) >= PHASES.index(before.phase)
                    assert before.started_at in (None, rank.started_at)
                    if before.phase is Phase.EXITED:
                        assert rank == before, "an end, once seen, is for ever"
                self.seen[(key, rank.rank)] = rank
            for number in range(len(first[key].ranks)):
                await self.read_on(key, number)

    async def read_on(self, key: str, rank: int) -> None:
        """Read what has come, from where we are; what was read before is what a new reader reads."""
        known = self.read.get((key, rank), b"")
        known += await so_far(self.engines[0], key, rank, len(known))
        assert await so_far(self.engines[1], key, rank, 0) == known
        self.read[(key, rank)] = known


async def so_far(engine: SimEngine, key: str, rank: int, offset: int) -> bytes:
    """What of a log has come by now: reading stops where it would wait."""
    found = b""
    stream = engine.read_logs(Handle(key), rank, MAIN, offset)
    try:
        while True:
            waiting = asyncio.ensure_future(anext(stream))
            for _ in range(5):
                await asyncio.sleep(0)
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return found
            chunk = waiting.result()
            assert chunk.offset == offset + len(found)
            found += chunk.data
    except StopAsyncIteration:
        return found


steps = st.lists(
    st.tuples(
        st.sampled_from(["launch", "launch", "wait", "wait", "wait", "stop", "lose", "cleanup", "tidy", "away"]),
        st.integers(0, 2**16),
    ),
    min_size=5,
    max_size=40,
)  # fmt: skip


@settings(max_examples=60)
@given(steps)
def test_what_was_seen_stays_so_and_everybody_sees_the_same(found: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(_live_through(Witness(Path(folder)), found))


async def _live_through(it: Witness, found: list[tuple[str, int]]) -> None:
    for what, number in found:
        draw = Random(number)
        engine = draw.choice(it.engines)
        living = [key for key in it.keys if key not in it.removed]
        if what == "launch":
            with suppress(LaunchRejected):  # No room is left.
                key = str(uuid.UUID(int=draw.getrandbits(128)))
                await engine.launch(spec(draw.choice(SCRIPTS), nodes=draw.randint(1, 3)), key)
                it.keys += [key] if key not in it.keys else []
        elif what == "wait":
            it.clock.jump(draw.choice([0.0, 0.5, 2.0, 7.0, 40.0]))
        elif what == "lose":
            await engine.lose_node(f"n{draw.randrange(6)}", draw.choice([1.0, 15.0]))
        elif what == "tidy":
            async with engine._journal.locked(alone=True):
                engine._journal.replace(engine._state.kept(engine._catch_up()))
        elif what == "away":
            await engine.misbehave(faults.AWAY, 3.0)
            try:
                await engine.observe([])
                raise AssertionError("it answered")
            except EngineUnavailable:
                it.clock.jump(4.0)
        elif living and what == "stop":
            await engine.stop(Handle(draw.choice(living)), draw.choice([0.0, 1.0, 10.0]))
        elif living and what == "cleanup":
            key = draw.choice(living)
            await engine.cleanup(Handle(key))
            it.removed.add(key)
        await it.look()
    for one in it.engines:
        await one.close()
