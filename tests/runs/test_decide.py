"""Decisions without a database: what is known goes in, one action comes out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.engines.base import Observation, Phase, RankObservation
from runs.control.decide import (
    CleanUp,
    Enqueue,
    Expire,
    Finish,
    Launch,
    MarkRunning,
    Nothing,
    Situation,
    Stop,
    decide,
    judge,
    must_look,
)
from runs.states import HOLDING, Desired, Reason, Status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNNING = Situation(
    Status.RUNNING, nodes=2, launched=True, streams_open=True, desired=Desired.RUNNING, started_at=NOW
)
STOPPING = replace(
    RUNNING, desired=Desired.STOPPED, stop_reason=Reason.USER_STOPPED, stop_message="Stopped by ada"
)


def lives(rank: int) -> RankObservation:
    return RankObservation(rank, Phase.RUNNING, "n1", started_at=NOW)


def exited(rank: int, code: int | None = 0, after: float = 1, **more: object) -> RankObservation:
    end = NOW + timedelta(seconds=after)
    return RankObservation(rank, Phase.EXITED, "n1", code, NOW, end, **more)  # type: ignore[arg-type]


def seen(*ranks: RankObservation) -> Observation:
    return Observation(ranks)


GONE = Observation(gone=True)


def test_a_pending_attempt_is_queued_once_its_back_off_is_over() -> None:
    pending = Situation(
        Status.PENDING, 1, False, False, Desired.RUNNING, not_before=NOW + timedelta(seconds=5)
    )
    assert decide(NOW, pending, None) == Nothing(until=pending.not_before)
    assert decide(NOW + timedelta(seconds=6), pending, None) == Enqueue()


@pytest.mark.parametrize("status", [Status.PENDING, Status.QUEUED])
def test_what_holds_no_node_is_stopped_without_asking_the_engine(status: Status) -> None:
    action = decide(NOW, replace(STOPPING, status=status, launched=False), None)
    assert isinstance(action, Finish)
    assert action.ending.reason is Reason.USER_STOPPED


def test_a_launch_whose_reply_was_lost_is_asked_for_again() -> None:
    starting = replace(RUNNING, status=Status.STARTING, launched=False)
    assert decide(NOW, starting, None) == Launch()
    assert decide(NOW, starting, GONE) == Launch()
    assert decide(NOW, starting, seen(lives(0), lives(1))) == Launch()


def test_a_launch_whose_reply_was_lost_is_not_forgotten_when_it_is_to_stop() -> None:
    lost = replace(STOPPING, status=Status.STARTING, launched=False)
    assert decide(NOW, lost, seen(lives(0), lives(1))) == Stop(30.0)


def test_it_is_running_when_every_rank_has_started() -> None:
    starting = replace(RUNNING, status=Status.STARTING)
    half = seen(lives(0), RankObservation(1, Phase.STARTING))
    assert decide(NOW, starting, half) == Nothing()
    assert decide(NOW, starting, seen(lives(0), lives(1))) == MarkRunning(NOW)


def test_one_failed_rank_ends_the_others() -> None:
    assert decide(NOW, RUNNING, seen(lives(0), exited(1, 5))) == Stop(30.0)
    assert decide(NOW, RUNNING, seen(lives(0), exited(1, 0))) == Nothing()


def test_the_first_rank_to_fail_gives_the_reason_not_the_lowest() -> None:
    ending = judge(
        RUNNING, (exited(0, 1, after=9), exited(1, 7, after=3), exited(2, 143, after=4, stopped=True))
    )
    assert (ending.reason, ending.exit_code, ending.failed_rank) == (Reason.ERROR, 7, 1)
    assert ending.evidence["exit_codes"] == {"0": 1, "1": 7, "2": 143}


def test_a_command_that_exited_well_before_term_has_completed_although_a_stop_was_wanted() -> None:
    action = decide(NOW, STOPPING, seen(exited(0), exited(1)))
    assert isinstance(action, Finish)
    assert action.ending.reason is None


def test_whatever_ends_after_term_was_stopped() -> None:
    action = decide(NOW, STOPPING, seen(exited(0, 0, stopped=True), exited(1, 143, stopped=True)))
    assert isinstance(action, Finish)
    assert action.ending.reason is Reason.USER_STOPPED


def test_an_exit_that_nobody_saw_is_never_guessed() -> None:
    ending = judge(RUNNING, (exited(0), exited(1, None)))
    assert ending.reason is Reason.ENGINE_ERROR


def test_a_bare_137_is_an_error_and_not_out_of_memory() -> None:
    ending = judge(RUNNING, (exited(0, 137),))
    assert ending.reason is Reason.ERROR
    assert "memory, a time limit or a person" in ending.message


def test_a_second_stop_may_shorten_the_grace_but_is_not_sent_twice() -> None:
    told = replace(STOPPING, status=Status.TERMINATING, stop_sent_grace=30.0)
    assert decide(NOW, told, seen(lives(0), lives(1))) == Nothing()
    assert decide(NOW, replace(told, stop_grace=1.0), seen(lives(0), lives(1))) == Stop(1.0)


def test_max_duration_is_an_intent_of_the_system() -> None:
    limited = replace(RUNNING, max_duration_seconds=60)
    both = seen(lives(0), lives(1))
    assert decide(NOW, limited, both) == Nothing(until=NOW + timedelta(seconds=60))
    assert decide(NOW + timedelta(seconds=60), limited, both) == Expire()


def test_nothing_is_concluded_from_not_seeing() -> None:
    assert not must_look(replace(RUNNING, status=Status.QUEUED))
    for status in HOLDING:
        assert decide(NOW, replace(RUNNING, status=status), None) == Nothing()


def test_an_attempt_is_cleaned_up_only_when_its_logs_are_sealed() -> None:
    ended = replace(RUNNING, status=Status.COMPLETED)
    assert decide(NOW, ended, None) == Nothing()
    assert decide(NOW, replace(ended, streams_open=False), None) == CleanUp()


@pytest.mark.parametrize(
    ("code", "retries", "used", "watchdog", "again", "spends"),
    [
        (1, 0, 0, False, False, False),
        (1, 2, 1, False, True, True),
        (1, 2, 2, False, False, False),
        (1, 0, 0, True, False, False),
        (None, 0, 0, True, True, False),
        (None, 1, 0, False, True, True),
    ],
)
def test_who_is_retried(
    code: int | None, retries: int, used: int, watchdog: bool, again: bool, spends: bool
) -> None:
    it = replace(RUNNING, nodes=1, max_retries=retries, retries_used=used, retry_on_system_failure=watchdog)
    action = decide(NOW, it, seen(exited(0, code)))
    assert isinstance(action, Finish)
    assert (action.retry_in is not None, action.spends_retry) == (again, spends)


def test_nothing_is_retried_that_somebody_wants_stopped() -> None:
    action = decide(NOW, replace(STOPPING, nodes=1, max_retries=5), seen(exited(0, 1)))
    assert isinstance(action, Finish)
    assert action.retry_in is None


ranks = st.builds(
    RankObservation,
    rank=st.integers(0, 3),
    phase=st.sampled_from(Phase),
    exit_code=st.none() | st.integers(0, 255),
    started_at=st.none() | st.just(NOW),
    ended_at=st.none() | st.just(NOW),
    reason=st.none() | st.sampled_from(["OutOfMemory", "NodeFailure", "something new"]),
    stopped=st.booleans(),
)


@given(
    status=st.sampled_from(Status),
    desired=st.sampled_from(Desired),
    launched=st.booleans(),
    observation=st.none()
    | st.builds(Observation, ranks=st.lists(ranks, max_size=4).map(tuple), gone=st.booleans()),
)
def test_every_situation_has_an_answer_that_its_status_allows(
    status: Status, desired: Desired, launched: bool, observation: Observation | None
) -> None:
    action = decide(NOW, replace(RUNNING, status=status, desired=desired, launched=launched), observation)
    if status.terminal:
        assert isinstance(action, Nothing | CleanUp)
    if isinstance(action, Stop | Launch | MarkRunning | Expire):
        assert status in HOLDING
    if isinstance(action, Enqueue):
        assert status is Status.PENDING
