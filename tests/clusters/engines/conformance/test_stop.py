"""Stopping: TERM, grace, KILL; from every stage, any number of times, by anybody."""

from __future__ import annotations

import pytest

from clusters.engines.base import Handle, Phase
from tests.clusters.engines.conformance.steps import deaf, hold, leave, on_term, pause, pull, say
from tests.clusters.engines.conformance.worlds import Can, World


async def test_what_dies_of_term_is_143_and_stopped(world: World) -> None:
    handle = await world.launch(say("ready"), hold())
    await world.said(handle, "ready")
    await world.engine.stop(handle, 30)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped, seen.reason) == (143, True, None)


async def test_the_command_may_say_goodbye_and_its_code_counts(world: World) -> None:
    handle = await world.launch(on_term("bye", 7), say("ready"), hold())
    await world.said(handle, "ready")
    await world.engine.stop(handle, 30)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped, seen.reason) == (7, True, None)
    assert await world.logs(handle) == b"ready\nbye\n"


async def test_what_exits_0_at_term_was_stopped_all_the_same(world: World) -> None:
    handle = await world.launch(on_term("saved", 0), say("ready"), hold())
    await world.said(handle, "ready")
    await world.engine.stop(handle, 30)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped) == (0, True)


async def test_what_ignores_term_is_killed_after_the_grace_and_not_before(world: World) -> None:
    handle = await world.launch(deaf(), say("ready"), hold())
    await world.said(handle, "ready")
    asked = world.now()
    await world.engine.stop(handle, 0.4)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped) == (137, True)
    assert seen.ended_at is not None and seen.ended_at.timestamp() >= asked + 0.39


async def test_stopping_returns_before_the_rank_has_ended(world: World) -> None:
    handle = await world.launch(deaf(), say("ready"), hold())
    await world.said(handle, "ready")
    await world.engine.stop(handle, 600)
    assert (await world.see(handle)).phase is Phase.RUNNING


async def test_a_second_stop_shortens_the_grace(world: World) -> None:
    handle = await world.launch(deaf(), say("ready"), hold())
    await world.said(handle, "ready")
    await world.engine.stop(handle, 6000)
    await world.engine.stop(handle, 0.1)
    assert (await world.exited(handle)).exit_code == 137


async def test_a_second_stop_never_lengthens_the_grace(world: World) -> None:
    handle = await world.launch(deaf(), say("ready"), hold())
    await world.said(handle, "ready")
    await world.engine.stop(handle, 0.3)
    await world.engine.stop(handle, 6000)
    assert (await world.exited(handle)).exit_code == 137


async def test_the_same_stop_sent_five_times_is_one(world: World) -> None:
    handle = await world.launch(on_term("bye", 7), say("ready"), hold())
    await world.said(handle, "ready")
    for _ in range(5):
        await world.engine.stop(handle, 30)
    assert (await world.exited(handle)).exit_code == 7
    assert await world.logs(handle) == b"ready\nbye\n"


async def test_a_stop_reaches_every_rank(world: World) -> None:
    handle = await world.launch(say("ready"), hold(), nodes=3)
    for rank in range(3):
        await world.said(handle, "ready", rank)
    await world.engine.stop(handle, 30)
    seen = [await world.exited(handle, rank) for rank in range(3)]
    assert [(rank.exit_code, rank.stopped) for rank in seen] == [(143, True)] * 3


async def test_of_several_ranks_those_that_had_ended_were_not_stopped(world: World) -> None:
    handle = await world.launch(leave(5, rank=1), say("ready"), hold(), nodes=2)
    await world.exited(handle, 1)
    await world.said(handle, "ready", 0)
    await world.engine.stop(handle, 30)
    seen = [await world.exited(handle, rank) for rank in range(2)]
    assert [(rank.exit_code, rank.stopped) for rank in seen] == [(143, True), (5, False)]


async def test_a_stop_right_after_the_launch_ends_it_however_far_it_has_come(world: World) -> None:
    handle = await world.launch(hold(), nodes=2)
    await world.engine.stop(handle, 30)
    for rank in (0, 1):
        seen = await world.exited(handle, rank)
        assert (seen.exit_code, seen.stopped) == (143, True)


@pytest.mark.needs(Can.IMAGES)
async def test_a_stop_while_the_image_is_pulled_never_lets_the_command_run(world: World) -> None:
    handle = await world.launch(pull(60), say("ran"))
    await world.engine.stop(handle, 30)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped, seen.started_at) == (143, True, None)
    assert await world.logs(handle) == b""


async def test_what_ended_by_itself_is_not_stopped_by_a_later_stop(world: World) -> None:
    handle = await world.launch(leave(0))
    before = await world.exited(handle)
    await world.engine.stop(handle, 1)
    assert await world.exited(handle) == before
    assert not before.stopped


async def test_stopping_what_is_not_there_is_silent(world: World) -> None:
    await world.engine.stop(Handle(world.new_key()), 1)


async def test_a_stop_leaves_other_attempts_alone(world: World) -> None:
    stopped, other = await world.launch(hold()), await world.launch(pause(0.2), leave(3))
    await world.engine.stop(stopped, 1)
    await world.exited(stopped)
    seen = await world.exited(other)
    assert (seen.exit_code, seen.stopped) == (3, False)


async def test_any_engine_on_the_cluster_may_stop_it(world: World) -> None:
    handle = await world.launch(say("ready"), hold())
    await world.said(handle, "ready")
    await world.another_engine().stop(Handle(handle.key), 30)
    assert (await world.exited(handle)).stopped


async def test_output_of_before_the_stop_is_kept_and_the_log_ends(world: World) -> None:
    handle = await world.launch(say("one"), say("two"), hold())
    await world.said(handle, "two")
    await world.engine.stop(handle, 30)
    assert await world.logs(handle) == b"one\ntwo\n"
