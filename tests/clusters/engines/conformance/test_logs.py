"""Logs: every byte once, at its offset, with its mark, from wherever the reader left off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from clusters.engines.base import MAIN, Handle, Source
from tests.clusters.engines.conformance.steps import hold, leave, lines, pause, say, write
from tests.clusters.engines.conformance.worlds import World, marks

WHOLE = b"".join(b"line %d\n" % n for n in range(1, 2001))


async def test_both_streams_come_in_order_with_their_source_and_time(world: World) -> None:
    handle = await world.launch(
        say("out"), pause(0.3), say("err", err=True), pause(0.3), write("last words")
    )  # fmt: skip
    await world.exited(handle)
    chunks = await world.chunks(handle)
    assert b"".join(chunk.data for chunk in chunks) == b"out\nerr\nlast words"
    changes = {mark.offset: mark.source for mark in marks(chunks)}
    assert changes == {0: Source.STDOUT, 4: Source.STDERR, 8: Source.STDOUT}
    times = [mark.time for mark in marks(chunks)]
    assert times == sorted(times) and times[-1] - times[0] >= 0.5
    assert abs(times[-1] - world.now()) < 3600


async def test_a_command_that_says_nothing_has_an_empty_log_that_ends(world: World) -> None:
    assert await world.chunks(await world.launch(leave(0))) == []


@pytest.mark.parametrize("offset", [1, 7, 1000, len(WHOLE) - 1, len(WHOLE)])
async def test_a_reader_goes_on_from_any_offset_without_gap_or_repeat(world: World, offset: int) -> None:
    handle = await world.launch(lines(2000))
    await world.exited(handle)
    chunks = await world.chunks(handle, offset)
    assert b"".join(chunk.data for chunk in chunks) == WHOLE[offset:]
    position = offset
    for chunk in chunks:
        assert chunk.offset == position and chunk.marks[0].offset == chunk.offset
        position += len(chunk.data)


async def test_two_readers_read_the_same_bytes_and_marks(world: World) -> None:
    handle = await world.launch(say("a"), pause(0.1), say("b", err=True), pause(0.1), lines(50))
    await world.exited(handle)
    first = await world.chunks(handle)
    mine, world.engine = world.engine, world.another_engine()
    second = await world.chunks(handle)
    world.engine = mine
    assert b"".join(c.data for c in first) == b"".join(c.data for c in second)
    assert {m.offset: m for m in marks(first)} == {m.offset: m for m in marks(second)}


async def test_chunks_are_never_empty_contiguous_and_at_most_a_mebibyte(world: World) -> None:
    handle = await world.launch(lines(250_000))
    chunks = await world.chunks(handle)
    position = 0
    for chunk in chunks:
        assert chunk.offset == position and 0 < len(chunk.data) <= 1 << 20
        assert chunk.marks[0].offset == chunk.offset
        assert all(chunk.offset <= mark.offset < chunk.offset + len(chunk.data) for mark in chunk.marks)
        position += len(chunk.data)
    assert position == sum(len(b"line %d\n" % n) for n in range(1, 250_001))


async def test_the_mark_in_force_is_repeated_where_a_reader_begins(world: World) -> None:
    handle = await world.launch(say("12345678"), pause(0.3), say("12345678", err=True))
    await world.exited(handle)
    whole = marks(await world.chunks(handle))
    assert [mark.offset for mark in whole] == [0, 9]
    for offset, source in ((4, Source.STDOUT), (12, Source.STDERR)):
        first, *rest = marks(await world.chunks(handle, offset))
        assert (first.offset, first.source) == (offset, source)
        assert first.time == whole[0 if offset == 4 else 1].time
        assert [mark.offset for mark in rest] == ([9] if offset == 4 else [])


async def test_output_is_followed_while_it_is_written(world: World) -> None:
    handle = await world.launch(say("one"), pause(0.5), say("two"), hold())
    heard: list[bytes] = []

    async def follow() -> None:
        async with aclosing(world.engine.read_logs(handle, 0, MAIN, 0)) as stream:  # type: ignore[type-var]
            async for chunk in stream:
                heard.append(chunk.data)
                if b"two\n" in b"".join(heard):
                    return

    await world.while_time_passes(follow())
    assert heard == [b"one\n", b"two\n"]


async def test_a_log_does_not_end_before_its_rank(world: World) -> None:
    handle = await world.launch(say("ready"), hold())
    await world.said(handle, "ready")
    following = asyncio.create_task(world.logs(handle))
    await world.running(handle)
    assert not following.done()
    await world.engine.stop(handle, 30)
    assert await following == b"ready\n"


async def test_every_rank_has_a_log_of_its_own(world: World) -> None:
    handle = await world.launch(say("zero", rank=0), say("one", rank=1), say("both"), nodes=2)
    assert await world.logs(handle, rank=0) == b"zero\nboth\n"
    assert await world.logs(handle, rank=1) == b"one\nboth\n"


@pytest.mark.parametrize(("rank", "stream"), [(0, "no-such-stream"), (7, MAIN)])
async def test_a_stream_that_is_not_there_is_complete_and_empty(world: World, rank: int, stream: str) -> None:
    handle = await world.launch(say("x"))
    assert [chunk async for chunk in world.engine.read_logs(handle, rank, stream, 0)] == []


async def test_the_log_of_what_was_never_launched_is_complete_and_empty(world: World) -> None:
    assert await world.chunks(Handle(world.new_key())) == []


async def test_an_offset_behind_the_end_gives_nothing(world: World) -> None:
    handle = await world.launch(say("x"))
    await world.exited(handle)
    assert await world.chunks(handle, 1_000_000) == []


async def test_a_reader_who_died_gets_again_what_he_had_not_stored(world: World) -> None:
    handle = await world.launch(lines(2000))
    await world.exited(handle)
    stream = world.engine.read_logs(handle, 0, MAIN, 0)
    first = await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # a generator, on every engine
    assert (await world.logs(handle, first.offset)).startswith(first.data)


async def test_what_is_over_the_quota_is_not_kept_and_the_log_says_so(world: World) -> None:
    handle = await world.launch(lines(2000), log_quota=1001)
    assert (await world.exited(handle)).exit_code == 0
    data = await world.logs(handle)
    assert data[:1001] == WHOLE[:1001]
    assert b"log limit" in data[1001:] and data.count(b"\n", 1001) <= 2
