"""What a run finds of each secret (mapi §5.3), and that its values are nowhere else."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import LazySettings, settings
from django.db import connection

from runs import unseal
from runs.control.inject import inject
from runs.control.spec import launch_spec
from runs.models import Attempt, Run, SealedValues
from runs.states import Reason, Status
from teams.commands import create_secret, delete_secrets, rotate_secret
from teams.models import Secret
from teams.queries import Caller
from teams.states import SecretKind
from teams.unseal import for_run
from tests.secrets import PLANTED, VALUES, request, slug
from tests.world import World, drive, latest, make_run, sweep, until

K = SecretKind


def keep(world: World, *kinds: SecretKind, who: Caller | None = None) -> list[Secret]:
    return [create_secret(who or world.ada, world.vision, request(kind)) for kind in kinds]


def found(world: World, shared: Path, shell: str) -> str:
    """What a run of Ada's writes, left out of its log."""
    shell = f"({shell}) > {shared}/out 2>&1"
    attempt = drive(make_run(world.ada, shell))
    assert attempt.status == Status.COMPLETED, (attempt.message, (shared / "out").read_text())
    return (shared / "out").read_text()


FINDS: dict[SecretKind, tuple[str, str]] = {
    K.ENV_VAR: ("printf %s $API_TOKEN", VALUES[K.ENV_VAR]["value"]),
    K.MOUNTED: ("cat $SECRET_PATH_MOUNTED", VALUES[K.MOUNTED]["value"]),
    K.SSH: ("stat -c %a $SECRET_PATH_SSH; cat $SECRET_PATH_SSH", "400\n" + VALUES[K.SSH]["value"]),
    K.GIT_SSH: (
        'test "$GIT_SSH_COMMAND" != "${GIT_SSH_COMMAND% -i $SECRET_PATH_GIT_SSH}" && stat -c %a $SECRET_PATH_GIT_SSH'
        "&& echo $GIT_SSH_COMMAND | grep -c StrictHostKeyChecking=no; cat $SECRET_PATH_GIT_SSH",
        "400\n1\n" + VALUES[K.GIT_SSH]["value"],
    ),
    K.SFTP_SSH: (
        "test $COMPOSER_SFTP_KEY_FILE = $SECRET_PATH_SFTP_SSH && echo a >> $COMPOSER_SFTP_KNOWN_HOSTS_FILE "
        "&& cat $COMPOSER_SFTP_KNOWN_HOSTS_FILE $COMPOSER_SFTP_KEY_FILE",
        "a\n" + VALUES[K.SFTP_SSH]["value"],
    ),
    K.GCP: (
        "test $GOOGLE_APPLICATION_CREDENTIALS = $SECRET_PATH_GCP && cat $GOOGLE_APPLICATION_CREDENTIALS",
        VALUES[K.GCP]["value"],
    ),
    K.S3: (
        "cat $AWS_CONFIG_FILE $AWS_SHARED_CREDENTIALS_FILE; printf %s $AWS_PROFILE",
        VALUES[K.S3]["config"] + VALUES[K.S3]["credentials"] + "big",
    ),
    K.OCI: (
        "test $OCI_CONFIG_FILE = $OCI_CLI_CONFIG_FILE && cat $(sed -n s/key_file=//p $OCI_CONFIG_FILE)",
        VALUES[K.OCI]["keyFile"],
    ),
    K.DATABRICKS: (
        "printf '%s %s' $DATABRICKS_HOST $DATABRICKS_TOKEN",
        "https://adb-1.example.com planted-dapi-0123456789",
    ),
    K.DOCKER_REGISTRY: ("env | grep -c -i docker; true", "0\n"),
}


@pytest.mark.parametrize("kind", SecretKind)
def test_a_run_finds_each_kind_where_the_client_was_told(
    kind: SecretKind, world: World, shared: Path
) -> None:
    keep(world, kind)
    shell, expected = FINDS[kind]
    assert found(world, shared, shell) == expected
    row = Secret.objects.get()
    assert row.last_used_at is not None
    assert row.last_used_by == Run.objects.get().name


def test_all_of_them_at_once(world: World, shared: Path) -> None:
    keep(world, *SecretKind)
    shell = "; ".join(f"({shell})" for shell, _ in FINDS.values())
    assert found(world, shared, shell) == "".join(text for _, text in FINDS.values())


def test_registry_credentials_go_to_the_engine_and_show_in_no_representation(world: World) -> None:
    keep(world, *SecretKind)
    spec = launch_spec(latest(make_run(world.ada)))
    (credential,) = spec.pull_credentials
    assert (credential.server, credential.password) == (
        "https://registry.example.com",
        "planted-docker-5551212",
    )
    assert not any(text in repr(spec) for text in PLANTED)


