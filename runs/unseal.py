"""The values that an attempt was given, for as long as its logs are collected: to hide them there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from runs.models import Attempt, SealedValues
from teams.unseal import open_for, seal_for


def remember(attempt: Attempt, values: Iterable[str]) -> None:
    """Keep what an attempt is about to be given. Call it before the launch; again adds to what is kept, since
    an earlier launch may have gone through. Raises `teams.unseal.CannotOpen`."""
    known = set(secret_values(attempt.pk))
    if new := set(values) - known:
        team_id = attempt.run.team_id
        sealed = seal_for(team_id, {"values": sorted(known | new)}, _bound(team_id, attempt.pk))
        SealedValues.objects.update_or_create(attempt=attempt, defaults={"sealed": sealed})


def secret_values(attempt_id: UUID) -> list[str]:
    """Every text that no log of the attempt may show. Raises `teams.unseal.CannotOpen`: then nothing of its
    output can be shown either."""
    found = (
        SealedValues.objects.filter(attempt=attempt_id).values_list("attempt__run__team_id", "sealed").first()
    )
    if found is None:
        return []
    values: list[str] = open_for(found[0], found[1], _bound(found[0], attempt_id))["values"]
    return values


def forget(attempt_id: UUID) -> None:
    """After the last byte of its output is stored."""
    SealedValues.objects.filter(attempt=attempt_id).delete()


def _bound(team_id: UUID, attempt_id: UUID) -> dict[str, Any]:
    return {"values of": str(attempt_id), "team": str(team_id)}
