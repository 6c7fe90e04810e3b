"""Secrets: sealed as long as they are kept, opened for the run that they belong to, and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import serializers

from teams import crypto, unseal
from teams.commands import Refused, create_secret, create_team, delete_secrets, rotate_secret
from teams.models import AuditEntry, Secret, Team
from teams.queries import Caller
from teams.states import Role, SecretKind, needles
from tests.secrets import PLANTED, VALUES, metadata, request
from tests.world import make_user


@pytest.fixture
def team(db: None) -> Team:
    return create_team("vision")


def member(team: Team, name: str, role: Role = Role.MEMBER) -> Caller:
    user = make_user(name)
    team.memberships.create(user=user, role=role)
    return Caller(user)


@pytest.fixture
def ada(team: Team) -> Caller:
    return member(team, "Ada")


@pytest.fixture
def boss(team: Team) -> Caller:
    return member(team, "Max", Role.ADMIN)


def refused(work: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("kind", SecretKind)
def test_every_kind_is_kept_and_opens_as_it_was(kind: SecretKind, team: Team, ada: Caller) -> None:
    create_secret(ada, team, request(kind))
    (opened,) = unseal.for_run(team.pk, ada.user.pk)
    assert opened.kind is kind
    assert opened.value == VALUES[kind]
    assert opened.metadata.items() >= metadata(kind).items()


def test_no_row_holds_a_value_and_no_representation_shows_one(team: Team, ada: Caller) -> None:
    for kind in SecretKind:
        create_secret(ada, team, request(kind))
    rows = serializers.serialize("json", [*Secret.objects.all(), *AuditEntry.objects.all(), team])
    shown = [rows, *map(repr, unseal.for_run(team.pk, ada.user.pk)), *map(repr, map(request, SecretKind))]
    for text in PLANTED:
        assert not any(text in one for one in shown)
        # It was looked for in the right spelling.
        assert any(text in json.dumps(VALUES[kind]) for kind in SecretKind)


def test_needles_name_what_is_secret_in_a_configuration_and_leave_the_rest_readable() -> None:
    found = {kind: " ".join(needles(kind, VALUES[kind])) for kind in SecretKind}
    for text in PLANTED:
        assert any(text in one for one in found.values()), text
    for harmless in ("eu-central-1", "ocid1.user", "BEGIN OPENSSH", "adb-1.example.com", "[default]"):
        assert not any(harmless in one for one in found.values())


CHANGES: dict[str, dict[str, Any]] = {
    "name": {"name": "other"},
    "metadata": {"metadata": {"key": "LD_PRELOAD"}},
    "kind": {"kind": "MOUNTED"},
    "version": {"version": 2},
    "owner": {"owner": None},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_row_that_was_edited_does_not_open(change: dict[str, Any], team: Team, ada: Caller) -> None:
    secret = create_secret(ada, team, request(SecretKind.ENV_VAR))
    Secret.objects.filter(pk=secret.pk).update(**change)
    with pytest.raises(unseal.CannotOpen, match="another place"):
        unseal.for_run(team.pk, ada.user.pk)


def test_sealed_texts_that_were_swapped_do_not_open(team: Team, ada: Caller) -> None:
    one = create_secret(ada, team, request(SecretKind.ENV_VAR))
    two = create_secret(ada, team, request(SecretKind.MOUNTED))
    other = create_team("other")
    other.memberships.create(user=ada.user, role=Role.MEMBER)
    far = create_secret(Caller(ada.user), other, request(SecretKind.ENV_VAR))
    for source in (two, far):
        Secret.objects.filter(pk=one.pk).update(sealed=source.sealed)
        with pytest.raises(unseal.CannotOpen):
            unseal.for_run(team.pk, ada.user.pk)
    # Nor when the other team's key comes with it.
    Team.objects.filter(pk=team.pk).update(data_key=other.data_key)
    with pytest.raises(unseal.CannotOpen, match="another place"):
        unseal.open_secret(Secret.objects.get(pk=one.pk))


def test_a_text_with_one_bit_changed_does_not_open(team: Team, ada: Caller) -> None:
    secret = create_secret(ada, team, request(SecretKind.ENV_VAR))
    for at in (5, len(secret.sealed) // 2, len(secret.sealed) - 4):
        letter = "A" if secret.sealed[at] != "A" else "B"
        Secret.objects.update(sealed=secret.sealed[:at] + letter + secret.sealed[at + 1 :])
        with pytest.raises(unseal.CannotOpen, match="changed"):
            unseal.for_run(team.pk, ada.user.pk)


def test_without_the_master_key_nothing_opens_and_no_new_one_is_made(
    team: Team, ada: Caller, settings: LazySettings, tmp_path: Path
) -> None:
    create_secret(ada, team, request(SecretKind.ENV_VAR))
    settings.MASTER_KEY_FILE = tmp_path / "gone.key"
    with pytest.raises(unseal.CannotOpen, match="the master key is not there"):
        unseal.for_run(team.pk, ada.user.pk)
    assert not settings.MASTER_KEY_FILE.exists()
    crypto.load_or_create_key(settings.MASTER_KEY_FILE)  # somebody made a new one
    with pytest.raises(unseal.CannotOpen, match="no master key in the key file"):
        unseal.for_run(team.pk, ada.user.pk)


def test_who_may_keep_and_remove_what(team: Team, ada: Caller, boss: Caller) -> None:
    vera, bob = member(team, "Vera", Role.VIEWER), member(team, "Bob")
    stranger = member(create_team("other"), "Olaf", Role.ADMIN)
    env = request(SecretKind.ENV_VAR)
    for who in (vera, stranger):
        assert refused(lambda who=who: create_secret(who, team, env)).code == 403  # type: ignore[misc]
    assert refused(lambda: create_secret(ada, team, env, team_wide=True)).code == 403
    assert refused(lambda: create_secret(ada, team, env, owner=bob.user)).code == 403
    mine = create_secret(ada, team, env)
    everybodys = create_secret(boss, team, env, team_wide=True)
    for who, secret, code in (
        (bob, mine, 404),
        (stranger, mine, 404),
        (ada, everybodys, 403),
        (vera, everybodys, 403),
    ):
        assert refused(lambda who=who, secret=secret: delete_secrets(who, [secret.pk])).code == code  # type: ignore[misc]
        assert refused(lambda who=who, secret=secret: rotate_secret(who, secret.pk, env.value)).code == code  # type: ignore[misc]
    assert Secret.objects.count() == 2
    delete_secrets(boss, [mine.pk, everybodys.pk])
    assert not Secret.objects.exists()


def test_one_that_may_not_be_deleted_keeps_the_others(team: Team, ada: Caller, boss: Caller) -> None:
    mine = create_secret(ada, team, request(SecretKind.ENV_VAR))
    everybodys = create_secret(boss, team, request(SecretKind.ENV_VAR), team_wide=True)
    refused(lambda: delete_secrets(ada, [mine.pk, everybodys.pk]))
    assert Secret.objects.count() == 2


def test_a_run_gets_its_owners_secrets_first_then_the_teams_and_nobody_elses(
    team: Team, ada: Caller, boss: Caller
) -> None:
    bob = member(team, "Bob")
    for who, wide, text in ((boss, True, "team"), (ada, False, "ada"), (bob, False, "bob")):
        value = {"value": f"{text}-12345678"}
        create_secret(who, team, request(SecretKind.ENV_VAR, value=value), team_wide=wide)
    assert [one.value["value"][:3] for one in unseal.for_run(team.pk, ada.user.pk)] == ["ada", "tea"]


def test_a_new_value_is_a_new_version_and_the_old_text_no_longer_opens(team: Team, ada: Caller) -> None:
    secret = create_secret(ada, team, request(SecretKind.ENV_VAR))
    rotate_secret(ada, secret.pk, {"value": "short"})
    row = Secret.objects.get()
    assert (row.version, row.short) == (2, True)
    assert row.rotated_at is not None
    (opened,) = unseal.for_run(team.pk, ada.user.pk)
    assert opened.value == {"value": "short"}
    Secret.objects.update(sealed=secret.sealed)  # somebody plays the old one back
    with pytest.raises(unseal.CannotOpen):
        unseal.for_run(team.pk, ada.user.pk)


E_ = SecretKind.ENV_VAR
M_ = SecretKind.MOUNTED
WRONG: list[tuple[SecretKind, dict[str, Any], str]] = [
    *[
        (E_, {"name": name}, "name")
        for name in ("", "BAD_NAME", "-a", "a-", "a..b", "a" * 254, "a/b", "a\n", "ä")
    ],
    *[
        (E_, {"metadata": {"key": key}}, "metadata.key")
        for key in ("", "1A", "A-B", "A=B", "RUN_NAME", "LD_PRELOAD", "SECRET_PATH_X", "A\n")
    ],
    (E_, {"value": {}}, "value"),
    (E_, {"value": {"value": ""}}, "value"),
    (E_, {"value": {"value": "a\0b"}}, "value"),
    (E_, {"value": {"value": "x" * 131_072}}, "value"),
    (M_, {"value": {"value": "x" * (512 * 1024 + 1)}}, "value"),
    *[
        (M_, {"metadata": {"mountPath": path}}, "metadata.mountPath")
        for path in (
            *("", "/", "relative", "/a/../../etc/cron.d", "/proc/self", "/dev/shm", "/sys", "/mnt/config"),
            *("/mnt/config/parameters.yaml", "/a\n", "/a\u202eb", "/" + "x" * 256, "/x" * 600),
        )
    ],
    (SecretKind.S3, {"value": {"config": "x"}}, "value.credentials"),
    (SecretKind.OCI, {"value": {"config": "x"}}, "value.keyFile"),
    (SecretKind.DATABRICKS, {"value": {"host": "a b", "token": "12345678"}}, "value.host"),
    (SecretKind.DATABRICKS, {"value": {"host": "https://a.example"}}, "value.token"),
    (
        SecretKind.DOCKER_REGISTRY,
        {"value": {"username": "uuuu", "password": "12345678", "server": "a b"}},
        "value.server",
    ),
]


@pytest.mark.parametrize(("kind", "given", "field"), WRONG)
def test_wrong_input_is_refused_by_the_name_of_its_field(
    kind: SecretKind, given: dict[str, Any], field: str, team: Team, ada: Caller
) -> None:
    problem = refused(lambda: create_secret(ada, team, request(kind, **given)))
    assert (problem.code, problem.field) == (400, field)
    assert problem.message.startswith(field)
    assert not Secret.objects.exists()
    for text in given.get("value", {}).values():
        assert not text or text not in problem.message


TAKEN: list[tuple[SecretKind, dict[str, Any], str]] = [
    (E_, {"metadata": {"key": "OTHER"}}, "name"),
    (E_, {"name": "other"}, "metadata.key"),
    (M_, {"name": "other"}, "metadata.mountPath"),
    (M_, {"name": "other", "metadata": {"mountPath": "/secrets/Mounted/"}}, "metadata.mountPath"),
    (M_, {"name": "other", "metadata": {"mountPath": "/secrets/mounted/secret"}}, "metadata.mountPath"),
    (M_, {"name": "other", "metadata": {"mountPath": "/secrets/s3/config"}}, "metadata.mountPath"),
    (SecretKind.DATABRICKS, {"name": "other"}, "kind"),
    (SecretKind.DOCKER_REGISTRY, {"name": "other"}, "value.server"),
]


@pytest.mark.parametrize(("kind", "given", "field"), TAKEN)
def test_what_is_taken_in_the_same_place_is_a_conflict(
    kind: SecretKind, given: dict[str, Any], field: str, team: Team, ada: Caller, boss: Caller
) -> None:
    for one in SecretKind:
        create_secret(ada, team, request(one))
    problem = refused(lambda: create_secret(ada, team, request(kind, **given)))
    assert (problem.code, problem.field) == (409, field)
    # The team's are another place: what is personal wins over them.
    create_secret(boss, team, request(kind, **given), team_wide=True)
