"""Secrets in the client's words (mapi §5). Values come in and never go out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import strawberry
from strawberry.scalars import JSON

from teams.commands import Refused, SecretRequest, create_secret, delete_secrets
from teams.graphql.people import APIInfo, EntityInput, StringInFilter, listed, uuids
from teams.models import Secret as SecretRow
from teams.models import Team, User
from teams.queries import Caller, people, secrets_visible_to
from teams.states import SecretKind


@strawberry.type(description="What is known of a secret. Its value is never given out.")
class Secret:
    id: str
    name: str
    type: str
    metadata: JSON
    created_at: datetime


@strawberry.input
class SecretFilters:
    name: StringInFilter | None = None
    type: StringInFilter | None = None


@strawberry.input
class GetSecretsInput:
    filters: SecretFilters | None = None
    entity: EntityInput | None = None


@strawberry.input
class EnvVarMetadata:
    key: str | None = None


@strawberry.input
class MountMetadata:
    mount_path: str | None = None


@strawberry.input
class MountDirectoryMetadata:
    mount_directory: str | None = None


@strawberry.input
class EnvVarSecretInput:
    name: str | None = None
    metadata: EnvVarMetadata | None = None
    value: str | None = None


@strawberry.input
class MountedSecretInput:
    name: str | None = None
    metadata: MountMetadata | None = None
    value: str | None = None


@strawberry.input
class DockerRegistryValue:
    username: str | None = None
    password: str | None = None
    email: str | None = None
    server: str | None = None


@strawberry.input
class DockerRegistrySecretInput:
    name: str | None = None
    metadata: JSON | None = None
    value: DockerRegistryValue | None = None


@strawberry.input
class S3Value:
    config: str | None = None
    credentials: str | None = None
    profile: str | None = None


@strawberry.input
class S3SecretInput:
    name: str | None = None
    metadata: MountDirectoryMetadata | None = None
    value: S3Value | None = None


@strawberry.input
class OCIValue:
    config: str | None = None
    key_file: str | None = None


@strawberry.input
class OCISecretInput:
    name: str | None = None
    metadata: MountDirectoryMetadata | None = None
    value: OCIValue | None = None


@strawberry.input
class DatabricksValue:
    host: str | None = None
    token: str | None = None


@strawberry.input
class DatabricksSecretInput:
    name: str | None = None
    metadata: JSON | None = None
    value: DatabricksValue | None = None


@strawberry.input(description="Exactly one of the ten.")
class CreateSecretInput:
    env_var_secret: EnvVarSecretInput | None = None
    mounted_secret: MountedSecretInput | None = None
    ssh_secret: MountedSecretInput | None = None
    # Camel-casing would make `gitSshSecret` of these.
    git_ssh_secret: MountedSecretInput | None = strawberry.field(name="gitSSHSecret", default=None)
    sftp_ssh_secret: MountedSecretInput | None = strawberry.field(name="sftpSSHSecret", default=None)
    gcp_secret: MountedSecretInput | None = None
    s3_secret: S3SecretInput | None = None
    oci_secret: OCISecretInput | None = None
    databricks_secret: DatabricksSecretInput | None = None
    docker_registry_secret: DockerRegistrySecretInput | None = None
    entity: EntityInput | None = strawberry.field(
        default=None, description="Whose it shall be: another member, for an admin of the team."
    )


KINDS = {
    "env_var_secret": SecretKind.ENV_VAR,
    "mounted_secret": SecretKind.MOUNTED,
    "ssh_secret": SecretKind.SSH,
    "git_ssh_secret": SecretKind.GIT_SSH,
    "sftp_ssh_secret": SecretKind.SFTP_SSH,
    "gcp_secret": SecretKind.GCP,
    "s3_secret": SecretKind.S3,
    "oci_secret": SecretKind.OCI,
    "databricks_secret": SecretKind.DATABRICKS,
    "docker_registry_secret": SecretKind.DOCKER_REGISTRY,
}
WIRE_NAMES = (
    "envVarSecret, mountedSecret, sshSecret, gitSSHSecret, sftpSSHSecret, gcpSecret, s3Secret, ociSecret, "
    "databricksSecret, dockerRegistrySecret"
)


@strawberry.type
class SecretsQuery:
    @strawberry.field(  # type: ignore[untyped-decorator]
        description="The caller's own secrets; with `entity.organizationIds` those of the whole team."
    )
    def get_secrets(self, info: APIInfo, get_secrets_data: GetSecretsInput) -> list[Secret]:
        return [_shown(row) for row in _selected(info.context.caller, get_secrets_data)]


@strawberry.type
class SecretsMutation:
    @strawberry.mutation(  # type: ignore[untyped-decorator]
        description="Seal a secret of the caller's own. The list has exactly one element."
    )
    def create_secret(self, info: APIInfo, create_secret_data: CreateSecretInput) -> list[Secret]:
        caller = info.context.caller
        team = caller.home_team()
        if team is None:
            raise Refused(
                "You may not keep secrets: that takes the role member or admin in a team.", code=403
            )
        owner = _owner(caller, team, create_secret_data.entity)
        return [_shown(create_secret(caller, team, _request(create_secret_data), owner=owner))]

    @strawberry.mutation(  # type: ignore[untyped-decorator]
        description="Remove the secrets that the filters name; the answer lists them. Empty filters are refused."
    )
    def delete_secrets(self, info: APIInfo, get_secrets_data: GetSecretsInput) -> list[Secret]:
        caller, filters = info.context.caller, get_secrets_data.filters or SecretFilters()
        if not (listed(filters.name) or listed(filters.type)):
            raise Refused(
                "filters: say which secrets, by name or type; without filters nothing is deleted",
                field="filters",
            )
        rows = list(_selected(caller, get_secrets_data))
        missing = sorted(set(listed(filters.name) or []) - {row.name for row in rows})
        if missing:
            raise Refused(f"There is no secret {', '.join(missing)}.", code=404, field="filters.name")
        shown = [_shown(row) for row in rows]
        delete_secrets(caller, [row.pk for row in rows])
        return shown


def _selected(caller: Caller, given: GetSecretsInput) -> list[SecretRow]:
    filters, entity = given.filters or SecretFilters(), given.entity or EntityInput()
    rows = secrets_visible_to(caller)
    if entity.organization_ids:
        rows = rows.filter(owner=None, team__in=uuids(entity.organization_ids))
    else:
        rows = rows.filter(owner=caller.user)
        if entity.user_ids:
            rows = rows.filter(owner__in=uuids(entity.user_ids))
        if entity.emails:
            rows = rows.filter(owner__email__in=[email.lower() for email in entity.emails])
    if (names := listed(filters.name)) is not None:
        rows = rows.filter(name__in=names)
    if (kinds := listed(filters.type)) is not None:
        rows = rows.filter(kind__in=kinds)
    return list(rows)


def _request(given: CreateSecretInput) -> SecretRequest:
    found = [(name, kind) for name, kind in KINDS.items() if getattr(given, name) is not None]
    if len(found) != 1:
        raise Refused(f"createSecretData: must have exactly one of {WIRE_NAMES}", field="createSecretData")
    field, kind = found[0]
    secret = getattr(given, field)
    value = secret.value
    if value is None:
        raise Refused("value is a required field", field="value")
    parts = {"value": value} if isinstance(value, str) else _members(value)
    return SecretRequest(secret.name or "", kind, parts, _metadata(secret.metadata))


def _members(value: Any) -> dict[str, str]:
    return {
        name if name != "key_file" else "keyFile": text
        for name, text in vars(value).items()
        if text is not None
    }


def _metadata(given: Any) -> Mapping[str, Any]:
    match given:
        case EnvVarMetadata():
            return {"key": given.key}
        case MountMetadata():
            return {"mountPath": given.mount_path}
        case MountDirectoryMetadata():
            return {"mountDirectory": given.mount_directory}
    return {}


def _owner(caller: Caller, team: Team, entity: EntityInput | None) -> User:
    if entity is None or not entity.user_ids:
        return caller.user
    found = people(caller).filter(pk__in=uuids(entity.user_ids), memberships__team=team).first()
    if found is None or len(entity.user_ids) > 1:
        raise Refused("entity.userIds: must name one member of the team", code=404, field="entity")
    return found


def _shown(row: SecretRow) -> Secret:
    return Secret(
        id=str(row.pk), name=row.name, type=row.kind, metadata=row.metadata, created_at=row.created_at
    )
