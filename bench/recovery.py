"""How long after the death of everything until what people read is true again: 200 active and 500 queued runs.

    ours   every service and both servers die by SIGKILL; while nothing is there, 20 runs fail by themselves; from
           `up` until those have failed with their exit code, 20 others run in their place, and a pass has gone
           over all
    floor  the same death and the same boot of a console without runs, until it answers

One of each in turn; the median of the rounds' differences decides. Then no attempt may have been started twice,
and every run that is RUNNING must be: with one process.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

from bench.consoles import Console
from console.services.catalogue import NAMES
from tests.stack import Stack

ACTIVE, QUEUED, FAIL = 200, 500, 20
EXIT_CODE = 7
ROUNDS = 5
BAR, AIM = 5.0, 1.0
"""Seconds more than the floor."""
PATIENCE = 300.0


def kill_everything(stack: Stack) -> None:
    """The guard and the parent first: they would start the others again, or stop them in order."""
    if stack.process is not None:
        stack.process.kill()
        stack.process.wait(10)
    for name in ("parent", *reversed(NAMES)):
        found = stack.identity(name)
        if found is not None:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
            found.wait(10)


def sleepers(console: Console) -> dict[str, list[int]]:
    """Attempt → the processes that are all there is to its command."""
    home = console.stack.home.path
    found: dict[str, list[int]] = {}
    for name in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            pid = int(name)
            if Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
                continue
            if not Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(home):
                continue
            pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            attempt = next(pair for pair in pairs if pair.startswith(b"RUNYARD_ATTEMPT="))
            found.setdefault(attempt.partition(b"=")[2].decode(), []).append(pid)
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def recover(console: Console) -> float:
    """Kill, let some fail meanwhile, start: the seconds until all is true."""
    failed = console.counts("local").get("FAILED", 0)
    victims = [pid for pids in list(sleepers(console).values())[:FAIL] for pid in pids]
    kill_everything(console.stack)
    console.disconnect()
    for pid in victims:
        os.kill(pid, signal.SIGTERM)
    begin, moment = time.perf_counter(), time.time()
    console.stack.start()

    def true() -> bool:
        swept = console.rows("SELECT extract(epoch FROM swept_at) FROM clusters_cluster WHERE name = 'local'")
        counts = console.counts("local")
        expected = {"FAILED": failed + FAIL, "RUNNING": ACTIVE, "QUEUED": QUEUED - FAIL}
        return counts == expected and float(swept[0][0]) > moment

    until(true, "what people read is not true again")
    seconds = time.perf_counter() - begin
    console.submit_many(FAIL, 4, "local", f"sleep 100000; exit {EXIT_CODE}", cpus=1)
    until(lambda: console.counts("local").get("QUEUED") == QUEUED, "the queue is full again")
    return seconds


def boot(stack: Stack) -> float:
    kill_everything(stack)
    begin = time.perf_counter()
    stack.start()
    return time.perf_counter() - begin


def broken(console: Console) -> list[str]:
    """What is not as people read it."""
    wrong = [
        f"{name} has {attempts} attempts and exit code {code}"
        for name, attempts, code, status in console.rows(
            "SELECT run.name, count(*), max(attempt.exit_code), run.status FROM runs_run run"
            " JOIN runs_attempt attempt ON attempt.run_id = run.id GROUP BY run.id"
        )
        if attempts != 1 or (status == "FAILED" and code != EXIT_CODE)
    ]
    running = {str(pk) for (pk,) in console.rows("SELECT id FROM runs_attempt WHERE status = 'RUNNING'")}
    there = Counter({attempt: len(pids) for attempt, pids in sleepers(console).items()})
    wrong += [f"{attempt} is RUNNING and has no process" for attempt in running - set(there)]
    wrong += [f"{attempt} has {count} processes" for attempt, count in there.items() if count > 1]
    return wrong + [f"{attempt} is not RUNNING and has a process" for attempt in set(there) - running]


def main() -> int:
    """Print the figures; 1 if the bar is missed or something is not true."""
    console, empty = Console(), Stack()
    empty.start()
    try:
        console.resize("local", slots=ACTIVE, cpus=ACTIVE)
        console.submit_many(ACTIVE + QUEUED, 8, "local", f"sleep 100000; exit {EXIT_CODE}", cpus=1)
        until(
            lambda: console.counts("local") == {"RUNNING": ACTIVE, "QUEUED": QUEUED},
            f"{ACTIVE} running: {console.counts('local')}",
        )
        rounds = []
        for number in range(ROUNDS + 1):
            found = recover(console), boot(empty)
            if number:  # the first one warms up
                rounds.append(found)
        wrong = broken(console)
    finally:
        console.close()
        empty.stop()
        empty.remove()
    for name, side in (("ours", 0), ("floor", 1)):
        values = sorted(found[side] for found in rounds)
        print(f"{name:6} median {median(values):6.2f} s   {values[0]:.2f} … {values[-1]:.2f}")
    for line in wrong[:10]:
        print(f"not true: {line}")
    over = median(ours - floor for ours, floor in rounds)
    print(f"ours − floor: {over:.2f} s   (bar {BAR:g}, aim {AIM:g}; load {os.getloadavg()[0]:.1f})")
    return 0 if over <= BAR and not wrong else 1
