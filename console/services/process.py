"""Processes by identity: start one in a session of its own, recognise it later, stop it.

A pid alone names nobody: it is reused. An identity is (boot id, pid, start time), which is never reused, so a
pid file that outlived its process can never get another one killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Identity:
    """One process of one boot of this machine. `start` is in clock ticks since boot, as the kernel counts."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Who has this pid now; None if nobody, or only a zombie that its parent has not reaped yet."""
        try:
            # The command name is in parentheses and may hold anything, a parenthesis too: split at the last.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, start = fields[0], int(fields[19])
        return None if state in "ZXx" else cls(pid, start, boot_id())

    @classmethod
    def load(cls, path: Path) -> Identity | None:
        """The identity that a pid file names, alive or not; None if there is none or it is half written."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self

    def send(self, number: int) -> None:
        """Send to its whole process group (every service leads one). Silent if it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end. Returns whether it ended; a child of ours is reaped."""
        deadline = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def stop(self, number: int = signal.SIGTERM, grace: float = 10) -> bool:
        """Ask it to end, then kill the group after `grace` seconds. Returns whether it ended by itself."""
        self.send(number)
        if self.wait(grace):
            return True
        self.send(signal.SIGKILL)
        self.wait(grace)
        return False


def boot_id() -> str:
    """Which boot of this machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def running(pid_file: Path) -> Identity | None:
    """The live process that a pid file names."""
    identity = Identity.load(pid_file)
    return identity if identity and identity.alive else None


def spawn(
    argv: Sequence[str], *, pid_file: Path, log: Path, cwd: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a service: a session of its own, no inherited descriptors, output appended to `log`,
    and a umask under which what it writes is its own.

    The child writes its pid file itself, between fork and exec: whoever kills the parent, at whatever moment,
    leaves no service behind that nobody knows of. That costs a `preexec_fn`, which is safe only as long as
    the caller has one thread.
    """

    def introduce_yourself() -> None:
        identity = Identity.of(os.getpid())
        assert identity is not None
        temporary = pid_file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(identity)))
        temporary.replace(pid_file)

    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            umask=0o077,
            preexec_fn=introduce_yourself,
        )
