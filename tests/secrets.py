"""One secret of each kind, with values that a search finds again, and what the client sends for each."""

from __future__ import annotations

import json
from typing import Any

from teams.commands import SecretRequest
from teams.states import SecretKind

KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
plantedPlantedPlantedPlantedPlantedPlanted{name}
-----END OPENSSH PRIVATE KEY-----
"""

VALUES: dict[SecretKind, dict[str, str]] = {
    SecretKind.ENV_VAR: {"value": "planted-env-4f1c9a7be2"},
    SecretKind.MOUNTED: {"value": "planted-mounted-77aa02d1\n"},
    SecretKind.SSH: {"value": KEY.format(name="Ssh")},
    SecretKind.GIT_SSH: {"value": KEY.format(name="Git")},
    SecretKind.SFTP_SSH: {"value": KEY.format(name="Sftp")},
    SecretKind.GCP: {
        "value": json.dumps({"type": "service_account", "private_key_id": "plantedgcpid00112233"})
    },
    SecretKind.S3: {
        "config": "[default]\nregion = eu-central-1\n[big]\nregion = us-east-1\n",
        "credentials": "[default]\naws_access_key_id = PLANTEDAKIA000001\n"
        "aws_secret_access_key = plantedAwsSecret/0000000001\n"
        "[big]\naws_access_key_id = PLANTEDAKIA000002\naws_secret_access_key = plantedAwsSecret/0000000002\n",
        "profile": "big",
    },
    SecretKind.OCI: {
        "config": "[DEFAULT]\nuser=ocid1.user\nfingerprint=aa:bb\nkey_file=/secrets/oci/key_file\n",
        "keyFile": KEY.format(name="Oci"),
    },
    SecretKind.DATABRICKS: {"host": "https://adb-1.example.com", "token": "planted-dapi-0123456789"},
    SecretKind.DOCKER_REGISTRY: {
        "username": "ada",
        "password": "planted-docker-5551212",
        "server": "https://registry.example.com",
    },
}
METADATA: dict[SecretKind, dict[str, str]] = {
    SecretKind.ENV_VAR: {"key": "API_TOKEN"},
    SecretKind.S3: {"mountDirectory": "/secrets/s3"},
    SecretKind.OCI: {"mountDirectory": "/secrets/oci"},
    SecretKind.DATABRICKS: {},
    SecretKind.DOCKER_REGISTRY: {},
}
WIRE: dict[SecretKind, str] = {
    SecretKind.ENV_VAR: "envVarSecret",
    SecretKind.MOUNTED: "mountedSecret",
    SecretKind.SSH: "sshSecret",
    SecretKind.GIT_SSH: "gitSSHSecret",
    SecretKind.SFTP_SSH: "sftpSSHSecret",
    SecretKind.GCP: "gcpSecret",
    SecretKind.S3: "s3Secret",
    SecretKind.OCI: "ociSecret",
    SecretKind.DATABRICKS: "databricksSecret",
    SecretKind.DOCKER_REGISTRY: "dockerRegistrySecret",
}
PLANTED = (
    "planted-env-4f1c9a7be2", "planted-mounted-77aa02d1", "PlantedSsh", "PlantedGit", "PlantedSftp", "PlantedOci",
    "plantedgcpid00112233", "PLANTEDAKIA000001", "plantedAwsSecret/0000000001",
    "plantedAwsSecret/0000000002", "planted-dapi-0123456789",
    "planted-docker-5551212",
)  # fmt: skip
"""A text of every value that occurs nowhere else."""


def slug(kind: SecretKind) -> str:
    return kind.lower().replace("_", "-")


def metadata(kind: SecretKind) -> dict[str, str]:
    return METADATA.get(kind, {"mountPath": f"/secrets/{slug(kind)}"})


def request(kind: SecretKind, **more: Any) -> SecretRequest:
    """A valid request for a secret of that kind."""
    fields = {"name": slug(kind), "value": VALUES[kind], "metadata": metadata(kind), **more}
    return SecretRequest(kind=kind, **fields)


def wire(kind: SecretKind) -> dict[str, Any]:
    """The same as `createSecretData`."""
    value: Any = VALUES[kind]
    given: dict[str, Any] = {"name": slug(kind), "value": value.get("value", value)}
    if metadata(kind):
        given["metadata"] = metadata(kind)
    return {WIRE[kind]: given}
