from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from clusters.engines.base import EngineUnavailable, Handle, LaunchRejected, MountedFile
from clusters.engines.process import launch, spawner
from tests.clusters.engines.process.world import World, dead, spec, until


def left_over(world: World) -> set[str]:
    """What is in the cluster's folders, but for the notes which account was the last and what was removed."""
    names = {name for folder in ("attempts", "claims", "tmp") for name in os.listdir(world.root / folder)}
    return {name for name in names if name != "last-uid" and not name.startswith("over-")}


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("touch x; ./x", 126)])
async def test_exit_codes_are_those_of_a_shell(world: World, command: str, code: int) -> None:
    assert (await world.exited(await world.launch(command))).exit_code == code


async def test_a_rank_gets_exactly_these_variables_and_none_of_the_platform(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    handle = await world.launch("env -0 > env; exec 3<>/dev/null", env={"MINE": "a b\nc", "NODE_RANK": "9"})
    await world.exited(handle)
    found = dict(item.split("=", 1) for item in (world.home(handle) / "env").read_text().split("\0") if item)
    home = str(world.home(handle))
    assert found.pop("MASTER_PORT").isdecimal()
    assert found.pop("USER") == found.pop("LOGNAME")
    tmp = Path(found.pop("TMPDIR"))
    assert tmp.parent == world.root / "tmp" and tmp.is_dir()
    assert found == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "PWD": home,  # PWD, SHLVL and _ are bash's own.
        "SHLVL": "1",
        "_": found["_"],
        "SHELL": found["SHELL"],
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        "MOSAICML_LOG_DIR": str(world.attempt(handle).gpu_logs(0)),
        "MOSAICML_GPU_LOG_FILE_PREFIX": "gpu_",
        "MINE": "a b\nc",
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "NODE_RANK": "0",
        "NUM_NODES": "1",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "RUNYARD_ATTEMPT": handle.key,
    }


async def test_live_attempts_have_different_ports(world: World) -> None:
    handles = [await world.launch("echo $MASTER_PORT") for _ in range(5)]
    assert len({await world.logs(handle) for handle in handles}) == 5


async def test_the_users_unbuffered_wins_and_no_descriptor_is_inherited(world: World) -> None:
    command = "echo $PYTHONUNBUFFERED; ls -l /proc/self/fd | grep -c -- '->'; readlink /proc/self/fd/0"
    handle = await world.launch(command, env={"PYTHONUNBUFFERED": ""})
    # 0, 1, 2 and the folder that `ls` itself has open.
    assert await world.logs(handle) == b"\n4\n/dev/null\n"


async def test_signals_limits_and_session_are_clean(world: World) -> None:
    command = (
        "grep -E 'SigIgn|SigBlk' /proc/self/status | tr -d '\\n\\t'; echo; ulimit -c; umask;"
        " ps -o pid=,pgid=,sid= $$ | xargs"
    )
    ignored, core, mask, ids = (await world.logs(await world.launch(command))).decode().splitlines()
    # 32 and 33 are the C library's own; whoever was started by posix_spawn, as by make, ignores them.
    of_the_library = 0b11 << 31
    for bits in (ignored.split(":")[1][:16], ignored.split(":")[2]):
        assert int(bits, 16) & ~of_the_library == 0
    assert (core, mask) == ("0", "0077")
    assert len(set(ids.split())) == 1


async def test_mounted_files_are_found_by_their_variables(world: World) -> None:
    files = (
        MountedFile("/mnt/config/parameters.yaml", b"a: 1\n", variables={"PARAMETERS": "{path}"}),
        MountedFile("/secrets/key", b"\0\xff", mode=0o755, variables={"KEY": "{path}"}),
    )
    handle = await world.launch("cat $PARAMETERS; stat -c %a $PARAMETERS $KEY; cat $KEY", files=files)
    assert await world.logs(handle) == b"a: 1\n400\n700\n\0\xff"


@pytest.mark.parametrize("path", ["relative", "/../up", "/a/../../up", "/", "/nul\0"])
async def test_a_mounted_path_must_not_lead_out(world: World, path: str) -> None:
    with pytest.raises(LaunchRejected) as caught:
        await world.launch("true", files=(MountedFile(path, b""),))
    assert caught.value.reason == "InvalidConfig"


