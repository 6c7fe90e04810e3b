"""/v1/shell/<run>/<rank>: terminals for `mcli connect` and `mcli interactive` (mapi §6.6).

The upgrade's headers say who (`Authorization`, an API key as it stands), what to run (`Commands`, a JSON list of
one string for the shell; without it an interactive shell), and in which container. What comes in is `mint`, what
goes out are the terminal's bytes. It closes with 1000 when the command has ended and 1001 when the run has; with
1002 and a reason that the client prints when there is no terminal to be had. Never with anything else: the client
would try again, and open another terminal each time.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import structlog
from channels.generic.websocket import AsyncWebsocketConsumer

from clusters.engines.base import MAIN
from runs.consumers import mint
from runs.consumers.terminal import SIZE, Session
from teams.commands import Refused

log = structlog.get_logger(__name__)

ENDED, GONE, UNABLE = 1000, 1001, 1002
SIZE_WITHIN = 1.0
"""Seconds in which the client, where it has a terminal of its own, says how large that is."""
REASON_BYTES = 123
_PLACE = re.compile(r"/([^/]+)/(\d{1,9})/?")


class ShellConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    _task: asyncio.Task[None] | None = None
    _session: Session | None = None

    async def connect(self) -> None:
        self._size: asyncio.Future[mint.Size] = asyncio.get_running_loop().create_future()
        await self.accept()  # Whatever is wrong: only a reason to close is shown to the person.
        self._task = asyncio.create_task(self._run())

    async def disconnect(self, code: int) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            if bytes_data is None:
                raise ValueError("text, not a MINTMessage")
            message = mint.read(bytes_data)
        except ValueError as problem:
            await self._close(UNABLE, f"That is {problem}")
            return
        if isinstance(message, mint.Size):
            if not self._size.done():
                self._size.set_result(message)
            elif self._session is not None:
                await self._session.resize(message.columns, message.lines)
        elif (
            isinstance(message, mint.Typed)
            and self._session is not None
            and not self._session.type(message.data)
        ):
            await self._close(UNABLE, "Too much was typed that nobody reads.")

    async def _run(self) -> None:
        try:
            session = await self._begun()
            end = await session.serve(lambda data: self.send(bytes_data=data))
            code, reason = (GONE if end.gone else ENDED), end.text
        except Refused as refused:
            code, reason = UNABLE, refused.message
        except Exception:
            log.exception("terminal failed", path=self.scope["path"])
            code, reason = UNABLE, "The console failed; its log says why."
        await self._close(code, reason)

    async def _begun(self) -> Session:
        caller = self.scope["caller"]
        if isinstance(caller, Refused):
            raise caller
        place = _PLACE.fullmatch(self.scope["url_route"]["kwargs"]["path"] or "")
        if place is None:
            raise Refused("The address must be /v1/shell/<run>/<rank>.", code=404)
        headers = {name.lower(): value.decode("latin1") for name, value in self.scope["headers"]}
        argv = commands(headers.get(b"commands"))
        self._session = session = Session(caller)
        # Waited for before the terminal is opened, so that the command finds the right size from the start.
        await asyncio.wait([self._size], timeout=SIZE_WITHIN)
        if not self._size.done():
            self._size.set_result(mint.Size(*SIZE))
        size = self._size.result()
        await session.begin(
            place[1],
            int(place[2]),
            container=headers.get(b"container") or MAIN,
            argv=argv,
            size=(size.columns, size.lines),
        )
        return session

    async def _close(self, code: int, reason: str) -> None:
        await self.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))


def commands(header: str | None) -> list[str]:
    """The program and its arguments that a `Commands` header means; none for a shell. Raises `Refused`."""
    if not header:
        return []
    try:
        given: Any = json.loads(header.encode("latin1"))
    except ValueError:
        given = None
    if not isinstance(given, list) or not all(isinstance(one, str) and "\0" not in one for one in given):
        raise Refused("The header Commands must be a JSON list of text.")
    # One string is for a shell to take apart; several are taken apart already.
    return ["bash", "-c", given[0]] if len(given) == 1 else given
