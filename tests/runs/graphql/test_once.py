"""createRun makes one run for a request and its repetitions, and one for each request that was meant."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from channels.db import database_sync_to_async
from django.db import OperationalError, connections
from django.utils import timezone

from runs.commands import Asked, forget_submissions, once, owner
from runs.graphql import load
from runs.models import Run, Submission
from teams.commands import Refused
from tests.runs.graphql.asking import API, document, serve, variant
from tests.world import World, make_run
from tests.world import until as await_that

INPUT = {"runName": "hello", "image": "python:3.12", "command": "true"}


def request(key: str, given: Any = None, **headers: str) -> bytes:
    """What the client puts on the wire."""
    variables = {"createRunData": {"runInput": given or INPUT}}
    body = json.dumps({"query": document(variant("createRun")), "variables": variables}).encode()
    lines = {
        "Host": "127.0.0.1",
        "Authorization": key,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /graphql HTTP/1.1\r\n{head}\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader) -> Any:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line for line in head.splitlines() if line.startswith("content-length"))
    return json.loads(await reader.readexactly(int(length.split(":")[1])))


async def create(port: int, key: str, given: Any = None, **headers: str) -> Any:
    """As the client does it: a connection of its own, closed once the answer was read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(key, given, **headers))
        answer = await read_answer(reader)
    finally:
        writer.close()
        await writer.wait_closed()
    if "errors" in answer:
        return answer["errors"][0]["extensions"]["code"], answer["errors"][0]["message"]
    return answer["data"]["createRun"][0]["name"]


@database_sync_to_async
def count(of: type[Run] | type[Submission] = Run) -> int:
    return of.objects.count()


async def more_than(before: int) -> bool:
    return bool(await count() > before)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def settled() -> bool:
    """Nothing is open any more: every answer was received."""
    return not await count(Submission)


@database_sync_to_async
def lost() -> bool:
    return Submission.objects.filter(lost_at__isnull=False).exists()


async def test_the_same_input_is_meant_as_often_as_it_is_answered(world: World, ada: API) -> None:
    async with serve() as port:
        # None of them waits for longer than it takes to answer those before.
        with mock.patch("runs.commands.asked.PATIENCE", 60.0):
            names = await asyncio.gather(*(create(port, ada.key) for _ in range(5)))
        names += [await create(port, ada.key) for _ in range(3)]
        assert len(set(names)) == 8 == await count()
        await until(settled)


async def test_a_connection_that_is_used_again_has_brought_its_answers(world: World, ada: API) -> None:
    async with serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        names = set()
        for _ in range(3):
            writer.write(request(ada.key))
            answer = await read_answer(reader)
            names.add(answer["data"]["createRun"][0]["name"])
        assert len(names) == 3
        await until(settled)  # while it stays open
        writer.close()


async def test_who_has_asked_to_close_gets_the_answer_and_the_end(world: World, ada: API) -> None:
    async with serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(ada.key, Connection="close"))
        assert b"createRun" in await reader.read()
        writer.close()
        await until(settled)


