"""How many runs that do nothing come to their end in a second: 500 of them, submitted by 8 clients, 8 at a time.

    process  createRun by HTTP until every run is COMPLETED, each rank a process of this host
    sim      the same on a simulated cluster: what is left without processes
    celery   as many tasks that do nothing on the same broker, threads as many, until every result is there
    ray      Ray Jobs: submit_job by 8 clients, until every job has SUCCEEDED

One of each in turn; the medians of the rounds' ratios decide. Afterwards each run must have one attempt, which
has gone through every status once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench.consoles import Console
from bench.submit import Ray, install_ray
from tests.stack import ROOT

RUNS, AT_ONCE, ROUNDS = 500, 8, 3
RAY_JOBS = 16
"""Of Ray fewer are measured: it takes seconds for each."""
BAR, AIM = 20.0, 100.0
"""Times Ray Jobs."""
CELERY_AIM = 0.1
"""Times Celery's tasks, each of which is one message there and one back: no bar, it says how far away the floor is."""
PATIENCE = 300.0
PATH = ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED"]


class Noop:
    """A Celery worker with one task that does nothing, on the console's own broker."""

    def __init__(self, console: Console) -> None:
        url = console.stack.home.redis_url
        os.environ["NOOP_RESULTS"] = url.replace("unix://", "redis+socket://").replace(
            "?db=", "?virtual_host="
        )
        os.environ["NOOP_BROKER"] = os.environ["NOOP_RESULTS"]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "--app=bench.noop", "worker"),
                *("--pool=threads", f"--concurrency={AT_ONCE}", "--queues=noop", "--loglevel=ERROR"),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def rate(self, count: int) -> float:
        from bench.noop import nothing

        begin = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            results = list(threads.map(lambda _: nothing.delay(), range(count)))
            list(threads.map(lambda result: result.get(timeout=PATIENCE), results))
        return count / (time.perf_counter() - begin)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def rate(console: Console, cluster: str, count: int) -> float:
    """Runs a second, from the first submission until all have ended."""
    before = console.counts(cluster).get("COMPLETED", 0)
    begin = time.perf_counter()
    console.submit_many(count, AT_ONCE, cluster, "true", cpus=1)
    while (done := console.counts(cluster).get("COMPLETED", 0) - before) < count:
        if time.perf_counter() - begin > PATIENCE:
            raise TimeoutError(
                f"{cluster}: {done} of {count} after {PATIENCE:.0f} s: {console.counts(cluster)}"
            )
        time.sleep(0.02)
    return count / (time.perf_counter() - begin)


def broken(console: Console) -> list[str]:
    """What does not hold of the runs, in words."""
    found = console.rows(
        "SELECT run.name, count(DISTINCT attempt.id), array_agg(entry.status ORDER BY entry.id) FROM runs_run run"
        " JOIN runs_attempt attempt ON attempt.run_id = run.id"
        " JOIN runs_lifecycleentry entry ON entry.attempt_id = attempt.id GROUP BY run.id"
    )
    return [
        f"{name}: {attempts} attempts, {path}"
        for name, attempts, path in found
        if attempts != 1 or path != PATH
    ]


def main() -> int:
    """Print the figures; 1 if a bar is missed or an invariant broken."""
    peer = Ray() if install_ray() else None
    console = Console()
    noop = Noop(console)
    try:
        console.resize("local", slots=AT_ONCE, cpus=AT_ONCE)
        console.add_sim("sim", nodes=[{"name": "node", "count": AT_ONCE}], script="exit 0")
        measure: dict[str, Callable[[], float]] = {
            "process": lambda: rate(console, "local", RUNS),
            "sim": lambda: rate(console, "sim", RUNS),
            "celery": lambda: noop.rate(RUNS),
        }
        for cluster in ("local", "sim"):
            rate(console, cluster, 40)
        noop.rate(40)
        if peer is not None:
            measure["ray"] = lambda: peer.rate(RAY_JOBS, AT_ONCE)
            peer.rate(AT_ONCE, AT_ONCE)
        rounds: list[dict[str, float]] = []
        for _ in range(ROUNDS):
            rounds.append({})
            for name, once in measure.items():
                time.sleep(1)  # nobody pays for what the one before leaves running behind it
                rounds[-1][name] = once()
        wrong = broken(console)
    finally:
        noop.close()
        console.close()
        if peer is not None:
            peer.close()
    for name in measure:
        values = sorted(found[name] for found in rounds)
        print(f"{name:8} median {median(values):9.1f} /s   {values[0]:.1f} … {values[-1]:.1f}")
    for line in wrong[:10]:
        print(f"broken: {line}")
    good = not wrong
    for ours in ("process", "sim"):
        ratio = median(found[ours] / found["celery"] for found in rounds)
        print(f"{ours} / Celery tasks: {ratio:.3f}   (aim {CELERY_AIM:g})")
        if peer is not None:
            ratio = median(found[ours] / found["ray"] for found in rounds)
            print(
                f"{ours} / Ray Jobs: {ratio:.1f}   (bar {BAR:g}, aim {AIM:g}; load {os.getloadavg()[0]:.1f})"
            )
            good &= ratio >= BAR
    return 0 if good else 1
