"""/v1/shell: terminals for the client, with a real engine (mapi §6.6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from runs import commands
from runs.consumers import mint, terminal
from runs.consumers.shell import commands as parsed
from runs.models import Run
from runs.states import Status
from teams.commands import Refused, revoke_api_key
from teams.models import APIKey, AuditEntry, Membership
from teams.queries import Caller
from teams.states import Scope
from tests.runs.graphql.asking import new_key, serve
from tests.world import World, drive, make_run

HOLD = "while :; do read -t 0.05 <> <(:); done"
in_thread = sync_to_async


@pytest.fixture(autouse=True)
def static() -> None:
    """WhiteNoise warns of a folder that is not there."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def run(world: World) -> Run:
    """One of Ada's, of two ranks, that is running."""
    run = make_run(world.ada, HOLD, nodes=2)
    drive(run, Status.RUNNING)
    return run


def key_of(world: World, caller: Caller, *scopes: Scope) -> str:
    return new_key(caller, world.other if caller is world.olaf else world.vision, *scopes)


@asynccontextmanager
async def opened(
    port: int, place: str, key: str, command: str | None = None, **headers: str
) -> AsyncIterator[Any]:
    sent = {"Authorization": key, **headers}
    if command is not None:
        sent["Commands"] = json.dumps([command])
    async with connect(f"ws://127.0.0.1:{port}/v1/shell/{place}", additional_headers=sent) as raw:
        yield raw


async def resize(raw: Any, columns: int, lines: int) -> None:
    message = mint.MINTMessage()
    message.terminal_size.width, message.terminal_size.height = columns, lines
    await raw.send(message.SerializeToString())


async def write(raw: Any, text: str) -> None:
    message = mint.MINTMessage()
    message.user_input.input = text
    await raw.send(message.SerializeToString())


async def until(raw: Any, wanted: str) -> str:
    shown = b""
    async with asyncio.timeout(20):
        while wanted.encode() not in shown:
            frame = await raw.recv()
            assert isinstance(frame, bytes)  # A text frame would crash the client.
            shown += frame
    return shown.decode()


async def ended(raw: Any) -> tuple[str, int, str]:
    """All that is still shown, the close code and its reason."""
    shown = b""
    try:
        async with asyncio.timeout(20):
            while True:
                shown += await raw.recv()
    except ConnectionClosed as end:
        assert end.rcvd is not None
        return shown.decode(), end.rcvd.code, end.rcvd.reason


def rows(action: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action=action).order_by("pk"))