async def hang_up(port: int, sent: bytes) -> None:
    """Whoever asked has gone before there is an answer, and after the commit."""
    before = await count()
    show = load.show_new

    gone = threading.Event()

    def when_they_have_gone(*given: Any) -> Any:
        gone.wait(20)
        return show(*given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(load, "show_new", when_they_have_gone)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await until(lambda: more_than(before))
        writer.close()
        await until(lost)
        gone.set()


async def leave_at_once(port: int, sent: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    writer.close()


async def reset_unread(port: int, sent: bytes) -> None:
    """The answer has come to this side, and nobody reads it: closing sends a reset."""
    before = await count()
    peer = socket.create_connection(("127.0.0.1", port))
    peer.sendall(sent)
    peer.settimeout(20)
    await asyncio.get_running_loop().run_in_executor(None, peer.recv, 1)
    assert await count() == before + 1
    peer.close()


@pytest.mark.parametrize("leave", [hang_up, reset_unread])
async def test_who_did_not_get_the_answer_gets_the_same_run_when_they_ask_again(
    world: World, ada: API, leave: Callable[[int, bytes], Any]
) -> None:
    async with serve() as port:
        await leave(port, request(ada.key))
        await until(lost)
        name = await create(port, ada.key)
        assert await count() == 1
        await until(settled)
        assert await create(port, ada.key) != name  # answered: this one is meant


async def test_a_retry_that_comes_at_once_waits_for_what_becomes_of_the_first(world: World, ada: API) -> None:
    async with serve() as port:
        for _ in range(5):
            await leave_at_once(port, request(ada.key))
            await create(port, ada.key)
            await until(settled)
        assert await count() == 5


def cut_off(upstream: socket.socket) -> None:
    """Read the first bytes and hang up at once: an answer that lies there unread for long counts as read."""
    upstream.recv(16)
    upstream.close()


async def test_a_proxy_that_gives_up_after_the_commit_makes_one(world: World, ada: API) -> None:
    """The first two answers of the console are cut off after their first bytes; the client hears 502."""
    async with serve() as port:
        cut = 2

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal cut
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            body = await reader.readexactly(int(length.split(b":")[1]))
            upstream = socket.create_connection(("127.0.0.1", port))
            upstream.sendall(head + body)
            loop = asyncio.get_running_loop()
            if cut:
                cut -= 1
                await loop.run_in_executor(None, cut_off, upstream)
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno")
            else:
                answer = b""
                while b"}]}}" not in answer:
                    answer += await loop.run_in_executor(None, upstream.recv, 65536)
                upstream.close()
                writer.write(answer)
            await writer.drain()
            writer.close()

        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        entrance = proxy.sockets[0].getsockname()[1]
        tries = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", entrance)
            writer.write(request(ada.key))
            tries.append((await reader.read()).split(b"\r\n")[0])
            writer.close()
        proxy.close()
        assert [b"502" in line for line in tries] == [True, True, False]
        assert await count() == 1


async def test_what_a_dead_process_has_left_unanswered_is_found(world: World, ada: API) -> None:
    async with serve() as port:
        await hang_up(port, request(ada.key))
        # As a process leaves it that was killed between commit and answer: nobody holds its lock.
        await database_sync_to_async(Submission.objects.update)(lost_at=None, owner=4711)
        await create(port, ada.key)
        assert await count() == 1


async def test_an_error_is_no_answer(world: World, ada: API, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    async with serve() as port:
        with monkeypatch.context() as patched:
            patched.setattr(load, "show_new", away)
            code, _ = await create(port, ada.key)
        assert code == 503  # the client asks again
        await create(port, ada.key)
        assert await count() == 1


async def test_a_run_that_was_deleted_meanwhile_is_not_given_back(world: World, ada: API) -> None:
    async with serve() as port:
        await hang_up(port, request(ada.key))
        await database_sync_to_async(Run.objects.update)(deleted_at=timezone.now())
        await create(port, ada.key)
        assert await count() == 2


async def test_fifty_at_once_with_one_key_make_one_run(world: World, ada: API) -> None:
    async with serve() as port:
        headers = {"Idempotency-Key": "sweep-7"}
        answers = await asyncio.gather(*(create(port, ada.key, **headers) for _ in range(50)))
        assert len(set(answers)) == 1 == await count()


def test_a_key_stands_for_one_input(world: World, ada: API) -> None:
    def post(key: str, api: API = ada, **more: str) -> Any:
        query = {
            "query": document(variant("createRun")),
            "variables": {"createRunData": {"runInput": {**INPUT, **more}}},
        }
        return api.post(query, **{"idempotency-key": key}).json()

    first = post("a")
    assert post("a") == first
    assert post("b")["data"]["createRun"][0]["name"] != first["data"]["createRun"][0]["name"]
    (error,) = post("a", command="false")["errors"]
    assert error["extensions"]["code"] == 409
    assert "'a' was used before" in error["message"]
    assert Run.objects.count() == 2


def test_a_key_is_its_users_own(world: World, api_of: Callable[..., API]) -> None:
    for caller in (world.ada, world.bob):
        answer = api_of(caller).post(
            {"query": document(variant("createRun")), "variables": {"createRunData": {"runInput": INPUT}}},
            **{"idempotency-key": "mine"},
        )
        assert "errors" not in answer.json()
    assert Run.objects.count() == 2


@pytest.mark.parametrize("key", ["x" * 256, "a\tb", "ü"])
def test_keys_that_are_none_are_refused(world: World, key: str) -> None:
    with pytest.raises(Refused, match="Idempotency-Key: must be 1 to 255 printable"):
        once(world.ada, Asked("createRun", INPUT, key), lambda: make_run(world.ada))
    assert not Run.objects.exists()


def test_keys_are_kept_for_a_day_and_lost_answers_for_minutes(world: World) -> None:
    for key, age in (("", 9), ("", 11), ("a", 23 * 60), ("b", 25 * 60)):
        row = Submission.objects.create(
            team=world.vision, user=world.ada.user, run=make_run(world.ada), key=key, digest="0", owner=1
        )
        Submission.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(minutes=age))
    assert forget_submissions() == 2
    assert {(row.key) for row in Submission.objects.all()} == {"", "a"}
    run, new = once(world.ada, Asked("createRun", INPUT, "b"), lambda: make_run(world.ada))
    assert new
    Submission.objects.filter(run=run).update(created_at=timezone.now() - timedelta(hours=25))
    assert once(world.ada, Asked("createRun", INPUT, "b"), lambda: make_run(world.ada))[1]


def test_an_owner_lives_until_its_connection_ends(transactional_db: None) -> None:
    process = owner.Owner()
    number = process.number()
    assert process.number() == number
    assert owner.lives(number)
    process.renounce()
    await_that(lambda: not owner.lives(number))
    second = process.number()
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runyard owner'"
        )
    await_that(lambda: process.number() != second)
    assert owner.lives(process.number())
    process.renounce()


def test_an_interactive_run_is_made_once_for_a_key_too(ada: API) -> None:
    def make(key: str, seconds: int) -> Any:
        which = document(variant("createInteractiveRun"))
        given = {"createRunData": {"runInput": {"runName": "look"}, "seconds": seconds}}
        return ada.post({"query": which, "variables": given}, **{"Idempotency-Key": key}).json()

    first = make("a", 60)
    assert make("a", 60) == first
    assert make("b", 60) != first
    assert make("a", 90)["errors"][0]["extensions"]["code"] == 409
    assert Run.objects.count() == 2