def test_a_personal_secret_wins_over_the_teams_as_a_whole(world: World, shared: Path) -> None:
    create_secret(world.max, world.vision, request(K.ENV_VAR, value={"value": "of-the-team"}), team_wide=True)
    create_secret(
        world.max, world.vision, request(K.ENV_VAR, name="other", metadata={"key": "ELSE"}), team_wide=True
    )
    create_secret(
        world.max, world.vision, request(K.S3, name="s", metadata={"mountDirectory": "/s"}), team_wide=True
    )
    keep(world, K.ENV_VAR)
    mine = request(K.S3, value={"credentials": "[default]\naws_access_key_id = MINEMINE\n"})
    create_secret(world.ada, world.vision, mine)
    out = found(
        world,
        shared,
        "echo $API_TOKEN $ELSE ${AWS_CONFIG_FILE-no} ${AWS_PROFILE-no}; cat $AWS_SHARED_CREDENTIALS_FILE",
    )
    assert out.startswith("planted-env-4f1c9a7be2 planted-env-4f1c9a7be2 no no\n")
    assert "MINEMINE" in out


def test_the_runs_own_variable_gives_way_to_a_secret_and_nobody_elses_arrives(
    world: World, shared: Path
) -> None:
    keep(world, K.ENV_VAR)
    create_secret(world.bob, world.vision, request(K.ENV_VAR, metadata={"key": "BOBS"}))
    run = make_run(world.ada, f"echo $API_TOKEN ${{BOBS-none}} > {shared}/out", env={"API_TOKEN": "own"})
    drive(run)
    assert (shared / "out").read_text() == "planted-env-4f1c9a7be2 none\n"


def test_a_tracker_is_told_of_the_run_and_a_secret_brings_its_key(world: World, shared: Path) -> None:
    key = request(K.ENV_VAR, metadata={"key": "WANDB_API_KEY"})
    create_secret(world.ada, world.vision, key)
    submitted = {"integrations": [{"type": "wandb", "params": {"project": "p"}}]}
    shell = f"echo $WANDB_PROJECT $WANDB_NAME $WANDB_API_KEY > {shared}/out"
    run = make_run(world.ada, shell, submitted=submitted, env={"WANDB_PROJECT": "own"})
    drive(run)
    assert (shared / "out").read_text() == f"p {run.name} planted-env-4f1c9a7be2\n"


def test_a_secret_that_does_not_open_fails_the_run_by_name(world: World) -> None:
    keep(world, K.ENV_VAR, K.MOUNTED)
    Secret.objects.filter(kind=K.ENV_VAR).update(name="renamed")
    attempt = drive(make_run(world.ada, max_retries=3))
    assert (attempt.status, attempt.reason) == (Status.FAILED, Reason.MISSING_SECRET)
    assert "renamed" in attempt.message
    assert attempt.index == 0
    assert not any(text in attempt.message + json.dumps(attempt.evidence) for text in PLANTED)


def test_without_the_master_key_a_run_fails_and_says_so(
    world: World, settings: LazySettings, tmp_path: Path
) -> None:
    keep(world, K.ENV_VAR)
    settings.MASTER_KEY_FILE = tmp_path / "gone"
    attempt = drive(make_run(world.ada))
    assert attempt.reason == Reason.MISSING_SECRET
    assert "master key is not there" in attempt.message


def test_what_a_log_must_hide_outlives_the_secret_and_ends_with_the_attempt(world: World) -> None:
    (secret,) = keep(world, K.ENV_VAR)
    run = make_run(world.ada, "sleep 60")
    attempt = drive(run, Status.RUNNING)
    rotate_secret(world.ada, secret.pk, {"value": "another-value"})
    delete_secrets(world.ada, [secret.pk])
    before = unseal.secret_values(attempt.pk)
    assert "planted-env-4f1c9a7be2" in before
    unseal.remember(attempt, ["another-value"])  # a launch that is repeated
    assert unseal.secret_values(attempt.pk) == sorted(["another-value", *before])
    unseal.forget(attempt.pk)
    assert unseal.secret_values(attempt.pk) == []


def test_a_path_never_leads_out_of_the_attempts_folder(world: World) -> None:
    """The form refuses it; a row that got past the form does not open; the engine refuses it once more."""
    (secret,) = keep(world, K.MOUNTED)
    Secret.objects.filter(pk=secret.pk).update(metadata={"mountPath": "/../../../etc/cron.d"})
    attempt = drive(make_run(world.ada))
    assert attempt.reason == Reason.MISSING_SECRET


