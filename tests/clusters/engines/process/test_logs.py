from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from clusters.engines.base import MAIN, Handle, Source
from clusters.engines.process import launch
from tests.clusters.engines.process.world import World, marks, until

BINARY = "head -c 3000000 /dev/urandom > data; cat data"


async def said_in_turn(world: World, *outputs: str) -> Handle:
    """Run these commands one after the other, each only when the output of those before it was read."""
    handle = await world.launch(
        "; ".join(f"{one}; until [ -e {n} ]; do :; done" for n, one in enumerate(outputs))
    )
    seen = [0]
    for number in range(len(outputs)):
        await until(lambda: world.spooled(handle) > seen[-1])
        seen.append(world.spooled(handle))
        (world.home(handle) / str(number)).touch()
    await world.exited(handle)
    return handle


async def test_both_streams_come_byte_for_byte_with_their_source(world: World) -> None:
    handle = await said_in_turn(world, r"printf 'a\0\xff\n'", r"printf 'err\r' >&2", "printf end")
    chunks = await world.chunks(handle)
    assert b"".join(chunk.data for chunk in chunks) == b"a\0\xff\nerr\rend"
    sources = {mark.offset: mark.source for mark in marks(chunks)}
    assert sources == {0: Source.STDOUT, 4: Source.STDERR, 8: Source.STDOUT}
    times = [mark.time for mark in marks(chunks)]
    assert times == sorted(times) and abs(times[0] - time.time()) < 30


async def test_a_rank_may_open_its_output_again(world: World) -> None:
    handle = await world.launch("echo one > /dev/stdout; echo two | tee /dev/stderr > /dev/null")
    assert sorted((await world.logs(handle)).split()) == [b"one", b"two"]


async def test_binary_megabytes_are_exact_and_contiguous(world: World) -> None:
    handle = await world.launch(BINARY)
    chunks = await world.chunks(handle)
    position = 0
    for chunk in chunks:
        assert chunk.offset == position and 0 < len(chunk.data) <= 1 << 20
        assert chunk.marks[0].offset == chunk.offset
        position += len(chunk.data)
    data = (world.home(handle) / "data").read_bytes()
    assert b"".join(chunk.data for chunk in chunks) == data


async def test_spool_files_are_freed_only_after_the_next_chunk_is_asked_for(world: World) -> None:
    world.engine = world.another_engine(spool_limit=1 << 18)
    handle = await world.launch("head -c 200000 /dev/zero")
    await world.exited(handle)
    files = sorted(world.private(handle).glob("*.spool"))
    assert len(files) >= 2
    stream = world.engine.read_logs(handle, 0, MAIN, 0)
    first = await anext(stream)
    assert files[0].exists()
    second = await anext(stream)
    assert first.offset + len(first.data) == second.offset
    assert not files[0].exists()
    assert [chunk async for chunk in stream][-1].offset >= int(files[-1].name[5:25])
    assert files[-1].exists()
    # The bytes that were freed are lost for a reader who begins anew, and the offset says so.
    assert (await world.chunks(handle))[0].offset == int(files[-1].name[5:25])


async def test_what_a_reader_has_taken_but_not_stored_is_not_freed(world: World) -> None:
    world.engine = world.another_engine(spool_limit=1 << 18)
    handle = await world.launch("head -c 200000 /dev/zero")
    await world.exited(handle)
    files = sorted(world.private(handle).glob("*.spool"))
    boundary = int(files[1].name[5:25])
    stored = boundary - 1
    stream = world.engine.read_logs(handle, 0, MAIN, 0, lambda: stored)
    await anext(stream)
    await anext(stream)
    assert files[0].exists()
    stored = boundary
    await anext(stream)
    assert not files[0].exists()
    assert files[1].exists()


async def test_a_rank_waits_for_its_reader_and_loses_nothing(world: World) -> None:
    world.engine = world.another_engine(spool_limit=1 << 16)
    size = 8 << 20
    handle = await world.launch(f"touch ready; head -c {size} /dev/zero | tr '\\0' x; echo; touch done")
    await world.running(handle)

    await until(lambda: world.spooled(handle) >= 1 << 16)
    data = await world.logs(handle)
    assert data == b"x" * size + b"\n"
    assert (world.home(handle) / "done").exists()


async def test_a_reader_who_stays_away_costs_output_and_is_told(world: World, monkeypatch) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.3)
    world.engine = world.another_engine(spool_limit=1 << 16)
    size = 8 << 20
    handle = await world.launch(f"head -c {size} /dev/zero | tr '\\0' x")
    assert (await world.exited(handle)).exit_code == 0
    data = await world.logs(handle)
    kept = data.count(b"x")
    assert kept < size
    assert data[kept:].decode() == (
        f"\n[runyard] {size - kept} bytes of output were not kept: nobody had collected them for 0 s\n"
    )


async def test_the_quota_is_exact_and_said_in_one_line(world: World) -> None:
    handle = await world.launch("head -c 5000000 /dev/zero | tr '\\0' x; echo end", log_quota=1_000_001)
    assert (await world.exited(handle)).exit_code == 0
    data = await world.logs(handle)
    assert data[:1_000_001] == b"x" * 1_000_001
    assert data[1_000_001:] == b"\n[runyard] log limit of 976.6 KiB reached; later output is not kept\n"


@pytest.mark.parametrize("ranks", [4])
async def test_many_streams_are_followed_at_once(world: World, ranks: int) -> None:
    handles = [await world.launch("seq 20000; md5sum < <(seq 20000)", nodes=ranks) for _ in range(4)]
    found = await asyncio.gather(
        *(world.logs(handle, rank=rank) for handle in handles for rank in range(ranks))
    )
    expected = b"".join(b"%d\n" % i for i in range(1, 20001))
    line = f"{hashlib.md5(expected, usedforsecurity=False).hexdigest()}  -\n".encode()
    assert set(found) == {expected + line}


async def test_following_survives_without_inotify(world: World, monkeypatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(24, "no inotify instances left")

    monkeypatch.setattr("clusters.engines.process.watch.Inotify", none_left)
    assert await world.logs(await world.launch("echo still")) == b"still\n"
