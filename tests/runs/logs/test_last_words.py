"""The last line before the end is there, however a run ended, before its log is called complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from runs import commands
from runs.logs.stream import follow
from runs.models import LogStream, Run
from tests.runs.logs.test_collect import Collecting, eventually, sealed
from tests.world import World, drive, latest, make_run, until

FILE = '"$MOSAICML_LOG_DIR/$MOSAICML_GPU_LOG_FILE_PREFIX"1.txt'
WORDS = f"echo last of main; echo last of gpu >> {FILE}"
WAIT = "while :; do sleep 0.05; done"
DEAF = f"trap 'echo after term; echo after term >> {FILE}' TERM; {WORDS}; {WAIT}"
SAVES = f"trap 'echo saving; echo saved >> {FILE}; echo saved; exit 0' TERM; {WORDS}; {WAIT}"
SAID = (b"last of main\n", b"last of gpu\n")


def nothing(world: World, run: Run) -> None:
    """It ends by itself."""


def stop(world: World, run: Run) -> None:
    commands.stop(world.ada, run)


ENDINGS = [
    pytest.param(f"{WORDS}; kill -9 $$", {}, nothing, "FAILED", SAID, id="killed"),
    pytest.param(f"{WORDS}; exit 3", {}, nothing, "FAILED", SAID, id="failed"),
    pytest.param(f"{WORDS}; {WAIT}", {}, stop, "STOPPED", SAID, id="stopped"),
    pytest.param(SAVES, {}, stop, "STOPPED", (b"saving\nsaved\n", b"saved\n"), id="stopped-saving"),
    pytest.param(DEAF, {}, stop, "STOPPED", (b"after term\n", b"after term\n"), id="grace-overrun"),
    pytest.param(DEAF, {"max_duration_seconds": 1}, nothing, "STOPPED", (b"after term\n", b"after term\n"), id="max-duration-overrun"),
]  # fmt: skip


def carry_out(world: World, command: str, limits: dict[str, Any], end: Callable[[World, Run], None]) -> Run:
    """From its submission to its terminal status."""
    run = make_run(world.ada, command, **limits)
    if end is nothing and not limits:
        drive(run)
        return run
    drive(run, "RUNNING")
    root = Path(world.cluster.config["root"])
    file = root / "attempts" / str(latest(run).pk) / "work" / "gpu-logs-0" / "gpu_1.txt"
    until(lambda: file.exists() and file.read_bytes() == b"last of gpu\n")
    end(world, run)
    drive(run, within=60)
    return run


async def read(run: Run, name: str) -> bytes:
    """What a reader gets who does not follow: of a run that has ended, all of it."""
    stream = await LogStream.objects.aget(attempt__run=run, name=name)
    return b"".join([frame.data async for frame in follow(stream.pk, 0, follow=False)])


@pytest.mark.parametrize(("command", "limits", "end", "status", "words"), ENDINGS)
@pytest.mark.parametrize("collected", ["meanwhile", "afterwards"])
async def test_the_last_words_are_there_before_the_log_is_called_complete(
    world: World,
    settings: Any,
    command: str,
    limits: dict[str, Any],
    end: Callable[[World, Run], None],
    status: str,
    words: tuple[bytes, bytes],
    collected: str,
) -> None:
    settings.RUNYARD_GRACE_SECONDS = 0.5
    carry = sync_to_async(carry_out, thread_sensitive=False)
    if collected == "meanwhile":
        async with Collecting():
            run = await carry(world, command, limits, end)
            found = await asyncio.gather(read(run, "MAIN"), read(run, "gpu-1"))
            await eventually(lambda: sealed(run))
    else:
        run = await carry(world, command, limits, end)
        streams = [stream async for stream in LogStream.objects.filter(attempt__run=run)]
        assert {(stream.name, stream.ended_at) for stream in streams} == {("MAIN", None), ("gpu-1", None)}
        async with Collecting():
            found = await asyncio.gather(read(run, "MAIN"), read(run, "gpu-1"))
            await eventually(lambda: sealed(run))
    assert (await sync_to_async(latest)(run)).status == status
    # Not at the very end: bash itself says what of its children TERM has ended.
    assert all(last in data for data, last in zip(found, words, strict=True)), found
    async for stream in LogStream.objects.filter(attempt__run=run):
        assert stream.end_reason == "complete"
        assert stream.committed == len(found[stream.name != "MAIN"])
