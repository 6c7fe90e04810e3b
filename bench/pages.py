"""What a page of runs costs with a million of them, against a thousand, and against bare SQL.

    ours   getRunsPaginated by HTTP, 50 runs: the first page, a deep one, by each filter, and by filters that
           nothing matches
    peer   the same on a console that has a thousand runs
    floor  the same page's ids by psycopg

Each in turn; the median of the rounds' ratios decides.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import httpx
import psycopg

from tests.stack import ROOT, Stack

ROUNDS = 15
MANY, FEW = 1_000_000, 1_000
BAR, AIM = 1.5, 1.05
SLOWEST = 0.150
"""Seconds that any filter may take, 95 times of 100."""
DEEP = 15
"""How many pages of 10,000 lie before the deep one."""

PAGE = """query($d: GetRunsPaginatedInput!) { getRunsPaginated(getRunsPaginatedData: $d) { cursor hasNextPage
    runs { id name createdByEmail status createdAt updatedAt reason priority maxRetries preemptible
           retryOnSystemFailure isDeleted runType maxDurationSeconds
           resumptions { executionIndex clusterName gpuType gpus cpus nodes status startTime endTime } } } }"""

IDS = PAGE[: PAGE.index("runs {")] + "runs { id } } }"

FILTERS: Mapping[str, Mapping[str, Any]] = {
    "own": {},
    "status": {"status": {"in": ["FAILED"]}},
    "cluster": {"clusterName": {"in": ["bench-1"]}},
    "GPU type": {"gpuType": {"in": ["h100_80gb"]}},
    "GPUs": {"gpuNum": {"in": [8]}},
    "run type": {"runType": {"in": ["INTERACTIVE"]}},
    "two values each": {"status": {"in": ["FAILED", "STOPPED"]}, "gpuNum": {"in": [8, 16]}},
    "none, one value": {"status": {"in": ["RUNNING"]}},
    "none, no such cluster": {"clusterName": {"in": ["nowhere"]}},
    "none, a combination": {"gpuType": {"in": ["None"]}, "gpuNum": {"in": [1, 2, 4, 8, 16]}},
}


class Filled:
    """A console whose first team has so many finished runs of twenty people."""

    def __init__(self, count: int) -> None:
        self.stack = Stack()
        self.stack.start()
        self._fill(count)
        environment = self.stack.env
        self.http = httpx.Client(headers={"Authorization": environment["MOSAICML_API_KEY"]}, timeout=60)
        self.endpoint = environment["MOSAICML_API_ENDPOINT"]

    def _fill(self, count: int) -> None:
        code = (
            "from clusters.models import Cluster; from teams.models import Team, User; from tests.filling import fill\n"
            "team = Team.objects.order_by('created_at').first(); first = User.objects.order_by('created_at').first()\n"
            "people = [User.objects.create(email=f'p{i}@example.com', name=f'P{i}') for i in range(19)]\n"
            "clusters = [Cluster.objects.create(name=f'bench-{i}', engine='sim', config={}) for i in range(5)]\n"
            f"fill(team.pk, [first.pk, *(p.pk for p in people)], [c.pk for c in clusters], {count})\n"
        )
        subprocess.run(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
            env=self.stack.environment,
            cwd=ROOT,
            check=True,
        )

    def page(self, filters: Mapping[str, Any], cursor: str | None = None) -> tuple[float, dict[str, Any]]:
        """(seconds, the page)"""
        given = {"filters": filters, "includeDeleted": False, "limit": 50} | (
            {"cursor": cursor} if cursor else {}
        )
        begin = time.perf_counter()
        answer = self.http.post(self.endpoint, json={"query": PAGE, "variables": {"d": given}}).json()
        seconds = time.perf_counter() - begin
        return seconds, answer["data"]["getRunsPaginated"]

    def deep(self, pages: int) -> str:
        """The cursor behind so many of the largest pages."""
        cursor = ""
        for _ in range(pages):
            given = {"filters": {}, "includeDeleted": False, "limit": 10_000} | (
                {"cursor": cursor} if cursor else {}
            )
            answer = self.http.post(self.endpoint, json={"query": IDS, "variables": {"d": given}}).json()
            cursor = str(answer["data"]["getRunsPaginated"]["cursor"])
        return cursor

    def close(self) -> None:
        self.http.close()
        self.stack.stop()
        self.stack.remove()


def floor(console: Filled) -> Callable[[], float]:
    """The ids of the first page, by psycopg."""
    connection = psycopg.connect(console.stack.home.database_url, autocommit=True)
    team, creator = connection.execute(
        "SELECT team_id, creator_id FROM runs_run GROUP BY 1, 2 ORDER BY count(*) DESC LIMIT 1"
    ).fetchone() or (None, None)

    def once() -> float:
        begin = time.perf_counter()
        connection.execute(
            "SELECT id FROM runs_run WHERE team_id = %s AND creator_id = %s AND deleted_at IS NULL"
            " ORDER BY created_at DESC, id DESC LIMIT 51",
            (team, creator),
        ).fetchall()
        return time.perf_counter() - begin

    return once


def main() -> int:
    """Print the figures; 1 if a bar is missed."""
    many, few = Filled(MANY), Filled(FEW)
    try:
        cursor, bare = many.deep(DEEP), floor(many)
        cases: dict[str, Callable[[Filled], float]] = {
            name: lambda console, filters=filters: console.page(filters)[0]  # type: ignore[misc]
            for name, filters in FILTERS.items()
        }
        cases["own, deep"] = lambda console: console.page({}, cursor if console is many else None)[0]
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        floors = []
        for number in range(ROUNDS + 2):
            for name, once in cases.items():
                times = once(many), once(few)
                if number >= 2:  # the first ones warm up
                    rounds[name].append(times)
            floors.append(bare())
    finally:
        many.close()
        few.close()
    print(f"bare SQL, first page: {median(floors) * 1000:.2f} ms")
    print(f"{'50 runs of':24} {'1,000,000':>12} {'1,000':>10} {'ratio':>7} {'slowest':>10}")
    good = True
    for name, pairs in rounds.items():
        ratio = median(ours / peer for ours, peer in pairs)
        slowest = sorted(ours for ours, _ in pairs)[-1]
        print(
            f"{name:24} {median(t[0] for t in pairs) * 1000:9.1f} ms {median(t[1] for t in pairs) * 1000:7.1f} ms "
            f"{ratio:6.2f} {slowest * 1000:8.1f} ms"
        )
        # What nothing matches may take longer than on an empty console, but not long.
        good &= slowest <= SLOWEST if name.startswith("none, a") else ratio <= BAR
    print(f"bar {BAR}, aim {AIM}; combinations {SLOWEST * 1000:.0f} ms (load {os.getloadavg()[0]:.1f})")
    return 0 if good else 1
