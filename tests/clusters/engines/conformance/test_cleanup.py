"""Cleaning up, and a cluster that cannot be reached."""

from __future__ import annotations

import asyncio

import pytest

from clusters.engines.base import EngineUnavailable, Handle, Phase
from tests.clusters.engines.conformance.steps import hold, leave, pause, say
from tests.clusters.engines.conformance.worlds import World


async def test_what_was_cleaned_up_is_gone_with_its_log(world: World) -> None:
    handle = await world.launch(say("x"))
    await world.exited(handle)
    await world.engine.cleanup(handle)
    assert (await world.look(handle)).gone
    assert await world.chunks(handle) == []


async def test_cleaning_up_twice_or_what_never_was_is_silent(world: World) -> None:
    handle = await world.launch(leave(0))
    await world.exited(handle)
    for _ in range(2):
        await world.engine.cleanup(handle)
    await world.engine.cleanup(Handle(world.new_key()))


async def test_cleaning_up_what_lives_ends_it_and_frees_what_it_held(world: World) -> None:
    handle = await world.launch(say("ready"), hold(), nodes=4)
    await world.said(handle, "ready", 3)
    await world.engine.cleanup(Handle(handle.key))
    assert (await world.look(handle)).gone
    again = await world.launch(leave(0), nodes=4)
    assert (await world.exited(again, 3)).exit_code == 0


async def test_who_follows_the_log_of_what_is_cleaned_up_comes_to_an_end(world: World) -> None:
    handle = await world.launch(say("ready"), hold())
    await world.said(handle, "ready")
    following = asyncio.create_task(world.logs(handle))
    await world.running(handle)
    await world.another_engine().cleanup(handle)
    assert await following == b"ready\n"


async def test_cleaning_up_leaves_other_attempts_alone(world: World) -> None:
    first, second = await world.launch(leave(0)), await world.launch(say("still"), pause(0.2), leave(3))
    await world.exited(first)
    await world.engine.cleanup(first)
    assert (await world.exited(second)).exit_code == 3
    assert await world.logs(second) == b"still\n"


async def test_an_unreachable_cluster_says_so_whatever_is_asked(world: World) -> None:
    handle = await world.launch(hold())
    async with world.unreachable():
        engine = world.engine
        asked = (
            engine.launch(world.spec(leave(0)), world.new_key()),
            engine.observe([handle]),
            engine.stop(handle, 1),
            engine.cleanup(handle),
            engine.probe(),
            anext(engine.read_logs(handle, 0, "MAIN", 0)),
        )
        for call in asked:
            with pytest.raises(EngineUnavailable):
                await call
    assert (await world.running(handle)).phase is Phase.RUNNING, "nobody has touched it"


async def test_what_ended_unseen_has_its_true_outcome_and_time_afterwards(world: World) -> None:
    handle = await world.launch(say("working"), pause(0.3), leave(3))
    began = world.now()
    async with world.unreachable():
        pass
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped, seen.reason) == (3, False, None)
    assert seen.ended_at is not None and seen.ended_at.timestamp() <= began + 30
    assert await world.logs(handle) == b"working\n"


async def test_a_launch_that_did_not_reach_the_cluster_has_started_nothing(world: World) -> None:
    key = world.new_key()
    async with world.unreachable():
        with pytest.raises(EngineUnavailable):
            await world.launch(say("once"), key=key)
    assert (await world.look(Handle(key))).gone
    handle = await world.launch(say("once"), key=key)
    assert await world.logs(handle) == b"once\n"
