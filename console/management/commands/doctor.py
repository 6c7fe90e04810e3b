"""`manage.py doctor`: look at everything that has to be right, and say what to do about what is not.

Exit code 0: nothing failed (there may be warnings); 1: something failed.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import redis
from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import DatabaseError
from django.utils import timezone

from clusters.models import Cluster
from console.management.commands.up import this_console
from console.services import preflight
from console.services.catalogue import CONSOLE
from console.services.errors import Refused
from console.services.paths import Home
from console.services.process import running

LOW_DISK_MIB = 5 * 1024
# Beat sends a probe every 10 s through Valkey to a worker, which writes to the database: one late probe
# means that one of the four is not well.
LATE_PROBE = timedelta(seconds=60)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and, unless it is well, what to do."""

    level: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""


def ok(text: str) -> Finding:
    return Finding("ok", text)


def warn(text: str, remedy: str) -> Finding:
    return Finding("warn", text, remedy)


def fail(text: str, remedy: str) -> Finding:
    return Finding("fail", text, remedy)


def check_python(_home: Home) -> Iterator[Finding]:
    yield ok(f"Python {sys.version.split()[0]}")


def check_folders(home: Home) -> Iterator[Finding]:
    """Whoever can enter these folders reads keys, logs and the database."""
    wrong = []
    for path, mode in [
        (home.path, 0o711),
        (home.clusters, 0o711),
        *((path, 0o700) for path in (home.keys, home.run, home.log)),
    ]:
        found = stat.S_IMODE(path.stat().st_mode)
        if found & ~mode:
            wrong.append(path)
            yield fail(f"{path} is open to others ({found:o})", f"chmod {mode:o} {path}")
    if not wrong:
        yield ok(f"RUNYARD_HOME={home.path}: folders closed to others")


def check_keys(home: Home) -> Iterator[Finding]:
    """Keys, and the first API key."""
    files = [path for path in home.keys.iterdir() if path.is_file()]
    open_ones = [path for path in (*files, home.client_env) if path.exists() and path.stat().st_mode & 0o077]
    for path in open_ones:
        yield fail(f"{path} can be read by others", f"chmod 600 {path}")
    if not Path(settings.MASTER_KEY_FILE).exists():
        yield fail("the master key is not there", f"restore {settings.MASTER_KEY_FILE} from your backup")
    elif not open_ones:
        yield ok("keys readable by their owner only; keep a copy elsewhere")


def check_disk(home: Home) -> Iterator[Finding]:
    free = shutil.disk_usage(home.path).free // 2**20
    text = f"{free / 1024:.1f} GiB free at RUNYARD_HOME"
    if free < preflight.NEEDED_MIB:
        yield fail(text, "free some space: the database and logs stop when it is full")
    elif free < LOW_DISK_MIB:
        yield warn(text, "free some space soon, or move RUNYARD_HOME")
    else:
        yield ok(text)


def check_services(home: Home) -> Iterator[Finding]:
    """The processes of `make up`; a deployment that starts services by itself has none of them."""
    console, parent = this_console(), preflight.parent_of(home)
    expected = [
        *(["postgres"] if console.embedded_postgres else []),
        *(["valkey"] if console.embedded_valkey else []),
        *CONSOLE,
    ]
    alive = [name for name in expected if running(home.pid_file(name))]
    if parent:
        yield ok(f"supervised by pid {parent.pid}")
    elif alive:
        yield warn("services run, but nothing looks after them", "make start takes over")
    elif console.embedded_postgres:
        yield fail("not running", "make start")
    else:
        yield ok("services are not started by `make up` here")
        return
    for name in expected:
        if name in alive:
            yield ok(f"{name} runs")
        else:
            yield fail(f"{name} does not run", f"its log says why: {home.log_file(name)}")


