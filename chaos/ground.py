"""What scenarios stand on: a whole console of its own, runs whose every byte is known, and a look at the truth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

import httpx
import psycopg
from psycopg.rows import dict_row

from chaos.proxy import Network
from clusters.engines import failpoints
from tests.stack import ROOT, Stack

PATIENCE = 120.0
"""Seconds within which everything that was submitted must have ended, once nothing disturbs it any more."""
CREATE = "mutation($d: CreateRunInput!) { createRun(createRunData: $d) { name } }"
MUTATIONS = {
    "stop": "mutation($d: GetRunsInput!) { stopRuns(getRunsData: $d) { name } }",
    "restart": "mutation($d: GetRunsInput!) { startRuns(getRunsData: $d) { name } }",
    "delete": "mutation($d: GetRunsInput!) { deleteRuns(getRunsData: $d) { name } }",
}


class Refused(Exception):
    """The console's answer was an error, and asking again would not change it."""


@dataclass
class Job:
    """A submitted run, and what must come of it."""

    name: str
    nodes: int = 1
    lines: int = 20
    exit_code: int = 0
    known: bool = True
    """Its end is known beforehand: it is not stopped or restarted by the scenario."""

    def output(self, rank: int) -> bytes:
        return b"".join(b"rank %d line %d\n" % (rank, line) for line in range(1, self.lines + 1))


@dataclass(frozen=True)
class Simulated:
    """A run on a simulated cluster, and how its attempt must end: status, exit code, reason."""

    name: str
    end: tuple[str, int | None, str]
    failed_rank: int | None = None


