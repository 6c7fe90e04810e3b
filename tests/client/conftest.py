"""Three people of a team of their own, with a cluster of their own, on the console that all these tests share.

Listings of theirs hold what the tests of one file have made and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.client.real import Client, install
from tests.stack import ROOT, Stack

CLUSTER = "bench"
PEOPLE = """
import json
from pathlib import Path
from teams.commands import add_member, create_api_key, create_team
from teams.queries import Caller
from teams.states import Role
from tests.world import make_cluster, make_user
team = create_team("crew")
cluster = make_cluster(Path({root!r}), {cluster!r}, slots=6, cpus=12, gpus=2, gpu_type="declared")
cluster.teams.add(team)
people = {{}}
for name, role in (("Sia", Role.MEMBER), ("Tom", Role.MEMBER), ("Uma", Role.ADMIN)):
    user = make_user(name)
    add_member(team, user, role)
    people[name.lower()] = create_api_key(Caller(user), team, "session")[1]
print("PEOPLE", json.dumps({{"team": str(team.pk), "keys": people}}))
"""


@dataclass(frozen=True)
class Crew:
    """Sia does what is tested, Tom is in her team, Uma is its admin."""

    team: str
    sia: Client
    tom: Client
    uma: Client


CLEAR = """
import time
from runs import commands
from runs.models import Run
from runs.states import TERMINAL
from teams.queries import Caller
theirs = Run.objects.filter(team__name="crew").select_related("creator", "cluster")
for run in theirs.filter(deleted_at=None):
    commands.delete(Caller(run.creator), run)
end = time.monotonic() + 60
while theirs.exclude(status__in=TERMINAL).exists():
    assert time.monotonic() < end, "runs of the tests before do not end"
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def crew(people: Crew, stack: Stack) -> Iterator[Crew]:
    """Without the runs of the files before."""
    yield people
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", CLEAR]
    subprocess.run(command, cwd=ROOT, env=stack.environment, check=True)


@pytest.fixture(scope="session")
def people(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Crew:
    install()
    code = PEOPLE.format(root=str(stack.home.path / "clusters"), cluster=CLUSTER)
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout.split("PEOPLE ")[1])
    clients = {
        name: Client({**stack.env, "MOSAICML_API_KEY": key}, tmp_path_factory.mktemp(name))
        for name, key in made["keys"].items()
    }
    return Crew(made["team"], **clients)


def flat(text: str) -> str:
    """What was printed, without the way in which it was laid out."""
    return " ".join(text.split())
