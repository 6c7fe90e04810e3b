"""The warm helper that starts supervisors: it makes launches faster, and nothing else different."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from clusters.engines.base import Handle, Phase
from clusters.engines.process import launch, procfs, spawner
from tests.clusters.engines.process.world import World, dead, spec, until

ROOT = Path(__file__).parents[4]


@pytest_asyncio.fixture
async def world(world: World) -> AsyncIterator[World]:
    """Its engine has looked once: from then on the spawner is there."""
    await world.engine.observe([])
    yield world


@pytest.fixture
def no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch that does not go through the spawner fails."""

    def refuse(*_: object) -> dict[Path, str]:
        raise AssertionError("a Python was started for one launch")

    monkeypatch.setattr(spawner, "_start_python", refuse)


def helper() -> int:
    found = spawner.shared._helper
    assert found is not None
    return found.pid


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def idle() -> None:
    """The spawner has buried what it forked for the last request."""
    children = Path(f"/proc/{helper()}/task/{helper()}/children")
    await until(lambda: children.read_text() == "")


async def ran_once(world: World, key: str, rank: int = 0) -> None:
    seen = await world.exited(Handle(key), rank)
    assert seen.exit_code == 0, seen.message
    assert (world.home(Handle(key), rank) / "effect").read_text() == "once\n"


def unix_sockets() -> list[str]:
    with open("/proc/net/unix") as file:
        return file.readlines()


ONCE = "echo once >> $HOME/effect"


async def test_ranks_are_started_by_the_spawner_and_are_not_below_it(world: World, no_python: None) -> None:
    handle = await world.launch("touch ready; sleep 1000", nodes=2)
    for rank in (0, 1):
        await world.running(handle, rank=rank)
        pid = world.supervisor(handle, rank)
        found = procfs.stat(pid)
        assert found is not None and found.ppid not in (helper(), os.getpid())
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert os.fsencode(world.private(handle, rank)) in command_line.split(b"\0")
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        assert os.getsid(pid) == pid
        links = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1)}
        assert links == {"/dev/null"}
        opened = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        own = {f"socket:[{line.split()[6]}]" for line in unix_sockets() if line.endswith(" terminal.sock\n")}
        assert {link for link in opened if link.startswith("socket:")} <= own
        assert len([link for link in opened if link.endswith("/lock")]) == 1


async def test_the_spawner_has_nothing_of_the_platform(world: World) -> None:
    pid = helper()
    await until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0").endswith(b"--serve"))
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    assert sorted(link.partition(":")[0] for link in links) == ["/dev/null", "/dev/null", "socket"]


async def test_after_fifty_launches_the_spawner_holds_nothing_of_them(world: World, no_python: None) -> None:
    await world.exited(await world.launch("true"))
    await idle()
    before, size = descriptors(helper()), resident(helper())
    for _ in range(50):
        await world.launch("true")
    await idle()
    assert descriptors(helper()) == before
    assert resident(helper()) - size < 1 << 20
    for handle in world.handles.values():
        assert (await world.exited(handle)).exit_code == 0


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_killed_spawner_is_replaced_and_its_ranks_go_on(world: World) -> None:
    first = await world.launch("mkfifo pipe; touch ready; read -r line < pipe; exit 7")
    await world.running(first)
    killed = helper()
    os.kill(killed, signal.SIGKILL)
    await world.exited(await world.launch(ONCE))
    assert helper() != killed
    assert (await world.see(first)).phase == Phase.RUNNING
    (world.home(first) / "pipe").write_text("go\n")
    seen = await world.exited(first)
    assert (seen.exit_code, seen.reason) == (7, None)


async def test_a_spawner_that_does_not_answer_is_replaced_and_nothing_runs_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawner, "LIMIT", 0.2)
    stuck = helper()
    os.kill(stuck, signal.SIGSTOP)
    keys = [world.new_key() for _ in range(3)]
    await asyncio.gather(*(world.launch(ONCE, key=key, nodes=2) for key in keys))
    assert dead(stuck)
    for key in keys:
        for rank in (0, 1):
            await ran_once(world, key, rank)


async def test_twenty_launches_at_once_run_once_each(world: World, no_python: None) -> None:
    keys = [world.new_key() for _ in range(20)]
    engines = [world.engine, world.another_engine()]
    await asyncio.gather(*(engine.launch(spec(ONCE), key) for key in keys for engine in engines))
    for key in keys:
        await ran_once(world, key)


