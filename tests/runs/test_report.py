"""What a run says about itself: metadata, events, curves, progress."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from runs import commands, queries
from runs.commands import progress, report
from runs.models import MetricPoint, MetricSeries, Run, RunEvent
from runs.states import Status
from teams.commands import Refused
from tests.runs.views.pages import TO_RUNNING, as_if
from tests.world import World, latest, make_run


@pytest.fixture
def run(world: World) -> Run:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    return run


def events(run: Run, *kinds: str) -> list[tuple[str, str]]:
    found = RunEvent.objects.filter(run=run, actor="training").order_by("at", "id")
    return [(event.type, event.message) for event in found if not kinds or event.type in kinds]


def progress_of(run: Run) -> dict[str, Any]:
    found = latest(run).progress
    assert isinstance(found, dict)
    return found


def say(world: World, run: Run, **metadata: Any) -> None:
    commands.merge_metadata(world.ada, run, {f"mosaicml/{key}": value for key, value in metadata.items()})


@pytest.mark.parametrize(
    ("text", "inner", "share"),
    [
        ("[batch=3/10]", None, 0.3),
        ("[epoch=1/2]", "[batch=5/10]", 0.25),
        ("[epoch=2/2]", "[batch=5/10]", 0.75),
        ("[epoch=2/2]", "[batch=10/10]", 1.0),
        ("[epoch=2/2]", "[batch=0/10]", 1.0),
        ("[epoch=1/4]", "[batch=10/10]", 0.25),
        ("[epoch=3/4]", None, 0.75),
        ("[token=50000/100000]", None, 0.5),
        ("[sample=0/8]", None, 0.0),
    ],
)
def test_how_much_is_done_is_read_from_what_composer_writes(
    text: str, inner: str | None, share: float
) -> None:
    found = progress.progress({progress.PROGRESS: text, progress.SUB_PROGRESS: inner})
    assert found is not None
    assert found.share == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["", "[batch=3]", "[batch=3/0]", "[batch=11/10]", "[batch=1.2.3/4]", 3, None, ["x"]]
)
def test_what_is_no_progress_is_none(text: Any) -> None:
    assert progress.progress({progress.PROGRESS: text}) is None


def test_the_end_is_estimated_from_the_pace_since_the_beginning() -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    now = begun + timedelta(hours=1)
    assert progress.estimated_end(begun, 0.0, now, 0.25) == now + timedelta(hours=3)
    assert progress.estimated_end(begun, 0.5, now, 0.75) == now + timedelta(hours=1)
    assert progress.estimated_end(begun, 0.5, now, 0.5) is None
    assert progress.estimated_end(begun, 0.0, begun, 0.5) is None


def test_progress_and_its_end_are_those_of_the_attempt(world: World, run: Run) -> None:
    say(world, run, training_progress="[batch=1/100]")
    say(world, run, training_progress="[batch=50/100]")
    attempt = latest(run)
    assert (progress_of(run)["text"], progress_of(run)["share"]) == ("[batch=50/100]", 0.5)
    assert attempt.estimated_end_at is not None and attempt.started_at is not None
    assert attempt.estimated_end_at >= attempt.started_at


def test_a_training_that_goes_on_from_a_checkpoint_is_measured_from_there(world: World, run: Run) -> None:
    say(world, run, training_progress="[batch=60/100]")
    assert latest(run).estimated_end_at is None
    say(world, run, training_progress="[batch=70/100]")
    assert progress_of(run)["since_share"] == 0.6
    say(world, run, training_progress="[batch=10/100]")
    assert progress_of(run)["since_share"] == 0.1


def test_composers_keys_become_events_each_once(world: World, run: Run) -> None:
    for _ in range(2):
        say(world, run, model_initialized_time=1700000000.5)
        for batch in (0, 3, 12, 13, 55, 100):
            say(world, run, training_progress=f"[batch={batch}/100]")
        say(world, run, train_finished_time=1700000009.5, training_progress="[batch=100/100]")
        say(world, run, exception={"class": "ValueError", "message": "no [such] thing"})
    assert events(run) == [
        ("MODEL_INITIALIZED", "Model initialized"),
        ("TRAIN_STARTED", "Training started"),
        ("TRAIN_UPDATED", "Training at batch=12/100"),
        ("TRAIN_UPDATED", "Training at batch=55/100"),
        ("TRAIN_UPDATED", "Training at batch=100/100"),
        ("TRAIN_FINISHED", "Training finished"),
        ("FAILED_EXCEPTION", "ValueError: no [such] thing"),
    ]


def test_the_next_attempt_has_events_and_progress_of_its_own(world: World, run: Run) -> None:
    say(world, run, training_progress="[batch=50/100]")
    as_if(run, Status.TERMINATING, Status.COMPLETED)
    commands.restart(world.ada, run)
    assert latest(run).progress is None
    say(world, run, loss=1.0)
    assert latest(run).progress is None
    say(world, run, training_progress="[batch=0/100]")
    assert [kind for kind, _ in events(run)] == ["TRAIN_STARTED", "TRAIN_STARTED"]
    assert {e.attempt.index for e in RunEvent.objects.filter(run=run, type="TRAIN_STARTED") if e.attempt} == {
        0,
        1,
    }


def test_numbers_become_curves_and_nothing_else_does(world: World, run: Run) -> None:
    commands.merge_metadata(
        world.ada, run,
        {"loss": 2, "lr": 0.5, "flag": True, "note": "x", "nan": "NaN", "list": [1], "init_time": 1.7e9},
    )  # fmt: skip
    commands.merge_metadata(world.ada, run, {"loss": 1.5, "nan": "Infinity"})
    found = {key: [value for _, _, value in points] for key, points in queries.metrics(run).items()}
    assert found == {"loss": [2.0, 1.5], "lr": [0.5]}
    run.spec.refresh_from_db()
    assert run.spec.metadata["nan"] == "Infinity"


def test_a_curve_keeps_its_shape_in_a_bounded_number_of_points(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MOST_POINTS", 16)
    for step in range(200):
        commands.merge_metadata(world.ada, run, {"step": step})
    values = [value for _, _, value in queries.metrics(run)["step"]]
    assert len(values) <= 16
    assert values[0] == 0
    assert values[-1] >= 180
    steps = {later - earlier for earlier, later in pairwise(values)}
    assert len(steps) == 1  # As dense at the beginning as at the end.
    series = MetricSeries.objects.get()
    assert series.kept == MetricPoint.objects.count() == len(values)


def test_curves_of_attempts_lie_beside_each_other(world: World, run: Run) -> None:
    say(world, run, loss=2.0)
    as_if(run, Status.TERMINATING, Status.COMPLETED)
    commands.restart(world.ada, run)
    say(world, run, loss=1.0)
    assert [(index, value) for index, _, value in queries.metrics(run)["mosaicml/loss"]] == [
        (0, 2.0),
        (1, 1.0),
    ]


def test_an_event_of_ones_own_is_kept_as_it_was_said(world: World, run: Run) -> None:
    event = commands.create_event(
        world.ada, run, "checkpoint_saved", {"message": "step 300", "path": "s3://x"}
    )
    assert (event.type, event.message, event.data["path"]) == ("CHECKPOINT_SAVED", "step 300", "s3://x")
    assert event.attempt == latest(run)


def test_events_have_limits_and_are_for_those_who_may(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, data, said in (
        ("", None, "eventType"),
        ("x" * 41, None, "eventType"),
        ("A", "x" * 10**5, "eventData"),
    ):
        with pytest.raises(Refused, match=said):
            commands.create_event(world.ada, run, kind, data)
    with pytest.raises(Refused, match="may not"):
        commands.create_event(world.bob, run, "A", None)
    monkeypatch.setattr(report, "MOST_EVENTS", RunEvent.objects.filter(run=run).count())
    with pytest.raises(Refused, match="already"):
        commands.create_event(world.ada, run, "A", None)


def test_metadata_beyond_the_limits_change_nothing(world: World, run: Run) -> None:
    commands.merge_metadata(world.ada, run, {f"k{n}": n for n in range(200)})
    with pytest.raises(Refused, match="201 keys"):
        commands.merge_metadata(world.ada, run, {"more": 1})
    assert "more" not in queries.metrics(run)
