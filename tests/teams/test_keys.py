"""API keys: shown once, stored as a hash, and only as good as their owner."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.utils import timezone

from teams.commands import Refused, create_api_key, create_team, revoke_api_key
from teams.crypto import load_or_create_key, master_keyring
from teams.models import APIKey, Team
from teams.queries import Caller, caller_by_key, key_is_live
from teams.states import Role
from tests.world import make_user


@pytest.fixture
def team(db: None) -> Team:
    return create_team("vision")


@pytest.fixture
def ada(team: Team) -> Caller:
    user = make_user("Ada")
    team.memberships.create(user=user, role=Role.MEMBER)
    return Caller(user)


def test_a_key_has_the_form_that_the_clients_prompts_ask_for(ada: Caller, team: Team) -> None:
    row, key = create_api_key(ada, team, "laptop")
    assert re.fullmatch(r"ryk_[A-Za-z0-9_-]{43}", key)
    assert len(key) == 47
    assert key not in str(APIKey.objects.filter(pk=row.pk).values().get())


def test_a_key_stands_for_its_owner_in_its_team_alone(ada: Caller, team: Team) -> None:
    other = create_team("language")
    other.memberships.create(user=ada.user, role=Role.ADMIN)
    _, key = create_api_key(ada, team, "laptop")
    caller = caller_by_key(key)
    assert caller is not None
    assert (caller.user, caller.team_ids) == (ada.user, [team.pk])


def test_an_unknown_revoked_or_expired_key_is_nobodys(ada: Caller, team: Team) -> None:
    row, key = create_api_key(ada, team, "laptop")
    assert caller_by_key(key + "x") is None
    assert caller_by_key("") is None
    revoke_api_key(ada, row.pk)
    assert caller_by_key(key) is None
    assert not key_is_live(row.pk)
    _, late = create_api_key(ada, team, "old", expires_at=timezone.now() - timedelta(seconds=1))
    assert caller_by_key(late) is None


def test_the_key_of_somebody_who_is_shut_out_is_worth_nothing(ada: Caller, team: Team) -> None:
    row, key = create_api_key(ada, team, "laptop")
    ada.user.is_active = False
    ada.user.save(update_fields=["is_active"])
    assert caller_by_key(key) is None
    assert not key_is_live(row.pk)


def test_nobody_revokes_anothers_key_or_makes_one_for_a_team_that_is_not_theirs(
    ada: Caller, team: Team
) -> None:
    row, _ = create_api_key(ada, team, "laptop")
    olaf = Caller(make_user("Olaf"))
    for attempt in (
        lambda: revoke_api_key(olaf, row.pk),
        lambda: create_api_key(olaf, team, "mine"),
    ):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.code == 404


def test_a_key_cannot_make_keys(ada: Caller, team: Team) -> None:
    _, key = create_api_key(ada, team, "laptop")
    holder = caller_by_key(key)
    assert holder is not None
    with pytest.raises(Refused) as refused:
        create_api_key(holder, team, "another")
    assert refused.value.code == 403


def test_a_teams_data_key_opens_under_the_master_key_only(team: Team) -> None:
    ring = master_keyring(settings.MASTER_KEY_FILE)
    assert Fernet(ring.decrypt(team.data_key.encode()))
    assert oct(settings.MASTER_KEY_FILE.stat().st_mode & 0o777) == "0o600"


def test_a_key_file_is_made_once_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "some.key"
    first = load_or_create_key(path)
    assert load_or_create_key(path) == first
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert [entry.name for entry in path.parent.iterdir()] == ["some.key"]
