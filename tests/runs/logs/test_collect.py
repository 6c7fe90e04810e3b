"""From a rank's write to a reader: byte for byte, whoever dies on the way."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from runs import wake
from runs.logs import store
from runs.logs.collect import Collector
from runs.logs.findings import Recogniser
from runs.logs.redact import Needles
from runs.logs.stream import follow
from runs.models import LogStream, Run
from teams.commands import Refused, create_secret
from teams.states import SecretKind
from tests.runs.views.pages import TO_RUNNING, as_if
from tests.secrets import VALUES, request
from tests.world import World, drive, make_run

BINARY = r"""python3 - <<'EOF'
import hashlib, os, random, sys
rng = random.Random(int(os.environ["NODE_RANK"]))
data = b"".join(rng.randbytes(rng.randrange(1, 5000)) for _ in range(400)) + b"\0\xff last"
sys.stdout.buffer.write(data)
EOF"""


def expected(rank: int) -> bytes:
    import random

    rng = random.Random(rank)
    return b"".join(rng.randbytes(rng.randrange(1, 5000)) for _ in range(400)) + b"\0\xff last"


class Collecting:
    """A collector that runs while the block does."""

    async def __aenter__(self) -> Collecting:
        self.task = asyncio.create_task(Collector().run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def eventually(condition: Callable[[], bool], within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not await sync_to_async(condition)():
            await asyncio.sleep(0.02)


def sealed(run: Run) -> bool:
    streams = LogStream.objects.filter(attempt__run=run)
    return streams.exists() and not streams.filter(ended_at=None).exists()


def stored(run: Run, rank: int = 0) -> bytes:
    stream = LogStream.objects.get(attempt__run=run, rank=rank)
    return store.read(store.location(stream), 0, 10**9, stream.committed)


async def started(world: World, command: str, **more: int) -> Run:
    run = await sync_to_async(make_run)(world.ada, command, **more)
    await sync_to_async(drive)(run, "RUNNING")
    return run


async def ended(world: World, command: str, **more: int) -> Run:
    run = await sync_to_async(make_run)(world.ada, command, **more)
    await sync_to_async(drive)(run)
    return run


async def test_the_bytes_of_every_rank_are_stored_exactly(world: World) -> None:
    async with Collecting():
        run = await ended(world, BINARY, nodes=3)
        await eventually(lambda: sealed(run))
    for rank in range(3):
        assert await sync_to_async(stored)(run, rank) == expected(rank)
    stream = await LogStream.objects.aget(attempt__run=run, rank=1)
    assert stream.sha256 == hashlib.sha256(expected(1)).hexdigest()
    assert (stream.end_reason, stream.lines) == ("complete", expected(1).count(b"\n"))


async def test_a_collector_that_is_killed_again_and_again_loses_and_repeats_nothing(
    world: World, settings: object
) -> None:
    command = "for i in $(seq 300); do echo line $i; sleep 0.005; done"
    run = await started(world, command)
    for _ in range(6):
        async with Collecting():
            await asyncio.sleep(0.15)
        # As after SIGKILL: nobody let the lease go; it runs out.
        await LogStream.objects.filter(ended_at=None).aupdate(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
    async with Collecting():
        await sync_to_async(drive)(run)
        await eventually(lambda: sealed(run))
    assert await sync_to_async(stored)(run) == b"".join(b"line %d\n" % i for i in range(1, 301))


async def test_two_collectors_share_the_work_and_never_write_the_same_byte(world: World) -> None:
    async with Collecting(), Collecting():
        run = await ended(world, BINARY, nodes=4)
        await eventually(lambda: sealed(run))
    for rank in range(4):
        assert await sync_to_async(stored)(run, rank) == expected(rank)


async def test_a_collector_whose_lease_was_taken_writes_nothing_more(world: World) -> None:
    run = await started(world, "for i in $(seq 100); do echo $i; sleep 0.02; done")
    async with Collecting() as first:
        await eventually(lambda: LogStream.objects.get(attempt__run=run).committed > 0)
        stream = await LogStream.objects.aget(attempt__run=run)
        await LogStream.objects.filter(pk=stream.pk).aupdate(
            lease_token="00000000-0000-0000-0000-000000000001"
        )
        at = (await LogStream.objects.aget(pk=stream.pk)).committed
        await asyncio.sleep(0.3)
        assert (await LogStream.objects.aget(pk=stream.pk)).committed == at
        assert not first.task.done()


@pytest.mark.parametrize("hints", [True, False])
async def test_a_reader_sees_every_byte_live_with_and_without_hints(
    world: World, hints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hints:
        monkeypatch.setattr(wake, "_publish", lambda messages: list(messages))
        monkeypatch.setattr("runs.logs.stream.POLL", 0.05)
    async with Collecting():
        run = await started(world, "for i in $(seq 50); do echo $i; sleep 0.01; done")
        stream = await LogStream.objects.aget(attempt__run=run)
        received, expected_offset = b"", 0

        async def read() -> None:
            nonlocal received, expected_offset
            async for frame in follow(stream.pk, 0, follow=True):
                assert frame.offset == expected_offset
                received += frame.data
                expected_offset += len(frame.data)

        async with asyncio.timeout(20):
            await read()
    assert received == b"".join(b"%d\n" % i for i in range(1, 51))


async def test_a_reader_that_comes_back_at_its_offset_goes_on_there(world: World) -> None:
    async with Collecting():
        run = await ended(world, "echo 0123456789")
        await eventually(lambda: sealed(run))
    stream = await LogStream.objects.aget(attempt__run=run)
    for offset in range(12):
        frames = [frame.data async for frame in follow(stream.pk, offset, follow=True)]
        assert b"".join(frames) == b"0123456789\n"[offset:]


async def test_what_many_read_at_the_same_moment_is_read_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Collecting():
        run = await ended(world, "echo 0123456789")
        await eventually(lambda: sealed(run))
    stream = await LogStream.objects.aget(attempt__run=run)
    reads, real = [], store.read

    def counted(*args: Any) -> bytes:
        reads.append(args)
        return real(*args)

    monkeypatch.setattr(store, "read", counted)

    async def read() -> bytes:
        return b"".join([frame.data async for frame in follow(stream.pk, 0, follow=True)])

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(100)]
        leaver = group.create_task(read())
        await asyncio.sleep(0)
        leaver.cancel()
    assert {reader.result() for reader in readers} == {b"0123456789\n"}
    assert len(reads) == 1


async def test_reading_without_following_still_waits_for_the_last_bytes_of_what_has_ended(
    world: World,
) -> None:
    run = await ended(world, "echo the last words")
    stream = await LogStream.objects.aget(attempt__run=run)
    assert stream.committed == 0

    async def read() -> bytes:
        return b"".join([frame.data async for frame in follow(stream.pk, 0, follow=False)])

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    async with Collecting():
        assert await asyncio.wait_for(reader, 20) == b"the last words\n"


async def test_a_log_whose_end_is_still_owed_is_never_cut_short_in_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.logs.stream.SEAL_WITHIN", 0.05)
    monkeypatch.setattr("runs.logs.stream.POLL", 0.02)
    run = await ended(world, "echo never collected")
    stream = await LogStream.objects.aget(attempt__run=run)
    with pytest.raises(Refused, match="not been collected yet"):
        async for _ in follow(stream.pk, 0, follow=False):
            pass


FAILING = (
    "for i in $(seq 50); do echo line $i; sleep 0.005; done; echo 'ERROR bad' >&2; sleep 0.1;"
    "python3 -c 'raise OSError(28, \"No space left on device\")'"
)


async def test_what_went_wrong_is_found_while_the_log_is_stored_whoever_dies(world: World) -> None:
    run = await started(world, FAILING)
    for _ in range(4):
        async with Collecting():
            await asyncio.sleep(0.1)
        await LogStream.objects.filter(ended_at=None).aupdate(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
    async with Collecting():
        attempt = await sync_to_async(drive, thread_sensitive=False)(run)
        await eventually(lambda: sealed(run))
    stream = await LogStream.objects.aget(attempt__run=run)
    assert (attempt.reason, attempt.evidence["log"]["sign"]["line"]) == ("DiskFull", stream.lines)
    data = await sync_to_async(stored)(run)
    alone = Recogniser()
    marks = alone.feed(data) + alone.finish()
    assert stream.findings == alone.state
    assert stream.findings["signs"]["DiskFull"]["line"] == data.count(b"\n")
    assert stream.findings["first"]["line"] == 52
    where = store.location(stream)
    assert store.errors(where, 0, 100) == marks
    assert [mark.line for mark in marks][:2] == [51, 52]
    assert store.errors(where, store.errors_before(where, marks[1].offset), 1) == [marks[1]]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            """python3 -c 'raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")'""",
            "GPUOutOfMemory",
        ),
        (
            """python3 -c 'raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is """
            """possible that workers are out of shared memory. Please try to raise your limit.")'""",
            "SharedMemoryFull",
        ),
        (
            "echo '[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12)' >&2; kill -ABRT $$",
            "CollectiveTimeout",
        ),
        ("echo 'tar: a: Cannot write: No space left on device' >&2; exit 2", "DiskFull"),
        ("""python3 -c 'raise OSError(98, "Address already in use")'""", "AddressInUse"),
        ("echo 'WARNING: CUDA out of memory, going on with less'; echo fine; exit 1", "Error"),
        ("echo 'No space left on device'", None),
    ],
)
async def test_a_run_fails_for_what_its_log_shows_and_for_nothing_that_it_merely_mentions(
    world: World, command: str, reason: str | None
) -> None:
    async with Collecting():
        run = await sync_to_async(make_run)(world.ada, command)
        # In a thread of its own: the collector's work must go on beside it.
        attempt = await sync_to_async(drive, thread_sensitive=False)(run, within=60)
    assert attempt.reason == (reason or "")


