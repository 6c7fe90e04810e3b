"""`mcli create secret` for every kind, with the client as published, and a run that finds them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from teams.states import SecretKind
from tests.client.real import Client
from tests.secrets import PLANTED, VALUES
from tests.stack import Stack

K = SecretKind
NAMES = (
    "bucket",
    "bot",
    "ghcr",
    "cloud",
    "hugging",
    "lake",
    "note",
    "plain-key",
    "sftp-key",
    "tenancy",
    "token",
)


def options(folder: Path) -> dict[str, list[str]]:
    """Secret's name → the words after `mcli create secret`."""

    def file(name: str, text: str) -> str:
        path = folder / name
        path.write_text(text)
        return str(path)

    def mount(kind: str, name: str, text: str, *more: str) -> list[str]:
        return [kind, file(name, text), "--mount-path", f"/secrets/{name}", *more]

    s3, oci, docker = VALUES[K.S3], VALUES[K.OCI], VALUES[K.DOCKER_REGISTRY]
    host, token = VALUES[K.DATABRICKS].values()
    return {
        "token": ["env", f"API_TOKEN={VALUES[K.ENV_VAR]['value']}"],
        "hugging": ["hf", "--token", "hf_planted000111222"],
        "note": mount("mounted", "note", VALUES[K.MOUNTED]["value"]),
        "plain-key": mount("ssh", "plain", VALUES[K.SSH]["value"]),
        "bot": mount("git-ssh", "bot", VALUES[K.GIT_SSH]["value"]),
        "cloud": [
            *("gcp", "--credentials-file", file("gcp.json", VALUES[K.GCP]["value"])),
            *("--mount-path", "/secrets/cloud"),
        ],
        "bucket": [
            *("s3", "--config-file", file("config", s3["config"]), "--profile", "big"),
            *(
                "--credentials-file",
                file("credentials", s3["credentials"]),
                "--mount-directory",
                "/secrets/s3",
            ),
        ],
        "tenancy": [
            *(
                "oci",
                "--config-file",
                file("oci", oci["config"]),
                "--key-file",
                file("oci.pem", oci["keyFile"]),
            ),
            *("--mount-directory", "/secrets/tenancy"),
        ],
        "lake": ["databricks", "--host", host, "--token", token],
        "ghcr": [
            *("docker", "--username", docker["username"], "--password", docker["password"]),
            *("--email", "ada@example.com", "--server", docker["server"]),
        ],
    }


@pytest.fixture(scope="module")
def kept(client: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the client printed while it made one of each kind; they are deleted at the end."""
    said = ""
    for name, words in options(tmp_path_factory.mktemp("secrets")).items():
        said += client.mcli("create", "secret", *words, "--name", name, "--no-input")
    # The command asks the host on port 22 for its key, and nobody listens there: the same by the SDK.
    client.python(
        "from mcli.api.secrets import create_secret; from mcli.models import SecretType;"
        "from mcli.objects.secrets import MCLISFTPSSHSecret as Kind;"
        f"create_secret(Kind('sftp-key', SecretType.sftp, value={VALUES[K.SFTP_SSH]['value']!r},"
        "mount_path='/secrets/sftp'))"
    )
    return said


def listed(client: Client, *words: str) -> list[str]:
    return client.mcli("get", "secrets", "-o", "name", *words).split()


def test_every_kind_is_made_and_listed_with_its_time(client: Client, kept: str) -> None:
    found = listed(client)
    # The client appends a suffix to the name of one kind, whatever it is called.
    assert [
        name for name in NAMES if not any(one == name or one.startswith(f"{name}-") for one in found)
    ] == []
    table = client.mcli("get", "secrets")
    assert "Unknown" not in table
    assert not any(text in kept + table for text in PLANTED)
    assert listed(client, "--type", "git") == ["bot"]


def test_a_name_that_is_taken_and_one_that_is_none_are_refused_in_words(client: Client, kept: str) -> None:
    again = client.mcli(
        "create", "secret", "env", "OTHER=12345678", "--name", "token", "--no-input", ok=False
    )
    assert "409" in again
    bad = client.mcli(
        "create", "secret", "env", "OTHER=12345678", "--name", "BAD_NAME", "--no-input", ok=False
    )
    assert "400" in bad
    assert "12345678" not in again + bad


def test_a_run_finds_them_all(client: Client, kept: str, stack: Stack) -> None:
    shell = """
    set -e
    check() { test -n "$2" || { echo "missing $1"; exit 1; }; echo "$1 has ${#2}"; }
    check API_TOKEN "$API_TOKEN"; check HF_TOKEN "$HF_TOKEN"; check DATABRICKS_TOKEN "$DATABRICKS_TOKEN"
    for file in "$SECRET_PATH_NOTE" "$SECRET_PATH_PLAIN_KEY" "$SECRET_PATH_BOT" "$COMPOSER_SFTP_KEY_FILE" \
        "$GOOGLE_APPLICATION_CREDENTIALS" "$AWS_CONFIG_FILE" "$AWS_SHARED_CREDENTIALS_FILE" "$OCI_CONFIG_FILE" \
        "$OCI_CLI_KEY_FILE" "$(sed -n 's/key_file *= *//p' $OCI_CONFIG_FILE)"; do
        check "$(basename $(dirname $file))/$(basename $file)" "$(cat $file)"
    done
    echo "$AWS_PROFILE $GIT_SSH_COMMAND"
    """
    name = client.submit(shell)
    assert client.wait(name) == "COMPLETED", client.logs(name)
    log = client.logs(name)
    assert f"API_TOKEN has {len(VALUES[K.ENV_VAR]['value'])}" in log
    assert f"tenancy/key_file has {len(VALUES[K.OCI]['keyFile'].rstrip())}" in log
    assert "big ssh -o StrictHostKeyChecking=no" in log
    services = b"".join(path.read_bytes() for path in stack.home.log.glob("*.log*"))
    assert not any(text.encode() in services for text in PLANTED)


def test_they_are_deleted_by_name_and_all_at_once(client: Client, kept: str) -> None:
    client.mcli("delete", "secret", "note", "bot", "-y")
    left = listed(client)
    assert "note" not in left
    assert "token" in left
    client.mcli("delete", "secret", "--all", "-y")
    assert "token" not in client.mcli("get", "secrets", "-o", "name")
