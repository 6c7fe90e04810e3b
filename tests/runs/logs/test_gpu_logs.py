"""What Composer's launcher writes into a file for each GPU's process: collected as the rank's own output is."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from runs.logs import store
from runs.models import LogStream, Run
from teams.commands import create_secret
from teams.states import SecretKind
from tests.runs.logs.test_collect import Collecting, ended, eventually, sealed, started
from tests.secrets import request
from tests.world import World, drive, latest, make_run

FILE = '"$MOSAICML_LOG_DIR/$MOSAICML_GPU_LOG_FILE_PREFIX"'
BINARY = f"""python3 - {FILE}1.txt {FILE}2.txt <<'EOF'
import os, random, sys
print("main")
for gpu, path in enumerate(sys.argv[1:], 1):
    rng = random.Random(10 * int(os.environ["NODE_RANK"]) + gpu)
    with open(path, "x+b") as file:
        for _ in range(400):
            file.write(rng.randbytes(rng.randrange(1, 5000)))
        file.write(b"\\0\\xff last")
EOF"""


def expected(rank: int, gpu: int) -> bytes:
    rng = random.Random(10 * rank + gpu)
    return b"".join(rng.randbytes(rng.randrange(1, 5000)) for _ in range(400)) + b"\0\xff last"


def stored(run: Run, name: str, rank: int = 0) -> bytes:
    stream = LogStream.objects.get(attempt__run=run, rank=rank, name=name)
    return store.read(store.location(stream), 0, 10**9, stream.committed)


def names(run: Run) -> list[tuple[int, str]]:
    streams = LogStream.objects.filter(attempt__run=run)
    return sorted((stream.rank, stream.name) for stream in streams)


async def test_every_file_of_every_rank_is_a_stream_with_all_its_bytes(world: World) -> None:
    async with Collecting():
        run = await ended(world, BINARY, nodes=2)
        await eventually(lambda: sealed(run))
    assert await sync_to_async(names)(run) == [
        (rank, name) for rank in (0, 1) for name in ("MAIN", "gpu-1", "gpu-2")
    ]
    for rank in (0, 1):
        assert await sync_to_async(stored)(run, "MAIN", rank) == b"main\n"
        for gpu in (1, 2):
            assert await sync_to_async(stored)(run, f"gpu-{gpu}", rank) == expected(rank, gpu)
    stream = await LogStream.objects.aget(attempt__run=run, rank=1, name="gpu-2")
    assert (stream.end_reason, stream.lines) == ("complete", expected(1, 2).count(b"\n"))


async def test_a_file_is_followed_while_it_is_written_whoever_dies(world: World) -> None:
    run = await started(world, f"for i in $(seq 200); do echo line $i >> {FILE}3.txt; sleep 0.01; done")

    def grown(past: int) -> bool:
        drive(run, "RUNNING")
        return LogStream.objects.filter(name="gpu-3", committed__gt=past).exists()

    past = 0
    for _ in range(4):
        async with Collecting():
            await eventually(lambda past=past: grown(past))  # type: ignore[misc]
        stream = await LogStream.objects.aget(name="gpu-3")
        past = stream.committed
        assert stream.ended_at is None
        # As after SIGKILL: nobody let the lease go; it runs out.
        await LogStream.objects.filter(ended_at=None).aupdate(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
    async with Collecting():
        await sync_to_async(drive)(run)
        await eventually(lambda: sealed(run))
    assert await sync_to_async(stored)(run, "gpu-3") == b"".join(b"line %d\n" % i for i in range(1, 201))


async def test_a_killed_rank_leaves_its_last_lines(world: World) -> None:
    async with Collecting():
        run = await ended(world, f"echo last of main; echo last of gpu >> {FILE}1.txt; kill -9 $$")
        await eventually(lambda: sealed(run))
    assert (await sync_to_async(latest)(run)).exit_code == 137
    assert await sync_to_async(stored)(run, "MAIN") == b"last of main\n"
    assert await sync_to_async(stored)(run, "gpu-1") == b"last of gpu\n"


async def test_secrets_are_hidden_there_too(world: World) -> None:
    await sync_to_async(create_secret)(world.ada, world.vision, request(SecretKind.ENV_VAR))
    async with Collecting():
        run = await ended(world, f"echo before $API_TOKEN after > {FILE}1.txt")
        await eventually(lambda: sealed(run))
    assert await sync_to_async(stored)(run, "gpu-1") == b"before *** after\n"


@pytest.mark.parametrize("gpu", [1, 5])
async def test_why_a_run_failed_is_found_in_the_file_of_the_process_that_failed(
    world: World, gpu: int
) -> None:
    trace = """python3 -c 'raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")'"""
    command = f"echo fine; {trace} 2> {FILE}{gpu}.txt; exit 1"
    async with Collecting():
        run = await sync_to_async(make_run)(world.ada, command)
        # In a thread of its own: the collector's work must go on beside it.
        attempt = await sync_to_async(drive, thread_sensitive=False)(run, within=60)
    assert attempt.reason == "GPUOutOfMemory"
    assert attempt.evidence["log"]["sign"]["stream"] == f"gpu-{gpu}"
