"""What is the process engine's own about terminals: accounts, folders, and who dies when."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from clusters.engines.base import MAIN, Duplex, EngineUnavailable, Handle
from clusters.engines.process.records import read_json
from tests.clusters.engines.process.conftest import as_root
from tests.clusters.engines.process.world import LIMIT, World, dead, open_the_way, until

HOLD = "touch ready; while :; do read -t 0.05 <> <(:); done"


async def shown(terminal: Duplex) -> str:
    text = b""
    async with asyncio.timeout(LIMIT):
        while data := await terminal.read():
            text += data
    return text.decode()


async def attach(world: World, handle: Handle, command: str) -> Duplex:
    return await world.engine.attach(handle, 0, MAIN, ["bash", "-c", command], (80, 24))


@as_root
async def test_it_has_the_ranks_account_and_folder_and_no_way_to_another(
    world: World, tmp_path: Path
) -> None:
    open_the_way(tmp_path)
    handle = await world.launch(f"id -u > uid; {HOLD}")
    await world.running(handle)
    uid = (world.home(handle) / "uid").read_text().strip()
    terminal = await attach(
        world, handle, f"id -u; id -G; pwd; umask; touch made; echo > $(tty) again; cat {tmp_path}/secret"
    )
    (tmp_path / "secret").write_text("closed")
    (tmp_path / "secret").chmod(0o600)
    text = await shown(terminal)
    assert text.split()[:5] == [uid, uid, str(world.home(handle)), "0077", "again"]
    assert "closed" not in text
    assert str((world.home(handle) / "made").stat().st_uid) == uid
    await terminal.close()


@as_root
async def test_it_sees_what_its_rank_sees_below_a_closed_folder(tmp_path: Path) -> None:
    open_the_way(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "secret").write_text("closed")
    world = World(closed / "cluster")
    try:
        handle = await world.launch(HOLD)
        await world.running(handle)
        terminal = await attach(world, handle, f"readlink /proc/self/ns/mnt; ls; cat {closed}/secret")
        space = os.readlink(f"/proc/{launch_pid(world, handle)}/ns/mnt")
        assert (await shown(terminal)).split()[:2] == [space, "ready"]
        await terminal.close()
    finally:
        await world.close()


def launch_pid(world: World, handle: Handle) -> int:
    started = read_json(str(world.private(handle) / "started.json"))
    assert started is not None
    return int(started["pid"])


async def test_an_adopter_opens_terminals_too(world: World) -> None:
    handle = await world.launch(HOLD)
    await world.running(handle)
    await world.kill_supervisor(handle)

    async def adopted() -> bool:
        await world.see(handle)
        return (world.private(handle) / "lock").read_text() != "" and not dead(world.supervisor(handle))

    await until(adopted)
    terminal = await opened(world, handle, "echo here")
    assert "here" in await shown(terminal)
    await terminal.close()


async def opened(world: World, handle: Handle, command: str) -> Duplex:
    """The adopter has its lock a moment before its socket."""
    found: list[Duplex] = []

    async def trying() -> bool:
        try:
            found.append(await attach(world, handle, command))
        except EngineUnavailable:
            return False
        return True

    await until(trying)
    return found[0]


async def test_an_open_terminal_does_not_keep_an_adopter_away(world: World) -> None:
    handle = await world.launch(HOLD)
    await world.running(handle)
    terminal = await attach(world, handle, "echo ready; sleep 600")
    assert b"ready" in await terminal.read()
    first = world.supervisor(handle)
    await world.kill_supervisor(handle)

    async def adopted() -> bool:
        await world.see(handle)
        return world.supervisor(handle) != first

    await until(adopted)
    await terminal.close()


async def test_nothing_of_a_terminal_is_left_after_its_attempt(world: World) -> None:
    handle = await world.launch(HOLD)
    await world.running(handle)
    terminal = await attach(
        world, handle, "trap '' HUP TERM; echo $$; while :; do read -t 0.05 <> <(:); done"
    )
    pid = (await terminal.read()).decode().split()[0]
    await world.engine.cleanup(handle)
    assert await shown(terminal) == ""
    assert dead(pid)
    await terminal.close()
