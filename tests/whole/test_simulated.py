"""A simulated cluster in a whole console: web, worker and collector are killed, and all see one cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.client.real import ROOT, Client
from tests.stack import Stack

MAKE = """
from pathlib import Path
from clusters.models import Cluster
from clusters.tasks import look_at
from teams.models import Team
config = {"root": str(Path(%r) / "clusters" / "try-sim"), "nodes": [{"name": "n", "count": 64, "gpus": 8, "gpu_type": "h100"}]}
cluster = Cluster.objects.create(name="try-sim", engine="sim", config=config)
cluster.teams.set(Cluster.objects.get(name="local").teams.all())
look_at(cluster)
"""
UNMAKE = "from clusters.models import Cluster; Cluster.objects.get(name='try-sim').teams.clear()"


def shell(stack: Stack, code: str) -> None:
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", code]
    subprocess.run(command, cwd=ROOT, env=stack.environment, check=True, capture_output=True, text=True)


@pytest.fixture
def cluster(stack: Stack) -> Iterator[str]:
    """A simulated cluster of 64 nodes, for as long as the test lasts: others count on there being one cluster."""
    shell(stack, MAKE % stack.environment["RUNYARD_HOME"])
    yield "try-sim"
    shell(stack, UNMAKE)


def test_what_was_killed_finds_the_cluster_as_it_would_be(stack: Stack, client: Client, cluster: str) -> None:
    writes = '# sim: log "line {n} of rank {rank}" every 50ms times 300'
    large = client.submit(f"{writes}; exit 0", compute={"cluster": cluster, "nodes": 40, "gpus": 320})
    fails = client.submit(
        f"{writes}; exit 4 on rank 2; hang", compute={"cluster": cluster, "nodes": 4, "gpus": 32}
    )
    deaf = client.submit("# sim: on term ignore; hang", compute={"cluster": cluster, "nodes": 2, "gpus": 16})
    for name in (large, fails, deaf):
        client.wait(name, "RUNNING")
    for service in ("worker", "collector", "web"):
        killed = stack.kill(service)
        stack.wait_back(service, killed)
    assert (client.wait(large), client.wait(fails)) == ("COMPLETED", "FAILED")
    expected = [f"line {n} of rank {{}}" for n in range(1, 301)]
    for name, ranks in ((large, (0, 17, 39)), (fails, (0, 2))):
        for rank in ranks:
            assert client.logs(name, rank).splitlines() == [line.format(rank) for line in expected]
    assert "exit code 4" in client.mcli("describe", "run", fails).replace("\n", " ")
    assert client.wait(deaf, "RUNNING") == "RUNNING"
    client.mcli("stop", "run", deaf, "-y")
    assert client.wait(deaf) == "STOPPED"