@pytest.mark.parametrize("paths", [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")])
async def test_two_files_cannot_be_mounted_over_each_other_and_nothing_is_left(
    world: World, paths: tuple[str, str]
) -> None:
    with pytest.raises(LaunchRejected):
        await world.launch("true", files=tuple(MountedFile(path, b"") for path in paths))
    assert left_over(world) == set()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"env": {"A": "x\0"}}, "variable A"),
        ({"env": {"A": "x" * 131072}}, "128 KiB"),
    ],
)
async def test_what_can_never_start_is_rejected(world: World, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(LaunchRejected, match=word):
        await world.launch("true", **changes)


@pytest.mark.parametrize("key", ["../../etc", "", "x", "ABCDEF00-0000-0000-0000-000000000000", "a/b"])
async def test_a_key_must_be_a_uuid(world: World, key: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        await world.engine.launch(spec("true"), key)


@pytest.mark.parametrize("finisher", ["launch", "observe"])
async def test_a_launch_that_died_half_way_is_completed(
    world: World, monkeypatch: pytest.MonkeyPatch, finisher: str
) -> None:
    key = world.new_key()
    with monkeypatch.context() as patch:
        patch.setattr(launch, "start_ranks", lambda attempt: None)
        await world.launch("echo ran", key=key, nodes=2)
    assert not (world.private(Handle(key)) / "started.json").exists()
    if finisher == "launch":
        await world.launch("echo ran", key=key, nodes=2)
    assert (await world.exited(Handle(key), 1)).exit_code == 0
    assert await world.logs(Handle(key)) == b"ran\n"


async def test_a_launch_that_died_while_it_prepared_leaves_nothing_in_the_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.new_key()
    with monkeypatch.context() as patch:
        patch.setattr(launch, "_mount_files", lambda *_: (_ for _ in ()).throw(OSError("the power failed")))
        with pytest.raises(EngineUnavailable):
            await world.launch("true", key=key)
    assert (await world.engine.observe([Handle(key)]))[key].gone
    assert (await world.exited(await world.launch("true", key=key))).exit_code == 0


async def test_a_shell_that_cannot_be_run_is_the_engines_error(world: World, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "bash"
    fake.write_text("#!/no/such/interpreter\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    engine = world.another_engine(path=f"{tmp_path}/bin")
    handle = await engine.launch(spec("true"), world.new_key())
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason) == (None, "EngineError")
    assert "could not run" in seen.message


async def test_python_that_does_not_start_is_the_engines_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawner, "SUPERVISOR", Path("/no/such/supervisor.py"))
    seen = await world.exited(await world.launch("true"))
    assert (seen.exit_code, seen.reason) == (None, "EngineError")
    assert "/no/such/supervisor.py" in seen.message


async def test_cleanup_leaves_no_process_no_folder_and_no_claim(world: World) -> None:
    command = (
        "mkdir -p a/b; ln -s / root; chmod 0 a; (setsid sleep 1000 & echo $! > pid); touch ready; sleep 1000"
    )
    handle = await world.launch(command, nodes=2)
    await world.running(handle)
    await world.running(handle, rank=1)
    pids = [(world.home(handle, rank) / "pid").read_text() for rank in (0, 1)]
    pids += [str(world.supervisor(handle, rank)) for rank in (0, 1)]
    await world.engine.cleanup(handle)
    assert all(map(dead, pids))
    assert left_over(world) == set()
    assert (await world.engine.observe([handle]))[handle.key].gone
    await world.engine.cleanup(handle)


async def test_the_bell_rings_when_a_rank_starts_and_ends(world: World) -> None:
    heard: list[str] = []

    async def listen() -> None:
        async for key in world.engine.events():
            heard.append(key)

    listener = asyncio.create_task(listen())
    events = world.root / "events"
    await until(lambda: events.is_dir() and any(events.iterdir()))
    (events / "stale.sock").touch()
    handle = await world.launch("true")
    await until(lambda: len(heard) >= 2)
    assert set(heard) == {handle.key}
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    assert [path.name for path in events.iterdir() if path.name != "stale.sock"] == []


async def test_another_host_knows_nothing(world: World) -> None:
    engine = world.another_engine(host_id="some-other-host")
    handle = Handle(world.new_key())
    for call in (
        engine.launch(spec("true"), handle.key),
        engine.observe([handle]),
        engine.stop(handle, 1),
        engine.cleanup(handle),
        engine.probe(),
        anext(engine.read_logs(handle, 0, "MAIN", 0)),
    ):
        with pytest.raises(EngineUnavailable, match="another host"):
            await call


async def test_pythons_multiprocessing_finds_room_for_its_sockets(world: World, tmp_path: Path) -> None:
    """As PyTorch's data loaders use it; `tmp_path` itself is too long, so a short root it is."""
    short = Path(f"/tmp/ry-{os.getpid()}")
    world = World(short)
    try:
        program = (
            "from multiprocessing.managers import SyncManager as M; m = M(); m.start(); print(m.address)"
        )
        handle = await world.launch(f"/usr/bin/env python3 -c '{program}'")
        said = (await world.logs(handle)).decode()
        assert said.startswith(f"{short}/tmp/"), said
        assert (await world.exited(handle)).exit_code == 0
    finally:
        await world.close()
        shutil.rmtree(short)


async def test_a_record_that_a_power_cut_has_torn_is_as_if_never_written(world: World) -> None:
    healthy, torn = await world.launch("sleep 60"), await world.launch("sleep 60")
    await until(
        lambda: (world.root / "attempts" / healthy.key / "private" / "rank-0" / "started.json").exists()
    )
    (world.root / "attempts" / torn.key / "private" / "attempt.json").write_text("")
    seen = await world.engine.observe([healthy, torn])
    assert seen[healthy.key].ranks[0].phase == "running"
