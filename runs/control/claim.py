"""The lease on an attempt: who holds it may act on it; a holder that dies loses it after some seconds."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from clusters.engines import failpoints
from runs.models import Attempt

_EXTEND = """
    UPDATE runs_attempt
    SET lease_token = %s, lease_until = clock_timestamp() + %s * interval '1 second'
    WHERE id = %s AND cleaned_at IS NULL AND
"""


_FREE = """
    (lease_until IS NULL OR lease_until < clock_timestamp()
     OR lease_until > clock_timestamp() + %s * interval '1 second')
"""
"""Nobody has a lease so long: one that ends so late is from before the database's clock was set back."""


def claim(attempt_id: uuid.UUID) -> uuid.UUID | None:
    """Take the lease on an attempt: the token, or None while somebody else holds it.

    In that case their bell is rung: they look once more before they let go.
    """
    for _ in range(2):
        token = uuid.uuid4()
        failpoints.reached("claim.before")
        if _execute(_EXTEND + _FREE, token, attempt_id, settings.RUNYARD_LEASE_SECONDS * 2):
            failpoints.reached("claim.taken")
            return token
        taken = Attempt.objects.filter(pk=attempt_id, cleaned_at=None, lease_until__gte=Now())
        if not taken.update(rings=F("rings") + 1):
            return None
        # Between the two statements the holder may have let go without hearing the bell: try once more.
    return None


def renew(attempt_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Keep the lease for another while. False: it was lost, and nothing may be done any more."""
    return _execute(_EXTEND + "lease_token = %s", token, attempt_id, token)


def release(attempt_id: uuid.UUID, token: uuid.UUID, rings: int) -> bool:
    """Let go. False, with the lease kept, if a bell rang since `rings` was read: look once more."""
    failpoints.reached("claim.release")
    held = Attempt.objects.filter(pk=attempt_id, lease_token=token)
    if held.filter(rings=rings).update(lease_token=None, lease_until=None):
        return True
    return not held.exists()


def _execute(statement: str, token: uuid.UUID, attempt_id: uuid.UUID, *more: uuid.UUID | int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, [token, settings.RUNYARD_LEASE_SECONDS, attempt_id, *more])
        return bool(cursor.rowcount == 1)
