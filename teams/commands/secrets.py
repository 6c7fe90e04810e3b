"""Secrets: made, given a new value, taken away. Never read back."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from teams import audit, crypto
from teams.commands.refused import Refused
from teams.models import Membership, Secret, Team, User
from teams.queries import Caller, bound_to, with_keys
from teams.states import SHAPES, Action, SecretKind, is_short

MOST_SECRETS = 500
"""Of one person, or team-wide, in one team: all of them go into every run."""
MOST_FILE_BYTES = 512 * 1024
MOST_VARIABLE_BYTES = 128 * 1024 - 1
"""Of `NAME=value`: what Linux hands to a program."""
PLATFORM_VARIABLES = frozenset(
    [
        "RUN_NAME",
        "COMPOSER_RUN_NAME",
        "RESUMPTION_INDEX",
        "NODE_RANK",
        "NUM_NODES",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "PARAMETERS",
        "MOSAICML_PLATFORM",
        "MOSAICML_API_ENDPOINT",
        "MOSAICML_ACCESS_TOKEN_FILE",
        "MOSAICML_GPU_LOG_FILE_PREFIX",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "HOME",
        "TMPDIR",
        "RUNYARD_ATTEMPT",
    ]
)
"""What a run is told by the platform: a secret of that name would never arrive."""
LOADER_VARIABLES = frozenset(
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "PYTHONSTARTUP"]
)
"""What would have every program of a run load or run something: nothing that belongs into a secret."""
CLOSED_FOLDERS = ("/proc", "/sys", "/dev", "/mnt/config")
"""Where nothing can be mounted, and where the platform keeps a run's parameters."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class SecretRequest:
    """What somebody wants kept. Not checked yet: `create_secret` does that, whichever way it came."""

    name: str
    kind: SecretKind
    value: Mapping[str, str] = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@transaction.atomic
def create_secret(
    caller: Caller,
    team: Team,
    request: SecretRequest,
    *,
    team_wide: bool = False,
    owner: User | None = None,
) -> Secret:
    """Seal a secret: the caller's own, or one for the whole team, or (for an admin) another member's.

    Raises `Refused` with nothing stored: 400 naming the field, 403, or 409 if the name, the variable or the
    path is taken in the same place.
    """
    owner = None if team_wide else (owner or caller.user)
    _require(caller, team.pk, owner.pk if owner else None)
    if owner is not None and not Membership.objects.filter(team=team, user=owner).exists():
        raise Refused(f"{owner.email} is not in the team {team.name}.", code=404, field="entity")
    value = _checked_value(request.kind, request.value)
    metadata = _checked_metadata(request, value)
    _check_name(request.name)
    # One at a time for each team: what is taken is asked before it is written.
    Team.objects.select_for_update().get(pk=team.pk)
    _refuse_what_is_taken(team, owner, request, metadata)
    secret = Secret(
        team=team,
        owner=owner,
        name=request.name,
        kind=request.kind,
        metadata=metadata,
        short=is_short(request.kind, value),
    )
    secret.sealed = _seal(secret, value)
    secret.save(force_insert=True)
    secret.refresh_from_db(fields=["created_at"])
    audit.record(caller, "secret.created", secret.name, team_id=team.pk, **_said(secret))
    return secret


@transaction.atomic
def rotate_secret(caller: Caller, secret_id: UUID, value: Mapping[str, str]) -> Secret:
    """Give a secret a new value. Runs that have started keep the old one. Raises `Refused`."""
    secret = _changeable(caller, [secret_id])[0]
    kind = SecretKind(secret.kind)
    checked = _checked_value(kind, value)
    secret.version += 1
    secret.short = is_short(kind, checked)
    secret.metadata = _checked_metadata(SecretRequest(secret.name, kind, checked, secret.metadata), checked)
    secret.sealed = _seal(secret, checked)
    secret.save(update_fields=["version", "short", "metadata", "sealed"])
    Secret.objects.filter(pk=secret.pk).update(rotated_at=Now())
    audit.record(caller, "secret.rotated", secret.name, team_id=secret.team_id, **_said(secret))
    return secret


@transaction.atomic
def delete_secrets(caller: Caller, secret_ids: Sequence[UUID]) -> list[Secret]:
    """Remove secrets for good, all of them or, if one is refused, none. Runs that have them keep them."""
    rows = _changeable(caller, secret_ids)
    for row in rows:
        audit.record(caller, "secret.deleted", row.name, team_id=row.team_id, **_said(row))
    Secret.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return rows