async def test_a_command_runs_in_the_rank_and_its_end_is_the_sockets(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    command = "echo rank $NODE_RANK && exit 3"
    async with serve() as port, opened(port, f"{run.name}/1", key, command) as raw:
        await resize(raw, 100, 30)
        assert await ended(raw) == ("rank 1\r\n", 1000, "The command ended with exit code 3.")


async def test_a_shell_has_the_size_that_was_said_hears_typing_and_resizing(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port, opened(port, f"{run.name}/0", key) as raw:
        await resize(raw, 100, 30)
        await write(raw, "stty size; echo $((6 * 7))-grün\r")
        shown = await until(raw, "42-grün")
        assert "30 100" in shown
        await resize(raw, 132, 50)
        await write(raw, "stty size; exit\r")
        shown, code, _ = await ended(raw)
        assert "50 132" in shown
        assert code == 1000


async def test_output_comes_also_where_nobody_says_or_types_anything(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port, opened(port, f"{run.name}/0", key, "stty size") as raw:
        assert await ended(raw) == ("24 80\r\n", 1000, "The command ended with exit code 0.")


async def test_a_line_with_quotes_in_quotes_is_read_as_a_shell_reads_it(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    line = """/bin/bash -c "test -t 0 && echo 'a  b' | cat; echo \\$NODE_RANK" """
    async with serve() as port, opened(port, f"{run.name}/0", key, line) as raw:
        assert (await ended(raw))[:2] == ("a  b\r\n0\r\n", 1000)


async def test_it_ends_with_its_run(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port, opened(port, f"{run.name}/0", key) as raw:
        await resize(raw, 80, 24)
        await write(raw, "echo $((1 + 1))-ready\r")
        await until(raw, "2-ready")
        await in_thread(commands.stop)(world.ada, run)
        driven = asyncio.create_task(in_thread(drive)(run))
        _, code, reason = await ended(raw)
        await driven
        assert (code, reason) == (1001, f"Run {run.name} has ended.")


async def test_it_ends_within_seconds_of_its_key_or_of_the_right_to_it(world: World, run: Run) -> None:
    def revoke() -> None:
        revoke_api_key(Caller(world.ada.user), APIKey.objects.get(user=world.ada.user).pk)

    def demote() -> None:
        Membership.objects.filter(user=world.max.user).update(role="viewer")

    for caller, change, said in ((world.ada, revoke, "revoked"), (world.max, demote, "any more")):
        key = await in_thread(key_of)(world, caller)
        async with serve() as port, opened(port, f"{run.name}/0", key, "echo ready; sleep 600") as raw:
            await until(raw, "ready")
            await in_thread(change)()
            async with asyncio.timeout(terminal.LOOK_EVERY + 10):
                _, code, reason = await ended(raw)
            assert code == 1001
            assert said in reason


async def test_who_may_not_is_told_why_and_not_retried(world: World, run: Run) -> None:
    cases = [
        (await in_thread(key_of)(world, world.vera), f"{run.name}/0", "may not open a terminal"),
        (await in_thread(key_of)(world, world.bob), f"{run.name}/0", "may not open a terminal"),
        (await in_thread(key_of)(world, world.ada, Scope.READ), f"{run.name}/0", "may not open a terminal"),
        (await in_thread(key_of)(world, world.olaf), f"{run.name}/0", "Could not find run"),
        (await in_thread(key_of)(world, world.ada), f"{run.name}/2", "its ranks are 0 to 1"),
        (await in_thread(key_of)(world, world.ada), f"{run.name}", "<run>/<rank>"),
        ("ryk_unknown", f"{run.name}/0", "Invalid API key"),
        ("", f"{run.name}/0", "No API key"),
    ]
    async with serve() as port:
        for key, place, said in cases:
            async with opened(port, place, key) as raw:
                shown, code, reason = await ended(raw)
                assert (shown, code) == ("", 1002)
                assert said in reason
    assert await in_thread(rows)("terminal.opened") == []


async def test_an_admin_of_the_team_may(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.max)
    async with serve() as port, opened(port, f"{run.name}/0", key, "echo hi") as raw:
        assert (await ended(raw))[0] == "hi\r\n"


async def test_a_run_that_waits_or_has_ended_has_none(world: World) -> None:
    key = await in_thread(key_of)(world, world.ada)
    run = await in_thread(make_run)(world.ada, "true")
    async with serve() as port:
        async with opened(port, f"{run.name}/0", key) as raw:
            assert (await ended(raw))[1:] == (
                1002, f"Run {run.name} is PENDING; a terminal opens while it is RUNNING.",
            )  # fmt: skip
        await in_thread(drive)(run)
        async with opened(port, f"{run.name}/0", key) as raw:
            assert (await ended(raw))[1:] == (1002, f"Run {run.name} has ended (COMPLETED).")


async def test_a_container_that_is_not_there_is_said(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port, opened(port, f"{run.name}/0", key, Container="MODEL") as raw:
        assert (await ended(raw))[1:] == (1002, "There is no container MODEL here, only MAIN.")


async def test_a_cluster_of_another_host_is_said(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port:
        with mock.patch("clusters.engines.process.host.host_id", lambda: "elsewhere"):
            async with opened(port, f"{run.name}/0", key, "true") as raw:
                _, code, reason = await ended(raw)
    assert code == 1002
    assert "belongs to another host" in reason


async def test_who_came_and_went_is_recorded_and_what_they_ran_is_not(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port, opened(port, f"{run.name}/1", key, "echo secret-word") as raw:
        await ended(raw)
    (came,) = await in_thread(rows)("terminal.opened")
    (went,) = await in_thread(rows)("terminal.closed")
    assert (came.actor, came.target, came.data["rank"], came.data["shell"]) == (
        world.ada.user.email, run.name, 1, False,
    )  # fmt: skip
    assert went.data["why"] == "The command ended with exit code 0."
    assert went.data["seconds"] >= 0
    assert "secret-word" not in json.dumps([came.data, went.data])


async def test_a_person_who_goes_away_hangs_up(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port:
        async with opened(port, f"{run.name}/0", key, "echo ready; sleep 601") as raw:
            await until(raw, "ready")
        waiting = "while pgrep -f 'sleep 60[1]' >/dev/null; do sleep 0.05; done; echo gone"
        async with opened(port, f"{run.name}/0", key, waiting) as raw:
            assert (await ended(raw))[0] == "gone\r\n"
        async with asyncio.timeout(10):
            while len(await in_thread(rows)("terminal.closed")) < 2:
                await asyncio.sleep(0.02)
    assert not +terminal._open


async def test_a_frame_that_is_no_message_ends_it(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port:
        for frame in (b"\xff\xff\xff", "text"):
            async with opened(port, f"{run.name}/0", key, "sleep 600") as raw:
                await raw.send(frame)
                _, code, reason = await ended(raw)
                assert code == 1002
                assert "MINTMessage" in reason


async def test_another_site_cannot_open_one(world: World, run: Run) -> None:
    key = await in_thread(key_of)(world, world.ada)
    async with serve() as port:
        with pytest.raises(InvalidStatus):
            async with connect(
                f"ws://127.0.0.1:{port}/v1/shell/{run.name}/0",
                origin=Origin("https://evil.example"),
                additional_headers={"Authorization": key},
            ):
                raise AssertionError("it was let in")


@pytest.mark.parametrize(
    ("header", "argv"),
    [
        (None, []),
        ("", []),
        ('["echo hi | cat"]', ["bash", "-c", "echo hi | cat"]),
        ('["ls", "-l"]', ["ls", "-l"]),
        ("[]", []),
    ],
)
def test_what_a_commands_header_means(header: str | None, argv: list[str]) -> None:
    assert parsed(header) == argv


@pytest.mark.parametrize("header", ["echo hi", '{"a": 1}', "[1]", '["a\\u0000b"]'])
def test_a_commands_header_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(Refused, match="Commands"):
        parsed(header)
