"""The people, teams, clusters and runs that tests are about: plain functions that give valid objects.

Ada owns runs in `vision`, Bob is a member and Vera a viewer there, Max its admin; Olaf is an outsider, in
a team of his own.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from clusters.engines.process.host import host_id
from clusters.models import Cluster
from clusters.tasks import look_at
from runs.commands import Compute, RunRequest, submit
from runs.control.sweep import sweep_cluster
from runs.models import Attempt, Run
from runs.states import TERMINAL
from teams.commands import add_member, create_team
from teams.models import Team, User
from teams.queries import Caller
from teams.states import Role


@dataclass(frozen=True)
class World:
    vision: Team
    other: Team
    ada: Caller
    bob: Caller
    max: Caller
    vera: Caller
    olaf: Caller
    cluster: Cluster


def make_user(name: str) -> User:
    return User.objects.create(email=f"{name.lower()}@example.com", name=name)


def make_world(root: Path, **config: Any) -> World:
    vision, other = create_team("vision"), create_team("other")
    people = {name: make_user(name) for name in ("Ada", "Bob", "Max", "Vera", "Olaf")}
    roles = {"Ada": Role.MEMBER, "Bob": Role.MEMBER, "Max": Role.ADMIN, "Vera": Role.VIEWER}
    for name, role in roles.items():
        add_member(vision, people[name], role)
    add_member(other, people["Olaf"], Role.ADMIN)
    cluster = make_cluster(root, **config)
    cluster.teams.add(vision)
    callers = {name.lower(): Caller(user) for name, user in people.items()}
    return World(vision=vision, other=other, cluster=cluster, **callers)


def make_cluster(root: Path, name: str = "local", **config: Any) -> Cluster:
    """A process cluster on this host, probed. `config` is the engine's: slots, cpus, gpus, gpu_type, …"""
    cluster = Cluster.objects.create(
        name=name,
        engine="process",
        config={"root": str(root / name), "host_id": host_id(), "slots": 8, "cpus": 8, **config},
    )
    look_at(cluster)
    cluster.refresh_from_db()
    return cluster


def make_request(command: str = "true", *, name: str = "hello", **fields: Any) -> RunRequest:
    compute = {key: fields.pop(key) for key in tuple(fields) if key in Compute.__dataclass_fields__}
    fields.setdefault("submitted", {"runName": name, "image": "python:3.11", "command": command})
    return RunRequest(name=name, image="python:3.11", command=command, compute=Compute(**compute), **fields)


def make_run(caller: Caller, command: str = "true", **fields: Any) -> Run:
    return submit(caller, make_request(command, **fields))


def sweep(cluster_id: uuid.UUID) -> int:
    """A pass over a cluster's attempts, those that were seen a moment ago as well."""
    return sweep_cluster(cluster_id, timedelta(0))


def until(
    condition: Callable[[], bool], act: Callable[[], object] = lambda: None, within: float = 20.0
) -> None:
    """Repeat `act` until `condition` holds. The bound is only there to fail instead of hanging."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        act()
        time.sleep(0.01)


def latest(run: Run) -> Attempt:
    run.refresh_from_db()
    return run.attempts.select_related("run").latest("index")


def status(run: Run) -> str:
    return latest(run).status


def drive(run: Run, to: str | None = None, within: float = 20.0) -> Attempt:
    """Let the control loop run, on the timer alone, until a run has the status `to` (or has ended)."""

    def there() -> bool:
        now = status(run)
        return now == to if to else now in TERMINAL

    until(there, lambda: sweep(run.cluster_id), within)
    return latest(run)


def statuses(attempt: Attempt) -> list[str]:
    """The statuses that an attempt went through, in order; checks that they join without gap."""
    rows = list(attempt.lifecycle.order_by("id"))
    for earlier, later in pairwise(rows):
        assert earlier.left_at == later.entered_at
    return [row.status for row in rows]
