"""Launching: the same key is the same job, whoever asks, however often, whatever was lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from clusters.engines.base import Handle, LaunchRejected, MountedFile, Phase
from tests.clusters.engines.conformance.steps import Of, hold, leave, pause, say
from tests.clusters.engines.conformance.worlds import Can, World


async def test_what_the_engine_wants_back_survives_as_json(world: World) -> None:
    handle = await world.launch(leave(0))
    stored = Handle(handle.key, json.loads(json.dumps(dict(handle.data))))
    assert stored == handle
    assert (await world.exited(stored)).exit_code == 0


async def test_a_launch_does_not_wait_for_the_work(world: World) -> None:
    assert (await world.see(await world.launch(hold()))).phase in {Phase.STARTING, Phase.RUNNING}


async def test_launching_again_while_it_runs_gives_the_same_job(world: World) -> None:
    handle = await world.launch(say("once"), pause(0.2))
    assert await world.launch(say("once"), pause(0.2), key=handle.key) == handle
    assert await world.logs(handle) == b"once\n"


async def test_launching_again_after_its_end_starts_nothing(world: World) -> None:
    handle = await world.launch(say("once"), leave(3))
    first = await world.exited(handle)
    assert await world.launch(say("twice"), leave(4), key=handle.key) == handle
    assert await world.exited(handle) == first
    assert await world.logs(handle) == b"once\n"


async def test_ten_launches_at_once_by_different_engines_run_once(world: World) -> None:
    key = world.new_key()
    engines = [world.another_engine() for _ in range(10)]
    spec = world.spec(say("once"), nodes=2)
    handles = await asyncio.gather(*(engine.launch(spec, key) for engine in engines))
    assert all(handle == handles[0] for handle in handles)
    for rank in (0, 1):
        assert (await world.exited(handles[0], rank)).exit_code == 0
        assert await world.logs(handles[0], rank=rank) == b"once\n"


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_launch_that_was_cut_off_is_found_or_made_by_the_next(world: World, turns: int) -> None:
    key = world.new_key()
    cut_off = asyncio.create_task(world.engine.launch(world.spec(say("once")), key))
    for _ in range(turns):
        await asyncio.sleep(0)
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)
    handle = await world.launch(say("once"), key=key)
    assert (await world.exited(handle)).exit_code == 0
    assert await world.logs(handle) == b"once\n"


async def test_two_attempts_of_one_run_are_two_jobs(world: World) -> None:
    first = await world.launch(say("first"), leave(1), attempt_index=0)
    second = await world.launch(say("second"), leave(0), attempt_index=1)
    assert [(await world.exited(handle)).exit_code for handle in (first, second)] == [1, 0]
    assert [await world.logs(handle) for handle in (first, second)] == [b"first\n", b"second\n"]


async def test_what_was_removed_is_never_launched_any_more(world: World) -> None:
    """As by a launch that took too long: its caller gave up, stopped and removed the attempt."""
    await world.exited(await world.launch(leave(0)))
    key = world.new_key()
    await world.engine.cleanup(Handle(key))
    with pytest.raises(LaunchRejected, match="removed before it was started"):
        await world.launch(leave(0), key=key)


@pytest.mark.parametrize(("changes", "word"), [({"nodes": 5}, "5 nodes"), ({"gpus_per_node": 9}, "GPUs")])
async def test_what_can_never_start_is_rejected_with_a_sentence(
    world: World, changes: dict[str, Any], word: str
) -> None:
    key = world.new_key()
    with pytest.raises(LaunchRejected, match=word) as caught:
        await world.launch(leave(0), key=key, **changes)
    assert caught.value.reason and caught.value.message == str(caught.value)
    assert (await world.look(Handle(key))).gone, "all ranks or none"


async def test_a_rejected_launch_holds_nothing(world: World) -> None:
    with pytest.raises(LaunchRejected):
        await world.launch(hold(), nodes=5)
    handle = await world.launch(leave(0), nodes=4)
    assert (await world.exited(handle, 3)).exit_code == 0


@pytest.mark.needs(Can.ENFORCES)
async def test_what_another_run_holds_is_not_given_out_twice(world: World) -> None:
    places = world.placements((0, 1))
    holder = await world.launch(hold(), gpus_per_node=2, placements=places)
    with pytest.raises(LaunchRejected, match=holder.key):
        await world.launch(leave(0), gpus_per_node=2, placements=places)
    await world.engine.stop(holder, 0)
    await world.exited(holder)
    again = await world.launch(leave(0), gpus_per_node=2, placements=places)
    assert (await world.exited(again)).exit_code == 0


@pytest.mark.needs(Can.FILES)
async def test_mounted_files_are_where_their_variables_say(world: World) -> None:
    files = (
        MountedFile("/mnt/config/parameters.yaml", b"a: 1\n", variables={"PARAMETERS": "{path}"}),
        MountedFile("/secrets/key", b"\0\xff", mode=0o755, variables={"KEY": "{path}"}),
    )
    handle = await world.launch(Of(shell="cat $PARAMETERS $KEY"), files=files)
    assert await world.logs(handle) == b"a: 1\n\0\xff"
