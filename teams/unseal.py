"""Opening what teams have sealed. Only what hands values to a run, or masks them, may import this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from cryptography.fernet import MultiFernet
from django.db.models.functions import Now

from teams import crypto
from teams.models import Secret
from teams.queries import bound_to, secrets_for_runs, with_keys
from teams.states import SecretKind


@dataclass(frozen=True)
class Opened:
    """One secret with its value, which no representation of it shows."""

    id: UUID
    name: str
    kind: SecretKind
    metadata: Mapping[str, Any]
    personal: bool
    value: Mapping[str, str] = field(repr=False)


class CannotOpen(Exception):
    """A secret does not open. The message names it and says why, for the person whose run needs it."""


def for_run(team_id: UUID, owner_id: UUID) -> list[Opened]:
    """Every secret that a run of this owner in this team gets: their own first, then the team's, by name.

    Raises `CannotOpen` for the first that was changed or whose key is missing: a run without one of its
    secrets would fail later and say something else.
    """
    rows = list(secrets_for_runs(team_id, owner_id))
    if not rows:
        return []
    try:
        return with_keys(team_id, lambda ring, key: [_open(row, ring, key) for row in rows])
    except crypto.Broken as problem:
        raise CannotOpen(f"The secrets cannot be opened: {problem}.") from None


def note_use(secret_ids: Sequence[UUID], run_name: str) -> None:
    """Which run got them last, and when: for those who ask whether anybody needs a secret."""
    if secret_ids:
        Secret.objects.filter(pk__in=secret_ids).update(last_used_at=Now(), last_used_by=run_name)


def open_secret(row: Secret) -> Opened:
    """Raises `CannotOpen`."""
    try:
        return with_keys(row.team_id, lambda ring, key: _open(row, ring, key))
    except crypto.Broken as problem:
        raise CannotOpen(f"The secret {row.name} cannot be opened: {problem}.") from None


def _open(row: Secret, ring: MultiFernet, data_key: str) -> Opened:
    try:
        value = crypto.unseal(ring, data_key, row.sealed, bound_to(row))
    except crypto.Broken as problem:
        raise crypto.Broken(f"{row.name}: {problem}") from None
    return Opened(row.pk, row.name, SecretKind(row.kind), row.metadata, row.owner_id is not None, value)


def seal_for(team_id: UUID, value: Mapping[str, Any], bound: Mapping[str, Any]) -> str:
    """Seal something of the platform's own under a team's data key. Raises `CannotOpen`."""
    try:
        return with_keys(team_id, lambda ring, key: crypto.seal(ring, key, value, bound))
    except crypto.Broken as problem:
        raise CannotOpen(f"Nothing can be sealed for the team: {problem}.") from None


def open_for(team_id: UUID, sealed: str, bound: Mapping[str, Any]) -> dict[str, Any]:
    """Open what `seal_for` has sealed. Raises `CannotOpen`."""
    try:
        return with_keys(team_id, lambda ring, key: crypto.unseal(ring, key, sealed, bound))
    except crypto.Broken as problem:
        raise CannotOpen(f"What was sealed for the team cannot be opened: {problem}.") from None
