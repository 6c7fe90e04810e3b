"""What the client shows of a run that was deleted, and of one whose logs are gone."""

from __future__ import annotations

import subprocess
import sys

from tests.client.real import Client
from tests.stack import ROOT, Stack

PURGE = """
from datetime import timedelta
from django.utils import timezone
from runs.control.purge import due, purge
from runs.models import Run
Run.objects.filter(name={name!r}).update(deleted_at=timezone.now() - timedelta(hours=30))
assert Run.objects.filter(name={name!r}, pk__in=due()).exists() or exit(3)
purge()
"""


def test_a_deleted_run_is_found_when_asked_for_and_its_logs_say_that_they_are_gone(
    stack: Stack, client: Client
) -> None:
    name = client.submit("echo something that is gone soon")
    assert client.wait(name) == "COMPLETED"
    client.mcli("delete", "run", name, "-y")
    assert name not in client.mcli("get", "runs")
    assert name in client.mcli("get", "runs", "--include-deleted")
    assert "something that is gone soon" in client.mcli("logs", name)
    assert name in client.mcli("describe", "run", name)

    # A day later.
    code = PURGE.format(name=name)
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", code]
    for _ in range(60):  # until the run was cleaned up
        done = subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True, text=True)
        if done.returncode != 3:
            break
    assert done.returncode == 0, done.stderr
    assert "it was deleted on" in client.mcli("logs", name, ok=False)
    described = client.mcli("describe", "run", name)
    assert "Completed" in described
    assert "something that is gone soon" not in described
    assert f"Run {name} is deleted" in client.mcli("run", "-r", name, ok=False)
