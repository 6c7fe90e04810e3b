"""The parent: starts every service in order, keeps them alive, stops them in order.

Each service leads a session of its own, so that the terminal's Ctrl-C reaches the parent only, and so that
services outlive a parent that is killed; the next parent takes over what it finds (`Kept.take_over`). One
thread: `process.spawn` relies on it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from console.services.catalogue import Service
from console.services.errors import Refused
from console.services.paths import Home
from console.services.process import Identity, running, spawn

LOOK_SECONDS = 0.25
STEADY_SECONDS = 30.0
"""A service that lived this long is not in a crash loop."""
LONGEST_DELAY = 30.0
LOUD_AT = 3
"""From this many quick ends in a row, the log's last lines are shown."""
ROTATE_BYTES = 20 * 2**20
ROTATE_EVERY = 10.0

Say = Callable[[str], None]


class Kept:
    """One service under supervision."""

    def __init__(
        self, service: Service, home: Home, root: Path, environment: Mapping[str, str], say: Say
    ) -> None:
        self.service, self.home, self.root, self.say = service, home, root, say
        self.environment = {**environment, "RUNYARD_SERVICE": service.name, "PYTHONUNBUFFERED": "1"}
        self.identity: Identity | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.failures = 0
        self.restarts = 0
        self.due = 0.0

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def log(self) -> Path:
        return self.home.log_file(self.name)

    def take_over(self) -> bool:
        """Deal with what an earlier parent left: keep it if it may be kept and answers, else stop it."""
        found = running(self.home.pid_file(self.name))
        if found is None:
            return False
        if self.service.keep and self.service.ready():
            self.identity, self.started = found, time.monotonic()
            self.say(f"{self.name}: takes over pid {found.pid}")
            return True
        self.say(f"{self.name}: stops pid {found.pid}, left from before")
        found.stop(self.service.stop_signal, self.service.grace)
        return False

    def start(self) -> None:
        """Start it now. Raises Refused if it cannot even be prepared."""
        self.service.prepare()
        self.started = time.monotonic()
        pid_file = self.home.pid_file(self.name)
        self.child = spawn(
            self.service.argv(), pid_file=pid_file, log=self.log, cwd=self.root, environment=self.environment
        )
        self.identity = Identity.load(pid_file)

    def wait_ready(self, seconds: float) -> None:
        """Wait until it answers. Raises Refused, with its last lines, if it ends or never does."""
        deadline = time.monotonic() + seconds
        while not self.service.ready():
            if not self.alive():
                raise Refused(f"{self.name} {self._end()}; its log is {self.log}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Refused(f"{self.name} does not answer; its log is {self.log}\n{self.tail()}")
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether it runs; reaps it if it was our child and ended."""
        if self.child is not None:
            return self.child.poll() is None
        return self.identity is not None and self.identity.alive

    def tend(self) -> bool:
        """One look: notice its end, start it again when due. Returns whether anything changed."""
        now = time.monotonic()
        if self.due:
            if now < self.due:
                return False
            self.due = 0.0
            self.restarts += 1
            try:
                self.start()
            except (Refused, OSError) as error:
                self.say(f"{self.name}: {error}")
                self._back_off(now)
            return True
        if self.alive():
            if self.failures and now - self.started > STEADY_SECONDS:
                self.failures = 0
                self.say(f"{self.name}: steady again")
                return True
            return False
        lived = now - self.started
        self.failures = 1 if lived > STEADY_SECONDS else self.failures + 1
        end = self._end()
        self._back_off(now)
        wait = f"starts again in {self.due - now:.1f} s"
        if self.failures < LOUD_AT:
            self.say(f"{self.name}: {end} after {lived:.0f} s, {wait}; log: {self.log}")
        elif self.failures == LOUD_AT or self.failures.bit_count() == 1:
            # Said at 3, 4, 8, 16 … ends, so that a long loop does not bury everything else.
            loop = f"keeps ending ({self.failures} times, {end})"
            self.say(f"{self.name}: {loop}, {wait}; log: {self.log}\n{self.tail()}")
        return True

    def stop(self) -> None:
        """Stop it, by force after its grace. Silent if it does not run.

        Asks the pid file, not our memory: the signal that stops us may have come while it was being started.
        """
        self.due = 0.0
        pid_file, service = self.home.pid_file(self.name), self.service
        found = running(pid_file)
        if found and not found.stop(service.stop_signal, service.grace):
            self.say(f"{self.name}: killed after {service.grace:.0f} s")
        if self.child is not None:
            self.child.wait()
        pid_file.unlink(missing_ok=True)

    def tail(self, lines: int = 5) -> str:
        """The last lines of its log, indented."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def rotate(self) -> None:
        """Copy and truncate: a service writes to its descriptor directly, so that it needs no living parent.

        What it writes between the copy and the truncation, microseconds, is lost from its *service* log.
        """
        if self.log.exists() and self.log.stat().st_size > ROTATE_BYTES:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def _back_off(self, now: float) -> None:
        """The first time at once; then 0.5 s, 1 s, 2 s … up to the longest delay."""
        delay = 0.0 if self.failures <= 1 else min(0.5 * 2 ** (self.failures - 2), LONGEST_DELAY)
        self.due = now + delay or now

    def _end(self) -> str:
        code = self.child.returncode if self.child is not None else None
        if code is None:
            return "ended"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


class Supervisor:
    """All services of one home."""

    def __init__(self, home: Home, root: Path, environment: Mapping[str, str], say: Say) -> None:
        self.home, self.root, self.environment, self.say = home, root, environment, say
        self.kept: list[Kept] = []
        self.stopping = False
        self.ready = False

    def take(self, service: Service) -> Kept:
        """Put a service under supervision, without starting it."""
        kept = Kept(service, self.home, self.root, self.environment, self.say)
        self.kept.append(kept)
        return kept

    def watch(self) -> None:
        """Keep everything alive until `stopping` is set (by a signal handler)."""
        self.ready = True
        self.record()
        rotated = time.monotonic()
        while not self.stopping:
            changed = [kept.tend() for kept in self.kept]
            if any(changed):
                self.record()
            if time.monotonic() - rotated > ROTATE_EVERY:
                rotated = time.monotonic()
                for kept in self.kept:
                    kept.rotate()
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Stop everything, last started first. Runs go on: they are no services."""
        for kept in reversed(self.kept):
            kept.stop()
        self.state_file.unlink(missing_ok=True)

    @property
    def state_file(self) -> Path:
        return self.home.run / "up.json"

    def record(self) -> None:
        """Tell `status` and `doctor` what only the parent knows."""
        state = {
            "ready": self.ready,
            "services": {
                kept.name: {"restarts": kept.restarts, "failures": kept.failures} for kept in self.kept
            },
        }
        temporary = self.state_file.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        temporary.replace(self.state_file)
