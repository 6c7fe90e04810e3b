"""What the sockets of pages have in common: who may open one, how long, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

from teams.models import User
from teams.queries import Caller

log = structlog.get_logger(__name__)

NOT_FOUND = 4404
"""Closed with this: not there, or not yours."""
NO_SESSION = 4401
TRY_AGAIN = 1012
RECHECK = 3.0
"""Seconds after which a socket makes sure that it may still be open: with what a look takes, it ends within 5 s."""


class PageSocket(AsyncWebsocketConsumer):  # type: ignore[misc]
    """A socket that only sends. A subclass says who may have it (`authorise`) and what it sends (`pump`).

    The database is asked at the start and every few seconds; no connection is held in between.
    """

    _task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        await self.accept()
        self._task = asyncio.create_task(self._run())

    async def disconnect(self, code: int) -> None:
        if self._task is not None:
            self._task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages have nothing to say here."""

    def authorise(self, caller: Caller) -> bool:
        """Whether this caller may (still) have this socket. May query; keeps what `pump` needs."""
        raise NotImplementedError

    async def pump(self) -> None:
        """Send until there is nothing more to send; then the socket is closed."""
        raise NotImplementedError

    def query(self, name: str) -> str | None:
        values = parse_qs(self.scope["query_string"].decode("latin-1")).get(name)
        return values[0] if values else None

    async def send_json(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message))

    async def _run(self) -> None:
        code = 1000
        try:
            code = await self._checked_pump()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("page socket failed", path=self.scope["path"])
            code = TRY_AGAIN
        await self.close(code=code)

    async def _checked_pump(self) -> int:
        refused = await self._check()
        if refused:
            return refused
        pump = asyncio.create_task(self.pump())
        try:
            while not (await asyncio.wait({pump}, timeout=RECHECK))[0]:
                refused = await self._check()
                if refused:
                    return refused
            pump.result()
        finally:
            pump.cancel()
        return 1000

    async def _check(self) -> int:
        """0 if all is well, else the code to close with."""
        user = await _user_of(self.scope)
        if user is None:
            return NO_SESSION
        allowed = await database_sync_to_async(self.authorise, thread_sensitive=False)(Caller(user))
        return 0 if allowed else NOT_FOUND


async def _user_of(scope: dict[str, Any]) -> User | None:
    """Whose session it is now: read anew each time, so that logging out ends sockets too."""
    load: Callable[[str | None], Awaitable[User | None]]
    load = database_sync_to_async(_load_user, thread_sensitive=False)
    return await load(scope["session"].session_key)


def _load_user(session_key: str | None) -> User | None:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    return user if isinstance(user, User) and user.is_active else None
