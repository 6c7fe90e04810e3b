"""Doorbells, rung after commit: Celery for the control loop, Valkey for everybody who watches.

A doorbell that is lost, doubled or late changes nothing but a delay (design rule 1): whoever waits for
one also looks by itself now and then. So nothing here ever fails a caller.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any
from uuid import UUID

import redis
import redis.asyncio
import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction

log = structlog.get_logger(__name__)

CHANNEL = "runyard:hints"
ASK_EVERY = 5.0
"""Seconds between signs of life that a subscription asks for. When none comes, it is made anew."""
_AWAY = (redis.RedisError, OSError)


@cache
def _publisher() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2, health_check_interval=30
    )


class Outbox:
    """Sends in order, in a thread of its own: nobody waits for a server that does not answer. What finds
    it full is dropped, as all of it may be."""

    ROOM = 1000

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._room = threading.BoundedSemaphore(self.ROOM)

    def put(self, send: Callable[[], None]) -> None:
        if self._room.acquire(blocking=False):
            self._thread.submit(self._send, send)

    def _send(self, send: Callable[[], None]) -> None:
        try:
            send()
        finally:
            self._room.release()


_hints, _bells = Outbox("hints"), Outbox("bells")


def _publish(messages: Iterable[Mapping[str, Any]]) -> None:
    batch = list(messages)
    _hints.put(lambda: _send(batch))


def _send(messages: list[Mapping[str, Any]]) -> None:
    try:
        with _publisher().pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.publish(CHANNEL, json.dumps(message))
            pipe.execute()
    except _AWAY:
        log.warning("hint lost: Valkey is away")


def ring(task: str, *args: Any, queue: str | None = None) -> None:
    """Ask a Celery worker to run a task, by name, once the current transaction is committed."""

    def send() -> None:
        try:
            current_app.send_task(task, args=args, queue=queue, ignore_result=True, expires=30)
        except Exception:  # the broker's client raises its own kinds; the sweep will see to it
            log.warning("doorbell lost: the broker is away", task=task)

    transaction.on_commit(lambda: _bells.put(send), robust=True)


def run_changed(run_id: UUID, team_id: UUID, status: str) -> None:
    """Tell pages and watchers, once committed, that a run is not what it was."""
    message = {"run": str(run_id), "team": str(team_id), "status": str(status)}
    transaction.on_commit(lambda: _publish([message]), robust=True)


def streams_opened() -> None:
    """Tell collectors that there are new log streams to follow. Not in a transaction."""
    _publish([{"collect": "all"}])


def streams_grew(committed: Mapping[UUID, tuple[int, bool]]) -> None:
    """Tell log readers how far each stream reaches now, and whether that is its end. Not in a transaction."""
    _publish(
        {"stream": str(stream), "to": offset, "end": ended} for stream, (offset, ended) in committed.items()
    )


class Hub:
    """The one subscription of a process, fanned out in the process.

    A subscriber gets a mailbox of one for each topic: it says "look again", with the newest message.
    Nothing queues up for a slow reader.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, set[Mailbox]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def subscribe(self, *topics: str) -> AsyncIterator[Mailbox]:
        """A mailbox for topics such as `run:<id>`, `team:<id>`, `stream:<id>`, `collect:all`."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name="hints")
        mailbox = Mailbox()
        for topic in topics:
            self._waiting[topic].add(mailbox)
        try:
            yield mailbox
        finally:
            for topic in topics:
                self._waiting[topic].discard(mailbox)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    @property
    def subscribers(self) -> int:
        return len({mailbox for mailboxes in self._waiting.values() for mailbox in mailboxes})

    async def _listen(self) -> None:
        me, clock = asyncio.current_task(), asyncio.get_running_loop().time
        assert me is not None
        # redis-py may swallow a cancellation (it makes a time-out of it), so it is asked for as well.
        while not me.cancelling():
            with suppress(*_AWAY):
                async with (
                    redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=5) as client,
                    client.pubsub() as pubsub,
                ):
                    await pubsub.subscribe(CHANNEL)
                    heard = asked = clock()
                    # redis-py asks a subscription's server for a sign of life too, and does not mind if none comes.
                    while not me.cancelling() and clock() - heard < 2 * ASK_EVERY:
                        if clock() - asked >= ASK_EVERY:
                            asked = clock()
                            await pubsub.ping()
                        message = await pubsub.get_message(timeout=1.0)
                        if message is not None:
                            heard = clock()
                            if message["type"] == "message":
                                self._deliver(json.loads(message["data"]))
            await asyncio.sleep(0.5)

    def _deliver(self, message: dict[str, Any]) -> None:
        for kind in ("run", "team", "stream", "collect"):
            if kind in message:
                for mailbox in self._waiting.get(f"{kind}:{message[kind]}", ()):
                    mailbox.put(message)


class Mailbox:
    """The newest messages since the last look, one for each thing they are about."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], dict[str, Any]] = {}
        self._event = asyncio.Event()

    def put(self, message: dict[str, Any]) -> None:
        kind = next(iter(message))
        self._messages[kind, message[kind]] = message
        self._event.set()

    async def wait(self, timeout: float) -> list[dict[str, Any]]:
        """What came since the last call; waits up to `timeout` seconds for something. May be empty."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()
        messages = list(self._messages.values())
        self._messages.clear()
        return messages


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """The hub of the running event loop: one in a process, but for tests that make loops of their own."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs.clear()
        _hubs[loop] = Hub()
    return _hubs[loop]


def subscribers() -> int:
    """How many mailboxes this process's hub serves."""
    return sum(hub.subscribers for hub in _hubs.values())
