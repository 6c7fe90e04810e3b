"""Delete, bring back, purge: at once off every list, back for a day, and then gone but for a record."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from clusters.engines import failpoints
from runs import commands
from runs.control import purge
from runs.logs import store
from runs.models import Attempt, LogStream, Run, RunEvent
from runs.states import Reason, Status
from teams.commands import Refused
from teams.models import AuditEntry
from tests.runs.graphql.asking import API, Failed, Socket, new_key, serve
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_RUNNING, as_if, browser, plain_static
from tests.world import World, drive, latest, make_run, until

__all__ = ["plain_static"]
FAILED = (*TO_RUNNING, Status.TERMINATING, Status.FAILED)


def failed_run(world: World, text: bytes = b"secret of the team\n") -> Run:
    run = make_run(world.ada, env={"TOKEN": "x"}, metadata={"note": "y"})
    as_if(run, *TO_RUNNING)
    write(run, text, end=True)
    as_if(
        run, Status.TERMINATING, Status.FAILED, because=Reason.ERROR, message="It said: secret", exit_code=3
    )
    run.attempts.update(cleaned_at=timezone.now())
    return run


def deleted(run: Run, hours: float) -> Run:
    """Deleted so long ago."""
    Run.objects.filter(pk=run.pk).update(deleted_at=timezone.now() - timedelta(hours=hours))
    run.refresh_from_db()
    return run


def folder(run: Run) -> Path:
    return store.location(LogStream.objects.get(attempt__run=run)).folder.parent


def test_a_live_run_is_stopped_and_off_the_list_at_once(world: World) -> None:
    run = make_run(world.ada, "sleep 600")
    drive(run, Status.RUNNING)
    ada = API(new_key(world.ada, world.vision))
    ada.change("deleteRuns", run.name)
    assert ada.names() == []
    assert ada.names(includeDeleted=True) == [run.name]
    attempt = drive(run)
    assert (attempt.status, attempt.reason) == (Status.STOPPED, Reason.RUN_DELETED)
    actions = AuditEntry.objects.values_list("action", flat=True)
    assert {"run.deleted", "run.stop_requested"} <= set(actions)


def test_it_can_be_brought_back_for_a_day(world: World) -> None:
    run = deleted(failed_run(world), 23.9)
    assert purge.purge() == 0
    commands.undelete(world.ada, run)
    assert run.deleted_at is None
    commands.undelete(world.ada, run)
    assert RunEvent.objects.filter(run=run, type="UNDELETED").count() == 1
    with pytest.raises(Refused, match="more than 24 hours ago"):
        commands.undelete(world.ada, deleted(run, 24.01))


def test_after_that_its_logs_and_texts_go_and_a_record_stays(world: World) -> None:
    run = deleted(failed_run(world), 24.2)
    where = folder(run)
    assert where.exists()
    assert purge.purge() == 1
    assert not where.exists()
    run.refresh_from_db()
    assert (run.spec.submitted, run.spec.command, run.spec.env, run.spec.metadata) == ({}, "", {}, {})
    attempt = latest(run)
    assert (attempt.status, attempt.reason, attempt.exit_code) == (Status.FAILED, Reason.ERROR, 3)
    assert (attempt.message, attempt.evidence) == ("", {})
    assert [row.status for row in attempt.lifecycle.order_by("id")] == ["PENDING", *FAILED]
    entry = AuditEntry.objects.get(action="run.purged")
    assert (entry.actor, entry.target) == ("system", run.name)
    assert purge.purge() == 0  # once
    with pytest.raises(Refused, match="Its row stays"):
        commands.undelete(world.ada, run)
    with pytest.raises(Refused, match="deleted for good"):
        commands.merge_metadata(world.ada, run, {"a": 1})


@pytest.mark.parametrize("place", ["purge.logs_removed", "purge.texts_removed"])
def test_a_purge_that_died_is_taken_up_again(
    world: World, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = deleted(failed_run(world), 25)
    where = folder(run)

    def die(name: str) -> None:
        if name == place:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reached", die)
        with pytest.raises(KeyboardInterrupt):
            purge.purge()
    run.refresh_from_db()
    assert Run.objects.filter(pk=run.pk, purged_at=None).exists()
    assert run.spec.command
    assert purge.purge() == 1
    run.refresh_from_db()
    assert run.purged_at is not None
    assert not where.exists()


def test_what_is_live_or_not_cleaned_up_is_left_alone(world: World) -> None:
    running, held = make_run(world.ada), failed_run(world)
    as_if(running, *TO_RUNNING)
    held.attempts.update(cleaned_at=None)
    for run in (running, held):
        deleted(run, 100)
    assert purge.purge() == 0
    Attempt.objects.filter(run=held).update(cleaned_at=timezone.now())
    assert purge.purge() == 1
    assert not Run.objects.filter(pk=running.pk, purged_at__isnull=False).exists()


def test_a_disk_that_refuses_does_not_hold_up_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = deleted(failed_run(world), 50), deleted(failed_run(world), 49)
    remove, bad = store.remove, latest(first).pk

    def refuse(attempt: object) -> None:
        if attempt == bad:
            raise OSError(5, "Input/output error")
        remove(attempt)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(store, "remove", refuse)
        assert purge.purge() == 1
    assert purge.purge() == 1
    assert Run.objects.filter(pk__in=[first.pk, second.pk], purged_at=None).count() == 0


async def test_the_log_of_a_purged_run_says_why_it_is_gone(world: World) -> None:
    from asgiref.sync import sync_to_async

    run = await sync_to_async(failed_run)(world)
    key = await sync_to_async(new_key)(world.ada, world.vision)
    await sync_to_async(deleted)(run, 30)
    await sync_to_async(purge.purge)()
    async with serve() as port, Socket(port, key) as socket, asyncio.timeout(20):
        await socket.logs(run.name)
        with pytest.raises(Failed, match=f"The logs of run {run.name} are gone: it was deleted on"):
            await socket.rest()


def test_the_page_offers_to_bring_it_back_and_says_until_when(world: World) -> None:
    run = failed_run(world)
    ada = browser(world.ada)
    ada.post(f"/runs/{run.name}/delete")
    page = ada.get(f"/runs/{run.name}").content.decode()
    assert "Bring back" in page
    assert "It can be brought back until" in page
    assert "Bring back" not in browser(world.vera).get(f"/runs/{run.name}").content.decode()
    assert run.name not in ada.get("/runs?q=hello").content.decode()
    assert run.name in ada.get("/runs?deleted=1").content.decode()
    assert f"{run.name} is back." in ada.post(f"/runs/{run.name}/undelete", follow=True).content.decode()
    assert run.name in ada.get("/runs").content.decode()


def test_the_page_of_a_purged_run_is_a_record(world: World) -> None:
    run = deleted(failed_run(world), 30)
    purge.purge()
    for tab in ("logs", "ranks", "events", "config"):
        page = browser(world.ada).get(f"/runs/{run.name}?tab={tab}").content.decode()
        assert "Its logs and texts were removed" in page
        assert "It said" not in page
        assert "Bring back" not in page
    posted = browser(world.ada).post(f"/runs/{run.name}/undelete", follow=True).content.decode()
    assert f"more than {settings.RUNYARD_UNDELETE_HOURS} hours ago" in posted


def test_the_task_purges(world: World) -> None:
    from runs.tasks import purge as task

    run = deleted(failed_run(world), 30)
    task()
    until(lambda: Run.objects.filter(pk=run.pk, purged_at__isnull=False).exists())
