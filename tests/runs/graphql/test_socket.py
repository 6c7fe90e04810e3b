"""/graphql over a websocket, in both dialects (mapi §1.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from console.graphql import socket
from runs.models import Run
from teams.commands import revoke_api_key
from teams.models import APIKey, Membership
from tests.runs.graphql.asking import API, Failed, Socket, document, serve, variant
from tests.world import World, make_run

ME = document(variant("getUsers"))
OFFERED = [Subprotocol("graphql-ws"), Subprotocol("graphql-transport-ws")]
both = pytest.mark.parametrize("legacy", [True, False], ids=["graphql-ws", "graphql-transport-ws"])


@pytest.fixture
def run(world: World) -> Run:
    return make_run(world.ada)


async def closed(raw: Any, within: float = 10) -> tuple[int, str]:
    """Wait until the server closes; what came before is dropped."""
    try:
        async with asyncio.timeout(within):
            while True:
                await raw.recv()
    except ConnectionClosed as end:
        assert end.rcvd is not None
        return end.rcvd.code, end.rcvd.reason


async def test_the_older_dialect_is_preferred_and_its_header_spelled_as_the_client_reads_it(ada: API) -> None:
    async with serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: graphql-ws, graphql-transport-ws\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Sec-WebSocket-Protocol: graphql-ws\r\n" in head
        writer.close()
        async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=OFFERED[::-1]) as raw:
            assert raw.subprotocol == "graphql-ws"


@both
async def test_operations_share_a_connection(legacy: bool, ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key, legacy=legacy) as ws:
        first, second = await ws.watch(run.name), await ws.watch(run.name)
        messages = [await ws.receive(), await ws.receive()]
        assert {m["id"] for m in messages} == {first, second}
        assert {m["payload"]["data"]["watchRunStatus"] for m in messages} == {"PENDING"}


@both
@pytest.mark.parametrize("key", ["wrong", "", None, "Basic YTpi"])
async def test_a_bad_key_is_let_in_and_told_so_by_each_operation(
    legacy: bool, key: str | None, run: Run
) -> None:
    async with serve() as port, Socket(port, key, legacy=legacy) as ws:
        for _ in range(2):
            await ws.watch(run.name)
            with pytest.raises(Failed, match="API key") as failed:
                await ws.next()
            assert failed.value.code == 401


@both
async def test_what_is_not_there_is_an_error_and_the_connection_stays(
    legacy: bool, world: World, run: Run, api_of: Callable[..., API]
) -> None:
    key = await sync_to_async(lambda: api_of(world.olaf).key)()
    async with serve() as port, Socket(port, key, legacy=legacy) as ws:
        await ws.watch(run.name)
        with pytest.raises(Failed, match=f"404: Could not find run: {run.name}"):
            await ws.next()
        await ws.logs(run.name)
        with pytest.raises(Failed, match="Could not find run"):
            await ws.next()
        await ws.start(ME, getUsersData={})
        with pytest.raises(Failed, match="400: Queries and mutations are answered over HTTP"):
            await ws.next()
        await ws.start("subscription { nothing }")
        with pytest.raises(Failed, match="400: Cannot query field"):
            await ws.next()


async def test_a_stop_is_confirmed_in_the_older_dialect(ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        number = await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await ws.send(type="stop", id=number)
        assert await ws.receive() == {"type": "complete", "id": number}
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await ws.send(type="connection_terminate")
        assert (await closed(ws.raw))[0] == 1000


async def test_pings_are_answered_in_the_newer_dialect(ada: API) -> None:
    async with serve() as port, Socket(port, ada.key, legacy=False) as ws:
        await ws.send(type="ping")
        assert await ws.receive() == {"type": "pong"}


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"type": "start"}', '{"type": "dance"}', "{" * 3000, b"\x00"]
)
async def test_what_is_no_message_closes(text: str | bytes, ada: API) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.raw.send(text)
        assert (await closed(ws.raw))[0] in {4400, 1003}


async def test_an_operation_before_init_closes(ada: API) -> None:
    async with serve() as port, connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=OFFERED) as raw:
        await raw.send('{"type": "start", "id": "1", "payload": {"query": "{a}"}}')
        assert (await closed(raw))[0] == 4401


async def test_a_connection_carries_a_hundred_operations(ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        for _ in range(socket.MOST_OPERATIONS + 1):
            await ws.watch(run.name)
        messages = [await ws.receive() for _ in range(socket.MOST_OPERATIONS + 1)]
        (error,) = (m for m in messages if m["type"] == "error")
        assert error["payload"]["extensions"]["code"] == 429


async def test_pages_of_other_sites_get_no_socket(ada: API) -> None:
    async with serve() as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(
                f"ws://127.0.0.1:{port}/graphql", subprotocols=OFFERED, origin=Origin("https://evil.example")
            )
        assert refused.value.response.status_code == 403
        async with connect(f"ws://127.0.0.1:{port}/graphql", origin=Origin(f"http://127.0.0.1:{port}")):
            pass


@pytest.mark.parametrize("how", ["revoked", "expired", "inactive", "left"])
async def test_a_key_that_ends_ends_what_it_started_within_five_seconds(
    how: str, ada: API, world: World, run: Run
) -> None:
    def end() -> None:
        keys = APIKey.objects.filter(user=world.ada.user)
        if how == "revoked":
            revoke_api_key(world.ada, keys.get().pk)
        elif how == "expired":
            keys.update(expires_at="2020-01-01T00:00:00Z")
        elif how == "inactive":
            type(world.ada.user).objects.filter(pk=world.ada.user.pk).update(is_active=False)
        else:
            Membership.objects.filter(user=world.ada.user).delete()

    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await sync_to_async(end)()
        async with asyncio.timeout(5):
            with pytest.raises(Failed, match="401: Your API key"):
                await ws.next()
            assert (await closed(ws.raw))[0] == 4403
