"""One pass of the control loop over a cluster with 10,000 queued and 1,000 active runs, against 10 and 10.

    idle     nothing has happened since the pass before: four passes of five are so
    stop     five active runs are to stop
    look     all that runs is looked at again, as every ten seconds: this one may grow with what exists
    queue    going down the queue, none of which fits

Each on a console of its own, on the same PostgreSQL, in turn: time, and number of queries. Queries must not grow
with what exists; the median of the rounds' ratios of time decides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

import psycopg

from tests.stack import ROOT, Servers

ROUNDS = 9
LARGE, SMALL = (10_000, 1_000), (10, 10)
CASES = ("idle", "stop", "queue", "look")
BARS = {"idle": 3.0, "stop": 3.0, "queue": 100.0, "look": 100.0}
"""Times as long, at the most, with five hundred times as many runs; a hundred times as many of which are active."""
MOST_SECONDS = 1.0
"""That the large one may take, as passes are two seconds apart."""


class Side:
    """A process that has one of the two clusters, and makes a pass when it is told to."""

    def __init__(self, servers: Servers, queued: int, active: int) -> None:
        name = f"loop_{queued}_{active}"
        with psycopg.connect(servers.home.database_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        home = servers.home.path / name
        self.process = subprocess.Popen(
            [
                *(sys.executable, "manage.py", "shell", "--no-imports", "-c"),
                f"from bench.loop_side import main; main({queued}, {active})",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "RUNYARD_HOME": str(home),
                "RUNYARD_LOG_LEVEL": "ERROR",
                "DATABASE_URL": servers.home.database_url.replace("/runyard?", f"/{name}?"),
                "REDIS_URL": servers.home.redis_url,
            },
        )
        self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a side of the benchmark has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def measure(self, case: str) -> tuple[float, int]:
        """(seconds, queries) of one pass."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        found = self._line()
        return found["seconds"], found["queries"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def main() -> int:
    """Print the figures; 1 if a bar is missed."""
    servers = Servers()
    servers.start()
    try:
        large, small = Side(servers, *LARGE), Side(servers, *SMALL)
        rounds: dict[str, list[tuple[tuple[float, int], tuple[float, int]]]] = {case: [] for case in CASES}
        for number in range(ROUNDS + 1):
            for case in CASES:
                found = large.measure(case), small.measure(case)
                if number:  # the first one warms up
                    rounds[case].append(found)
        large.close()
        small.close()
    finally:
        servers.stop()
    print(f"{'':8} {'10,000 + 1,000':>28} {'10 + 10':>24} {'ratio':>7}")
    good = True
    for case, pairs in rounds.items():
        ratio = median(of_large[0] / of_small[0] for of_large, of_small in pairs)
        seconds = [median(pair[side][0] for pair in pairs) for side in (0, 1)]
        queries = [max(pair[side][1] for pair in pairs) for side in (0, 1)]
        print(
            f"{case:8} {seconds[0] * 1000:12.1f} ms {queries[0]:4} queries {seconds[1] * 1000:8.1f} ms {queries[1]:4} queries"
            f" {ratio:7.1f}  bar {BARS[case]:g}"
        )
        good &= queries[0] <= queries[1] and ratio <= BARS[case] and seconds[0] <= MOST_SECONDS
    print(f"bars: no more queries, the ratio, {MOST_SECONDS:g} s (load {os.getloadavg()[0]:.1f})")
    return 0 if good else 1