PRINTING = (
    "for i in $(seq 40); do printf 'tok'; printf '%s' '-secret-'; sleep 0.004; printf 'value-%03d\\n' $i;"
    " printf '\\033[31mtok-sec\\033[0mret-value'; printf tok-secret-value | base64; done;"
    " printf 'tok-secret-'"
)


async def test_no_secret_value_is_ever_stored_whoever_dies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    needles = Needles.of(["tok-secret-value", "short"])
    monkeypatch.setattr("runs.logs.collect.needles_for", lambda attempt_id: needles)
    run = await started(world, PRINTING)
    for _ in range(6):
        async with Collecting():
            await asyncio.sleep(0.1)
        await LogStream.objects.filter(ended_at=None).aupdate(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
    async with Collecting():
        await sync_to_async(drive)(run)
        await eventually(lambda: sealed(run))
    data = await sync_to_async(stored)(run)
    stream = await LogStream.objects.aget(attempt__run=run)
    for path in store.location(stream).folder.iterdir():
        assert not any(spelled in path.read_bytes() for spelled in needles.spelled)
    assert data.count(b"-0") == 40 and data.endswith(b"tok-secret-")
    # In each round: in several writes, coloured, in base64.
    assert data.count(b"***") == stream.masked == 40 * 3
    assert (stream.too_short, stream.lost, stream.end_reason) == (1, 0, "complete")
    assert stream.sha256 == hashlib.sha256(data).hexdigest()
    assert stream.lines == data.count(b"\n")


async def test_what_a_team_keeps_secret_is_hidden_in_the_logs_of_its_runs(world: World) -> None:
    await sync_to_async(create_secret)(world.ada, world.vision, request(SecretKind.ENV_VAR))
    async with Collecting():
        run = await ended(world, "echo before $API_TOKEN after; printf %s $API_TOKEN | base64")
        await eventually(lambda: sealed(run))
    data = await sync_to_async(stored)(run)
    assert data.startswith(b"before *** after\n***")
    assert VALUES[SecretKind.ENV_VAR]["value"].encode() not in data


async def test_thousands_of_reconnects_at_any_offset_leave_no_gap_and_no_repeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RUNYARD_RECONNECTS` says how many. The log grows meanwhile, and each reader reads a little and is gone."""
    monkeypatch.setattr("runs.logs.stream.FRAME", 61)
    count = int(os.environ.get("RUNYARD_RECONNECTS", "500"))
    chance = random.Random(4)
    data = chance.randbytes(count * 61)
    run = await sync_to_async(make_run)(world.ada)
    await sync_to_async(as_if)(run, *TO_RUNNING)
    stream = await LogStream.objects.aget(attempt__run=run)
    writer = store.Writer(store.location(stream), 0)
    received = bytearray()
    for _ in range(count):
        if writer.offset - len(received) < 200:
            writer.append(data[writer.offset : writer.offset + 10_000], [])
            await LogStream.objects.filter(pk=stream.pk).aupdate(
                committed=writer.offset, ended_at=timezone.now() if writer.offset == len(data) else None
            )
        left = chance.randint(1, 3)
        async with aclosing(follow(stream.pk, len(received), follow=True)) as frames:
            async for frame in frames:
                assert frame.offset == len(received)
                # A connection may be cut in the middle of a frame, too.
                received += frame.data[: chance.randint(1, len(frame.data))]
                left -= 1
                if left == 0 or len(frame.data) < 61 or len(received) < frame.offset + len(frame.data):
                    break
    writer.close()
    assert len(received) > count * 20
    assert bytes(received) == data[: len(received)]
