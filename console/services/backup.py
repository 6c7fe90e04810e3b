"""Taking a console away and setting it up again elsewhere: one folder, with the sum of every file in it.

    manifest.json   what this is, of which console, and the SHA-256 of every other file
    database.dump   PostgreSQL's own format, one consistent moment
    logs/           segments, sealed logs and what lies beside them, as they were after that moment
    keys/           the master key and the others, and client.env

The logs come after the database: bytes are in their file before the database says so, so every byte that the dump
knows of is in the copy. What is past that is what a killed collector leaves, and is written over.

A restored console keeps its clusters where they were. What it has not stored of a running run's output it reads
from the run's own folder again; what was freed there meanwhile is missing, and the log says "incomplete".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from console.services import preflight
from console.services.errors import Refused
from console.services.paths import Home
from console.services.postgres import Postgres, binaries
from console.services.process import spawn

FORMAT = 1
MANIFEST, DUMP = "manifest.json", "database.dump"
READY_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """What is backed up."""

    home: Home
    logs: Path
    database_url: str


def backup(source: Source, target: Path) -> dict[str, Any]:
    """Write a backup of a console, running or not, to a folder that is not there yet. Returns its manifest.

    The folder gets its name when it is complete. Raises Refused.
    """
    fresh = target.with_name(f"{target.name}.new")
    if target.exists():
        raise Refused(f"{target} is there already: choose another folder with TO=…")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(mode=0o700, parents=True)
        with psycopg.connect(source.database_url) as connection:
            # One moment for all: what is asked here and what is dumped.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            snapshot, migrations = _moment(connection)
            _dump(source.database_url, snapshot, fresh / DUMP)
        _copy(source.logs, fresh / "logs")
        _copy(source.home.keys, fresh / "keys")
        if source.home.client_env.exists():
            shutil.copyfile(source.home.client_env, fresh / "keys" / "client.env")
    except (OSError, psycopg.Error) as problem:
        raise Refused(f"the backup to {fresh} failed: {problem}") from None
    manifest = {
        "format": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "home": str(source.home.path),
        "migrations": migrations,
        "files": {str(path.relative_to(fresh)): _sum(path) for path in _files(fresh)},
    }
    (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in _files(fresh):
        path.chmod(0o600)
    fresh.rename(target)
    return manifest


def restore(source: Path, home: Home) -> dict[str, Any]:
    """Make a home that is not there yet, or empty, from a backup. Returns the manifest.

    Nothing is written before everything was checked. Raises Refused.
    """
    manifest = _checked(source)
    if home.path.exists() and any(home.path.iterdir()):
        raise Refused(f"RUNYARD_HOME={home.path} is not empty: restore into a new folder, RUNYARD_HOME=…")
    old = Home(manifest["home"])
    if manifest["host"] == socket.gethostname() and preflight.parent_of(old):
        raise Refused(
            f"the console that this is a backup of still runs with RUNYARD_HOME={old.path}, and two consoles must not "
            "have the same runs: stop it first with `make stop` (its runs go on)"
        )
    preflight.open_home(home)
    _load(home, source / DUMP)
    shutil.copytree(source / "logs", home.path / "logs", dirs_exist_ok=True)
    for path in _files(source / "keys"):
        kept = home.client_env if path.name == "client.env" else home.keys / path.name
        shutil.copyfile(path, kept)
        kept.chmod(0o600)
    for folder in [home.path / "logs", *(p for p in (home.path / "logs").rglob("*") if p.is_dir())]:
        folder.chmod(0o700)
    if manifest["host"] == socket.gethostname() and old.path.exists() and old != home:
        # Its runs are this one's now; who starts it by habit is told.
        old.moved.write_text(str(home.path))
    return manifest


# -- the database -----------------------------------------------------------------------------------


def _moment(connection: psycopg.Connection[Any]) -> tuple[str, list[str]]:
    """A name under which others see the database as this connection does, and what made its tables."""
    (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
    rows = connection.execute("SELECT app || '.' || name FROM django_migrations ORDER BY 1").fetchall()
    return snapshot, [name for (name,) in rows]


def _dump(url: str, snapshot: str, path: Path) -> None:
    _run("pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={path}", f"--dbname={url}")


def _load(home: Home, dump: Path) -> None:
    """Start the new home's database for as long as it takes."""
    postgres = Postgres(home)
    postgres.prepare()
    server = spawn(
        postgres.argv(),
        pid_file=home.pid_file("postgres"),
        log=home.log_file("postgres"),
        cwd=ROOT,
        environment=os.environ,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not postgres.ready():
            if time.monotonic() > deadline or server.poll() is not None:
                raise Refused(f"PostgreSQL does not start: see {home.log_file('postgres')}")
            time.sleep(0.05)
        postgres.provide()
        _run(
            "pg_restore", "--no-owner", "--no-acl", "--exit-on-error", "--single-transaction",
            f"--dbname={home.database_url}", str(dump),
        )  # fmt: skip
    finally:
        server.send_signal(2)  # INT: fast and clean
        server.wait(60)


def _run(program: str, *words: str) -> None:
    # What the console allows itself per statement is too short for a dump.
    environment = {
        **os.environ,
        "PGOPTIONS": "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
    }
    command = [str(binaries() / program), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    if done.returncode:
        raise Refused(f"{program} failed: {' '.join(done.stderr.split())[:500]}")


# -- files ------------------------------------------------------------------------------------------


def _copy(folder: Path, to: Path) -> None:
    """A folder's files as they are now. What goes away meanwhile belongs to runs that were purged, or has another
    name by now: logs are sealed while they are copied."""
    to.mkdir(mode=0o700)
    for where, _, _ in os.walk(folder):
        while not _copy_files(Path(where), to / Path(where).relative_to(folder)):
            pass


def _copy_files(folder: Path, to: Path) -> bool:
    """Copy those that are not there yet. False: one went away, and what it became must be looked for."""
    try:
        paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
        paths = [path for path in paths if path.suffix != ".new"]  # not what it is going to be yet
    except FileNotFoundError:
        return True
    for path in paths:
        copy = to / path.name
        if copy.exists():
            continue
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:
            copy.unlink(missing_ok=True)
            return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(where) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(source: Path) -> dict[str, Any]:
    """The manifest of a backup that is whole and that this version understands."""
    try:
        manifest = json.loads((source / MANIFEST).read_text())
        files: Mapping[str, str] = manifest["files"]
        migrations = manifest["migrations"]
        form = manifest["format"]
    except FileNotFoundError:
        raise Refused(f"{source} is no backup: there is no {MANIFEST} in it") from None
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{source} is damaged: {MANIFEST} cannot be read") from None
    if form > FORMAT or (unknown := [name for name in migrations if not _known(name)]):
        newest = "" if form > FORMAT else f" (it has {unknown[-1]})"
        raise Refused(
            f"{source} was made by a newer version{newest}: restore it with that version, or update"
        )
    for name, wanted in files.items():
        path = source / name
        if not path.is_file():
            raise Refused(f"{source} is damaged: {name} is missing")
        if _sum(path) != wanted:
            raise Refused(f"{source} is damaged: {name} is not what was written")
    return dict(manifest)


def _known(migration: str) -> bool:
    """Whether this version has a migration; those of other packages are theirs to know."""
    app, name = migration.split(".", 1)
    folder = ROOT / app / "migrations"
    return not folder.is_dir() or (folder / f"{name}.py").exists()


def main(words: list[str]) -> int:
    """`python -m console.services.backup restore FOLDER`: without settings, which would make keys."""
    parser = argparse.ArgumentParser(prog="make restore")
    parser.add_argument("folder", help="a backup, as `make backup` wrote it")
    home = preflight.home_of(os.environ, ROOT)
    try:
        manifest = restore(Path(parser.parse_args(words).folder).absolute(), home)
    except Refused as problem:
        print(f"restore: {problem}", file=sys.stderr)
        return 1
    print(
        f"Restored the console of {manifest['made_at']} into {home.path}. Start it with the same RUNYARD_HOME: make up"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
