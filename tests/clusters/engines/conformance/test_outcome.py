"""What an engine sees: phases, exit codes and times of every rank."""

from __future__ import annotations

import signal

import pytest

from clusters.engines.base import Handle, Phase
from tests.clusters.engines.conformance.steps import (
    die,
    hold,
    leave,
    out_of_memory,
    pause,
    pull,
    pull_error,
    say,
)
from tests.clusters.engines.conformance.worlds import Can, World


async def test_a_command_that_ends_well_has_code_0_and_no_reason(world: World) -> None:
    seen = await world.exited(await world.launch(leave(0)))
    assert (seen.exit_code, seen.reason, seen.stopped, seen.case) == (0, None, False, "")


async def test_a_command_without_an_exit_of_its_own_ends_well(world: World) -> None:
    assert (await world.exited(await world.launch(say("hello")))).exit_code == 0


@pytest.mark.parametrize("code", [1, 3, 126, 127, 255])
async def test_exit_codes_are_what_the_command_says(world: World, code: int) -> None:
    seen = await world.exited(await world.launch(leave(code)))
    assert (seen.exit_code, seen.reason, seen.stopped) == (code, None, False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE])
async def test_a_signal_is_128_and_its_number_and_no_stop_of_ours(world: World, number: int) -> None:
    seen = await world.exited(await world.launch(die(number)))
    assert (seen.exit_code, seen.stopped) == (128 + number, False)


async def test_what_runs_has_begun_and_not_ended(world: World) -> None:
    seen = await world.running(await world.launch(say("on"), hold()))
    assert seen.started_at is not None and seen.started_at.tzinfo is not None
    assert (seen.exit_code, seen.ended_at, seen.reason, seen.stopped) == (None, None, None, False)
    assert seen.node


async def test_times_have_a_zone_and_lie_in_order_as_far_apart_as_it_took(world: World) -> None:
    before = world.now()
    seen = await world.exited(await world.launch(pause(0.3)))
    assert seen.started_at is not None and seen.ended_at is not None
    assert seen.started_at.tzinfo is not None and seen.ended_at.tzinfo is not None
    assert before - 1 <= seen.started_at.timestamp()
    assert (seen.ended_at - seen.started_at).total_seconds() >= 0.29
    assert seen.ended_at.timestamp() <= world.now() + 1


async def test_an_end_once_seen_is_the_same_for_ever(world: World) -> None:
    handle = await world.launch(leave(4))
    first = await world.exited(handle)
    await world.engine.stop(handle, 0)
    again = await world.another_engine().observe([handle])
    assert again[handle.key].ranks == (first,)


async def test_every_rank_has_its_own_exit_code(world: World) -> None:
    handle = await world.launch(leave(5, rank=1), leave(6, rank=2), leave(0), nodes=3)
    codes = [(await world.exited(handle, rank)).exit_code for rank in range(3)]
    assert codes == [0, 5, 6]


async def test_each_rank_is_in_an_observation_once_and_in_order(world: World) -> None:
    handle = await world.launch(hold(), nodes=4)
    await world.running(handle, rank=3)
    assert [rank.rank for rank in (await world.look(handle)).ranks] == [0, 1, 2, 3]


async def test_a_rank_that_fails_is_no_reason_for_the_engine_to_touch_the_others(world: World) -> None:
    handle = await world.launch(leave(1, rank=1), hold(), nodes=2)
    assert (await world.exited(handle, 1)).exit_code == 1
    assert (await world.running(handle, 0)).phase is Phase.RUNNING


async def test_which_rank_failed_first_can_be_told_by_their_ends(world: World) -> None:
    handle = await world.launch(pause(0.4, rank=0), leave(2), nodes=2)
    first, last = await world.exited(handle, 1), await world.exited(handle, 0)
    assert first.ended_at is not None and last.ended_at is not None
    assert first.ended_at < last.ended_at


async def test_observing_nothing_is_answered(world: World) -> None:
    assert await world.engine.observe([]) == {}


async def test_what_was_never_launched_is_gone(world: World) -> None:
    seen = await world.look(Handle(world.new_key()))
    assert seen.gone and seen.ranks == ()


async def test_every_handle_gets_its_answer_whatever_the_others_are(world: World) -> None:
    ended, lives = await world.launch(leave(0)), await world.launch(hold())
    await world.exited(ended)
    await world.running(lives)
    unknown = Handle(world.new_key())
    seen = await world.engine.observe([unknown, ended, lives])
    assert set(seen) == {unknown.key, ended.key, lives.key}
    assert [seen[handle.key].gone for handle in (unknown, ended, lives)] == [True, False, False]
    assert seen[ended.key].ranks[0].phase is Phase.EXITED
    assert seen[lives.key].ranks[0].phase is Phase.RUNNING


async def test_the_key_alone_is_enough_to_find_it(world: World) -> None:
    handle = await world.launch(say("here"), leave(9))
    assert (await world.exited(Handle(handle.key))).exit_code == 9
    assert await world.logs(Handle(handle.key)) == b"here\n"


@pytest.mark.needs(Can.IMAGES)
async def test_while_the_image_is_pulled_a_rank_starts_and_has_no_beginning_yet(world: World) -> None:
    handle = await world.launch(pull(5), leave(0))
    seen = await world.see(handle)
    assert (seen.phase, seen.started_at) == (Phase.STARTING, None)
    ended = await world.exited(handle)
    assert ended.started_at is not None and ended.started_at.timestamp() >= world.now() - 3600


@pytest.mark.needs(Can.IMAGES)
@pytest.mark.parametrize("case", ["InvalidName", "NotFound", "NoAccess", "RateLimit", "Unreachable"])
async def test_an_image_that_cannot_be_pulled_says_which_case_it_is(world: World, case: str) -> None:
    handle = await world.launch(pull_error(case, "so says the registry"), say("never"))
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason, seen.case) == (None, "FailedImagePull", case)
    assert seen.message == "so says the registry"
    assert seen.started_at is None and seen.ended_at is not None
    assert await world.logs(handle) == b""


@pytest.mark.needs(Can.MEMORY)
async def test_a_rank_that_was_killed_for_memory_is_known_to_be(world: World) -> None:
    handle = await world.launch(out_of_memory(rank=1), hold(), nodes=2)
    seen = await world.exited(handle, 1)
    assert (seen.exit_code, seen.reason, seen.stopped) == (137, "OutOfMemory", False)
    assert seen.message
