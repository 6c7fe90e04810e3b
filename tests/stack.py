"""Real servers for tests: PostgreSQL and Valkey for a session, and a whole console for end-to-end tests."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.error import URLError

from console.services import preflight
from console.services.catalogue import CONSOLE, NAMES
from console.services.paths import Home
from console.services.postgres import Postgres
from console.services.process import Identity, running, spawn
from console.services.valkey import Valkey

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 90.0
# A crash of the test machine may cost the test database; in return the suite does not wait for the disk.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def temporary_home() -> Home:
    """A home of its own below /tmp, short enough for sockets, which the database's account can enter."""
    home = Home(tempfile.mkdtemp(prefix="runyard-test-", dir="/tmp"))
    preflight.open_home(home)
    return home


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Heir:
    """A process that outlives this one by a moment: at our end, however we end, it stops what runs in a home.

    A killed test session must not leave servers behind, and nobody else is there to see it die.
    """

    def __init__(self, home: Home) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack", str(home.path)],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )

    def inherit(self) -> None:
        """Have it done now. Returns when nothing runs and the home is gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(120)


class Servers:
    """PostgreSQL and Valkey alone, in a home of their own; `home` has the URLs."""

    def __init__(self, options: Mapping[str, str] = NOT_DURABLE) -> None:
        self.home = temporary_home()
        self.heir = Heir(self.home)
        self.options = options

    def start(self) -> None:
        """Start both and wait until they answer."""
        postgres, valkey = Postgres(self.home, self.options), Valkey(self.home)
        for name, server in (("postgres", postgres), ("valkey", valkey)):
            server.prepare()
            spawn(
                server.argv(),
                pid_file=self.home.pid_file(name),
                log=self.home.log_file(name),
                cwd=ROOT,
                environment=os.environ,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not (postgres.ready() and valkey.ready()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the test servers do not answer; their logs are in {self.home.log}")
            time.sleep(0.05)
        postgres.provide()

    def stop(self) -> None:
        """Stop both and remove everything."""
        self.heir.inherit()


class Stack:
    """A whole console as `make up` starts it, on a home and port of its own.

    `servers`: whose PostgreSQL and Valkey it uses; to be set where `environment` names another's.
    """

    def __init__(self, home: Home | None = None, **environment: str) -> None:
        self.home = home or temporary_home()
        self.servers = self.home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.environment = {
            **kept,
            "RUNYARD_HOME": str(self.home.path),
            "RUNYARD_PORT": str(self.port),
            "RUNYARD_SWEEP_SECONDS": "1",
            **environment,
        }
        self.output = self.home.path / "up.out"
        self.process: subprocess.Popen[bytes] | None = None
        self.heir = Heir(self.home)
        self.changed_login: tuple[str, str] | None = None

    def start(self) -> None:
        """Start it and wait until it is up. Raises RuntimeError with what it printed if it ends."""
        with self.output.open("wb") as output:
            self.process = self.popen(output)
        self.wait_ready()

    def popen(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """`make up`, without make."""
        return subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
        )

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every service runs and pages are answered."""
        deadline = time.monotonic() + seconds
        names = ("parent", *(NAMES if self.servers == self.home else CONSOLE))
        while not (self._said_so() and all(self.pid(name) for name in names) and self._answers()):
            if self.process and self.process.poll() is not None:
                raise RuntimeError(f"the console ended:\n{self.output.read_text(errors='replace')}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the console is not ready:\n{self.output.read_text(errors='replace')}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as Ctrl-C does; the home stays (`remove` takes it away)."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(120)
            self.process = None

    def remove(self) -> None:
        """Stop whatever still runs, and remove the home."""
        self.stop()
        self.heir.inherit()

    def kill(self, service: str) -> Identity:
        """`kill -9` one service, or the `parent` that supervises them. Returns who that was."""
        found = self.identity(service)
        assert found is not None, f"{service} does not run"
        os.kill(found.pid, signal.SIGKILL)
        found.wait(10)
        return found

    def identity(self, service: str) -> Identity | None:
        """Who runs a service, or is the `parent`, now."""
        return preflight.parent_of(self.home) if service == "parent" else running(self.home.pid_file(service))

    def pid(self, service: str) -> int | None:
        """The pid of a service, or of the `parent`."""
        found = self.identity(service)
        return found.pid if found else None

    def wait_back(self, service: str, before: Identity, seconds: float = 60) -> None:
        """Wait until somebody else than `before` runs a service, and pages are answered."""
        deadline = time.monotonic() + seconds
        while (now := self.identity(service)) is None or now == before:
            assert time.monotonic() < deadline, f"{service} did not come back within {seconds} s"
            time.sleep(0.05)
        self.wait_ready(seconds)

    @property
    def env(self) -> dict[str, str]:
        """What a person pastes to use the client: the export lines of client.env."""
        lines = [shlex.split(line, comments=True) for line in self.home.client_env.read_text().splitlines()]
        return dict(words[1].split("=", 1) for words in lines if len(words) == 2 and words[0] == "export")

    @property
    def login(self) -> tuple[str, str]:
        """The first admin's login and password, as printed by the first start, or changed by a test."""
        if self.changed_login is not None:
            return self.changed_login
        words = {
            line.split()[0]: line.split()
            for line in reversed(self.output.read_text().splitlines())  # the first start's words count
            if line.split()
        }
        return words["Log"][3], words["Password"][1]

    def _said_so(self) -> bool:
        return b"Runyard is up" in self.output.read_bytes()

    def _answers(self) -> bool:
        if not (Postgres(self.servers).ready() and Valkey(self.servers).ready()):
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False


# What a test session sets for itself must not reach a console that has servers of its own.
_OURS = ("RUNYARD_", "DATABASE_URL", "REDIS_URL", "DJANGO_", "PYTEST_", "MOSAICML_")


def remove(home: Home) -> None:
    """Stop everything that runs in a home, runs included, and remove the home and its socket folders."""
    if parent := preflight.parent_of(home):
        parent.stop(grace=60)
    for name in reversed(NAMES):
        if found := running(home.pid_file(name)):
            found.stop(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    # Runs outlive their console, and must not outlive their test. They work in folders of their own below the home.
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(home.path):
                os.kill(int(process.name), signal.SIGKILL)
    for folder in (home.path, home.postgres_socket_dir, home.valkey_socket.parent):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    remove(Home(sys.argv[1]))
