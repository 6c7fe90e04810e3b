"""How often somebody may ask: rates counted in Valkey, over all web processes together.

They are there for what runs away or guesses, not for what works hard: the defaults lie far above what a person does,
also in bulk. Counting is no reason to refuse: without Valkey nobody is counted, and the log says so.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import cache

import redis
import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from teams.commands import Refused
from teams.queries import Caller

log = structlog.get_logger(__name__)

OFF = "off"
WAIT_FOR_VALKEY = 0.25
"""Seconds: every request waits for it, so it must be there at once or does not count."""
LET_ALONE = 5.0
"""Seconds before a Valkey that did not answer is asked again."""

CODE = "/accounts/2fa/authenticate/"
"""Asks who has given a password, and is not in yet, for a code."""
ONCE_MORE = ("/accounts/reauthenticate/", "/accounts/2fa/reauthenticate/", "/accounts/password/change/")
"""Ask somebody who is in for a password or a code."""
GUESSABLE = ("/accounts/login/", CODE, *ONCE_MORE)
_STAGE = "account_login"
"""In the session: who owes a code (allauth's)."""


class TooOften(Refused):
    """429. `after` is how many seconds to wait, at least 1."""

    def __init__(self, message: str, after: int) -> None:
        super().__init__(message, code=429)
        self.after = after


class Counter:
    """Counts under names, by the sliding windows of `limits`."""

    def __init__(self, url: str) -> None:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=WAIT_FOR_VALKEY,
            socket_connect_timeout=WAIT_FOR_VALKEY,
            retry=Retry(NoBackoff(), 1),  # once: a connection may have been closed since it was used
        )
        # The pool says where the server is; of the address only the kind counts.
        storage = RedisStorage("redis://", connection_pool=pool, key_prefix="runyard:rate")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._lock = threading.Lock()
        self._away_until = 0.0

    def hit(self, rate: str, *name: str) -> int | None:
        """Count one more. None: it is within the rate, or nobody counts; else the seconds to wait."""
        item = _item(rate)
        if item is None or time.monotonic() < self._away_until:
            return None
        try:
            if self._limiter.hit(item, *name):
                return None
            reset = self._limiter.get_window_stats(item, *name).reset_time
        except (redis.RedisError, OSError) as problem:
            self._is_away(problem)
            return None
        return max(1, math.ceil(reset - time.time()))

    def forget(self, rate: str, *name: str) -> None:
        """Begin anew with a name."""
        item = _item(rate)
        if item is None or time.monotonic() < self._away_until:
            return
        try:
            self._limiter.clear(item, *name)
        except (redis.RedisError, OSError) as problem:
            self._is_away(problem)

    def _is_away(self, problem: Exception) -> None:
        with self._lock:
            if time.monotonic() < self._away_until:
                return
            self._away_until = time.monotonic() + LET_ALONE
        log.warning("rates are not counted: Valkey is away", problem=type(problem).__name__)


@cache
def counter() -> Counter:
    """That of this process. Made on first use: Django's settings have to be there."""
    return Counter(settings.REDIS_URL)


@cache
def _item(rate: str) -> RateLimitItem | None:
    return None if rate == OFF else parse(rate)


def check(caller: Caller) -> None:
    """Count a request to the API: for its key (or its run, by token), and for its person. Raises `TooOften`."""
    if caller.run is not None:
        who, name = "This run", f"run:{caller.run}"
    else:
        who, name = "This API key", f"key:{caller.key.pk if caller.key else caller.user.pk}"
    for rate, whose, counted in (
        (settings.RUNYARD_API_RATE, who, name),
        (settings.RUNYARD_PERSON_RATE, "You, with all your keys and runs", f"person:{caller.user.pk}"),
    ):
        if (after := counter().hit(rate, counted)) is not None:
            raise TooOften(
                f"{whose} asked more often than the allowed {shown(rate)}. Nothing was done; ask again in {after} s.",
                after,
            )


def shown(rate: str) -> str:
    """`100/minute` as a sentence has it."""
    item = _item(rate)
    return "" if item is None else f"{item.amount:,} requests in {_span(item.get_expiry())}"


def _span(seconds: int) -> str:
    for length, name in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % length == 0:
            count = seconds // length
            return f"a {name}".replace("a hour", "an hour") if count == 1 else f"{count} {name}s"
    raise AssertionError


class Guessing:
    """Middleware: passwords and codes cannot be tried without end.

    django-axes counts wrong passwords for a name. This counts what it does not see: how many forms an address
    sends, whoever it means, and the codes of a second factor that were wrong for one person.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST" or request.path not in GUESSABLE:
            return self.get_response(request)
        address = request.META.get("REMOTE_ADDR") or ""
        after = counter().hit(settings.RUNYARD_LOGIN_RATE, "address", address) if address else None
        person = _person(request)
        if after is None and person is not None:
            after = counter().hit(settings.RUNYARD_CODE_RATE, "code", person)
        if after is not None:
            return too_many(request, after)
        response = self.get_response(request)
        if person is not None and response.status_code == 302 and request.user.is_authenticated:
            counter().forget(settings.RUNYARD_CODE_RATE, "code", person)  # it was right
        return response


def _person(request: HttpRequest) -> str | None:
    """Whose code or password a form is about, where that is settled before it is read."""
    if request.user.is_authenticated:
        return request.user.pk.hex if request.path in ONCE_MORE else None
    stage = request.session.get(_STAGE)
    owes = stage.get("user_pk") if request.path == CODE and isinstance(stage, dict) else None
    return str(owes) if owes else None


def too_many(request: HttpRequest, after: int) -> HttpResponse:
    """429, as a page."""
    response = render(request, "429.html", {"after": after}, status=429)
    response["Retry-After"] = str(after)
    return response
