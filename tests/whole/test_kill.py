"""kill -9 of every process, one at a time, while runs run and write: nothing is lost, nothing is done twice."""

from __future__ import annotations

import hashlib

import pytest

from tests.client.real import Client
from tests.stack import Stack
from tests.whole.browser import logged_in

WRITES = (
    'for i in $(seq 120); do echo "$RUN_NAME rank $NODE_RANK line $i of 120"; sleep 0.05; done; '
    "echo launched with $RUNYARD_ATTEMPT"
)


def expected(name: str, rank: int) -> list[str]:
    return [f"{name} rank {rank} line {i} of 120" for i in range(1, 121)]


@pytest.mark.parametrize("service", ["web", "worker", "beat", "collector", "valkey", "postgres"])
def test_a_killed_service_comes_back_and_its_runs_never_notice(
    stack: Stack, client: Client, service: str
) -> None:
    runs = [client.submit(WRITES), client.submit(WRITES, compute={"nodes": 2})]
    for name in runs:
        client.wait(name, "RUNNING")
    killed = stack.kill(service)
    stack.wait_back(service, killed)
    for name, ranks in zip(runs, (1, 2), strict=True):
        assert client.wait(name) == "COMPLETED"
        for rank in range(ranks):
            lines = client.logs(name, rank).splitlines()
            assert lines[:-1] == expected(name, rank)
            assert lines[-1].startswith("launched with ")
        described = client.mcli("describe", "run", name)
        assert "Completed" in described


def test_the_parent_killed_comes_back_and_takes_over_what_runs(stack: Stack, client: Client) -> None:
    name = client.submit(WRITES)
    client.wait(name, "RUNNING")
    database = stack.pid("postgres")
    killed = stack.kill("parent")
    stack.wait_back("parent", killed)
    assert stack.pid("postgres") == database
    assert client.wait(name) == "COMPLETED"
    assert client.logs(name).splitlines()[:-1] == expected(name, 0)


def test_what_is_stored_is_what_was_written_by_its_hash(stack: Stack, client: Client) -> None:
    command = "head -c 3000000 /dev/urandom | tee data; sha256sum < data | cut -d' ' -f1 > hash; cat hash >&2"
    name = client.submit(f"{command}; sleep 0.2")
    assert client.wait(name) == "COMPLETED"
    with logged_in(stack) as browser:
        body = browser.get(f"/runs/{name}/log/0/0/MAIN/raw").content
    data, said = body[:3000000], body[3000000:].decode().strip()
    assert hashlib.sha256(data).hexdigest() == said