async def test_killing_spawners_at_any_moment_starts_everything_once(world: World) -> None:
    keys = [world.new_key() for _ in range(20)]

    async def kill() -> None:
        while True:
            await asyncio.sleep(random.uniform(0, 0.02))
            found = spawner.shared._helper
            if found is not None:
                os.kill(found.pid, signal.SIGKILL)

    killing = asyncio.create_task(kill())
    await asyncio.gather(*(world.launch(ONCE, key=key, nodes=2) for key in keys))
    killing.cancel()
    for key in keys:
        for rank in (0, 1):
            await ran_once(world, key, rank)


ENGINE = """
import asyncio, json, sys
from clusters.engines.base import LaunchSpec
from clusters.engines.process import spawner
from clusters.engines.process.engine import from_config

async def main():
    config, command, *keys = json.loads(sys.argv[1])
    engine = from_config(config)
    await engine.observe([])
    print(spawner.shared._helper.pid, flush=True)
    spec = LaunchSpec(run_name="r", attempt_index=0, image="", command=command, nodes=2, gpus_per_node=0,
                      cpus=1, env={})
    await asyncio.gather(*(engine.launch(spec, key) for key in keys))
    print("launched", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def another_process(world: World, keys: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", ENGINE, json.dumps([world.config, ONCE, *keys])],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )


async def test_a_spawner_ends_with_its_engines_process(world: World) -> None:
    with another_process(world, [world.new_key()]) as process:
        assert process.stdout is not None
        pid = int(await asyncio.to_thread(process.stdout.readline))
        assert await asyncio.to_thread(process.stdout.readline) == b"launched\n"
        assert not dead(pid)
        process.kill()
    await until(lambda: dead(pid))
    for key in world.handles:
        await ran_once(world, key)


@pytest.mark.parametrize("after", [0.0, 0.005, 0.01, 0.02, 0.05])
async def test_a_process_that_dies_while_it_launches_leaves_nothing_half_started(
    world: World, after: float
) -> None:
    keys = [world.new_key() for _ in range(3)]
    with another_process(world, keys) as process:
        assert process.stdout is not None
        pid = int(await asyncio.to_thread(process.stdout.readline))
        await asyncio.sleep(after)
        process.kill()
    await asyncio.gather(*(world.launch(ONCE, key=key, nodes=2) for key in keys))
    for key in keys:
        for rank in (0, 1):
            await ran_once(world, key, rank)
    await until(lambda: dead(pid))


async def test_the_last_engine_that_is_closed_ends_the_spawner(world: World) -> None:
    other = world.another_engine()
    await other.observe([])
    pid = helper()
    await other.close()
    assert not dead(pid)
    await world.engine.close()
    assert dead(pid)


async def test_who_neither_launches_nor_observes_has_no_spawner(world: World) -> None:
    await world.engine.close()
    other = world.another_engine()
    await other.probe()
    await other.cleanup(Handle(world.new_key()))
    assert spawner.shared._helper is None
    await other.close()


async def test_a_forked_process_does_not_keep_its_parents_spawner(world: World) -> None:
    pid = helper()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        await world.engine.close()
        assert dead(pid)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def test_an_adopter_is_started_by_the_spawner_too(world: World, no_python: None) -> None:
    handle = await world.launch("touch ready; exec sleep 1000")
    await world.running(handle)
    first = world.supervisor(handle)
    await world.kill_supervisor(handle)
    assert (await world.see(handle)).phase == Phase.RUNNING
    await until(lambda: world.supervisor(handle) != first)
    await world.engine.cleanup(handle)


async def test_more_ranks_than_fit_into_a_request_are_started_without_the_spawner(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawner, "MOST_RANKS", 1)
    handle = await world.launch(ONCE, nodes=2)
    for rank in (0, 1):
        await ran_once(world, handle.key, rank)


async def test_a_request_that_nobody_finishes_is_not_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody still holds the report after the spawner's death: they may start the rank, so we must not."""
    monkeypatch.setattr(spawner, "LIMIT", 0.2)
    os.kill(helper(), signal.SIGSTOP)
    folder = tmp_path / "rank"
    folder.mkdir()
    lock = launch.lock_rank(folder)
    assert lock is not None
    held: list[int] = []
    ask = spawner.Spawner._ask

    def hold(
        self: spawner.Spawner, locks: dict[Path, int], report: spawner._Report
    ) -> spawner._Helper | None:
        held.append(os.dup(report.end))
        return ask(self, locks, report)

    monkeypatch.setattr(spawner.Spawner, "_ask", hold)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(launch.supervise, {folder: lock})
    assert not (folder / "exit.json").exists()
    for fd in (*held, lock):
        os.close(fd)
