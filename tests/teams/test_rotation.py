"""A new master key while secrets are opened, sealed, and teams are made (F24)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.conf import LazySettings, settings
from django.db import connection

from teams import crypto, unseal
from teams.commands import Refused, add_member, create_secret, create_team, rotate_master_key
from teams.models import AuditEntry, Team
from teams.queries import Caller
from teams.states import Role, SecretKind
from tests.secrets import VALUES, request
from tests.world import make_user

ENV = SecretKind.ENV_VAR


@pytest.fixture
def ada(transactional_db: None, settings: LazySettings, tmp_path: Path) -> Caller:
    """Ada, a member of ten teams under a master key of this test's own."""
    settings.MASTER_KEY_FILE = tmp_path / "master.key"
    ada = make_user("Ada")
    for number in range(10):
        add_member(create_team(f"team-{number}"), ada, Role.MEMBER)
    return Caller(ada)


def keys() -> list[str]:
    return list(settings.MASTER_KEY_FILE.read_text().split())


def test_everything_opens_under_the_new_key_alone(ada: Caller) -> None:
    team = Team.objects.get(name="team-0")
    create_secret(ada, team, request(ENV))
    (old,), said = keys(), list[str]()
    assert rotate_master_key(said.append) == 10
    (new,) = keys()
    assert new != old
    assert "Old master keys used by 0 rows." in said
    assert oct(settings.MASTER_KEY_FILE.stat().st_mode & 0o777) == "0o600"
    assert unseal.for_run(team.pk, ada.user.pk)[0].value == VALUES[ENV]
    assert all(Fernet(new).decrypt(team.data_key.encode()) for team in Team.objects.all())
    assert AuditEntry.objects.filter(action="master_key.rotated").exists()


def test_one_that_was_cut_off_goes_on_without_another_key(ada: Caller) -> None:
    crypto.add_master_key(settings.MASTER_KEY_FILE)
    team = Team.objects.order_by("pk").first()
    assert team is not None
    fresh = crypto.rewrap(settings.MASTER_KEY_FILE, team.data_key)
    assert fresh is not None
    Team.objects.filter(pk=team.pk).update(data_key=fresh)
    newest, _ = keys()
    assert rotate_master_key(resume=True) == 9
    assert keys() == [newest]


def test_the_old_key_stays_where_other_hosts_need_it(ada: Caller) -> None:
    rotate_master_key(keep_old=True)
    assert len(keys()) == 2
    assert rotate_master_key(resume=True) == 0
    assert len(keys()) == 1


def test_a_data_key_that_nothing_opens_keeps_the_old_keys(ada: Caller) -> None:
    Team.objects.filter(name="team-3").update(data_key=Fernet(Fernet.generate_key()).encrypt(b"x").decode())
    with pytest.raises(Refused, match="team-3"):
        rotate_master_key()
    assert len(keys()) == 2


def test_no_look_fails_while_the_key_is_rotated_again_and_again(ada: Caller) -> None:
    teams = list(Team.objects.order_by("name"))
    for team in teams:
        create_secret(Caller(ada.user), team, request(ENV))
    over, opened, problems = threading.Event(), list[int](), list[BaseException]()

    def use(number: int) -> None:
        try:
            turn = 0
            while not over.is_set():
                turn += 1
                team = teams[turn % len(teams)]
                assert unseal.for_run(team.pk, ada.user.pk)[0].value == VALUES[ENV]
                if turn % 5 == 0:
                    made = create_team(f"made-{number}-{turn}")
                    add_member(made, ada.user, Role.MEMBER)
                    create_secret(Caller(ada.user), made, request(ENV))
                opened.append(1)
        except BaseException as problem:
            problems.append(problem)
        finally:
            connection.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(12):
        rotate_master_key()
    over.set()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert len(opened) > 12
    assert len(keys()) == 1
    for team in Team.objects.all():
        assert unseal.for_run(team.pk, ada.user.pk)[0].value == VALUES[ENV]
