"""Kinds of secrets: what each is made of, and which parts of it nobody may read. Plain Python."""

from __future__ import annotations

import base64
import configparser
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class SecretKind(StrEnum):
    """What a secret is for, in the API's words (mapi §3.2)."""

    ENV_VAR = "ENV_VAR"
    MOUNTED = "MOUNTED"
    SSH = "SSH"
    GIT_SSH = "GIT_SSH"
    SFTP_SSH = "SFTP_SSH"
    GCP = "GCP"
    S3 = "S3"
    OCI = "OCI"
    DATABRICKS = "DATABRICKS"
    DOCKER_REGISTRY = "DOCKER_REGISTRY"


@dataclass(frozen=True)
class Shape:
    """What a kind of secret is made of, and how it is told to people."""

    title: str
    effect: str
    """What a run finds of it."""
    fields: tuple[str, ...] = ("value",)
    """The parts of its value; texts all of them."""
    optional: frozenset[str] = frozenset()
    place: str | None = "mountPath"
    """The member of its metadata that says where it goes: a variable's name, a file's or a folder's path."""


SHAPES: Mapping[SecretKind, Shape] = {
    SecretKind.ENV_VAR: Shape("Environment variable", "A variable of that name.", place="key"),
    SecretKind.MOUNTED: Shape("File", "A file `secret` in that folder; SECRET_PATH_… names it."),
    SecretKind.SSH: Shape("SSH key", "A file `secret` in that folder that only the run can read."),
    SecretKind.GIT_SSH: Shape("SSH key for git", "The same, and GIT_SSH_COMMAND uses it."),
    SecretKind.SFTP_SSH: Shape("SSH key for SFTP", "The same, and Composer's SFTP object store uses it."),
    SecretKind.GCP: Shape(
        "Google Cloud credentials", "A file `secret`; GOOGLE_APPLICATION_CREDENTIALS names it."
    ),
    SecretKind.S3: Shape(
        "S3 configuration and credentials",
        "Two files; AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE name them.",
        ("config", "credentials", "profile"),
        frozenset({"config", "profile"}),
        "mountDirectory",
    ),
    SecretKind.OCI: Shape(
        "Oracle Cloud configuration",
        "Two files; OCI_CONFIG_FILE, OCI_CLI_CONFIG_FILE and OCI_CLI_KEY_FILE name them.",
        ("config", "keyFile"),
        place="mountDirectory",
    ),
    SecretKind.DATABRICKS: Shape(
        "Databricks token", "DATABRICKS_HOST and DATABRICKS_TOKEN.", ("host", "token"), place=None
    ),
    SecretKind.DOCKER_REGISTRY: Shape(
        "Docker registry",
        "Images of that registry are pulled with it, where an engine pulls images.",
        ("username", "password", "email", "server"),
        frozenset({"email"}),
        None,
    ),
}

MASKABLE = 8
"""Characters from which on a value is masked in logs; shorter ones would blot out half of what is said."""


def needles(kind: SecretKind, value: Mapping[str, str]) -> list[str]:
    """The texts of a secret's value that no log may show: of a configuration only what is secret in it, so
    that a region or a user's name stays readable."""
    return sorted({text for text in map(str.strip, _needles(kind, value)) if text})


def is_short(kind: SecretKind, value: Mapping[str, str]) -> bool:
    """Whether a part of it cannot be masked."""
    return any(len(text) < MASKABLE for text in needles(kind, value))


def _needles(kind: SecretKind, value: Mapping[str, str]) -> Iterator[str]:
    match kind:
        case SecretKind.ENV_VAR | SecretKind.MOUNTED:
            yield value["value"]
        case SecretKind.SSH | SecretKind.GIT_SSH | SecretKind.SFTP_SSH:
            yield from _key_text(value["value"])
        case SecretKind.GCP:
            yield value["value"]
            yield from _members(
                value["value"], ("private_key", "private_key_id", "client_secret", "refresh_token")
            )
        case SecretKind.S3:
            for part in ("config", "credentials"):
                yield from _options(
                    value.get(part, ""), ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
                )
        case SecretKind.OCI:
            yield from _key_text(value["keyFile"])
            yield from _options(value["config"], ("pass_phrase", "security_token"))
        case SecretKind.DATABRICKS:
            yield value["token"]
        case SecretKind.DOCKER_REGISTRY:
            yield value["password"]
            # As it stands in ~/.docker/config.json.
            yield base64.b64encode(f"{value['username']}:{value['password']}".encode()).decode()


def _key_text(text: str) -> Iterator[str]:
    """A key without its frame: `-----BEGIN …-----` is nobody's secret."""
    yield "\n".join(line for line in text.splitlines() if not line.startswith("-----"))


def _members(text: str, names: tuple[str, ...]) -> Iterator[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return  # What is no JSON is masked as a whole.
    for name in names:
        if isinstance(found, dict) and isinstance(found.get(name), str):
            yield from _key_text(found[name])


def _options(text: str, names: tuple[str, ...]) -> Iterator[str]:
    """The values of some options in every section of an INI file; all of the text if it is none."""
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read_string(text)
    except configparser.Error:
        yield text
        return
    for section in parser.sections():
        yield from (parser[section][name] for name in names if name in parser[section])
