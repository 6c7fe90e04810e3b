"""What the console's connections do when the network only pretends to be there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from django.conf import settings
from redis.connection import parse_url

from chaos.proxy import Proxy, Weather
from console.services.paths import POSTGRES_SOCKET
from runs import wake
from runs.wake import Hub
from teams import database

LOST = [Weather(swallowed="answers"), Weather(swallowed="requests"), Weather(silent=True)]


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    found = Proxy(request.param(), Random(1))
    found.start()
    yield found
    found.close()


def postgres_socket() -> Path:
    return Path(settings.DATABASES["default"]["HOST"]) / POSTGRES_SOCKET


def valkey_socket() -> Path:
    return Path(parse_url(settings.REDIS_URL)["path"])  # type: ignore[no-untyped-call]


def connected(proxy: Proxy, **options: Any) -> database.Connection:
    return database.Connection.connect(
        host="127.0.0.1",
        port=proxy.port,
        user=settings.DATABASES["default"]["USER"],
        dbname="postgres",
        autocommit=True,
        **options,
    )


@pytest.mark.parametrize("proxy", [postgres_socket], indirect=True)
@pytest.mark.parametrize("weather", LOST, ids=["deaf", "mute", "gone"])
def test_a_statement_whose_answer_does_not_come_fails_and_closes_its_connection(
    proxy: Proxy, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(database, "CHECK_WITHIN", 0.3)
    session = connected(proxy)
    assert session.execute("SELECT 1").fetchone() == (1,)
    with proxy.weather(weather), pytest.raises(psycopg.OperationalError, match="has not answered"):
        session.cursor().execute("SELECT 1")
    assert session.closed
    assert connected(proxy).execute("SELECT 2").fetchone() == (2,), "it works again when the fault is over"


@pytest.mark.parametrize("proxy", [postgres_socket], indirect=True)
def test_a_host_that_is_gone_ends_the_connections_that_wait_for_it(proxy: Proxy) -> None:
    session = connected(proxy, **{**database.TCP, "tcp_user_timeout": 500})
    with proxy.weather(Weather(silent=True)), pytest.raises(psycopg.OperationalError) as raised:
        session.cursor().execute("SELECT 1")
    assert "has not answered" not in str(raised.value), "the kernel notices before our own patience ends"


@pytest.mark.parametrize("proxy", [valkey_socket], indirect=True)
@pytest.mark.parametrize("weather", LOST, ids=["deaf", "mute", "gone"])
async def test_a_subscription_that_hears_nothing_any_more_is_made_anew(
    proxy: Proxy, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake._publisher()  # Hints are sent by the direct way; only who listens has the bad network.
    number = parse_qs(urlsplit(settings.REDIS_URL).query)["db"][0]
    monkeypatch.setattr(wake, "ASK_EVERY", 0.5)
    monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{proxy.port}/{number}")
    hub, stream = Hub(), uuid.uuid4()

    async def hears(mailbox: wake.Mailbox) -> None:
        while not await mailbox.wait(0.2):
            await asyncio.to_thread(wake.streams_grew, {stream: (7, True)})

    async with hub.subscribe(f"stream:{stream}") as mailbox:
        await asyncio.wait_for(hears(mailbox), 30)
        with proxy.weather(weather):
            while not proxy.lost:  # However short: such a connection stays lost.
                await asyncio.to_thread(wake.streams_grew, {stream: (8, True)})
                await mailbox.wait(0.05)
        await asyncio.wait_for(hears(mailbox), 60)
