"""Terminals in a running rank, the same on every engine that has them."""

from __future__ import annotations

import asyncio

import pytest

from clusters.engines.base import MAIN, AttachRefused, Duplex, EngineUnavailable, Handle
from tests.clusters.engines.conformance.steps import hold, pause, say
from tests.clusters.engines.conformance.worlds import Can, World

SIZE = (80, 24)


async def shown(world: World, terminal: Duplex, wanted: str | None = None) -> str:
    """What the terminal shows until this is among it; without it, until the command has ended."""

    async def reading() -> str:
        text = b""
        while wanted is None or wanted.encode() not in text:
            data = await terminal.read()
            if not data:
                assert wanted is None, f"it ended without {wanted!r}: {text!r}"
                break
            text += data
        return text.decode()

    return await world.while_time_passes(reading())


async def attach(world: World, handle: Handle, command: str = "", rank: int = 0) -> Duplex:
    argv = ["bash", "-c", command] if command else []
    return await world.engine.attach(handle, rank, MAIN, argv, SIZE)


@pytest.fixture
async def handle(world: World) -> Handle:
    """A run of one rank that goes on until it is stopped."""
    handle = await world.launch(say("begun"), hold(), env={"MINE": "yes"})
    await world.said(handle, "begun")
    return handle


@pytest.mark.needs(Can.TERMINALS)
async def test_a_command_runs_beside_the_ranks_own_with_its_environment(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle, "echo $MINE $NODE_RANK $RUNYARD_ATTEMPT; test -t 0 && test -t 1")
    assert (await shown(world, terminal)).split() == ["yes", "0", handle.key]
    assert terminal.exit_code == 0
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_the_exit_code_is_that_of_the_command(world: World, handle: Handle) -> None:
    for command, code in (("exit 3", 3), ("kill -9 $$", 137)):
        terminal = await attach(world, handle, command)
        await shown(world, terminal)
        assert terminal.exit_code == code
        await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_without_a_command_it_is_a_shell_that_hears_what_is_typed(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle)
    await terminal.write("echo $((20 + 3))-größer; exit 5\r".encode())
    assert "23-größer" in await shown(world, terminal)
    assert terminal.exit_code == 5
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_ctrl_c_ends_what_runs_in_the_terminal_and_nothing_else(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle, "echo waiting; sleep 600")
    await shown(world, terminal, "waiting")
    await terminal.write(b"\x03")
    await shown(world, terminal)
    assert terminal.exit_code == 130
    await world.running(handle)
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_the_command_sees_how_large_the_terminal_is_and_that_it_changes(
    world: World, handle: Handle
) -> None:
    waiting = "trap 'stty size; exit' WINCH; stty size; while :; do read -t 0.05; done"
    terminal = await attach(world, handle, waiting)
    await shown(world, terminal, "24 80")
    await terminal.resize(132, 50)
    await shown(world, terminal, "50 132")
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_a_long_output_arrives_whole(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle, "seq 200000")
    numbers = (await shown(world, terminal)).split()
    assert numbers == [str(number) for number in range(1, 200_001)]
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_many_may_be_open_at_once_and_each_hears_its_own(world: World, handle: Handle) -> None:
    terminals = [await attach(world, handle, "read line; echo got $line") for _ in range(12)]
    for number, terminal in enumerate(terminals):
        await terminal.write(f"nr-{number}\r".encode())
    for number, terminal in enumerate(terminals):
        assert f"got nr-{number}" in await shown(world, terminal)
        await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_each_rank_has_its_own(world: World) -> None:
    handle = await world.launch(say("begun"), hold(), nodes=2)
    await world.said(handle, "begun", rank=1)
    terminal = await attach(world, handle, "echo rank $NODE_RANK", rank=1)
    assert "rank 1" in await shown(world, terminal)
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_a_terminal_ends_when_its_run_is_stopped(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle)  # A shell at a terminal does not hear TERM.
    await terminal.write(b"echo $((1 + 1))-ready\r")
    await shown(world, terminal, "2-ready")
    await world.engine.stop(handle, 600.0)
    await shown(world, terminal)
    assert (await world.exited(handle)).stopped
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_a_terminal_ends_when_its_run_ends_by_itself(world: World) -> None:
    handle = await world.launch(say("begun"), pause(1.0))
    await world.said(handle, "begun")
    terminal = await attach(world, handle, "sleep 600")
    await shown(world, terminal)
    assert (await world.exited(handle)).exit_code == 0
    await terminal.close()


@pytest.mark.needs(Can.TERMINALS)
async def test_hanging_up_ends_what_ran_there_and_the_run_goes_on(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle, "echo ready; sleep 600; echo never")
    await shown(world, terminal, "ready")
    await terminal.close()
    assert await terminal.read() == b""
    other = await attach(world, handle, "while pgrep -f 'sleep 60[0]'; do sleep 0.05; done; echo gone")
    assert "gone" in await shown(world, other)
    await other.close()
    await world.running(handle)


@pytest.mark.needs(Can.TERMINALS)
async def test_reading_ends_when_somebody_else_hangs_up(world: World, handle: Handle) -> None:
    terminal = await attach(world, handle, "sleep 600")
    reading = asyncio.create_task(terminal.read())
    await asyncio.sleep(0)
    await terminal.close()
    assert await world.while_time_passes(asyncio.wait_for(reading, 10)) == b""


@pytest.mark.needs(Can.TERMINALS)
async def test_a_program_that_is_not_there_is_said(world: World, handle: Handle) -> None:
    with pytest.raises(AttachRefused, match="no-such-program"):
        await world.engine.attach(handle, 0, MAIN, ["no-such-program"], SIZE)


@pytest.mark.needs(Can.TERMINALS)
async def test_there_is_none_in_what_has_ended_or_never_was(world: World) -> None:
    handle = await world.launch(say("done"))
    await world.exited(handle)
    for key, rank, stream in ((handle, 0, MAIN), (handle, 7, MAIN), (Handle(world.new_key()), 0, MAIN)):
        with pytest.raises(AttachRefused):
            await world.engine.attach(key, rank, stream, [], SIZE)


@pytest.mark.needs(Can.TERMINALS)
async def test_there_is_none_in_a_container_that_is_not_there(world: World, handle: Handle) -> None:
    with pytest.raises(AttachRefused, match="SIDE"):
        await world.engine.attach(handle, 0, "SIDE", [], SIZE)


@pytest.mark.needs(Can.TERMINALS)
async def test_a_cluster_that_is_away_has_no_terminals_now(world: World, handle: Handle) -> None:
    async with world.unreachable():
        with pytest.raises(EngineUnavailable):
            await attach(world, handle)


async def test_an_engine_without_terminals_says_so(world: World, handle: Handle) -> None:
    if Can.TERMINALS not in world.lacks:
        pytest.skip("it has them")
    with pytest.raises(AttachRefused, match=world.engine.kind):
        await attach(world, handle)