def test_two_secrets_in_one_place_leave_the_first(world: World) -> None:
    create_secret(
        world.max,
        world.vision,
        request(K.SSH, metadata={"mountPath": "/Secrets/mounted/secret"}),
        team_wide=True,
    )
    keep(world, K.MOUNTED)
    injection = inject(for_run(world.vision.pk, world.ada.user.pk))
    assert [one.name for one in injection.used] == ["mounted"]
    assert [file.path for file in injection.files] == ["/secrets/mounted/secret"]


# -- values are nowhere else


@pytest.fixture
def planted(world: World, shared: Path) -> Iterator[Attempt]:
    """A run with every secret, while it runs."""
    keep(world, *SecretKind)
    run = make_run(world.ada, f"echo ready; touch {shared}/ready; sleep 120")
    attempt = drive(run, Status.RUNNING)
    until((shared / "ready").exists)
    yield attempt


def spellings() -> set[bytes]:
    """What a value may look like in a dump: as it is, in JSON, base64 at its three shifts, hex."""
    found = set()
    for text in PLANTED:
        raw = text.encode()
        found |= {raw, raw.hex().encode(), json.dumps(text)[1:-1].encode()}
        found |= {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    return found


def database() -> bytes:
    """Every row of every table, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [row[0] for row in cursor.fetchall()]
        rows = []
        for table in tables:
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            rows += [row[0] for row in cursor.fetchall()]
    return "\n".join(rows).encode()


def valkey() -> bytes:
    """Every key with its content: queues of messages above all."""
    client: Any = redis.from_url(settings.REDIS_URL)
    return b"\n".join(key + (client.dump(key) or b"") for key in client.keys("*"))


def processes() -> bytes:
    """The command lines of everything that runs."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes())
            except OSError:
                pass
    return b"\n".join(lines)


def files(root: Path, but: Path | None = None) -> bytes:
    """Everything below a folder, names included."""
    contents = []
    for folder, _, names in os.walk(root):
        if but is not None and Path(folder).is_relative_to(but):
            continue
        for name in names:
            path = Path(folder, name)
            contents.append(os.fsencode(path))
            if path.is_file():
                contents.append(path.read_bytes())
    return b"\n".join(contents)


def test_while_a_run_has_them_its_values_are_in_its_own_folder_and_nowhere_else(
    planted: Attempt, world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "local" / "attempts" / str(planted.pk)
    inside = files(folder)
    outside = {
        "database": database(),
        "valkey": valkey(),
        "command lines": processes(),
        "files": files(tmp_path, but=folder),
        "logs": files(settings.LOG_ROOT),
    }
    assert outside["database"].count(b"\n") > 20
    for text in ("planted-env-4f1c9a7be2", "PlantedGit", "planted-dapi-0123456789"):
        assert text.encode() in inside, "the search would find nothing"
    for where, content in outside.items():
        for spelling in spellings():
            assert spelling not in content, f"{spelling!r} in the {where}"


def test_nobody_else_may_look_into_the_folder(planted: Attempt, tmp_path: Path) -> None:
    folder = tmp_path / "local" / "attempts" / str(planted.pk)
    for closed in (folder / "mounts", folder / "private"):
        assert closed.stat().st_mode & 0o077 == 0
    for top in (folder / "mounts", folder / "private" / "rank-0"):
        for inner, _, names in os.walk(top):
            # The names of accounts are for every process of the rank, whatever its account.
            hidden = set(names) - {"passwd"}
            assert not any(Path(inner, name).lstat().st_mode & 0o077 for name in hidden)


def test_they_are_gone_when_the_attempt_is_cleaned_up_also_after_a_kill(
    planted: Attempt, world: World, tmp_path: Path
) -> None:
    from clusters.connect import call, connect
    from clusters.engines.base import Handle
    from runs.models import LogStream

    call("stop", connect(world.cluster).stop(Handle(str(planted.pk)), 0))
    drive(planted.run)
    LogStream.objects.update(ended_at=planted.created_at)  # nobody collects here
    until(lambda: latest(planted.run).cleaned_at is not None, lambda: sweep(world.cluster.pk))
    assert not SealedValues.objects.exists()
    for where, content in {"files": files(tmp_path), "database": database()}.items():
        for spelling in spellings():
            assert spelling not in content, f"{spelling!r} in the {where}"


def test_every_kind_is_among_the_planted() -> None:
    for kind in SecretKind:
        assert any(text in json.dumps(VALUES[kind]) for text in PLANTED), slug(kind)