@dataclass
class Ground:
    """Started once for all scenarios; each brings its own runs."""

    stack: Stack
    draw: Random
    folder: Path
    jobs: list[Job] = field(default_factory=list)
    simulated: list[Simulated] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a scenario has measured, for who reads the outcome."""
    bad_network: Network | None = None

    @classmethod
    def start(cls, seed: int, *, networked: bool = False) -> Ground:
        """`networked`: the console reaches its servers by a network that can be made bad."""
        folder = Path(tempfile.mkdtemp(prefix="runyard-chaos-"))
        folder.chmod(0o777)
        side = folder / "started"
        side.touch()
        side.chmod(0o666)
        network = Network(Random(f"{seed}/network")) if networked else None
        stack = Stack(
            None,
            RUNYARD_FAILPOINTS=str(folder / "failpoints"),
            RUNYARD_GRACE_SECONDS="5",
            **(network.environment if network else {}),
        )
        if network:
            stack.servers = network.servers.home
        stack.start()
        ground = cls(stack, Random(seed), folder, bad_network=network)
        # Room for many small runs at once, whatever the machine has.
        ground.manage(
            "shell",
            "-c",
            "from clusters.models import Cluster; from clusters.tasks import look_at\n"
            "local = Cluster.objects.get(name='local'); local.config |= {'slots': 16, 'cpus': 64}\n"
            "local.save(update_fields=['config']); look_at(local)",
        )
        return ground

    def end(self) -> None:
        self.disarm()
        self.stack.remove()
        if self.bad_network:
            self.bad_network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def network(self) -> Network:
        assert self.bad_network is not None, "this scenario needs a ground that is networked"
        return self.bad_network

    # -- asking the console, as clients do

    def ask(
        self,
        query: str,
        data: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        within: float = PATIENCE,
    ) -> Any:
        """One operation. Asked again while nobody answers, or 503 says so: as the client does."""
        environment = self.stack.env
        deadline = time.monotonic() + within
        while True:
            with suppress(httpx.TransportError, ValueError):
                answer = httpx.post(
                    environment["MOSAICML_API_ENDPOINT"],
                    json={"query": query, "variables": {"d": dict(data)}},
                    headers={"Authorization": environment["MOSAICML_API_KEY"], **(headers or {})},
                    timeout=30,
                ).json()
                if not answer.get("errors"):
                    (value,) = answer["data"].values()
                    return value
                error = answer["errors"][0]
                if error["extensions"]["code"] not in {429, 500, 502, 503, 504}:
                    raise Refused(error["message"])
            if time.monotonic() > deadline:
                raise TimeoutError("the console does not answer")
            time.sleep(0.2)

    def submit(
        self,
        *,
        nodes: int = 1,
        lines: int = 20,
        pause: float = 0.05,
        exit_code: int = 0,
        then: str = "",
        known: bool = True,
        key: str = "",
        **scheduling: Any,
    ) -> Job:
        """A run that says where it started, writes numbered lines, and ends as told. `key`: its Idempotency-Key."""
        job = Job("", nodes, lines, exit_code, known)
        command = (
            f'echo "$RUNYARD_ATTEMPT $NODE_RANK" >> {self.folder}/started\n'
            f'for i in $(seq {lines}); do echo "rank $NODE_RANK line $i"; sleep {pause}; done\n'
            f"{then}\nexit {exit_code}\n"
        )
        given = {
            "runName": "chaos",
            "image": "none",
            "command": command,
            "compute": {"cluster": "local", "nodes": nodes},
            "scheduling": scheduling,
        }
        headers = {"Idempotency-Key": key} if key else {}
        job.name = self.ask(CREATE, {"runInput": given}, headers)[0]["name"]
        self.jobs.append(job)
        return job

    def tell(self, what: str, *names: str) -> bool:
        """stop, restart or delete runs. False if that was refused."""
        try:
            self.ask(MUTATIONS[what], {"filters": {"name": {"in": list(names)}}})
        except Refused:
            return False
        return True

    def mixture(self, count: int, **fields: Any) -> list[Job]:
        """Runs of several kinds: that succeed, fail, are retried, have two nodes."""
        kinds: Sequence[dict[str, Any]] = (
            {},
            {"exit_code": 3},
            {"nodes": 2},
            {"exit_code": 4, "maxRetries": 1, "lines": 5},
        )
        return [self.submit(**{**kinds[n % len(kinds)], **fields}) for n in range(count)]

    # -- the truth

    def rows(self, query: str, *values: Any, within: float = 60.0) -> list[dict[str, Any]]:
        """What the database says; waits for it while it is away."""
        deadline = time.monotonic() + within
        while True:
            try:
                with psycopg.connect(
                    self.stack.servers.database_url, autocommit=True, row_factory=dict_row, connect_timeout=3
                ) as connection:
                    return connection.execute(cast("Any", query), values).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def until(self, condition: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {within:.0f} s")
            time.sleep(0.1)

    def statuses(self) -> dict[str, int]:
        found = self.rows("SELECT status, count(*) AS count FROM runs_run GROUP BY status")
        return {row["status"]: row["count"] for row in found}

    def ended(self) -> int:
        """How many runs have ended by themselves."""
        found = self.statuses()
        return found.get("COMPLETED", 0) + found.get("FAILED", 0)

    def all_ended(self) -> bool:
        return set(self.statuses()) <= {"COMPLETED", "STOPPED", "FAILED"}

    def running(self, count: int) -> None:
        """Wait until so many runs are running."""
        self.until(lambda: self.statuses().get("RUNNING", 0) >= count, f"{count} runs running")

    def settle(self) -> None:
        """Wait until every run has ended and everything of it is put away."""
        open_runs = (
            "SELECT count(*) AS n FROM runs_run WHERE status NOT IN ('COMPLETED', 'STOPPED', 'FAILED')"
        )
        untidy = "SELECT count(*) AS n FROM runs_attempt WHERE cleaned_at IS NULL"
        for query, what in ((open_runs, "every run has ended"), (untidy, "every attempt is put away")):
            try:
                self.until(lambda query=query: self.rows(query)[0]["n"] == 0, what)  # type: ignore[misc]
            except TimeoutError as problem:
                left = self.rows(
                    "SELECT run.name, attempt.status, attempt.lease_until, attempt.queue_reason, run.desired"
                    " FROM runs_attempt attempt JOIN runs_run run ON run.id = attempt.run_id"
                    " WHERE attempt.cleaned_at IS NULL LIMIT 5"
                )
                raise TimeoutError(f"{problem}; left: {left}") from None

    # -- fail-points

    def arm(self, *rules: Mapping[str, Any]) -> None:
        """Arm fail-points in all processes of the console."""
        self.disarm()
        with suppress(FileNotFoundError):
            (self.folder / "failpoints.struck").unlink()
        self._write_failpoints({"seed": self.draw.randrange(10**6), "rules": rules})

    def disarm(self) -> None:
        self._write_failpoints({"rules": []})

    def _write_failpoints(self, content: Mapping[str, Any]) -> None:
        fresh = self.folder / "failpoints.new"
        fresh.write_text(json.dumps(content))
        fresh.replace(self.folder / "failpoints")

    def struck(self) -> list[str]:
        return failpoints.struck(str(self.folder / "failpoints"))

    def manage(self, *words: str) -> str:
        """Run `manage.py …` on this console."""
        environment = {k: v for k, v in self.stack.environment.items() if k != failpoints.ENVIRONMENT}
        done = subprocess.run(
            [sys.executable, "manage.py", *words], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {words[0]}: {done.stderr[-2000:]}")
        return done.stdout


def environment_of(pid: int) -> dict[str, str]:
    """The variables that a process was started with; empty if it is gone or closed to us."""
    with suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return dict(pair.decode(errors="replace").split("=", 1) for pair in pairs if b"=" in pair)
    return {}


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