def _require(caller: Caller, team_id: UUID, owner_id: UUID | None) -> None:
    """Own secrets: a member. The team's, and other people's: an admin."""
    if owner_id == caller.user.pk and caller.may(Action.KEEP_OWN_SECRETS, team_id):
        return
    if not caller.may(Action.MANAGE_SECRETS, team_id):
        own = owner_id == caller.user.pk
        what = "keep secrets" if own else "change secrets of the whole team or of somebody else"
        role = "member or admin" if own else "admin"
        raise Refused(
            f"You may not {what}: that takes the role {role} in the team, and a key with the scope write.",
            code=403,
        )


def _changeable(caller: Caller, secret_ids: Sequence[UUID]) -> list[Secret]:
    rows = list(
        Secret.objects.filter(pk__in=secret_ids, team__in=caller.team_ids)
        .select_related("team", "owner")
        .defer("sealed")
        .select_for_update(of=("self",))
        .order_by("name", "pk")
    )
    # What is somebody else's is not there, but for an admin.
    seen = [
        row
        for row in rows
        if row.owner_id in {None, caller.user.pk} or caller.may(Action.MANAGE_SECRETS, row.team_id)
    ]
    if len(seen) != len(set(secret_ids)):
        raise Refused("There is no such secret.", code=404, field="name")
    for row in rows:
        _require(caller, row.team_id, row.owner_id)
    return rows


def _said(secret: Secret) -> dict[str, Any]:
    """What the audit record says of a secret: nothing of its value."""
    owner = secret.owner.email if secret.owner else "team"
    return {"kind": secret.kind, "owner": owner, "metadata": secret.metadata, "version": secret.version}


def _seal(secret: Secret, value: Mapping[str, str]) -> str:
    try:
        return with_keys(secret.team_id, lambda ring, key: crypto.seal(ring, key, value, bound_to(secret)))
    except crypto.Broken as problem:
        raise Refused(f"No secret can be kept now: {problem}. An admin has to see to it.", code=500) from None


# -- checks: each says which field, and what is allowed; none repeats a value


def _check_name(name: str) -> None:
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise Refused(
            f"name: {_shown(name)} is not a secret's name: lower-case letters, digits, '-' and '.' are allowed, "
            "each part with a letter or digit first and last, at most 253 characters",
            field="name",
        )


def _checked_value(kind: SecretKind, given: Mapping[str, Any]) -> dict[str, str]:
    shape, value = SHAPES[kind], {}
    for name in shape.fields:
        text = given.get(name)
        label = "value" if name == "value" else f"value.{name}"
        if text is None or text == "":
            if name not in shape.optional:
                raise Refused(f"{label} is a required field", field=label)
            continue
        if not isinstance(text, str):
            raise Refused(f"{label}: must be text", field=label)
        if "\0" in text:
            raise Refused(f"{label}: holds a NUL character, which cannot be stored", field=label)
        if len(text.encode(errors="surrogatepass")) > MOST_FILE_BYTES:
            raise Refused(f"{label}: is longer than {MOST_FILE_BYTES // 1024} KiB", field=label)
        value[name] = text
    _check_kind(kind, value)
    return value


def _check_kind(kind: SecretKind, value: Mapping[str, str]) -> None:
    """What would be of no use in any run is refused now; the rest is for "Test it"."""
    if kind is SecretKind.DATABRICKS and not re.fullmatch(r"(https?://)?[\w.-]+(:\d+)?/?", value["host"]):
        raise Refused(
            "value.host: must be an address such as https://adb-123.azuredatabricks.net", field="value.host"
        )
    if kind is SecretKind.DOCKER_REGISTRY and re.search(r"[\s@]", value["server"]):
        raise Refused(
            "value.server: must be a registry's address such as https://index.docker.io/v1/",
            field="value.server",
        )
    if kind is SecretKind.S3 and "\n" in value.get("profile", ""):
        raise Refused("value.profile: must be one line", field="value.profile")


