"""A rank's folder for files of its GPUs' processes: whatever is in it, only such files are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusters.engines.base import Handle, LogChunk
from tests.clusters.engines.process.conftest import as_root
from tests.clusters.engines.process.world import World, until

FILE = '"$MOSAICML_LOG_DIR/$MOSAICML_GPU_LOG_FILE_PREFIX"'


async def read(world: World, handle: Handle, stream: str) -> list[LogChunk]:
    return [chunk async for chunk in world.engine.read_logs(handle, 0, stream, 0)]


async def test_nothing_but_plain_files_with_a_gpus_number_are_streams(world: World) -> None:
    names = ["64.txt", "01.txt", "1.log", "x.txt", ".txt", "-1.txt"]
    others = "; ".join(f"echo x > {FILE}{name}" for name in names)
    handle = await world.launch(
        f"{others}; mkdir {FILE}1.txt; mkfifo {FILE}2.txt; ln -s $HOME/x {FILE}3.txt; echo mine > {FILE}63.txt"
    )
    assert (await world.exited(handle)).streams == ("gpu-63",)
    for number in (1, 2, 3, 64):
        assert await read(world, handle, f"gpu-{number}") == []


async def test_a_link_to_what_the_rank_may_not_read_is_not_followed(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the platform's\n")
    handle = await world.launch(f"ln -s {secret} {FILE}1.txt")
    await world.exited(handle)
    assert await read(world, handle, "gpu-1") == []


@as_root
async def test_a_file_of_somebody_else_is_not_read(world: World) -> None:
    handle = await world.launch(f"echo mine > {FILE}1.txt; echo mine > {FILE}2.txt")
    await world.exited(handle)
    os.chown(world.attempt(handle).gpu_logs(0) / "gpu_1.txt", 0, 0)
    assert await read(world, handle, "gpu-1") == []
    assert await read(world, handle, "gpu-2") != []


async def test_a_run_may_want_no_such_files(world: World) -> None:
    handle = await world.launch('echo "$MOSAICML_LOG_DIR"', env={"MOSAICML_LOG_DIR": "false"})
    assert await world.logs(handle) == b"false\n"
    assert (await world.exited(handle)).streams == ()


async def test_whoever_listens_is_told_of_a_new_file(world: World) -> None:
    listening = world.engine.events()
    handle = await world.launch(
        f"until [ -e go ]; do sleep 0.02; done; echo x > {FILE}1.txt; touch ready; sleep 1000"
    )
    assert await anext(listening) == handle.key  # It runs.
    (world.home(handle) / "go").touch()
    await world.running(handle)
    assert await anext(listening) == handle.key
    assert (await world.see(handle)).streams == ("gpu-1",)
    await listening.aclose()  # type: ignore[attr-defined]  # a generator


async def test_a_file_is_followed_without_inotify_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(24, "no inotify instances left")

    monkeypatch.setattr("clusters.engines.process.watch.Inotify", none_left)
    handle = await world.launch(f"for i in 1 2 3; do echo $i >> {FILE}1.txt; sleep 0.1; done")
    await until(lambda: (world.attempt(handle).gpu_logs(0) / "gpu_1.txt").exists())
    assert b"".join(chunk.data for chunk in await read(world, handle, "gpu-1")) == b"1\n2\n3\n"


@pytest.mark.parametrize("quota", [0, 5, 6])
async def test_the_quota_of_a_file_is_exact(world: World, quota: int) -> None:
    handle = await world.launch(f"printf '12345\\nmore\\n' > {FILE}1.txt", log_quota=quota)
    await world.exited(handle)
    whole = b"".join(chunk.data for chunk in await read(world, handle, "gpu-1"))
    line = f"[runyard] log limit of {quota} bytes reached; later output is not kept\n"
    assert whole == b"12345\nmore\n"[:quota] + (b"\n" if quota == 5 else b"") + line.encode()
