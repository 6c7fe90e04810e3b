"""Teams, members, and the keys that act for them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from teams import audit
from teams.commands.keys import keep_master_key
from teams.commands.refused import Refused
from teams.crypto import hash_api_key, master_keyring, new_api_key, new_data_key
from teams.models import APIKey, Membership, Team, User
from teams.queries import Caller
from teams.states import Action, Role, Scope


@transaction.atomic
def create_team(name: str) -> Team:
    keep_master_key()
    ring = master_keyring(settings.MASTER_KEY_FILE)
    team = Team.objects.create(name=name, data_key=new_data_key(ring))
    audit.record(None, "team.created", name, team_id=team.pk)
    return team


@transaction.atomic
def create_user(email: str, password: str, *, name: str = "") -> User:
    user = User.objects.create_user(email, password, name=name)
    audit.record(None, "user.created", user.email, team_id=None)
    return user


@transaction.atomic
def add_member(team: Team, user: User, role: Role) -> Membership:
    """Give a user a role in a team; an existing membership gets the new role."""
    membership, _ = Membership.objects.update_or_create(team=team, user=user, defaults={"role": role})
    audit.record(None, "member.added", user.email, team_id=team.pk, role=str(role))
    return membership


@transaction.atomic
def let_runs_submit(caller: Caller, team: Team, allowed: bool) -> None:
    """Say whether the team's runs may submit further runs with their tokens. Counts from their next request on.
    Idempotent. Raises `Refused` (403) for who is no admin of the team."""
    if not caller.may(Action.MANAGE_MEMBERS, team.pk):
        raise Refused("Only admins of the team may change what its runs may do.", code=403)
    if Team.objects.filter(pk=team.pk).exclude(runs_may_submit=allowed).update(runs_may_submit=allowed):
        audit.record(caller, "team.runs_may_submit", team.name, team_id=team.pk, allowed=allowed)


@transaction.atomic
def create_api_key(
    caller: Caller,
    team: Team,
    name: str,
    *,
    scopes: tuple[Scope, ...] = (Scope.READ, Scope.WRITE),
    expires_at: datetime | None = None,
) -> tuple[APIKey, str]:
    """Make a key for the caller in one of their teams. The second value is the key: shown once, not kept."""
    if not caller.may(Action.READ, team.pk):
        raise Refused("You are not a member of that team.", code=404, field="team")
    if caller.key is not None or caller.run is not None:
        raise Refused("A key cannot make further keys; log in to the console.", code=403)
    if not name.strip():
        raise Refused("Give the key a name by which you will know it again.", field="name")
    key = new_api_key()
    row = APIKey.objects.create(
        user=caller.user,
        team=team,
        name=name.strip(),
        digest=hash_api_key(key),
        hint=key[:8],
        scopes=list(scopes),
        expires_at=expires_at,
    )
    audit.record(caller, "key.created", f"{row.name} ({row.hint})", team_id=team.pk)
    return row, key


@transaction.atomic
def revoke_api_key(caller: Caller, key_id: UUID) -> None:
    """End one of the caller's own keys. Sockets that it opened end within seconds. Idempotent."""
    row = APIKey.objects.filter(user=caller.user, pk=key_id).first()
    if row is None:
        raise Refused("There is no such key.", code=404, field="key")
    if APIKey.objects.filter(pk=key_id, revoked_at=None).update(revoked_at=Now()):
        audit.record(caller, "key.revoked", f"{row.name} ({row.hint})", team_id=row.team_id)