def check_database(_home: Home) -> Iterator[Finding]:
    where = "DATABASE_URL" if os.environ.get("DATABASE_URL") else "the embedded PostgreSQL"
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version')")
            version = cursor.fetchone()[0]
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        yield fail(
            f"{where} does not answer: {str(error).splitlines()[0]}", "make start, or set DATABASE_URL right"
        )
        return
    yield ok(f"{where} answers: PostgreSQL {version}")
    if missing:
        yield fail(f"{len(missing)} migrations are not applied", "manage.py provision (make start does it)")
    else:
        yield ok("migrations are applied")


def check_valkey(_home: Home) -> Iterator[Finding]:
    where = "REDIS_URL" if os.environ.get("REDIS_URL") else "the embedded Valkey"
    client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=3, socket_timeout=3)
    try:
        client.ping()
        yield ok(f"{where} answers")
    except redis.RedisError as error:
        yield fail(
            f"{where} does not answer: {error}",
            "make start, or correct REDIS_URL; no state is lost meanwhile",
        )
    finally:
        client.close()


def check_web(home: Home) -> Iterator[Finding]:
    """The port, from both sides: in use by us, or free."""
    console = this_console()
    if running(home.pid_file("web")):
        web = next(service for service in console.own() if service.name == "web")
        if web.ready():
            yield ok(f"{settings.RUNYARD_URL} answers")
        else:
            yield fail(f"{settings.RUNYARD_URL} does not answer", f"its log says why: {home.log_file('web')}")
        return
    try:
        preflight.check_port(console.bind, console.port)
        yield ok(f"port {console.port} is free")
    except Refused as refused:
        yield warn(str(refused), "choose another RUNYARD_PORT")


def check_clusters(_home: Home) -> Iterator[Finding]:
    """Whether probes arrive: that takes beat, Valkey, a worker and the database."""
    try:
        clusters = list(Cluster.objects.order_by("name"))
    except DatabaseError:
        return
    if not clusters:
        yield warn("no cluster is registered", "manage.py bootstrap registers this host as `local`")
    for cluster in clusters:
        age = timezone.now() - cluster.probed_at if cluster.probed_at else None
        if age is None or age > LATE_PROBE:
            since = "ever" if age is None else f"for {int(age.total_seconds())} s"
            yield fail(f"cluster {cluster.name} was not looked at {since}", "see the logs of beat and worker")
        elif cluster.probe_error:
            yield warn(f"cluster {cluster.name}: {cluster.probe_error}", "its runs go on; see its page")
        else:
            yield ok(f"cluster {cluster.name} was seen {int(age.total_seconds())} s ago")


def check_isolation(_home: Home) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield ok("runs get accounts of their own: they cannot read the console's data")
    else:
        yield warn(
            "not root: runs share this account and can read the console's keys and database",
            "admit only teams that you trust to `local`, or run the console as root (docs/install.md)",
        )


def check_gpus(_home: Home) -> Iterator[Finding]:
    import pynvml  # Costs a library look-up; nobody else here needs it.

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield ok("no NVIDIA GPUs on this host")
        return
    count = pynvml.nvmlDeviceGetCount()
    pynvml.nvmlShutdown()
    yield ok(f"{count} NVIDIA GPUs on this host")


CHECKS: list[Callable[[Home], Iterator[Finding]]] = [
    check_python,
    check_folders,
    check_keys,
    check_disk,
    check_services,
    check_database,
    check_valkey,
    check_web,
    check_clusters,
    check_isolation,
    check_gpus,
]


class Command(BaseCommand):
    help = "Check this console; each line is ok, warn or fail, with what to do."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        style = {"ok": self.style.SUCCESS, "warn": self.style.WARNING, "fail": self.style.ERROR}
        findings = [finding for check in CHECKS for finding in check(settings.HOME)]
        for finding in findings:
            self.stdout.write(f"{style[finding.level](f'{finding.level:<4}')}  {finding.text}")
            if finding.remedy:
                self.stdout.write(f"      → {finding.remedy}")
        if any(finding.level == "fail" for finding in findings):
            sys.exit(1)
