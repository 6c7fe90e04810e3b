"""What a supervisor does while its rank runs and until its exit record is written.

    1. read both pipes into the spool, at once            3. obey stop.json: TERM, deadline, KILL
    2. write down who descends from the rank              4. the command ends: end what it left behind
    5. empty the pipes, write exit.json durably, ring, go away

An adopter does the same for a rank that is not its child: it sees that the rank ends, never how.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from clusters.engines.process import bell, family, gpu_logs, procfs, terminal
from clusters.engines.process.output import Output
from clusters.engines.process.procfs import Process
from clusters.engines.process.records import (
    RESERVED_EXIT,
    read_json,
    read_settings,
    utc,
    write_json,
    write_reserved,
)
from clusters.engines.process.spool import STDERR, STDOUT

READ = 1 << 20
EVENTS = "../../../../events"
LOOK_EVERY = 1.0
LOOK_SHARE = 50
"""A look at all processes may take 1/50 of one CPU: on a host with thousands it comes less often."""
KILL_EVERY = 0.05
FULL_POLL = 0.25
DRAIN_LIMIT = 1.0


class Loop:
    """Runs in the rank's private folder, with its lock held."""

    def __init__(self, stdout: int, stderr: int, *, adopted: bool, failure: str) -> None:
        self._settings = read_settings("settings")
        started = read_json("started.json")
        assert started is not None  # Written before the rank's gate opened.
        self._started_at: str = started["started_at"]
        self._main: Process = (started["pid"], started["start"])
        self._adopted = adopted
        self._failure = failure
        self._sources = {stdout: STDOUT, stderr: STDERR}
        self._output = Output(
            limit=int(self._settings["spool_limit"]),
            quota=int(self._settings["log_quota"]),
            patience=float(self._settings["patience"]),
        )
        self._wake = os.open("wake.fifo", os.O_RDWR | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._terminals = terminal.listen()
        if self._terminals is not None:
            self._poll.register(self._terminals, select.POLLIN)
        self._reading = False
        self._family: set[Process] = {(pid, start) for pid, start in self._recorded()}
        # At first there is only the command, which is recorded: a look would compete with its start for a CPU.
        self._next_look = 0.0 if adopted else time.monotonic() + LOOK_EVERY
        self._last_pid = ""
        self._gpu_logs: list[int] = []
        self._deadline: float | None = None
        self._term_sent_at: str | None = (read_json("term.json") or {}).get("sent_at")
        self._main_fd = -1
        self._setup_size = 0
        self._ended = False
        self._ended_at: float | None = None
        self._status: int | None = None

    # -- the four stages

    def run(self) -> None:
        self._watch_main()
        self._set_reading(True)
        self._ring()
        self._obey()
        while not self._ended:
            self._turn()
        self._close_terminals()
        self._wind_down()
        self._drain()
        self._record_exit()
        self._ring()

    def _watch_main(self) -> None:
        """A pidfd becomes readable when its process ends, whoever its parent is."""
        self._collect()
        if not self._ended:
            self._main_fd = os.pidfd_open(self._main[0])
            self._poll.register(self._main_fd, select.POLLIN)

    def _turn(self, longest: float = LOOK_EVERY) -> None:
        """Wait for something to happen, and deal with it and with whatever is due."""
        for fd, _ in self._poll.poll(max(0.0, self._pause(longest)) * 1000):
            if fd in self._sources:
                self._read(fd)
            elif fd == self._wake:
                _take(self._wake)
                self._obey()
                self._tell_of_setup()
            elif self._terminals is not None and fd == self._terminals.fileno():
                terminal.keep(self._terminals, self._main[0])
            else:
                self._collect()
        now = time.monotonic()
        self._set_reading(not self._output.full(now))
        if now >= self._next_look:
            self._look(now)
        if self._deadline is not None and now >= self._deadline:
            self._signal_all(signal.SIGKILL)

    def _pause(self, longest: float) -> float:
        now = time.monotonic()
        pause = min(longest, self._next_look - now)
        if not self._reading:
            pause = min(pause, FULL_POLL)
        if self._deadline is not None:
            pause = min(pause, max(KILL_EVERY, self._deadline - now))
        return pause

    # -- output

    def _set_reading(self, reading: bool) -> None:
        if reading == self._reading:
            return
        self._reading = reading
        for fd in self._sources:
            if reading:
                self._poll.register(fd, select.POLLIN)
            else:
                self._poll.unregister(fd)

    def _read(self, fd: int) -> bool:
        data = _take(fd)
        if data:
            self._output.take(data, self._sources[fd], time.time())
        return bool(data)

    def _drain(self) -> None:
        """Take what is still in the pipes. Only a process that escaped could write on: hence the limit."""
        until = time.monotonic() + DRAIN_LIMIT
        for fd in self._sources:
            while self._read(fd) and time.monotonic() < until:
                pass

    # -- descendants

    def _recorded(self) -> list[list[int]]:
        processes: list[list[int]] = (read_json("descendants.json") or {}).get("processes", [])
        return processes

    def _look(self, now: float) -> None:
        """Write down who descends from the rank, for whoever has to clean up after us; tell of new files of GPUs."""
        _reap_orphans(self._main[0])
        last_pid = _last_pid()
        if last_pid != self._last_pid:  # Nobody was born on this host since: no need to look.
            self._last_pid = last_pid
            found = self._relatives()
            if found != self._family:
                self._family = found
                _try(write_json, "descendants.json", {"processes": sorted(found)})
        if (there := gpu_logs.there(self._settings["gpu_logs"])) != self._gpu_logs:
            self._gpu_logs = there
            self._ring()
        took = time.monotonic() - now
        self._next_look = now + max(LOOK_EVERY, took * LOOK_SHARE)

    def _relatives(self) -> set[Process]:
        """Everything alive that the rank started, the command itself included.

        We are the reaper of our descendants, so nobody leaves our tree by double fork or setsid. An
        adopter is not: it goes by what was recorded, what is below that, and the marks in environments.
        """
        everybody = procfs.snapshot()
        if not self._adopted:
            return family.below([os.getpid()], everybody)
        marks = (f"RUNYARD_ATTEMPT={self._settings['key']}", f"NODE_RANK={self._settings['rank']}")
        marked = family.carriers(marks, everybody.values())
        return family.with_below({self._main} | self._family | marked, everybody)

    def _signal_all(self, number: int) -> None:
        for process in self._relatives():
            family.send(process, number)

    # -- what comes before the command

    def _tell_of_setup(self) -> None:
        """Ring when a step of the setup has begun or ended."""
        with suppress(FileNotFoundError):
            size = os.stat("setup.steps").st_size
            if size != self._setup_size:
                self._setup_size = size
                self._ring()

    def _setup_failure(self) -> dict[str, Any]:
        """Reason, message and exit code, if the rank ended before its command; nothing for one that was stopped."""
        if self._term_sent_at is not None or not os.path.exists("setup.steps"):
            return {}
        from clusters.engines.process import setup  # What it imports is dear, and few runs need it.

        steps = setup.results(".")
        if not steps or steps[-1].exit_code == 0:
            return {}
        if steps[-1].exit_code is None and self._adopted:
            return {}  # How it ended is not known, and hence not why.
        known = {} if steps[-1].exit_code is None else {"exit_code": steps[-1].exit_code}
        return {"reason": "IntegrationFailed", "message": steps[-1].failure, **known}

    # -- terminals

    def _close_terminals(self) -> None:
        """No new ones. Those that are open end like everything that the command left behind."""
        if self._terminals is not None:
            self._poll.unregister(self._terminals)
            self._terminals.close()
            self._terminals = None
            with suppress(FileNotFoundError):
                os.unlink(terminal.SOCKET)

    # -- stop

    def _obey(self) -> None:
        stop = read_json("stop.json")
        if stop is None:
            return
        # The earliest deadline that we have ever seen: two requests may have crossed.
        deadline = float(stop["deadline"])
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._collect()
        if self._ended or self._term_sent_at is not None:
            return  # A command that has ended by itself is not stopped, whenever we are asked.
        self._term_sent_at = utc(time.time())
        _try(write_json, "term.json", {"sent_at": self._term_sent_at})
        self._terminate()

    def _terminate(self) -> None:
        """TERM, exactly once for each process: the command's group in one go, so that no fork slips
        through, then those who left the group."""
        group = self._main[0]
        members = self._relatives()
        if procfs.alive(self._main):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGTERM)
        for process in members:
            found = procfs.stat(process[0])
            if found is not None and found.pgrp != group:
                family.send(process, signal.SIGTERM)

    # -- the end

    def _collect(self) -> None:
        """Take the command's exit status, if it has ended."""
        if self._ended:
            return
        if self._adopted:
            self._ended = not procfs.alive(self._main)
        else:
            pid, status = os.waitpid(self._main[0], os.WNOHANG)
            self._ended = pid != 0
            self._status = status
        if self._ended:
            self._ended_at = time.time()
            if self._main_fd >= 0:
                self._poll.unregister(self._main_fd)
                os.close(self._main_fd)

    def _wind_down(self) -> None:
        """End what the command left behind, as a container would: TERM, a short grace, KILL.

        After a stop they have had their TERM, and keep the whole grace of the stop: bash dies of TERM at
        once, while the trainer below it may still be saving its checkpoint.
        """
        if self._deadline is None:
            self._deadline = time.monotonic() + float(self._settings["wind_down"])
            if self._adopted or not _reap_orphans(0):
                self._signal_all(signal.SIGTERM)
        pause = 0.005
        while True:
            childless = _reap_orphans(0)
            # Whoever descends from us has one of our children above it: without any, no need to look.
            if (childless and not self._adopted) or not self._relatives():
                return
            self._turn(pause)
            pause = min(pause * 2, 0.1)

    def _record_exit(self) -> None:
        """Nothing is reported before it is durable, and nothing is given up: a full disk is waited for."""
        record = json.dumps(self._exit_record()).encode() + b"\n"
        while True:
            said = self._output.say_what_was_lost(time.time())
            try:
                self._output.spool.sync()
                write_reserved("exit.json", RESERVED_EXIT, record)
                return
            except OSError as error:
                sys.stderr.write(f"exit.json: {error}\n")
            time.sleep(0.2 if said else 1.0)

    def _exit_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "exit_code": None,
            "signal": None,
            "started_at": self._started_at,
            "ended_at": utc(self._ended_at or time.time()),
            "term_sent_at": self._term_sent_at,
            "reason": None,
            "message": "",
        }
        if self._failure:
            record |= {"reason": "EngineError", "message": self._failure}
        elif self._adopted:
            record |= {
                "reason": "EngineError",
                "message": "unknown outcome: the command ended after its supervisor had died, "
                "and nobody saw its exit code",
            }
        elif self._status is not None:
            code = os.waitstatus_to_exitcode(self._status)
            record |= {"exit_code": code} if code >= 0 else {"exit_code": 128 - code, "signal": -code}
        return record if self._failure else record | self._setup_failure()

    def _ring(self) -> None:
        bell.ring(EVENTS, self._settings["key"])


def _take(fd: int) -> bytes:
    try:
        return os.read(fd, READ)
    except BlockingIOError:
        return b""


def _try(write: Any, *arguments: Any) -> None:
    """For records that help but are not needed: a full disk must not end the supervisor."""
    try:
        write(*arguments)
    except OSError as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")


def _last_pid() -> str:
    with open("/proc/loadavg") as file:
        return file.read().split()[-1]


def _reap_orphans(main: int) -> bool:
    """Bury descendants that came to us because their parents died; leave the command's status alone.

    Says whether no child is left."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        if found is None or found.si_pid == main:
            return False
        os.waitpid(found.si_pid, os.WNOHANG)
