from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import transaction

from clusters.engines.process.host import host_id
from clusters.models import Cluster
from clusters.tasks import look_at
from teams.commands import add_member, create_api_key, create_team, create_user
from teams.models import Team, User
from teams.queries import Caller
from teams.states import Role

ADMIN = "admin@runyard.local"
CLUSTER = "local"


class Command(BaseCommand):
    help = (
        "On the first start: an admin with a generated password, a team, an API key (in client.env), and the "
        "cluster `local`. Later: nothing but another look at the cluster. Prints what it made as JSON."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        made: dict[str, str] = {}
        with transaction.atomic():
            if not User.objects.exists():
                made = create_admin()
        cluster = local_cluster()
        look_at(cluster)
        # Written anew at every start: the console's address may have changed since.
        path = settings.RUNYARD_HOME / "client.env"
        key = made.get("api_key") or key_in(path)
        if key:
            write_client_env(path, key)
        self.stdout.write(json.dumps(made))


def create_admin() -> dict[str, str]:
    password = secrets.token_urlsafe(12)
    user = create_user(ADMIN, password, name="Admin")
    team = create_team("default")
    add_member(team, user, Role.ADMIN)
    _, key = create_api_key(Caller(user), team, "first start")
    return {"login": ADMIN, "password": password, "api_key": key}


def local_cluster() -> Cluster:
    """The cluster that runs on this host, made once. Its queue is this host's own: others cannot reach it."""
    cluster, made = Cluster.objects.get_or_create(
        name=CLUSTER,
        defaults={
            "engine": "process",
            "queue": settings.HOST_QUEUE,
            "config": {"root": str(settings.RUNYARD_HOME / "clusters" / CLUSTER), "host_id": host_id()},
        },
    )
    if made:
        cluster.teams.set(Team.objects.all())
    elif cluster.config.get("host_id") == host_id() and cluster.queue != settings.HOST_QUEUE:
        # The host has another name than when the cluster was made: workers listen under the new one.
        cluster.queue = settings.HOST_QUEUE
        cluster.save(update_fields=["queue"])
    return cluster


def client_lines(key: str) -> dict[str, str]:
    """The environment of a client of this console."""
    url = urlsplit(settings.RUNYARD_URL)
    socket_scheme = "wss" if url.scheme == "https" else "ws"
    return {
        "MOSAICML_API_ENDPOINT": f"{settings.RUNYARD_URL}/graphql",
        "MOSAICML_API_KEY": key,
        "MOSAICML_MINT_ENDPOINT": f"{socket_scheme}://{url.netloc}{url.path}/v1/shell",
        "MCLI_DISABLE_UPGRADE_CHECK": "true",
    }


def key_in(path: Path) -> str:
    """The key that the first start wrote; empty if somebody has removed the file or the line."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return ""
    prefix = "export MOSAICML_API_KEY="
    return next((line.removeprefix(prefix) for line in lines if line.startswith(prefix)), "")


def write_client_env(path: Path, key: str) -> None:
    """Write the export lines that a shell can source, readable by the owner only."""
    text = "".join(f"export {name}={value}\n" for name, value in client_lines(key).items())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
