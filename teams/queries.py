"""Who is asking. Everything that reads or changes starts from a `Caller`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from cryptography.fernet import MultiFernet
from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from teams.crypto import Broken, existing_keyring, hash_api_key
from teams.models import APIKey, Membership, Secret, Team, User
from teams.states import MAY, NEEDS, RUN_MAY, Action, Role

T = TypeVar("T")


@dataclass(frozen=True)
class Caller:
    """A person, through a session (`team` is None: all of their teams), a key (that key's team), or a run of
    theirs (that run's team), which acts for itself by its token.

    Who may what is asked of `may`; the answer is from the memberships at the time the object was made.
    """

    user: User
    team: Team | None = None
    key: APIKey | None = None
    run: UUID | None = None
    """The run that acts: it sees and changes itself and what it submitted, and nothing else."""
    token: UUID | None = None
    """By which of its tokens."""

    @functools.cached_property
    def roles(self) -> dict[UUID, Role]:
        """Team id → role, for the teams that this caller can act in."""
        rows = Membership.objects.filter(user=self.user)
        if self.team is not None:
            rows = rows.filter(team=self.team)
        return {team_id: Role(role) for team_id, role in rows.values_list("team_id", "role")}

    @property
    def team_ids(self) -> list[UUID]:
        return list(self.roles)

    def may(self, action: Action, team_id: UUID) -> bool:
        role = self.roles.get(team_id)
        allowed = role is not None and action in MAY[role]
        if self.run is not None:
            allowed = allowed and action in RUN_MAY
            if action is Action.SUBMIT:
                allowed = allowed and Team.objects.filter(pk=team_id, runs_may_submit=True).exists()
        return allowed and (self.key is None or NEEDS[action] in self.key.scopes)

    def may_change(self, *, team_id: UUID, owner_id: UUID) -> bool:
        """May stop, restart, update or delete a run of this team and owner."""
        if self.may(Action.CHANGE_ANY_RUN, team_id):
            return True
        return owner_id == self.user.pk and self.may(Action.CHANGE_OWN_RUN, team_id)

    def home_team(self) -> Team | None:
        """Where their new runs go: the key's team, else the first that they may submit in, by name."""
        if self.team is not None:
            return self.team
        return next((team for team in self.teams() if self.may(Action.SUBMIT, team.pk)), None)

    def teams(self) -> QuerySet[Team]:
        return Team.objects.filter(pk__in=self.team_ids).order_by("name")


def caller_by_key(key: str) -> Caller | None:
    """The caller who holds this API key, or None if it is unknown, expired, revoked or its owner gone."""
    row = live_keys().select_related("user", "team").filter(digest=hash_api_key(key)).first()
    if row is None:
        return None
    _note_use(row)
    caller = Caller(row.user, row.team, row)
    return caller if caller.roles else None


def key_is_live(key_id: UUID) -> bool:
    """Whether a key that opened a socket still counts: not revoked, expired, nor its owner out of the team."""
    row = live_keys().filter(pk=key_id).values_list("user_id", "team_id").first()
    return row is not None and Membership.objects.filter(user_id=row[0], team_id=row[1]).exists()


def live_keys() -> QuerySet[APIKey]:
    return APIKey.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None, user__is_active=True
    )


def _note_use(key: APIKey) -> None:
    """Once a minute is exact enough, and spares a write for each request."""
    now = timezone.now()
    if key.last_used_at is None or (now - key.last_used_at).total_seconds() > 60:
        APIKey.objects.filter(pk=key.pk).update(last_used_at=now)


def people(caller: Caller) -> QuerySet[User]:
    """Everybody in the caller's teams, by address; to a run, its owner alone."""
    if caller.run is not None:
        return User.objects.filter(pk=caller.user.pk)
    return User.objects.filter(memberships__team__in=caller.team_ids).distinct().order_by("email")


def secrets_visible_to(caller: Caller) -> QuerySet[Secret]:
    """The names of one's own secrets and of those of one's teams; never a value."""
    theirs = Q(owner=caller.user) | Q(owner=None)
    if caller.run is not None:
        theirs = Q(pk=None)  # A run has its secrets; what others there are is not its business.
    rows = Secret.objects.filter(theirs, team__in=caller.team_ids).defer("sealed")
    return rows.select_related("team", "owner").order_by("name", "team__name")


def secrets_for_runs(team_id: UUID, owner_id: UUID) -> QuerySet[Secret]:
    """What a run gets, in the order in which one wins over another: personal before team-wide."""
    rows = Secret.objects.filter(Q(owner=owner_id) | Q(owner=None), team=team_id).select_related("team")
    return rows.order_by(F("owner_id").desc(nulls_last=True), "name")


def bound_to(secret: Secret) -> dict[str, Any]:
    """What a secret's value is sealed together with: all that decides who gets it, as what and where."""
    return {
        "secret": str(secret.pk),
        "team": str(secret.team_id),
        "owner": str(secret.owner_id or ""),
        "name": secret.name,
        "kind": secret.kind,
        "metadata": secret.metadata,
        "version": secret.version,
    }


def with_keys(team_id: UUID, work: Callable[[MultiFernet, str], T]) -> T:
    """Do something with the master keys and a team's data key. Once more if that fails: the master key may
    have been rotated between the two looks. Raises `crypto.Broken`."""
    for last in (False, True):
        ring = existing_keyring(settings.MASTER_KEY_FILE)
        try:
            return work(ring, Team.objects.values_list("data_key", flat=True).get(pk=team_id))
        except Broken:
            if last:
                raise
    raise AssertionError
