"""Runs on several nodes, on a simulated cluster and the plan alone: all ranks or none, whatever the order of things.

The engine refuses what was given out twice, so a fault in the plan cannot hide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from uuid import UUID

from clusters.engines.base import Handle, LaunchSpec, NodeCapacity, Phase
from clusters.engines.sim.clock import ManualClock
from clusters.engines.sim.engine import SimEngine, from_nodes
from clusters.engines.sim.journal import Memory
from runs.control.plan import Held, Need, Node, Waiting, plan

SEEDS = 10_000
NODES = 8


@dataclass
class Queue:
    """What the control loop does with a queue, without its database: plan, launch, look, release."""

    engine: SimEngine
    clock: ManualClock
    nodes: list[Node]
    waiting: list[tuple[Waiting, str]] = field(default_factory=list)
    """With the script of each."""
    running: dict[UUID, Held] = field(default_factory=dict)
    order: list[UUID] = field(default_factory=list)
    """Those that started, in that order."""

    async def place(self) -> None:
        decided = plan(self.nodes, list(self.running.values()), [waiting for waiting, _ in self.waiting])
        assert decided.preempted == {}
        by_id = {waiting.id: (waiting, script) for waiting, script in self.waiting}
        for id, places in decided.placed:
            waiting, script = by_id[id]
            need = waiting.need
            spec = LaunchSpec(
                run_name="r",
                attempt_index=0,
                image="",
                command="",
                nodes=need.ranks,
                gpus_per_node=need.gpus,
                cpus=need.cpus,
                env={"SIM_SCRIPT": script},
                placements=tuple(places),
            )
            await self.engine.launch(spec, str(id))
            since = datetime.fromtimestamp(self.clock.now(), UTC)
            self.running[id] = Held(id, tuple(places), need.cpus, 1, False, False, since)
            self.order.append(id)
        started = {id for id, _ in decided.placed}
        self.waiting = [entry for entry in self.waiting if entry[0].id not in started]

    async def look(self) -> None:
        """Release what has ended; every rank of what runs is there."""
        seen = await self.engine.observe([Handle(str(id)) for id in self.running])
        for id in list(self.running):
            ranks = seen[str(id)].ranks
            assert len(ranks) == len(self.running[id].placements)
            if all(rank.phase is Phase.EXITED for rank in ranks):
                del self.running[id]


async def test_two_runs_on_five_of_eight_nodes_each_never_wait_for_each_other() -> None:
    """With smaller ones in between, in 10,000 orders of coming and going."""
    for seed in range(SEEDS):
        draw = Random(seed)
        clock = ManualClock()
        engine = from_nodes([NodeCapacity(f"n{n}", 8, 1) for n in range(NODES)], Memory(), clock, seed=seed)
        queue = Queue(engine, clock, [Node(f"n{n}", "None", (0,), (), 8) for n in range(NODES)])
        sizes = [5, 5, *(draw.randint(1, 3) for _ in range(draw.randint(0, 2)))]
        draw.shuffle(sizes)
        coming = [
            (Waiting(UUID(int=draw.getrandbits(128)), Need(size, 0, 1), 1), f"run {draw.randint(1, 60)}s")
            for size in sizes
        ]
        submitted = [waiting.id for waiting, _ in coming]
        for _ in range(40):
            if coming and draw.random() < 0.6:
                queue.waiting.append(coming.pop(0))
            await queue.place()
            clock.jump(draw.randint(1, 20))
            await queue.look()
            if not (coming or queue.waiting or queue.running):
                break
        assert sorted(queue.order) == sorted(submitted), f"seed {seed}: {queue.waiting}"
        large = [id for id, size in zip(submitted, sizes, strict=True) if size == 5]
        assert [id for id in queue.order if id in large] == large, "the older of two alike goes first"
