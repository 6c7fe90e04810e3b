"""The cluster as a whole: what it offers, and its bell."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import pytest

from clusters.engines.base import Phase
from clusters.engines.registry import ENGINES, build
from clusters.engines.sim.engine import SimEngine
from tests.clusters.engines.conformance.steps import hold, leave, pause
from tests.clusters.engines.conformance.worlds import GPUS, NODES, Can, World


async def test_a_cluster_says_what_it_has_node_by_node(world: World) -> None:
    capacity = await world.engine.probe()
    assert len({node.name for node in capacity.nodes}) == len(capacity.nodes) >= 1
    assert (capacity.slots, capacity.gpus) == (NODES, GPUS)
    assert all(node.name and node.cpus >= 1 and node.alive and node.schedulable for node in capacity.nodes)
    assert {node.gpu_type for node in capacity.nodes if node.gpus} == {"h100"}
    assert all(note.endswith(".") for note in capacity.notes)
    json.dumps(asdict(capacity))


async def test_what_a_cluster_offers_does_not_depend_on_what_runs(world: World) -> None:
    before = await world.engine.probe()
    await world.running(await world.launch(hold(), nodes=4), rank=3)
    assert await world.engine.probe() == before


async def test_the_bell_rings_when_a_rank_begins_and_when_it_ends(world: World) -> None:
    heard: list[str] = []
    listening = asyncio.Event()

    async def listen() -> None:
        events = world.engine.events()
        assert events is not None
        listening.set()
        async for key in events:
            heard.append(key)

    listener = asyncio.create_task(listen())
    await listening.wait()
    await asyncio.sleep(0.05)
    handle = await world.launch(pause(0.2), leave(0))
    await world.exited(handle)

    async def rung() -> bool:
        return len(heard) >= 2

    await world.until(rung)
    assert set(heard) == {handle.key}
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)


async def test_a_closed_engine_leaves_what_it_launched_running(world: World) -> None:
    other = world.another_engine()
    handle = await other.launch(world.spec(hold()), world.new_key())
    await other.close()
    await other.close()
    assert (await world.running(handle)).phase is Phase.RUNNING


@pytest.mark.needs(Can.NODES)
async def test_a_node_that_is_lost_takes_its_ranks_along_and_no_others(world: World) -> None:
    engine = world.engine
    assert isinstance(engine, SimEngine)
    handle = await world.launch(hold(), nodes=2)
    node = (await world.running(handle, 1)).node
    await engine.lose_node(node, lasts=60)
    seen = await world.exited(handle, 1)
    assert (seen.exit_code, seen.reason, seen.stopped) == (None, "NodeFailure", False)
    assert seen.message and seen.node == node
    assert (await world.see(handle, 0)).phase is Phase.RUNNING
    assert [n.name for n in (await engine.probe()).nodes if not n.alive] == [node]


@pytest.mark.parametrize("kind", ENGINES)
def test_a_configuration_with_an_unknown_key_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^no_such_key: .*allowed are"):
        build(kind, {"no_such_key": 1})


def test_an_unknown_kind_of_engine_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        build("no-such-engine", {})
