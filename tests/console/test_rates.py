"""How often one may ask: who is slowed down, what they are told, and what does without Valkey."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value, yield_hotp_counters_from_time
from asgiref.sync import sync_to_async
from django.conf import settings as configured
from django.test import Client as Browser

from console import rates
from runs.models import Run
from teams.models import User
from teams.queries import Caller
from tests.client.real import Client, install
from tests.runs.graphql.asking import API, Failed, Socket, document, new_key, serve, variant
from tests.stack import free_port
from tests.world import World, make_run, make_world

ME = document(variant("getUsers"))
ASK = {"query": ME, "variables": {"getUsersData": {"filters": {}}}}
PASSWORD = "correct horse battery"


@pytest.fixture
def world(transactional_db: None, tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def ada(world: World) -> API:
    return API(new_key(world.ada, world.vision))


@pytest.fixture(autouse=True)
def plain_static(settings: Any) -> None:
    """Pages without the manifest of hashed files, which only an installed console has."""
    Path(configured.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    backend = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": backend}


def statuses(api: API, times: int) -> list[int]:
    return [api.post(ASK).status_code for _ in range(times)]


def test_beyond_the_rate_a_key_gets_429_with_the_seconds_to_wait(ada: API, settings: Any) -> None:
    settings.RUNYARD_API_RATE = "3/minute"
    assert statuses(ada, 3) == [200] * 3
    answer = ada.post(ASK)
    assert answer.status_code == 429
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] == 429
    after = int(answer["Retry-After"])
    assert 1 <= after <= 60
    assert "3 requests in a minute" in error["message"]
    assert f"ask again in {after} s" in error["message"]


def test_what_is_refused_was_not_done(ada: API, settings: Any) -> None:
    settings.RUNYARD_API_RATE = "1/minute"
    ada.create()
    with pytest.raises(Failed, match="Nothing was done") as failed:
        ada.create()
    assert failed.value.code == 429
    assert Run.objects.count() == 1


def test_each_key_is_counted_for_itself_and_its_person_for_all(world: World, ada: API, settings: Any) -> None:
    settings.RUNYARD_API_RATE, settings.RUNYARD_PERSON_RATE = "2/minute", "3/minute"
    second, bob = API(new_key(world.ada, world.vision)), API(new_key(world.bob, world.vision))
    assert statuses(ada, 3) == [200, 200, 429]
    assert statuses(second, 2) == [200, 429]  # the third of the person, then one too many
    assert statuses(bob, 2) == [200, 200]


def test_a_run_by_its_token_is_counted_for_itself(world: World, settings: Any) -> None:
    settings.RUNYARD_API_RATE = "1/minute"
    first, second = make_run(world.ada), make_run(world.ada)
    callers = [Caller(world.ada.user, world.vision, run=run.pk) for run in (first, second)]
    for caller in callers:
        rates.check(caller)
    with pytest.raises(rates.TooOften, match="This run"):
        rates.check(callers[0])


def test_a_rate_may_be_off(ada: API, settings: Any) -> None:
    settings.RUNYARD_API_RATE = settings.RUNYARD_PERSON_RATE = "off"
    assert statuses(ada, 20) == [200] * 20


def test_the_defaults_are_far_above_what_a_person_does(ada: API) -> None:
    assert statuses(ada, 200) == [200] * 200


async def test_subscriptions_count_too(world: World, settings: Any) -> None:
    settings.RUNYARD_API_RATE = "1/minute"
    run = await sync_to_async(make_run)(world.ada)
    key = await sync_to_async(new_key)(world.ada, world.vision)
    async with serve() as port, Socket(port, key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await ws.watch(run.name)
        with pytest.raises(Failed, match="1 requests in a minute") as failed:
            await ws.next()
        assert failed.value.code == 429


@pytest.fixture
def nothing_there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Valkey at an address where nobody listens."""
    away = rates.Counter(f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setattr(rates, "counter", lambda: away)
    yield


def test_without_valkey_nobody_is_refused_and_the_log_says_so_once(
    ada: API, settings: Any, nothing_there: None, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RUNYARD_API_RATE = "1/minute"
    with caplog.at_level(logging.WARNING):
        assert statuses(ada, 5) == [200] * 5
    said = [record for record in caplog.records if "rates are not counted" in record.getMessage()]
    assert len(said) == 1


async def test_the_client_waits_and_goes_on(world: World, settings: Any, tmp_path: Path) -> None:
    await asyncio.to_thread(install)
    settings.RUNYARD_API_RATE = "2 per 2 seconds"
    key = await sync_to_async(new_key)(world.ada, world.vision)
    code = "import mcli\nfor n in range(5): print('GOT', len(mcli.get_runs()))"
    async with serve() as port:
        client = Client(
            {
                "MOSAICML_API_ENDPOINT": f"http://127.0.0.1:{port}/graphql",
                "MOSAICML_API_KEY": key,
                "MCLI_DISABLE_UPGRADE_CHECK": "true",
                "MCLI_TIMEOUT": "60",
            },
            tmp_path,
        )
        said = await asyncio.to_thread(client.python, code)
    assert said.count("GOT 0") == 5


def log_in(email: str, password: str, browser: Browser | None = None, address: str = "192.0.2.1") -> Any:
    form = {"login": email, "password": password}
    return (browser or Browser()).post("/accounts/login/", form, REMOTE_ADDR=address)


def test_many_names_from_one_address_are_slowed_down(db: None, settings: Any) -> None:
    settings.RUNYARD_LOGIN_RATE = "2/minute"
    User.objects.create_user("zoe@example.com", PASSWORD)
    for n in range(2):
        assert log_in(f"nobody{n}@example.com", "guess", address="192.0.2.7").status_code == 200
    refused = log_in("zoe@example.com", PASSWORD, address="192.0.2.7")
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) >= 1
    assert "Too many tries" in refused.content.decode()
    assert log_in("zoe@example.com", PASSWORD, address="192.0.2.8").status_code == 302


def with_second_factor(email: str) -> tuple[User, str]:
    user, secret = User.objects.create_user(email, PASSWORD), "JBSWY3DPEHPK3PXP"
    TOTP.activate(user, secret)
    return user, secret


def codes(secret: str) -> set[str]:
    """Those that are right about now."""
    return {format_hotp_value(hotp_value(secret, n)) for n in yield_hotp_counters_from_time()}


def test_the_codes_of_a_second_factor_cannot_be_guessed_through(db: None, settings: Any) -> None:
    settings.RUNYARD_CODE_RATE = "2 per 15 minutes"
    _, secret = with_second_factor("tom@example.com")
    wrong = next(code for code in (f"{n:06}" for n in range(9)) if code not in codes(secret))

    def guess(code: str) -> int:
        browser = Browser()  # another session each time: it is the person that counts
        assert log_in("tom@example.com", PASSWORD, browser).status_code == 302
        return int(browser.post("/accounts/2fa/authenticate/", {"code": code}).status_code)

    assert guess(wrong) == 200
    assert guess(sorted(codes(secret))[0]) == 302  # in, and begun anew
    assert [guess(wrong) for _ in range(3)] == [200, 200, 429]
    assert guess(sorted(codes(secret))[-1]) == 429
