from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.contrib.sessions.models import Session
from django.utils import timezone

from clusters.engines.base import Mark, Source
from runs import commands
from runs.consumers import socket as socket_module
from runs.logs import store
from runs.models import LogStream
from teams.models import Membership, User
from teams.queries import Caller
from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, drive, make_run

DATA = b"one\ntwo\nthree\n"


@pytest.fixture
def stream(world: World) -> LogStream:
    """The log of a run of Ada's that has ended."""
    attempt = as_if(make_run(world.ada), *TO_RUNNING)
    stream = LogStream.objects.get(attempt=attempt)
    writer = store.Writer(store.location(stream), 0)
    writer.append(DATA, [Mark(0, 5.0, Source.STDOUT), Mark(4, 6.0, Source.STDERR)])
    writer.close()
    LogStream.objects.filter(pk=stream.pk).update(
        committed=len(DATA), ended_at=timezone.now(), end_reason="complete", sha256="abc"
    )
    return stream


def cookie_of(caller: Caller | None) -> str:
    client = browser(caller)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())


async def opened(path: str, caller: Caller | None, origin: str = settings.RUNYARD_URL) -> Any:
    """An open page socket; None where it was refused. (Channels' own communicator wants daphne.)"""
    from console.asgi import application  # makes its middleware, which looks for the folder of static files

    cookie = await sync_to_async(cookie_of)(caller)
    path, _, query = path.partition("?")
    scope = {
        "type": "websocket",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"cookie", cookie.encode()), (b"origin", origin.encode())],
        "subprotocols": [],
    }
    socket: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]
    await socket.send_input({"type": "websocket.connect"})
    answer = await socket.receive_output(timeout=5)
    return socket if answer["type"] == "websocket.accept" else None


async def left(socket: Any) -> None:
    await socket.send_input({"type": "websocket.disconnect", "code": 1001})
    await socket.wait(timeout=5)


async def told(socket: Any) -> Any:
    """The next message: JSON, bytes, or the code that it was closed with."""
    output = await socket.receive_output(timeout=5)
    if output["type"] == "websocket.close":
        return output["code"]
    return json.loads(output["text"]) if output.get("text") else output["bytes"]


async def everything(socket: Any) -> list[Any]:
    messages = [await told(socket)]
    while not isinstance(messages[-1], int):
        messages.append(await told(socket))
    return messages


async def test_a_log_comes_with_offsets_marks_and_its_end(world: World, stream: LogStream) -> None:
    socket = await opened(f"/ws/log/{stream.pk}?from=4", world.vera)
    begin, marks, frame, end, code = await everything(socket)
    assert (begin["from"], begin["committed"]) == (4, len(DATA))
    assert marks == {"marks": [[4, 6.0, "stderr"]]}
    assert frame == (4).to_bytes(8, "big") + DATA[4:]
    assert end == {"end": {"total": len(DATA), "sha256": "abc", "reason": "complete"}}
    assert code == 1000


@pytest.mark.parametrize(("wanted", "first"), [("", 0), ("-6", 8), ("-999", 0), ("999", 14), ("x", 0)])
async def test_where_it_begins(world: World, stream: LogStream, wanted: str, first: int) -> None:
    socket = await opened(f"/ws/log/{stream.pk}?from={wanted}", world.ada)
    begin, *rest = await everything(socket)
    assert begin["from"] == first
    assert b"".join(m[8:] for m in rest if isinstance(m, bytes)) == DATA[first:]


async def test_logs_of_others_are_not_there(world: World, stream: LogStream) -> None:
    for path in (f"/ws/log/{stream.pk}", f"/ws/log/{world.vision.pk}"):
        assert await everything(await opened(path, world.olaf)) == [4404]
    assert await everything(await opened(f"/ws/log/{stream.pk}", None)) == [4401]


