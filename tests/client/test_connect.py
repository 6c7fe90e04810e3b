"""`mcli connect` and `mcli interactive`, with the client as published, at a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.client.real import HOME, Client

WITHIN = 90.0


class Person:
    """Sits at a terminal in which the client runs."""

    def __init__(self, client: Client, *words: str, columns: int = 90, lines: int = 33) -> None:
        self.shown = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            try:
                environment = {**client.environment, "TERM": "xterm-256color"}
                environment.pop("COLUMNS")
                os.chdir(client.folder)
                os.execve(str(HOME / "bin" / "mcli"), ["mcli", *words], environment)
            finally:
                os._exit(127)
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def sees(self, wanted: str) -> None:
        """Wait until a text is shown."""
        deadline = time.monotonic() + WITHIN
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown[-2000:]
            assert self._look(), self.shown[-2000:]

    def leaves(self) -> int:
        """Wait for the end of the client: its exit code."""
        deadline = time.monotonic() + WITHIN
        while self._look():
            assert time.monotonic() < deadline, self.shown[-2000:]
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _look(self) -> bool:
        if select.select([self.end], [], [], 0.2)[0]:
            try:
                data = os.read(self.end, 1 << 16)
            except OSError:
                return False
            self.shown += data.decode(errors="replace")
            return bool(data)
        return True


@contextmanager
def person(client: Client, *words: str, **size: int) -> Iterator[Person]:
    found = Person(client, *words, **size)
    try:
        yield found
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(found.pid, 9)
            os.waitpid(found.pid, 0)
        os.close(found.end)


def test_an_interactive_run_from_its_start_to_its_end(client: Client) -> None:
    with person(client, "interactive", "--hours", "1", "--image", "python:3.11") as ada:
        ada.sees("$ ")
        ada.type("echo $RUN_NAME-$((2 + 2))\r")
        ada.sees("-4")
        found = re.search(r"(interactive-[a-z0-9]{6})-4", ada.shown)
        assert found is not None, ada.shown
        run = found[1]
        assert run in client.mcli("get", "runs")
        with person(client, "connect", "-l") as bob:  # The latest interactive run.
            bob.sees("$ ")
            bob.type("echo $RUN_NAME-too\r")
            bob.sees(f"{run}-too")
            client.mcli("stop", "run", run, "-y")
            assert bob.leaves() == 0
        assert ada.leaves() == 0
    assert client.wait(run, "STOPPED") == "STOPPED"
    assert "already in a stopped status" in flat(client.mcli("connect", run, ok=False)).lower()


@pytest.fixture(scope="module")
def name(client: Client) -> Iterator[str]:
    """A run of two ranks that runs."""
    name = client.submit("sleep 1000", name="connect", compute={"nodes": 2}, env_variables={"MINE": "yes"})
    assert client.wait(name, "RUNNING") == "RUNNING"
    yield name
    client.mcli("stop", "run", name, "-y")


def test_a_command_in_a_run_from_a_script(client: Client, name: str) -> None:
    output = client.mcli("connect", name, "--command", "echo hi $MINE from $NODE_RANK of $RUN_NAME")
    assert f"hi yes from 0 of {name}" in output
    assert "from 1" in client.mcli("connect", name, "--rank", "1", "--command", "echo from $NODE_RANK")


def test_a_shell_at_a_terminal(client: Client, name: str) -> None:
    with person(client, "connect", name) as ada:
        ada.sees("$ ")
        ada.type("stty size; echo $((40 + 2))-grün\r")
        ada.sees("42-grün")
        assert "33 90" in ada.shown
        ada.resize(120, 44)
        ada.type("until [ \"$(stty size)\" = '44 120' ]; do sleep 0.1; done; echo re''sized\r")
        ada.sees("resized")
        ada.type("exit 4\r")
        assert ada.leaves() == 0


def test_many_are_connected_at_once_to_their_ranks(client: Client, name: str) -> None:
    with person(client, "connect", name) as ada, person(client, "connect", name, "--rank", "1") as bob:
        for who, rank in ((ada, 0), (bob, 1)):
            who.sees("$ ")
            who.type("echo I-am-$NODE_RANK\r")
            who.sees(f"I-am-{rank}")
        for who in (ada, bob):
            who.type("exit\r")
            assert who.leaves() == 0


def test_the_line_that_the_client_sends_for_tmux_is_taken_apart_as_a_shell_does(
    client: Client, name: str
) -> None:
    """It installs tmux where there is none; where a run may not do that, one sees why."""
    with person(client, "connect", name, "--tmux") as ada:
        ada.sees("main" if shutil.which("tmux") else "tmux")


def test_what_cannot_be_is_said(client: Client, name: str) -> None:
    assert "its ranks are 0 to 1" in flat(client.mcli("connect", name, "--rank", "7", ok=False))
    words = ("connect", name, "--container", "MODEL", "--command", "true")
    assert "There is no container MODEL" in flat(client.mcli(*words, ok=False))


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)
