"""Pages as one of the world's people gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client
from django.utils import timezone

from runs.lifecycle import COMPLETED, Outcome, Step, advance, open_streams
from runs.models import Attempt, Run
from runs.states import Reason, Status
from teams.queries import Caller


@pytest.fixture(autouse=True)
def plain_static(settings: LazySettings, tmp_path: Path) -> None:
    """Pages name their static files as they are: nothing was collected and hashed."""
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATIC_ROOT.mkdir()
    backend = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}


def browser(caller: Caller | None = None) -> Client:
    """A browser without JavaScript, logged in as somebody."""
    client = Client()
    if caller is not None:
        client.force_login(caller.user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def htmx(target: str) -> dict[str, str]:
    """The headers of a request that htmx makes for an element."""
    return {"HX-Request": "true", "HX-Target": target}


def as_if(run: Run, *path: Status, because: Reason | None = None, **outcome: Any) -> Attempt:
    """Take a run's attempt through statuses without any engine."""
    attempt = run.attempts.select_related("run").latest("index")
    if Status.STARTING in path:
        open_streams(attempt, ["MAIN"])
    end = None
    if path[-1].terminal:
        end = Outcome.because(because, **outcome) if because else COMPLETED
    advance(attempt, [Step(status, timezone.now()) for status in path], outcome=end)
    run.refresh_from_db()
    return attempt


TO_RUNNING = (Status.QUEUED, Status.STARTING, Status.RUNNING)
TO_FAILED = (*TO_RUNNING, Status.TERMINATING, Status.FAILED)
TO_COMPLETED = (*TO_RUNNING, Status.TERMINATING, Status.COMPLETED)