@pytest.mark.parametrize("how", ["logged out", "left the team", "inactive"])
async def test_an_open_socket_ends_with_the_right_to_have_it(
    world: World, stream: LogStream, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert socket_module.RECHECK <= 4
    monkeypatch.setattr(socket_module, "RECHECK", 0.05)
    await LogStream.objects.filter(pk=stream.pk).aupdate(ended_at=None)
    socket = await opened(f"/ws/log/{stream.pk}", world.bob)
    while not isinstance(await told(socket), bytes):
        pass
    match how:
        case "logged out":
            await Session.objects.all().adelete()
        case "left the team":
            await Membership.objects.filter(user=world.bob.user).adelete()
        case _:
            await User.objects.filter(pk=world.bob.user.pk).aupdate(is_active=False)
    assert await told(socket) == (4404 if how == "left the team" else 4401)


async def test_another_site_cannot_open_a_socket_with_ones_session(world: World, stream: LogStream) -> None:
    assert await opened(f"/ws/log/{stream.pk}", world.ada, origin="https://evil.example") is None
    assert await opened("/ws/changes", world.ada, origin="https://evil.example") is None
    neighbour = settings.RUNYARD_URL.rsplit(":", 1)[0] + ":1"
    assert await opened("/ws/changes", world.ada, origin=neighbour) is None
    assert await opened("/ws/changes", world.ada, origin=settings.RUNYARD_URL + ".evil.example") is None


async def test_an_address_that_is_not_there_is_refused(world: World) -> None:
    for path in ("/nope", "/ws/nope", "/ws/log/abc"):
        assert await opened(path, world.ada) is None


async def test_changes_are_those_of_ones_own_teams(world: World) -> None:
    ours, theirs = await opened("/ws/changes", world.bob), await opened("/ws/changes", world.olaf)
    assert await told(ours) == await told(theirs) == {"runs": {}}
    run = await sync_to_async(make_run)(world.ada)
    assert await told(ours) == {"runs": {str(run.pk): "PENDING"}}
    assert await theirs.receive_nothing(timeout=0.3)
    for socket in (ours, theirs):
        await left(socket)


async def test_changes_of_one_run(world: World) -> None:
    run, other = await sync_to_async(make_run)(world.ada), await sync_to_async(make_run)(world.ada)
    assert await everything(await opened(f"/ws/changes?run={run.pk}", world.olaf)) == [4404]
    assert await everything(await opened("/ws/changes?run=x", world.ada)) == [4404]
    socket = await opened(f"/ws/changes?run={run.pk}", world.ada)
    assert await told(socket) == {"runs": {}}
    await sync_to_async(commands.stop)(world.ada, other)
    await sync_to_async(commands.stop)(world.ada, run)
    assert list((await told(socket))["runs"]) == [str(run.pk)]
    await left(socket)


async def test_a_terminal_is_for_those_who_may_change_the_run(world: World) -> None:
    run = await sync_to_async(make_run)(world.ada)
    for caller, code in ((world.olaf, 4404), (world.vera, 4404), (world.bob, 4404), (None, 4401)):
        assert await everything(await opened(f"/ws/terminal/{run.name}/0", caller)) == [code]
    assert await opened(f"/ws/terminal/{run.name}/0", world.ada, origin="https://evil.example") is None


async def test_a_terminal_in_a_page_opens_says_so_and_says_its_end(world: World) -> None:
    run = await sync_to_async(make_run)(world.ada, "while :; do read -t 0.05 <> <(:); done")
    early = await opened(f"/ws/terminal/{run.name}/0", world.ada)
    await early.send_input({"type": "websocket.receive", "text": '{"columns": 90, "lines": 30}'})
    assert await everything(early) == [
        {"ended": f"Run {run.name} is PENDING; a terminal opens while it is RUNNING.", "again": False}, 1000,
    ]  # fmt: skip
    await sync_to_async(drive)(run, "RUNNING")
    socket = await opened(f"/ws/terminal/{run.name}/0", world.max)
    await socket.send_input({"type": "websocket.receive", "text": '{"columns": 90, "lines": 30}'})
    assert await told(socket) == {"open": True}
    await socket.send_input({"type": "websocket.receive", "bytes": b"stty size; exit 4\r"})
    shown, end, code = b"", {}, 0
    for message in await everything(socket):
        if isinstance(message, bytes):
            shown += message
        elif isinstance(message, dict):
            end = message
        else:
            code = message
    assert b"30 90" in shown
    assert (end, code) == ({"ended": "The command ended with exit code 4.", "again": True}, 1000)
