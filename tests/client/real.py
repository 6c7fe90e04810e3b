"""The client that people have, `mosaicml-cli`, as they run it: in an environment of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".cache" / "client"
HOME_07 = ROOT / ".cache" / "client-0.7"
"""The line before, which Composer's releases ask for."""
LOCKS = {HOME: "requirements.txt", HOME_07: "requirements-0.7.txt"}


def install(home: Path = HOME) -> Path:
    """An environment's folder of programs; made once for each lock file."""
    lock = Path(__file__).with_name(LOCKS[home])
    stamp, wanted = home / "ready", hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(lock)]
        subprocess.run(pip, check=True)
        stamp.write_text(wanted)
    return home / "bin"


@dataclass(frozen=True)
class Client:
    """Runs the client against a console; `env` is what `client.env` exports."""

    env: dict[str, str]
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "COLUMNS": "200",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            # It asks the package index at every call, which no setting turns off: refused at once.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
            **self.env,
        }

    def mcli(self, *words: str, timeout: float = 90, ok: bool = True, program: str = "mcli") -> str:
        """Run `mcli …`; what it printed on both streams. Fails on an exit code that was not expected."""
        return self._run([str(HOME / "bin" / program), *words], timeout, ok)

    def python(self, code: str, *, timeout: float = 90, ok: bool = True) -> str:
        return self._run([str(HOME / "bin" / "python"), "-c", code], timeout, ok)

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(HOME / "bin" / "mcli"), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )

    def _run(self, command: list[str], timeout: float, ok: bool) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, f"{command[1:]} ended with {done.returncode}:\n{output}"
        return output

    def submit(self, command: str, **more: object) -> str:
        """Submit a run through the SDK; its unique name."""
        fields = {"name": "test", "image": "python:3.11", "command": command, **more}
        code = f"import mcli; print('NAME', mcli.create_run(mcli.RunConfig(**{fields!r})).name)"
        return self.python(code).split("NAME ")[1].split()[0]

    def status(self, name: str) -> str:
        return (
            self.python(f"import mcli; print('IS', mcli.get_run({name!r}).status.name)")
            .split("IS ")[1]
            .strip()
        )

    def wait(self, name: str, status: str = "COMPLETED", timeout: float = 90) -> str:
        """Wait until a run has a status or has ended, by the client's own watching. Its status then."""
        code = (
            f"import mcli; mcli.wait_for_run_status({name!r}, {status!r}, timeout={timeout});"
            f"print('IS', mcli.get_run({name!r}).status.name)"
        )
        return self.python(code, timeout=timeout + 30).split("IS ")[1].split()[0]

    def logs(self, name: str, rank: int = 0) -> str:
        code = (
            f"import mcli,sys; [sys.stdout.write(part) for part in mcli.get_run_logs({name!r}, rank={rank})]"
        )
        return self.python(code)
