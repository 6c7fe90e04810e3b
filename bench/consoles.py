"""Consoles to measure, each with servers of its own, and what is asked of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg

from tests.stack import ROOT, Stack

CREATE = "mutation($d: CreateRunInput!) { createRun(createRunData: $d) { name } }"


class Console:
    """A console, as many clients and one look into its database."""

    def __init__(self, **environment: str) -> None:
        self.stack = Stack(None, **environment)
        self.stack.start()
        self.endpoint = self.stack.env["MOSAICML_API_ENDPOINT"]
        self._headers = {"Authorization": self.stack.env["MOSAICML_API_KEY"]}
        self._clients = threading.local()
        self._connection: psycopg.Connection | None = None

    def manage(self, code: str) -> str:
        """Run Python in the console's Django; what it printed."""
        return subprocess.run(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
            env=self.stack.environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def resize(self, cluster: str, **config: Any) -> None:
        """Change the configuration of a cluster, and look at it."""
        self.manage(
            "import json; from clusters.models import Cluster; from clusters.tasks import look_at\n"
            f"one = Cluster.objects.get(name={cluster!r}); one.config |= json.loads({json.dumps(config)!r})\n"
            "one.save(update_fields=['config']); look_at(one)"
        )

    def add_sim(self, name: str, **config: Any) -> None:
        given = {"root": str(self.stack.home.path / "clusters" / name), **config}
        self.manage(
            "import json; from clusters.models import Cluster; from clusters.tasks import look_at; from teams.models import Team\n"
            f"one = Cluster.objects.create(name={name!r}, engine='sim', config=json.loads({json.dumps(given)!r}))\n"
            "one.teams.set(Team.objects.all()); look_at(one)"
        )

    def submit(self, cluster: str, command: str, name: str = "bench", **compute: Any) -> str:
        """createRun; its name."""
        run = {
            "runName": name,
            "image": "none",
            "command": command,
            "compute": {"cluster": cluster, **compute},
        }
        answer = (
            self._client()
            .post(self.endpoint, json={"query": CREATE, "variables": {"d": {"runInput": run}}})
            .json()
        )
        made: str = answer["data"]["createRun"][0]["name"]
        return made

    def _client(self) -> httpx.Client:
        """This thread's own."""
        if not hasattr(self._clients, "http"):
            self._clients.http = httpx.Client(headers=self._headers, timeout=60)
        http: httpx.Client = self._clients.http
        return http

    def submit_many(self, count: int, clients: int, cluster: str, command: str, **more: Any) -> list[str]:
        """The same by so many clients at once, no two alike: of requests that are, each waits until the answer to
        the one before was received, as it could be its repetition."""
        with ThreadPoolExecutor(clients) as threads:
            return list(
                threads.map(
                    lambda number: self.submit(cluster, f"{command}  # {number}", **more), range(count)
                )
            )

    def rows(self, query: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.stack.home.database_url, autocommit=True)
        return self._connection.execute(query, values).fetchall()

    def disconnect(self) -> None:
        """Forget connections to servers that were killed."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._clients = None, threading.local()

    def counts(self, cluster: str) -> dict[str, int]:
        """Status → runs of a cluster in it."""
        return dict(
            self.rows(
                "SELECT run.status, count(*) FROM runs_run run JOIN clusters_cluster cluster"
                " ON cluster.id = run.cluster_id WHERE cluster.name = %s GROUP BY 1",
                cluster,
            )
        )

    def close(self) -> None:
        self.disconnect()
        self.stack.stop()
        self.stack.remove()
