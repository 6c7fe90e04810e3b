"""The steps before a rank's command: carried out by the process that becomes the command afterwards.

So there is one process from the first step to the command's end, and everything that holds for a rank (stop,
a killed supervisor, cleanup) holds for its setup. It writes, with descriptors that it got before it became the
rank's account, and that no command inherits:

    setup-….spool, .marks     what the steps write: the stream `setup` (spool.py)
    setup.steps               a line of JSON when a step begins, when it ends, and when all are done

Imported only where there are steps, and before the account changes: later the library may be out of reach.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from clusters.engines.base import SetupResult
from clusters.engines.process.output import Output
from clusters.engines.process.records import utc
from clusters.engines.process.spool import SETUP, STDERR, STDOUT, Spool
from clusters.engines.setup import Command, SetupStep, plan

PLAN = "setup.json"
STEPS = "setup.steps"
QUOTA = 64 << 20
"""Of output: the spool of a setup is freed with the attempt, not before."""
READ = 1 << 16


def write_plan(folder: Path, steps: tuple[SetupStep, ...]) -> None:
    """Into the private folder of a rank that is being prepared."""
    content = [
        {"name": name, "commands": [{field: getattr(one, field) for field in _FIELDS} for one in commands]}
        for name, commands in plan(steps)
    ]
    fd = os.open(folder / PLAN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(content, file)


_FIELDS = ("what", "argv", "folder", "makes", "env", "defaults")


class Setup:
    """The steps of one rank. Made in the rank's private folder, while that can still be entered."""

    def __init__(self) -> None:
        with open(PLAN) as file:
            self._steps: list[tuple[str, list[Command]]] = [
                (step["name"], [Command(**one) for one in step["commands"]]) for step in json.load(file)
            ]
        self._output = Output(limit=QUOTA, quota=QUOTA, patience=0.0, spool=Spool(2 * QUOTA, SETUP))
        self._progress = os.open(STEPS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._wake = os.open("wake.fifo", os.O_RDWR | os.O_NONBLOCK)

    def carry_out(self, environment: Mapping[str, str]) -> int:
        """All steps, in the working folder, as the rank's account. 0, or the exit code of the one that failed."""
        for number, (name, commands) in enumerate(self._steps):
            self._say(f"step {number + 1} of {len(self._steps)}: {name}")
            began = time.time()
            self._note(step=number, name=name, started_at=utc(began))
            code, what = 0, ""
            for command in commands:
                what = command.what
                code = self._run(command, environment)
                if code:
                    break
            took = f"after {time.time() - began:.1f} s"
            if code:
                self._say(
                    f"{name} failed {took}: {what} ended with exit code {code}; the command is not started"
                )
            else:
                self._say(f"{name} done {took}")
            self._note(step=number, ended_at=utc(time.time()), exit_code=code, what=what)
            if code:
                return code
        self._note(done=True)
        return 0

    def _run(self, command: Command, environment: Mapping[str, str]) -> int:
        for path in (command.folder, command.makes):
            if link := _link_in(path):
                self._say(f"{link} is a link, which may lead anywhere: nothing is done there")
                return 1
        try:
            process = subprocess.Popen(
                command.argv,
                cwd=command.folder,
                env={**command.defaults, **environment, **command.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            self._say(f"{command.what}: {command.argv[0]} could not be started: {error}")
            return 127 if isinstance(error, FileNotFoundError) else 126
        self._follow(process)
        code = process.wait()
        return code if code >= 0 else 128 - code

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Until it has ended, not until nobody holds its output: what it leaves running must not hold us up."""
        assert process.stdout and process.stderr
        sources = {process.stdout.fileno(): STDOUT, process.stderr.fileno(): STDERR}
        ended = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        for fd in sources:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        try:
            while all(fd != ended for fd, _ in poll.poll()):
                for fd, source in sources.items():
                    if self._take(fd, source) == b"":
                        poll.unregister(fd)
                        del sources[fd]
                        break
            for fd, source in sources.items():
                while self._take(fd, source):
                    pass
        finally:
            os.close(ended)
            process.stdout.close()
            process.stderr.close()

    def _take(self, fd: int, source: int) -> bytes | None:
        """What is there; None if there is nothing now, empty if nothing comes any more."""
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return None
        if data:
            self._output.take(data, source, time.time())
        return data

    def _say(self, sentence: str) -> None:
        self._output.say(sentence, time.time())

    def _note(self, **record: Any) -> None:
        os.write(self._progress, json.dumps(record).encode() + b"\n")
        try:
            os.write(self._wake, b"!")  # The supervisor rings.
        except BlockingIOError:
            pass  # It has enough to wake up for.


def _link_in(path: str) -> str:
    """The first part of a path below the working folder that is a link."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    paths = ("/".join(parts[: count + 1]) for count in range(len(parts)))
    return next((one for one in paths if os.path.islink(one)), "")


# -- for those who look on


def has_steps(folder: Path | str) -> bool:
    return os.path.exists(os.path.join(folder, PLAN))


def results(folder: Path | str) -> tuple[SetupResult, ...]:
    """How far a rank's steps have come, in order; those that have not begun are not there."""
    found: dict[int, dict[str, Any]] = {}
    for record in _records(folder):
        if "step" in record:
            found.setdefault(record["step"], {}).update(record)
    return tuple(
        SetupResult(
            name=one["name"],
            started_at=datetime.fromisoformat(one["started_at"]),
            ended_at=datetime.fromisoformat(one["ended_at"]) if "ended_at" in one else None,
            exit_code=one.get("exit_code"),
            command=one.get("what", ""),
        )
        for one in found.values()
    )


def over(folder: Path | str) -> bool:
    """Nothing more comes: all steps are done, or one has failed."""
    records = _records(folder)
    return bool(records) and ("done" in records[-1] or bool(records[-1].get("exit_code")))


def _records(folder: Path | str) -> list[dict[str, Any]]:
    try:
        with open(os.path.join(folder, STEPS), "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1]]  # What is after the last line end is not written whole.
