"""A request that makes something and is sent again makes it once.

Clients send a request again when no answer came: the connection broke, a proxy said 502, the console was killed.
With the header `Idempotency-Key` they say themselves which requests are one. The client that people have sends
none, and five people, or one in a loop, may well submit the same input five times and mean it. So without a key the same
input is a repetition only if an earlier answer did not get through: a row goes with the run, in its
transaction, and is taken away again when its answer was received. `console.delivery` knows when that is.
"""

from __future__ import annotations

import hashlib
import json
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from clusters.engines import failpoints
from runs.commands import owner
from runs.models import Run, Submission
from teams.commands import Refused
from teams.models import Team
from teams.queries import Caller
from teams.states import Answer

KEYS_ARE_KEPT = timedelta(days=1)
REPEATED_WITHIN = timedelta(minutes=10)
"""How long a client may go on repeating: the one that people have gives up after four."""
PATIENCE = 2.0
"""Seconds for an answer that is on its way right now to get through, or not."""
MOST_KEY = 255
_PRINTABLE = frozenset(string.printable) - frozenset("\t\n\r\x0b\x0c")


@dataclass(frozen=True)
class Asked:
    """How a request was made. `operation` and `given` say what for, word by word."""

    operation: str
    given: Any
    key: str = ""
    answer: Answer | None = None
    """None: nobody knows what becomes of the answer. Then only a key tells a repetition."""

    @property
    def digest(self) -> str:
        said = json.dumps([self.operation, self.given], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(said.encode()).hexdigest()


def once(caller: Caller, asked: Asked, make: Callable[[], Run]) -> tuple[Run, bool]:
    """Make a run, or find the one that the same request has made before. The second value: it is new.

    Raises `Refused` if its key was used for something else, and whatever `make` raises.
    """
    if len(asked.key) > MOST_KEY or not set(asked.key) <= _PRINTABLE:
        raise Refused(f"Idempotency-Key: must be 1 to {MOST_KEY} printable ASCII characters", field="key")
    team = caller.home_team()
    if team is None or not (asked.key or asked.answer):
        run, new = make(), True  # `make` says what is wrong with the caller
    else:
        if asked.answer:
            asked.answer.repeatable = True
        try:
            run, new = _once(caller, team, asked, make)
        except (OperationalError, InterfaceError, psycopg.OperationalError):
            # It may have been committed all the same; then nobody is going to answer for it.
            owner.this_process.renounce()
            raise
    failpoints.reached("submit.committed")
    return run, new


def forget_submissions() -> int:
    """Remove what no repetition can be about any more. Returns how many there were."""
    old = Q(created_at__lt=Now() - KEYS_ARE_KEPT) | Q(key="", created_at__lt=Now() - REPEATED_WITHIN)
    return Submission.objects.filter(old).delete()[0]


def _once(caller: Caller, team: Team, asked: Asked, make: Callable[[], Run]) -> tuple[Run, bool]:
    answer = asked.answer or Answer()
    alike = Submission.objects.filter(team=team, user=caller.user, key=asked.key).select_related("run")
    number = owner.this_process.number()
    with transaction.atomic():
        _alone(f"{team.pk} {caller.user.pk} {asked.key or asked.digest}")
        earlier = _by_key(alike, asked) if asked.key else _unanswered(alike.filter(digest=asked.digest))
        if earlier is None:
            run = make()
            row = Submission.objects.create(
                team=team, user=caller.user, run=run, key=asked.key, digest=asked.digest, owner=number
            )
        else:
            run, row = earlier.run, earlier
            Submission.objects.filter(pk=row.pk).update(owner=number, lost_at=None)
        if answer.received is False:
            # Before others may look: who has gone already may be back already.
            Submission.objects.filter(pk=row.pk).update(lost_at=Now())
        elif not asked.key:
            transaction.on_commit(partial(answer.then, partial(_settle, row.pk, number)))
    return run, earlier is None


def _settle(row_id: int, number: int, received: bool) -> None:
    """An answer got through, or did not. A repetition that has taken the row on meanwhile settles it itself."""
    row = Submission.objects.filter(pk=row_id, owner=number)
    if received:
        row.delete()
    else:
        row.update(lost_at=Now())


def _alone(what: str) -> None:
    """Let requests that are alike through one by one: the lock is held until the transaction ends."""
    number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [number])


def _by_key(alike: QuerySet[Submission], asked: Asked) -> Submission | None:
    found = alike.filter(created_at__gte=Now() - KEYS_ARE_KEPT).first()
    if found is None:
        alike.delete()  # of the day before
    elif found.digest != asked.digest:
        raise Refused(
            f"Idempotency-Key: {asked.key!r} was used before, for something else (it made run {found.run.name}). "
            "Take a new key for a new request.",
            code=409,
            field="key",
        )
    return found


def _unanswered(alike: QuerySet[Submission]) -> Submission | None:
    """An earlier request whose answer did not get through. Waits a moment for those that are being answered."""
    # Whoever has deleted the run has seen it: what they send now is meant.
    alike = alike.filter(created_at__gte=Now() - REPEATED_WITHIN, run__deleted_at=None).order_by("pk")
    until = time.monotonic() + PATIENCE
    while open_ones := list(alike.all()):  # asked anew: a query set that was read once keeps what it found
        for row in open_ones:
            if row.lost_at is not None or not owner.lives(row.owner):
                return row
        if time.monotonic() > until:
            break  # somebody is reading it, slowly
        time.sleep(0.01)
    return None