def _checked_metadata(request: SecretRequest, value: Mapping[str, str]) -> dict[str, str]:
    place = SHAPES[request.kind].place
    if request.kind is SecretKind.DOCKER_REGISTRY:
        return {"server": value["server"]}
    if request.kind is SecretKind.DATABRICKS:
        return {"host": value["host"]}
    assert place is not None
    where = request.metadata.get(place)
    if not isinstance(where, str) or not where:
        raise Refused(f"metadata.{place} is a required field", field=f"metadata.{place}")
    if place == "key":
        _check_variable(where, value["value"])
        return {place: where}
    return {place: _checked_path(where, place)}


def _check_variable(key: str, value: str) -> None:
    if not _VARIABLE.fullmatch(key):
        raise Refused(
            f"metadata.key: {_shown(key)} is not a variable's name: letters, digits and '_' are allowed, no digit first",
            field="metadata.key",
        )
    if key in PLATFORM_VARIABLES or key.startswith("SECRET_PATH_"):
        raise Refused(f"metadata.key: {key} is set by Runyard itself in every run", field="metadata.key")
    if key in LOADER_VARIABLES:
        raise Refused(
            f"metadata.key: {key} would change how every program of a run starts; set it in the command instead",
            field="metadata.key",
        )
    if len(f"{key}={value}".encode(errors="surrogatepass")) > MOST_VARIABLE_BYTES:
        raise Refused("value: a variable holds at most 128 KiB; mount it as a file instead", field="value")


def _checked_path(given: str, place: str) -> str:
    """An absolute path in one spelling."""
    path = PurePosixPath(given)
    problem = ""
    if not given.startswith("/") or len(path.parts) < 2:
        problem = "must be an absolute path of a folder, not of the root"
    elif ".." in path.parts:
        problem = "must not hold '..'"
    elif len(given) > 1000 or any(len(part.encode(errors="surrogatepass")) > 255 for part in path.parts):
        problem = "is too long"
    elif any(unicodedata.category(letter)[0] == "C" for letter in given):
        problem = "must not hold control characters"
    plain = "/" + "/".join(path.parts[1:])
    if not problem and any(plain == top or plain.startswith(f"{top}/") for top in CLOSED_FOLDERS):
        problem = f"nothing can be mounted below {', '.join(CLOSED_FOLDERS)}"
    if problem:
        raise Refused(f"metadata.{place}: {_shown(given)}: {problem}", field=f"metadata.{place}")
    return plain


def _refuse_what_is_taken(
    team: Team, owner: User | None, request: SecretRequest, metadata: Mapping[str, str]
) -> None:
    """The same place twice would leave it to chance which one a run gets."""
    others = list(Secret.objects.filter(team=team, owner=owner).defer("sealed"))
    if len(others) >= MOST_SECRETS:
        raise Refused(f"There are {MOST_SECRETS} secrets already: delete some first.", code=409)
    whose = "The team has" if owner is None else "You have"
    for other in others:
        if other.name == request.name:
            raise Refused(
                f"name: {whose} a secret {request.name} already; delete it first, or choose another name",
                code=409,
                field="name",
            )
        if other.kind == request.kind and other.metadata.get("server", 0) == metadata.get("server"):
            raise Refused(
                f"value.server: the secret {other.name} is for that registry already",
                code=409,
                field="value.server",
            )
        if request.kind == other.kind == SecretKind.DATABRICKS:
            raise Refused(f"kind: the secret {other.name} is for Databricks already", code=409, field="kind")
        if metadata.get("key") is not None and other.metadata.get("key") == metadata["key"]:
            raise Refused(
                f"metadata.key: the secret {other.name} sets {metadata['key']} already",
                code=409,
                field="metadata.key",
            )
        place = "mountPath" if "mountPath" in metadata else "mountDirectory"
        mine, theirs = (
            metadata.get(place),
            other.metadata.get("mountPath", other.metadata.get("mountDirectory")),
        )
        if mine and theirs and _overlap(mine, theirs):
            raise Refused(
                f"metadata.{place}: the secret {other.name} is mounted at {theirs} already",
                code=409,
                field=f"metadata.{place}",
            )


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one inside the other, to a file system that folds case."""

    def folded(path: str) -> tuple[str, ...]:
        return PurePosixPath(unicodedata.normalize("NFKC", path).casefold()).parts

    shorter, longer = sorted((folded(one), folded(other)), key=len)
    return longer[: len(shorter)] == shorter


def _shown(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
