"""Whether an answer got through: what decides if the same request, sent again, is a repetition.

A write to a socket succeeds long before anybody reads it, also when nobody ever will. What can be known is how the
other side takes it. It acknowledged every byte and then closed its end in order, or went on using it: it has read
the answer (one that closes with the answer unread sends a reset instead). It acknowledged every byte and stays:
it has the answer. A reset, an end before the answer, bytes that nobody acknowledges: it has not.

What a proxy does with an answer that it has read to its end cannot be seen from here; proxies say 502 or 504
when they have given up on that.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from channels.db import database_sync_to_async
from django.http import HttpRequest
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from teams.states import Answer

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

PATH = "/graphql"
KEY = "runyard.answer"
QUIET = 0.2
"""Seconds after which who has acknowledged everything and stays connected counts as having read it."""
MOST = 20.0
"""Seconds within which it must have acknowledged everything."""


def answer_to(request: HttpRequest) -> Answer | None:
    """What becomes of the answer to this request; None if nobody watches."""
    found = getattr(request, "scope", {}).get(KEY)
    return found if isinstance(found, Answer) else None


class Connection:
    """How the other side of one connection takes what it is sent."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._taken: asyncio.Future[bool] | None = None
        self.lost = False

    def say(self, taken: bool) -> None:
        """Something has happened from which it follows whether what was sent was taken."""
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(taken)

    async def takes(self, send: Awaitable[None]) -> bool:
        """Send, and find out whether the other side took it."""
        loop = asyncio.get_running_loop()
        self._taken = loop.create_future()
        try:
            if self.lost:
                return False
            await send
            until = loop.time() + MOST
            while loop.time() < until:
                with suppress(TimeoutError):
                    return await asyncio.wait_for(asyncio.shield(self._taken), QUIET)
                if self.acknowledged:
                    return True
            return False
        finally:
            self._taken = None

    @property
    def acknowledged(self) -> bool:
        """Whether every byte that was sent has reached the other side's kernel."""
        if self._transport.get_write_buffer_size():
            return False
        connection = self._transport.get_extra_info("socket")
        try:
            return connection is None or _acknowledged(connection)
        except OSError:
            return False


def _acknowledged(connection: socket.socket) -> bool:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return True  # a socket of this machine: what is written is there
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]  # tcp_info begins with it
    waiting = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return state in (_ESTABLISHED, _CLOSE_WAIT) and not any(waiting)


_ESTABLISHED, _CLOSE_WAIT = 1, 8
"""Of Linux's TCP states, those in which the other side hears us."""


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's own, which tells applications of the connection: `scope["state"]["connection"]`."""

    app_state: dict[str, Any]
    """Copied into the scope of each request."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.watched = Connection(transport)
        self.app_state = {**self.app_state, "connection": self.watched}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.watched.say(True)  # the next request
        super().data_received(data)

    def eof_received(self) -> None:
        self.watched.say(self.watched.acknowledged)
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watched.lost = True
        self.watched.say(False)
        super().connection_lost(exc)


class Watched:
    """An application whose answers are watched, as long as somebody wants to know what becomes of them."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        answer = scope[KEY] = Answer()
        connection: Connection | None = scope.get("state", {}).get("connection")
        refused = written = done = False

        async def watch(message: Message) -> None:
            nonlocal refused, written, done
            if message["type"] == "http.response.start":
                refused = message["status"] >= 400
            if message["type"] != "http.response.body" or message.get("more_body"):
                await send(message)
                return
            written = True
            if not answer.awaited:
                await send(message)
            elif refused:
                await _settle(answer, False)
                await send(message)
            elif connection is None:
                await send(message)
                await _settle(answer, True)
            else:
                # All of it, but for the word that it is all: until then the connection is left open.
                taken = await connection.takes(send({**message, "more_body": True}))
                await _settle(answer, taken)
                await send({"type": "http.response.body", "body": b""})
            done = True

        async def listen() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                if written:
                    await asyncio.Event().wait()  # `watch` is not to be cancelled for that
                await _settle(answer, False)
            return message

        try:
            await self._app(scope, listen, watch)
        finally:
            if not done:
                await _settle(answer, False)


async def _settle(answer: Answer, received: bool) -> None:
    """In a thread: who waits for it writes it down."""
    await database_sync_to_async(answer.settle, thread_sensitive=False)(received)
