"""The attempts of a run on one line of time: what each went through, and how it came to be."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from runs import commands
from runs.lifecycle import Retry, create_next_attempt
from runs.models import Attempt, LifecycleEntry, Run, RunEvent
from runs.states import Reason, Status
from runs.views.timeline import MOST, WIDTH, lanes
from tests.runs.views.pages import TO_FAILED, TO_RUNNING, as_if, browser
from tests.world import World, latest, make_run


def attempts_of(run: Run) -> list[Attempt]:
    return list(run.attempts.order_by("index"))


def failed_and_retried(world: World) -> Run:
    run = make_run(world.ada, max_retries=3)
    as_if(run, *TO_FAILED, because=Reason.ERROR, exit_code=1)
    retry = Retry("Attempt 1 failed (Error): retry 1 of 3", timezone.now(), retries_used=1, tries=1)
    create_next_attempt(run, actor="system", message=retry.message, retry=retry)
    run.refresh_from_db()
    return run


def test_one_attempt_needs_no_lanes(world: World) -> None:
    run = make_run(world.ada)
    assert lanes(run, attempts_of(run), timezone.now()) == []


def test_each_attempt_says_what_it_went_through_and_how_it_came_to_be(world: World) -> None:
    run = failed_and_retried(world)
    first, second = lanes(run, attempts_of(run), timezone.now())
    assert [part.status for part in first.segments] == [
        "PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING"
    ]  # fmt: skip
    assert (first.origin, first.actor) == ("Submitted", "ada@example.com")
    assert (second.origin, second.actor) == ("Attempt 1 failed (Error): retry 1 of 3", "system")
    page = browser(world.ada).get(f"/runs/{run.name}").content.decode()
    assert "Attempt 1 failed (Error): retry 1 of 3" in page
    assert "1 of 3</span> used" in page
    assert 'role="img" aria-label="Pending' in page


def test_who_asked_for_an_end_and_who_restarted_it_is_told(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    commands.stop(world.max, run, message="maintenance")
    as_if(run, Status.TERMINATING, Status.STOPPED, because=Reason.ADMIN_STOPPED)
    commands.restart(world.ada, run)
    first, second = lanes(run, attempts_of(run), timezone.now())
    (remark,) = first.remarks
    assert (remark.title, remark.text, remark.actor) == ("Stop asked for", "maintenance", "max@example.com")
    assert (second.origin, second.actor) == ("Restarted", "ada@example.com")


def test_lanes_follow_each_other_and_idle_time_is_drawn_short(world: World) -> None:
    run = failed_and_retried(world)
    one, two = attempts_of(run)
    start = timezone.now() - timedelta(days=10)
    minute = timedelta(minutes=1)
    Attempt.objects.filter(pk=one.pk).update(created_at=start, started_at=start, ended_at=start + minute)
    Attempt.objects.filter(pk=two.pk).update(created_at=start + timedelta(days=9))
    LifecycleEntry.objects.filter(attempt=one).update(entered_at=start, left_at=start + minute)
    LifecycleEntry.objects.filter(attempt=two).update(entered_at=start + timedelta(days=9))
    first, second = lanes(run, attempts_of(run), start + timedelta(days=9) + minute)
    end = float(first.segments[0].x) + float(first.segments[0].width)
    assert 0.45 * WIDTH < end < float(second.segments[0].x) < 0.55 * WIDTH
    assert float(second.segments[0].x) + float(second.segments[0].width) == WIDTH


def test_everything_that_is_drawn_lies_within_the_drawing(world: World) -> None:
    run = failed_and_retried(world)
    for lane in lanes(run, attempts_of(run), timezone.now()):
        for part in lane.segments:
            assert 0 <= float(part.x) < float(part.x) + float(part.width) <= WIDTH


def test_only_the_newest_of_very_many_are_drawn(world: World) -> None:
    run = make_run(world.ada)
    for _ in range(MOST + 2):
        as_if(run, Status.STOPPED, because=Reason.USER_STOPPED)
        create_next_attempt(run, actor="test")
        run.refresh_from_db()
    drawn = lanes(run, attempts_of(run), timezone.now())
    assert [lane.attempt.index for lane in drawn] == list(range(3, MOST + 3))
    assert "The newest 50 of 53 attempts." in browser(world.ada).get(f"/runs/{run.name}").content.decode()


def test_a_retry_that_was_not_made_is_marked(world: World) -> None:
    run = failed_and_retried(world)
    RunEvent.objects.create(
        run=run, attempt=latest(run), type="RETRIES_STOPPED", message="Not retried: crash loop"
    )
    (remark,) = lanes(run, attempts_of(run), timezone.now())[1].remarks
    assert (remark.title, remark.text) == ("No more retries", "crash loop")
