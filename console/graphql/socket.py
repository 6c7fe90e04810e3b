"""/graphql over a websocket: subscriptions, in the client's two dialects (mapi §1.6).

A client that is turned away, at the handshake or by its first message, hangs for ever without a word. So
everybody is let in and acknowledged, and whoever has no valid key is told so by each operation. Queries
and mutations are left to HTTP: the client sends them there, and their resolvers would block the loop.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from console import rates
from console.graphql import errors
from console.graphql.access import authenticate
from console.graphql.http import operation
from console.origin import is_foreign
from console.schema import schema
from runs.forms.plain import MOST_BYTES, read_json
from runs.queries import still_counts
from teams.commands import Refused
from teams.graphql import Context
from teams.queries import Caller

log = structlog.get_logger(__name__)

MOST_OPERATIONS = 100
INIT_WITHIN = 30.0
CHECK_KEY_EVERY = 3.0
"""Seconds; with the time that a look takes it keeps "ended within 5 s"."""


@dataclass(frozen=True)
class Dialect:
    """What the messages of a subprotocol are called."""

    name: str
    start: str
    stop: str
    result: str
    one_error: bool
    """An `error` carries one error object, not a list of them."""
    confirms_stop: bool


LEGACY = Dialect("graphql-ws", "start", "stop", "data", one_error=True, confirms_stop=True)
TRANSPORT = Dialect(
    "graphql-transport-ws", "subscribe", "complete", "next", one_error=False, confirms_stop=False
)
DIALECTS = (LEGACY, TRANSPORT)
"""The older one first: where a proxy changes the spelling of the answer's header, the client takes the
older one for granted, whatever was agreed."""

_in_any_thread = partial(database_sync_to_async, thread_sensitive=False)
_authenticate = _in_any_thread(authenticate)
_check_rate = _in_any_thread(rates.check)
_still_counts = _in_any_thread(still_counts)


class GraphQLSocket(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One connection: authenticated once, then any number of operations, each a task."""

    async def connect(self) -> None:
        self.dialect = LEGACY
        self.caller: Caller | Refused | None = None
        self.operations: dict[str, asyncio.Task[None]] = {}
        self.minders: list[asyncio.Task[None]] = []
        headers = {name.lower(): value.decode("latin1") for name, value in self.scope["headers"]}
        if is_foreign(headers.get(b"origin"), headers.get(b"host", "")):
            await self.close()  # before it is accepted: 403
            return
        offered = self.scope.get("subprotocols", ())
        chosen = next((dialect for dialect in DIALECTS if dialect.name in offered), None)
        self.dialect = chosen or LEGACY
        await self.accept(chosen.name if chosen else None)
        self.minders.append(asyncio.create_task(self._expect_init()))

    async def disconnect(self, code: int) -> None:
        tasks = [*self.minders, *self.operations.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data is None or len(text_data) > MOST_BYTES:
            await self.close(1003 if text_data is None else 1009)
            return
        try:
            message = read_json(text_data)
            kind, number = message["type"], message.get("id")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            await self.close(4400, "Not a message of this protocol")
            return
        if kind == "connection_init":
            await self._init(message.get("payload"))
        elif kind == self.dialect.start and isinstance(number, str):
            await self._start(number, message.get("payload"))
        elif kind == self.dialect.stop and isinstance(number, str):
            await self._stop(number)
        elif kind == "connection_terminate":
            await self.close(1000)
        elif kind == "ping" and self.dialect is TRANSPORT:
            await self._say("pong")
        elif kind != "pong":
            await self.close(4400, "Not a message of this protocol")

    # -- getting in ---------------------------------------------------------------------------------

    async def _expect_init(self) -> None:
        await asyncio.sleep(INIT_WITHIN)
        if self.caller is None:
            await self.close(4408, "No connection_init came")

    async def _init(self, payload: Any) -> None:
        if self.caller is not None:
            await self.close(4429, "A second connection_init")
            return
        given = payload if isinstance(payload, dict) else {}
        try:
            caller: Caller = await _authenticate(
                next((value for name, value in given.items() if name.lower() == "authorization"), None)
            )
        except Refused as refused:
            self.caller = refused
        except DatabaseError:
            await self.close(1012, "The database is away")
            return
        else:
            self.caller = caller
            self.minders.append(asyncio.create_task(self._mind_key(caller)))
        await self._say("connection_ack")

    async def _mind_key(self, caller: Caller) -> None:
        """End everything within seconds of the key's end: revoked, expired, its run over, or its owner out of the
        team."""
        live = True
        while live:
            await asyncio.sleep(CHECK_KEY_EVERY)
            with suppress(DatabaseError):  # not an answer: ask again
                live = await _still_counts(caller)
        self.caller = Refused("Your API key has been revoked or has expired.", code=401)
        for number, task in list(self.operations.items()):
            task.cancel()
            await asyncio.wait([task])
            await self._fail(number, self.caller)
        await self.close(4403, "The API key is no longer valid")

    # -- operations ---------------------------------------------------------------------------------

    async def _start(self, number: str, payload: Any) -> None:
        if self.caller is None:
            await self.close(4401, "connection_init comes first")
        elif number in self.operations:
            await self.close(4409, f"Operation {number} is running already")
        elif len(self.operations) >= MOST_OPERATIONS:
            await self._fail(
                number, Refused(f"A connection carries {MOST_OPERATIONS} operations at most.", code=429)
            )
        else:
            task = asyncio.create_task(self._operate(number, self.caller, payload))
            self.operations[number] = task
            task.add_done_callback(lambda _: self.operations.pop(number, None))

    async def _stop(self, number: str) -> None:
        task = self.operations.get(number)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self.dialect.confirms_stop:
            await self._say("complete", number)

    async def _operate(self, number: str, caller: Caller | Refused, payload: Any) -> None:
        """Answer one operation to its end. Whatever happens, it ends: with `complete` or with `error`."""
        try:
            if isinstance(caller, Refused):
                raise caller
            await _check_rate(caller)
            query, variables, name = operation(payload)
            results = await schema.subscribe(
                query, variable_values=variables, operation_name=name, context_value=Context(caller)
            )
            async with aclosing(results) as answers:
                async for answer in answers:
                    if answer.errors:
                        await self._fail(number, *answer.errors)
                        return
                    await self._say(self.dialect.result, number, {"data": answer.data})
            await self._say("complete", number)
        except Exception as problem:
            await self._fail(number, problem)

    async def _fail(self, number: str, *problems: Exception) -> None:
        if any(map(errors.is_away, problems)):
            # The client comes back by itself after a lost connection, and goes on where it was; after an
            # error it gives up.
            log.warning("socket closed: the database is away")
            await self.close(1012, "The database is away")
            return
        shown = errors.shown(problems)
        await self._say("error", number, shown[0] if self.dialect.one_error else shown)

    async def _say(self, kind: str, number: str | None = None, payload: Any = None) -> None:
        message = {"type": kind, "id": number, "payload": payload}
        await self.send(json.dumps({name: value for name, value in message.items() if value is not None}))
