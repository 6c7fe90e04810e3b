"""Terminals in a running rank, on the supervisor's side.

    1. somebody connects to terminal.sock and says what to run, and how large the terminal is
    2. the supervisor forks a keeper, which makes the terminal and starts the command in it, as one more process
       of the rank
    3. the keeper hands the terminal's own end over the socket: from here on, bytes pass nobody
    4. the command ends: its exit code over the socket

Keeper and command are below the supervisor, so they end with the rank. The terminal hangs up when whoever holds
its end is gone, however that came to be.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from clusters.engines.process import rank
from clusters.engines.process.records import read_settings

SOCKET = "terminal.sock"
LONGEST_REQUEST = 256 << 10
PATIENCE = 10.0
"""Seconds in which a request has to be there as a whole."""
TERMINAL = "xterm-256color"


def listen() -> socket.socket | None:
    """In the rank's private folder, which is the current one. None where it cannot be had: the rank comes first."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(FileNotFoundError):
            os.unlink(SOCKET)  # Of a supervisor that was killed.
        listener.bind(SOCKET)
        listener.listen()
    except OSError as error:
        sys.stderr.write(f"{SOCKET}: {error}\n")
        listener.close()
        return None
    return listener


def keep(listener: socket.socket, main: int) -> None:
    """Fork a keeper for whoever waits at the socket. Does not wait for them."""
    try:
        asking, _ = listener.accept()
    except OSError:
        return  # Gone again.
    with asking:
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"no terminal could be opened: {error}\n")
            return
        if pid == 0:
            _keeper(asking, main)


def _keeper(asking: socket.socket, main: int) -> NoReturn:
    code = 1
    try:
        # Above all the rank's lock: while we hold it, nobody would take over from a supervisor that died.
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != asking.fileno():
                with suppress(OSError):
                    os.close(int(name))
        asking.settimeout(PATIENCE)
        _serve(asking, main)
        code = 0
    except BaseException as error:  # It must not climb into the supervisor's own code.
        sys.stderr.write(f"terminal: {error!r}\n")
        with suppress(OSError):
            _say(asking, {"problem": f"the terminal could not be opened: {error}"})
    finally:
        os._exit(code)


def _serve(asking: socket.socket, main: int) -> None:
    request = _request(asking)
    settings = read_settings("settings")
    ours, theirs = os.openpty()
    resize(ours, *request["size"])
    if settings["uid"]:
        os.fchown(theirs, int(settings["uid"]), int(settings["uid"]))  # tmux opens it again by its name.
    os.fchmod(theirs, 0o600)
    pid, failure = _start(settings, request["argv"], main, ours, theirs)
    signal.signal(signal.SIGTERM, lambda *_: _hang_up(pid))
    os.close(theirs)
    with os.fdopen(failure, "rb") as file:
        problem = file.read().decode(errors="replace")
    if problem:
        _say(asking, {"problem": problem})
    else:
        socket.send_fds(asking, [b'{"started": true}\n'], [ours])
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    if not problem:
        code = os.waitstatus_to_exitcode(status)
        with suppress(OSError):
            _say(asking, {"exit_code": code if code >= 0 else 128 - code})


def _request(asking: socket.socket) -> dict[str, Any]:
    text = b""
    while not text.endswith(b"\n"):
        part = asking.recv(1 << 16)
        text += part
        if not part or len(text) > LONGEST_REQUEST:
            raise ValueError("no whole request came")
    request: dict[str, Any] = json.loads(text)
    return request


def _start(
    settings: Mapping[str, str], argv: list[str], main: int, ours: int, theirs: int
) -> tuple[int, int]:
    """The command's pid, and a pipe that ends at its `exec` or says why there was none."""
    variables = {**read_settings("environ"), "TERM": TERMINAL}
    failure, failure_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(failure_write)
        return pid, failure
    argv = argv or [settings["shell"], "-i"]
    try:
        os.setsid()
        for target in (0, 1, 2):
            os.dup2(theirs, target)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        rank.become_another(settings, main)
        os.execvpe(argv[0], argv, variables)  # Looked for in the PATH of the rank.
    except BaseException as error:
        os.write(failure_write, f"{argv[0]} could not be started: {error}".encode(errors="replace"))
    finally:
        os._exit(125)


def _hang_up(pid: int) -> None:
    """The rank is to end. A shell that somebody sits at does not hear TERM."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGHUP)


def _say(asking: socket.socket, message: dict[str, Any]) -> None:
    asking.sendall(json.dumps(message).encode() + b"\n")


def resize(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
