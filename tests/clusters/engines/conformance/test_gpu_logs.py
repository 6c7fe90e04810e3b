"""What processes of single GPUs write into files of their own: streams beside MAIN, of the same kind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from clusters.engines.base import MAIN, Handle, Source
from tests.clusters.engines.conformance.steps import deaf, die, hold, leave, pause, say, say_on
from tests.clusters.engines.conformance.worlds import World, marks


async def streams(world: World, handle: Handle, rank: int = 0) -> tuple[str, ...]:
    return (await world.see(handle, rank)).streams


async def test_a_gpus_file_is_a_stream_beside_the_ranks_own(world: World) -> None:
    handle = await world.launch(say("main"), say_on(1, "one"), say_on(7, "seven"), say_on(1, "more"))
    assert (await world.exited(handle)).streams == ("gpu-1", "gpu-7")
    assert await world.logs(handle) == b"main\n"
    assert await world.logs(handle, stream="gpu-1") == b"one\nmore\n"
    assert await world.logs(handle, stream="gpu-7") == b"seven\n"


async def test_who_writes_no_such_file_has_no_such_stream(world: World) -> None:
    handle = await world.launch(say("main"), say_on(2, "x", rank=1), nodes=2)
    assert (await world.exited(handle, 0)).streams == ()
    assert (await world.exited(handle, 1)).streams == ("gpu-2",)
    assert await world.logs(handle, stream="gpu-2") == b""


async def test_a_stream_is_seen_as_soon_as_it_is_written_and_followed_from_its_beginning(
    world: World,
) -> None:
    handle = await world.launch(say("main"), pause(0.5), say_on(3, "a"), pause(0.5), say_on(3, "b"), hold())
    await world.said(handle, "main")

    async def seen() -> bool:
        return await streams(world, handle) == ("gpu-3",)

    await world.until(seen)
    heard: list[bytes] = []

    async def follow() -> None:
        async with aclosing(world.engine.read_logs(handle, 0, "gpu-3", 0)) as stream:  # type: ignore[type-var]
            async for chunk in stream:
                heard.append(chunk.data)
                if b"".join(heard) == b"a\nb\n":
                    return

    await world.while_time_passes(follow())


async def test_it_does_not_end_before_its_rank(world: World) -> None:
    handle = await world.launch(say_on(1, "x"), say("ready"), hold())
    await world.said(handle, "ready")
    following = asyncio.create_task(world.logs(handle, stream="gpu-1"))
    await world.running(handle)
    assert not following.done()
    await world.engine.stop(handle, 30)
    assert await following == b"x\n"


async def test_its_bytes_have_their_times_and_come_from_any_offset(world: World) -> None:
    handle = await world.launch(say_on(1, "12345678"))
    await world.exited(handle)
    chunks = await world.chunks(handle, 3, stream="gpu-1")
    assert [(chunk.offset, chunk.data) for chunk in chunks] == [(3, b"45678\n")]
    (mark,) = marks(chunks)
    assert (mark.offset, mark.source) == (3, Source.STDOUT) and abs(mark.time - world.now()) < 3600


@pytest.mark.parametrize("end", [die(9), leave(1)], ids=["killed", "failed"])
async def test_the_last_line_before_the_end_is_there(world: World, end) -> None:
    handle = await world.launch(say("last of main"), say_on(1, "last of its own"), end)
    await world.exited(handle)
    assert await world.logs(handle) == b"last of main\n"
    assert await world.logs(handle, stream="gpu-1") == b"last of its own\n"


async def test_the_last_line_before_a_kill_after_the_grace_is_there(world: World) -> None:
    handle = await world.launch(deaf(), say_on(1, "last of its own"), say("last of main"), hold())
    await world.said(handle, "last of main")
    await world.engine.stop(handle, 0.2)
    assert (await world.exited(handle)).exit_code == 137
    assert await world.logs(handle, stream=MAIN) == b"last of main\n"
    assert await world.logs(handle, stream="gpu-1") == b"last of its own\n"


async def test_what_is_over_the_quota_is_not_kept_and_the_stream_says_so(world: World) -> None:
    handle = await world.launch(say_on(1, "x" * 2000), log_quota=1001)
    await world.exited(handle)
    data = await world.logs(handle, stream="gpu-1")
    assert data[:1001] == b"x" * 1001
    assert b"log limit" in data[1001:] and data.count(b"\n", 1001) <= 2
    assert await world.logs(handle, 900, stream="gpu-1") == data[900:]
    assert await world.logs(handle, 1010, stream="gpu-1") == data[1010:]


async def test_after_cleanup_nothing_is_left_of_it(world: World) -> None:
    handle = await world.launch(say_on(1, "x"))
    await world.exited(handle)
    await world.engine.cleanup(handle)
    assert (await world.look(handle)).gone
    assert await world.logs(handle, stream="gpu-1") == b""
