"""Rotation of the master key, while everything goes on."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import connection, transaction

from teams import audit, crypto
from teams.commands.refused import Refused
from teams.models import Team

BATCH = 100
_LOCK = 7_315_460_912
"""An advisory lock: shared by whoever seals a new data key, alone with whoever drops an old master key."""


def keep_master_key() -> None:
    """Until the end of the transaction no master key is dropped. Call it before the key file is read."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_LOCK])


def rotate_master_key(
    say: Callable[[str], object] = lambda text: None, *, keep_old: bool = False, resume: bool = False
) -> int:
    """Make a new master key, seal every team's data key under it, and drop the old ones. Returns how many rows
    were sealed anew.

    The new key is in the file before anything is sealed under it, the old one until nothing is: it may die at
    any point, and `resume` goes on without yet another key. `keep_old` leaves the old keys, for when other hosts
    have copies of the file. Raises `Refused` if the file is missing, or a data key opens under none of the keys.
    """
    path = settings.MASTER_KEY_FILE
    try:
        if not resume:
            crypto.add_master_key(path)
            say("A new master key is in the file, before the old one.")
        rewrapped = _rewrap_all(say)
        say(f"{rewrapped} data keys sealed under the new master key.")
        if keep_old:
            say("The old master keys are still in the file.")
            return rewrapped
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            rewrapped += _rewrap_all(say)
            left = sum(crypto.rewrap(path, key) is not None for key in _data_keys())
            say(f"Old master keys used by {left} rows.")
            if left:
                raise Refused(f"{left} data keys are still under an old master key; run it again.", code=500)
            crypto.drop_old_master_keys(path)
            audit.record(None, "master_key.rotated", str(path), team_id=None, data_keys=rewrapped)
    except crypto.Broken as problem:
        raise Refused(f"The master key was not rotated: {problem}.", code=500) from None
    except ValueError as problem:
        raise Refused(f"The key file cannot be used: {problem}", code=500) from None
    say("The old master keys are gone.")
    return rewrapped


def _data_keys() -> list[str]:
    return list(Team.objects.order_by("pk").values_list("data_key", flat=True))


def _rewrap_all(say: Callable[[str], object]) -> int:
    """In batches, each a transaction; a row that changed meanwhile is left to the next look."""
    path, done = settings.MASTER_KEY_FILE, 0
    ids = list(Team.objects.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(ids), BATCH):
        with transaction.atomic():
            rows = Team.objects.filter(pk__in=ids[start : start + BATCH]).order_by("pk").select_for_update()
            for pk, name, data_key in rows.values_list("pk", "name", "data_key"):
                try:
                    fresh = crypto.rewrap(path, data_key)
                except crypto.Broken as problem:
                    raise crypto.Broken(f"{problem} of the team {name}") from None
                if fresh is not None:
                    Team.objects.filter(pk=pk).update(data_key=fresh)
                    done += 1
        if len(ids) > BATCH:
            say(f"{min(start + BATCH, len(ids))} of {len(ids)} teams looked at.")
    return done
