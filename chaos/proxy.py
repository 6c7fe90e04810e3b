"""A bad network: TCP on loopback in front of a server's socket, that delays, resets, swallows and falls silent.

What was cut stays cut when the fault is over: a connection that lost bytes, or whose peer is gone, never
works again, and its client has to notice by itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from console.services.paths import DATABASE, POSTGRES_SOCKET, ROLE
from tests.stack import Servers

Way = Literal["requests", "answers"]
SERVER_NOTICES = 30.0
"""Seconds after which a server gives up a client that is gone. Its own keepalive would; here there is none."""


@dataclass(frozen=True)
class Weather:
    """What the network does now."""

    delay: float = 0.0
    """Seconds by which everything is late, each way."""
    reset: float = 0.0
    """The chance of every piece to end its connection instead of arriving."""
    swallowed: Way | None = None
    """What goes this way is taken and thrown away: whoever sent it believes that it has arrived."""
    silent: bool = False
    """The host is gone: nothing that is sent to it is acknowledged, connecting included, and no end is announced."""


FAIR = Weather()


class Proxy:
    """Runs in a thread of its own from `start` to `close`; `port` is where it listens."""

    def __init__(self, server: Path, draw: Random) -> None:
        self._server, self._draw = server, draw
        self._weather = FAIR
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self.port = 0

    @property
    def lost(self) -> int:
        """How many connections that are still open will never work again."""
        return sum(bool(link.deaf) for link in list(self._links))

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @contextmanager
    def weather(self, weather: Weather) -> Iterator[None]:
        """Let it be like this for a while."""
        self._turn(weather)
        try:
            yield
        finally:
            self._turn(FAIR)

    def _turn(self, weather: Weather) -> None:
        async def turn() -> None:
            self._weather = weather
            if weather.silent:
                for link in self._links:
                    link.fall_silent()
            # A listener that hears nothing: connecting hangs.
            await self._unlisten()
            await self._listen()

        asyncio.run_coroutine_threadsafe(turn(), self._loop).result(10)

    async def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = listener.getsockname()[1]
        if self._weather.silent:
            hear_nothing(listener)
        self._listener = await asyncio.start_server(self._serve, sock=listener)

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _end(self) -> None:
        await self._unlisten()
        for link in list(self._links):
            link.cut()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            above, below = await asyncio.open_unix_connection(str(self._server))
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, below)
        self._links.add(link)
        try:
            passing = (
                self._pass(link, reader, below, "requests"),
                self._pass(link, above, writer, "answers"),
            )
            with suppress(asyncio.CancelledError):  # The proxy is closed.
                await asyncio.gather(*passing)
        finally:
            self._links.discard(link)
            link.cut()

    async def _pass(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                now = self._weather
                if now.delay:
                    await asyncio.sleep(now.delay)
                if self._draw.random() < now.reset:
                    link.cut()
                    return
                if now.swallowed == way:
                    link.deaf.add(way)
                if way not in link.deaf:
                    writer.write(piece)
                    await writer.drain()
        if link.deaf:
            # The end is swallowed as well: a client is never told, a server only by its own patience.
            await asyncio.sleep(SERVER_NOTICES)
            link.give_up_client()
            await asyncio.Event().wait()
        link.cut()


class Network:
    """PostgreSQL and Valkey in a home of their own, each behind a proxy on loopback."""

    def __init__(self, draw: Random) -> None:
        self.servers = Servers()
        self.servers.start()
        home = self.servers.home
        self.postgres = Proxy(home.postgres_socket_dir / POSTGRES_SOCKET, draw)
        self.valkey = Proxy(home.valkey_socket, draw)
        for proxy in self.proxies:
            proxy.start()

    @property
    def proxies(self) -> tuple[Proxy, Proxy]:
        return self.postgres, self.valkey

    @property
    def environment(self) -> dict[str, str]:
        """What makes a console go this way."""
        return {
            "DATABASE_URL": f"postgresql://{ROLE}@127.0.0.1:{self.postgres.port}/{DATABASE}",
            "REDIS_URL": f"redis://127.0.0.1:{self.valkey.port}/0",
        }

    def close(self) -> None:
        for proxy in self.proxies:
            proxy.close()
        self.servers.stop()


class _Link:
    """One connection: the client's half and the server's half."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client, self._server = client, server
        self.deaf: set[Way] = set()

    def fall_silent(self) -> None:
        """For ever: no packet of the client gets through any more, and nothing is sent to it."""
        self.deaf |= {"requests", "answers"}
        with suppress(OSError):  # Ended by itself just now.
            hear_nothing(self._client.get_extra_info("socket"))
        asyncio.get_running_loop().call_later(SERVER_NOTICES, self.give_up_client)

    def give_up_client(self) -> None:
        """As its keepalive makes a server do."""
        self._server.transport.abort()

    def cut(self) -> None:
        """End both halves, the client's with a reset."""
        with suppress(OSError):
            self._client.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._client.transport.abort()
        self._server.transport.abort()


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


SO_ATTACH_FILTER = 26
_RETURN = 0x06


def hear_nothing(sock: socket.socket) -> None:
    """Drop every packet before the socket sees it: to its peer the host is gone. Needs no privilege on Linux."""
    nothing = (_Instruction * 1)(_Instruction(_RETURN, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(_Program(1, nothing)))
