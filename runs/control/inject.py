"""What a run finds of each secret (mapi §5.3)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from clusters.engines.base import MountedFile, PullCredential
from teams.states import SecretKind, needles
from teams.unseal import Opened

SSH_COMMAND = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i {quoted}"
KNOWN_HOSTS = "composer_sftp_known_hosts"


@dataclass
class Injection:
    """What goes into a launch, and the secrets that it came from."""

    variables: dict[str, str] = field(default_factory=dict, repr=False)
    files: list[MountedFile] = field(default_factory=list)
    pull_credentials: list[PullCredential] = field(default_factory=list)
    used: list[Opened] = field(default_factory=list)

    def needles(self) -> list[str]:
        """What no log of the run may show."""
        return sorted({text for one in self.used for text in needles(one.kind, one.value)})


def inject(secrets: Iterable[Opened]) -> Injection:
    """Put secrets together, those that win first: one whose name, variable, registry or place an earlier one
    has is left out as a whole. Variables that can name only one thing, such as GIT_SSH_COMMAND and AWS_…, are
    those of the first of its kind."""
    it = Injection()
    kinds: set[SecretKind] = set()
    for secret in secrets:
        if not any(_clash(secret, earlier) for earlier in it.used):
            it.used.append(secret)
            _add(it, secret, first=secret.kind not in kinds)
            kinds.add(secret.kind)
    return it


def _clash(secret: Opened, earlier: Opened) -> bool:
    if secret.name == earlier.name:
        return True
    mine, theirs = _claims(secret), _claims(earlier)
    return bool(mine & theirs) or _overlap(_folder(secret), _folder(earlier))


def _claims(secret: Opened) -> set[str]:
    """What there can be one of only."""
    match secret.kind:
        case SecretKind.ENV_VAR:
            return {f"variable {secret.metadata['key']}"}
        case SecretKind.DATABRICKS:
            return {"databricks"}
        case SecretKind.DOCKER_REGISTRY:
            return {f"registry {secret.value['server']}"}
    return set()


def _folder(secret: Opened) -> str:
    where = secret.metadata.get("mountPath", secret.metadata.get("mountDirectory", ""))
    return str(where)


def _overlap(one: str, other: str) -> bool:
    if not one or not other:
        return False

    def folded(path: str) -> tuple[str, ...]:
        return PurePosixPath(unicodedata.normalize("NFKC", path).casefold()).parts

    shorter, longer = sorted((folded(one), folded(other)), key=len)
    return longer[: len(shorter)] == shorter


def _add(it: Injection, secret: Opened, *, first: bool) -> None:
    folder, value = _folder(secret), secret.value

    def named(*names: str, text: str = "{path}") -> dict[str, str]:
        return dict.fromkeys(names, text) if first else {}

    match secret.kind:
        case SecretKind.ENV_VAR:
            it.variables[secret.metadata["key"]] = value["value"]
        case SecretKind.MOUNTED:
            it.files.append(_file(secret, 0o444, {}))
        case SecretKind.SSH:
            it.files.append(_file(secret, 0o400, {}))
        case SecretKind.GIT_SSH:
            it.files.append(_file(secret, 0o400, named("GIT_SSH_COMMAND", text=SSH_COMMAND)))
        case SecretKind.SFTP_SSH:
            it.files.append(_file(secret, 0o400, named("COMPOSER_SFTP_KEY_FILE")))
            # The client collects host keys and does not send them: a file for the run to write them to.
            known = named("COMPOSER_SFTP_KNOWN_HOSTS_FILE")
            it.files.append(MountedFile(f"{folder}/{KNOWN_HOSTS}", b"", 0o600, known))
        case SecretKind.GCP:
            it.files.append(_file(secret, 0o400, named("GOOGLE_APPLICATION_CREDENTIALS")))
        case SecretKind.S3:
            if "config" in value:
                it.files.append(_part(folder, "config", value["config"], named("AWS_CONFIG_FILE")))
            credentials = named("AWS_SHARED_CREDENTIALS_FILE")
            it.files.append(_part(folder, "credentials", value["credentials"], credentials))
            if "profile" in value and first:
                it.variables["AWS_PROFILE"] = value["profile"]
        case SecretKind.OCI:
            key = f"{folder}/key_file"
            config = re.sub(
                r"(?m)^(\s*key_file\s*[=:]).*$", lambda line: line[1] + key, value["config"]
            ).encode()
            configs = named("OCI_CONFIG_FILE", "OCI_CLI_CONFIG_FILE")
            it.files.append(MountedFile(f"{folder}/config", config, 0o400, configs, names=(key,)))
            it.files.append(_part(folder, "key_file", value["keyFile"], named("OCI_CLI_KEY_FILE")))
        case SecretKind.DATABRICKS:
            it.variables["DATABRICKS_HOST"] = value["host"]
            it.variables["DATABRICKS_TOKEN"] = value["token"]
        case SecretKind.DOCKER_REGISTRY:
            it.pull_credentials.append(
                PullCredential(value["server"], value["username"], value["password"], value.get("email", ""))
            )


def _file(secret: Opened, mode: int, variables: dict[str, str]) -> MountedFile:
    """The one file of most kinds."""
    name = re.sub(r"[^A-Z0-9]", "_", secret.name.upper())
    variables = {f"SECRET_PATH_{name}": "{path}", **variables}
    return MountedFile(f"{_folder(secret)}/secret", secret.value["value"].encode(), mode, variables)


def _part(folder: str, name: str, text: str, variables: dict[str, str]) -> MountedFile:
    return MountedFile(f"{folder}/{name}", text.encode(), 0o400, variables)
