"""Scenarios on simulated clusters: engines that lie, and runs larger than a test machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chaos.ground import CREATE, Ground, Simulated

NODES = [{"name": "node", "count": 64, "cpus": 64, "slots": 1}]
FAULTS: Mapping[str, dict[str, Any]] = {
    "away": {"kind": "away", "after": "2s", "for": "8s"},
    "stale": {"kind": "stale", "after": "1s", "for": "12s", "seconds": "3s"},
    "unordered": {"kind": "unordered", "after": "1s", "for": "12s", "seconds": "4s"},
    "late": {"kind": "late", "after": "1s", "for": "12s", "seconds": "2s"},
    "twice": {"kind": "twice", "after": "1s", "for": "12s", "seconds": "3s"},
    "lost": {"kind": "lost replies", "after": "0s", "for": "15s"},
}
ENDS: Mapping[str, tuple[str, int | None, str]] = {
    'log "hello"; run 2s..6s': ("COMPLETED", 0, ""),
    "run 2s; exit 3": ("FAILED", 3, "Error"),
    'run 3s; oom "killed"': ("FAILED", 137, "OutOfMemory"),
    'pull 1s; pull error NotFound "manifest unknown"': ("FAILED", None, "FailedImagePull"),
    'run 2s; fail Evicted "node is under pressure"': ("FAILED", None, "Evicted"),
}


def cluster(ground: Ground, name: str, **config: Any) -> str:
    """Add a simulated cluster, once; its name."""
    given = {"root": str(ground.stack.home.path / "clusters" / name), **config}
    code = (
        "import json; from clusters.models import Cluster; from clusters.tasks import look_at; from teams.models import Team\n"
        f"made, new = Cluster.objects.get_or_create(name={name!r}, defaults=dict(engine='sim', config=json.loads({json.dumps(json.dumps(given))})))\n"
        "made.teams.set(Team.objects.all()); look_at(made)\n"
    )
    ground.manage("shell", "-c", code)
    return name


def submit(ground: Ground, where: str, script: str, nodes: int = 1) -> str:
    command = "\n".join(f"# sim: {statement}" for statement in script.split("; "))
    given = {
        "runName": "sim",
        "image": "none",
        "command": command,
        "compute": {"cluster": where, "nodes": nodes},
    }
    name: str = ground.ask(CREATE, {"runInput": given})[0]["name"]
    return name


def lying_engine(ground: Ground) -> None:
    for kind, fault in FAULTS.items():
        where = cluster(ground, f"sim-{kind}", nodes=NODES, faults=[fault])
        for script, end in ENDS.items():
            for _ in range(2):
                ground.simulated.append(Simulated(submit(ground, where, script), end))


def many_ranks(ground: Ground) -> None:
    where = cluster(ground, "sim-many", nodes=[{"name": "node", "count": 512, "cpus": 64}])
    name = submit(ground, where, "run 2s; exit 9 on rank 17; hang", nodes=512)
    ground.simulated.append(Simulated(name, ("FAILED", 9, "Error"), failed_rank=17))
