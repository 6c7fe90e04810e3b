"""One start of a console, from the checks to the lines to paste; and `start`, `stop` and `status`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from console.services import preflight
from console.services.catalogue import CONSOLE, NAMES, Console, Service
from console.services.errors import Refused
from console.services.paths import Home
from console.services.postgres import Postgres
from console.services.process import running
from console.services.supervise import Supervisor

READY_SECONDS = 60.0
END_OF_START = "\x04"
"""In the background, the line after which nobody reads on."""


class Stop(BaseException):
    """A signal asked for the end. Not an Exception: nothing on the way may swallow it."""


class Up:
    """The parent of one console."""

    def __init__(self, console: Console, environment: Mapping[str, str], *, background: bool) -> None:
        self.console, self.home, self.background = console, console.home, background
        self.environment = {**environment, "RUNYARD_HOME": str(console.home.path)}
        self.asked = False
        self.supervisor = Supervisor(self.home, console.root, self.environment, self.say)

    def run(self) -> None:
        """Start everything, say so, keep it alive until a signal, stop everything. Raises Refused."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        os.umask(0o077)
        lock = preflight.lock_home(self.home)
        try:
            self._start()
            self.supervisor.watch()
        except Stop:
            self.say("stopping; runs that are running go on")
            self.supervisor.stop()
            self.say("stopped")
        except Refused:
            self.supervisor.stop()
            raise
        finally:
            lock.close()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        """Once: Ctrl-C comes from the terminal and, passed on, from the guard; stopping is not interrupted."""
        if not self.asked:
            self.asked = True
            raise Stop(number)

    def _start(self) -> None:
        began = time.monotonic()
        preflight.check_moved(self.home)
        preflight.check_disk(self.home)
        servers, own = self.console.servers(), self.console.own()
        # Our own code first: it must not run on while the database changes below it.
        fresh = [self.supervisor.take(service) for service in (*servers, *own)]
        for kept in reversed(fresh[len(servers) :]):
            kept.take_over()
        preflight.check_port(self.console.bind, self.console.port)
        for kept in fresh[: len(servers)]:
            if not kept.take_over():
                self.say(f"starting {kept.name}")
                kept.start()
        for kept in fresh[: len(servers)]:
            kept.wait_ready(READY_SECONDS)
        if self.console.embedded_postgres:
            Postgres(self.home).provide()
        self.say("migrating the database")
        first = self._provision()
        self.say(f"starting {', '.join(CONSOLE)}")
        try:
            for kept in fresh[len(servers) :]:
                kept.start()
            for kept in fresh[len(servers) :]:
                kept.wait_ready(READY_SECONDS)
        except BaseException:
            # The admin exists now, and the password will not be known again.
            self._print("\n".join(_login(first)))
            raise
        self.say(f"up after {time.monotonic() - began:.1f} s")
        self._welcome(first)

    def _provision(self) -> dict[str, str]:
        """Migrate, collect static files, make the first admin, in a process of its own.

        It opens a pool of connections, hence threads, and the parent must have none.
        """
        log = self.home.log_file("provision")
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "provision"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self.console.root,
                env=self.environment,
                start_new_session=True,
                text=True,
            )
        try:
            output = process.communicate()[0]
        except Stop:
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            lines = log.read_text(errors="replace").splitlines()[-8:]
            raise Refused("\n    ".join([f"the database could not be set up; the log is {log}", *lines]))
        answer: dict[str, str] = json.loads(output.strip().splitlines()[-1])
        return answer

    def _welcome(self, first: dict[str, str]) -> None:
        """What a person needs now, on the terminal only: a password is not for a log."""
        lines = ["", f"  Runyard is up: {self.console.url}", ""]
        lines += _login(first) or ["  Log in as before; `make admin-password` sets a new password."]
        with suppress(FileNotFoundError):
            exports = self.home.client_env.read_text().strip().splitlines()
            lines += [
                "",
                f"  For mcli, paste these lines (or: . {shlex.quote(str(self.home.client_env))}):",
                "",
            ]
            lines += [f"    {line}" for line in exports if not line.startswith("#")]
        closing = (
            "`make status` shows it, `make stop` stops it."
            if self.background
            else "Ctrl-C stops it; runs go on."
        )
        self._print("\n".join([*lines, "", f"  {closing}", ""]))
        if self.background:
            self._print(END_OF_START)
            with self.home.log_file("up").open("a") as log:
                os.dup2(log.fileno(), sys.stderr.fileno())

    def say(self, line: str) -> None:
        """One event, for the terminal and for up.log."""
        self._print(line)
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        with suppress(OSError), self.home.log_file("up").open("a") as log:
            log.write(f"{stamp} {line}\n")

    @staticmethod
    def _print(text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:
            # The terminal is gone, or whoever started us has read enough; the services must not care.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _login(first: dict[str, str]) -> list[str]:
    """The lines that show a password that was just made; none later."""
    if "password" not in first:
        return []
    return [f"  Log in as   {first['login']}", f"  Password    {first['password']}   (shown only now)"]


def start(console: Console, argv: list[str]) -> None:
    """Start the parent in the background and show its lines until it is up. Raises Refused if it ends."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=console.root,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == END_OF_START:
            return
        print(line, end="", flush=True)
    raise SystemExit(process.wait() or 1)


def stop(console: Console) -> bool:
    """Stop the parent and with it everything, or what a killed parent left. Returns whether anything ran."""
    home = console.home
    parent = preflight.parent_of(home)
    if parent is not None:
        with suppress(ProcessLookupError):
            os.kill(parent.pid, signal.SIGTERM)
        if not parent.wait(90):
            raise Refused(f"pid {parent.pid} does not stop; its log is {home.log_file('up')}")
    left = [name for name in NAMES if running(home.pid_file(name))]
    by_name: dict[str, Service] = {service.name: service for service in (*console.servers(), *console.own())}
    for name in reversed(left):
        found, service = running(home.pid_file(name)), by_name.get(name)
        if found and service:
            found.stop(service.stop_signal, service.grace)
    return parent is not None or bool(left)


def status(home: Home) -> tuple[bool, list[tuple[str, str]]]:
    """Whether a parent supervises, and for each service one line of what is known."""
    parent = preflight.parent_of(home)
    state: dict[str, dict[str, int]] = {}
    with suppress(FileNotFoundError, ValueError, KeyError):
        state = json.loads((home.run / "up.json").read_text())["services"]
    lines = []
    for name in NAMES:
        found = running(home.pid_file(name))
        if found:
            restarts = state.get(name, {}).get("restarts", 0) if parent else 0
            lines.append(
                (
                    name,
                    f"pid {found.pid}, up {_since(found.start)}"
                    + (f", restarted {restarts}×" if restarts else ""),
                )
            )
        elif parent and name in state:
            lines.append((name, f"down, {state[name]['failures']} ends in a row; log: {home.log_file(name)}"))
    return parent is not None, lines


def _since(start_ticks: int) -> str:
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    seconds = int(since_boot - start_ticks / os.sysconf("SC_CLK_TCK"))
    hours, minutes = divmod(seconds // 60, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {seconds % 60} s"
        if minutes
        else f"{seconds} s"
    )
