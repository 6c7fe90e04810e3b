"""Decisions without a database: what is known goes in, one action comes out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.engines.base import Observation, Phase, RankObservation
from runs.control.decide import (
    AwaitLog,
    CleanUp,
    Enqueue,
    Expire,
    Finish,
    Launch,
    Log,
    MarkRunning,
    Nothing,
    Sign,
    Situation,
    Stop,
    Vanished,
    decide,
    judge,
    must_look,
    wants_log,
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


def test_a_lost_launch_that_is_not_in_the_list_yet_is_stopped_before_it_is_given_up() -> None:
    lost = replace(STOPPING, status=Status.STARTING, launched=False)
    assert decide(NOW, lost, GONE) == Stop(30.0)
    told = replace(lost, status=Status.TERMINATING, stop_sent_grace=30.0)
    assert decide(NOW, told, GONE) == Vanished()
    assert isinstance(decide(NOW, replace(told, gone_since=NOW), GONE), Nothing)
    action = decide(NOW + timedelta(seconds=11), replace(told, gone_since=NOW), GONE)
    assert isinstance(action, Finish)
    assert action.ending.reason is Reason.USER_STOPPED


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
    assert (action.again is not None, bool(action.again and action.again.spends_retry)) == (again, spends)


def test_nothing_is_retried_that_somebody_wants_stopped() -> None:
    action = decide(NOW, replace(STOPPING, nodes=1, max_retries=5), seen(exited(0, 1)))
    assert isinstance(action, Finish)
    assert action.again is None


def test_the_pause_before_a_retry_doubles_with_each_automatic_attempt_and_has_an_end() -> None:
    it = replace(RUNNING, nodes=1, max_retries=100)

    def pause(tries: int) -> float:
        action = decide(NOW, replace(it, tries=tries), seen(exited(0, 1)))
        assert isinstance(action, Finish) and action.again is not None
        return action.again.after.total_seconds()

    assert [pause(tries) for tries in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_the_third_failure_alike_within_a_minute_of_starting_is_not_retried() -> None:
    it = replace(RUNNING, nodes=1, max_retries=100, retry_on_system_failure=True, started_at=NOW)
    soon, late = NOW + timedelta(seconds=59), NOW + timedelta(seconds=61)
    for code, watchdog in ((1, False), (None, True)):
        for at, gives_up in ((soon, True), (late, False)):
            observed = seen(replace(exited(0, code), ended_at=at))
            first = decide(at, it, observed)
            assert isinstance(first, Finish) and first.again is not None
            assert first.again.failed_alike == (1 if gives_up else 0)
            third = decide(at, replace(it, failed_with=first.again.failed_with, failed_alike=2), observed)
            assert isinstance(third, Finish)
            assert (third.again is None, "3 times" in third.gave_up) == (gives_up, gives_up), watchdog
    other = decide(
        soon, replace(it, failed_with="Error/1", failed_alike=2), seen(replace(exited(0, 2), ended_at=soon))
    )
    assert isinstance(other, Finish) and other.again is not None and other.again.failed_alike == 1


def test_a_preempted_attempt_goes_back_to_the_queue_and_spends_nothing() -> None:
    it = replace(STOPPING, nodes=1, stop_reason=Reason.PREEMPTED, retries_used=1, tries=3)
    action = decide(NOW, it, seen(exited(0, 143, stopped=True)))
    assert isinstance(action, Finish) and action.again is not None
    assert action.ending.reason is Reason.PREEMPTED
    assert (action.again.after, action.again.spends_retry) == (timedelta(0), False)


def test_one_that_failed_by_itself_while_it_was_to_make_room_is_retried_as_any_failure() -> None:
    it = replace(STOPPING, nodes=1, stop_reason=Reason.PREEMPTED, max_retries=1)
    action = decide(NOW, it, seen(exited(0, 1)))
    assert isinstance(action, Finish) and action.again is not None
    assert (action.ending.reason, action.again.spends_retry) == (Reason.ERROR, True)


def test_an_engine_that_holds_nothing_of_what_it_launched_is_believed_after_a_while() -> None:
    assert decide(NOW, RUNNING, GONE) == Vanished()
    since = replace(RUNNING, gone_since=NOW)
    assert isinstance(decide(NOW + timedelta(seconds=9), since, GONE), Nothing)
    action = decide(NOW + timedelta(seconds=10), since, GONE)
    assert isinstance(action, Finish) and action.ending.reason is Reason.ENGINE_ERROR


OOM = Sign(offset=1000, line=12, text="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")


def test_a_failed_attempt_waits_for_the_log_of_the_first_failed_rank_but_not_for_ever() -> None:
    it = replace(RUNNING, nodes=1, log=Log(size=0, complete=False))
    observed = seen(exited(0, 1))
    action = decide(NOW, it, observed)
    assert isinstance(action, AwaitLog)
    waiting = replace(it, status=Status.TERMINATING, log_due=action.until)
    assert isinstance(decide(NOW + timedelta(seconds=9), waiting, observed), Nothing)
    at_last = decide(NOW + timedelta(seconds=10), waiting, observed)
    assert isinstance(at_last, Finish)
    assert at_last.ending.reason is Reason.ERROR
    assert at_last.ending.evidence["log"] == {"complete": False}


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (Log(2000, True, {Reason.GPU_OUT_OF_MEMORY: OOM}), Reason.GPU_OUT_OF_MEMORY),
        (Log(1000 + 65 * 1024, True, {Reason.GPU_OUT_OF_MEMORY: OOM}), Reason.ERROR),
        (Log(2000, False, {Reason.GPU_OUT_OF_MEMORY: OOM}), Reason.ERROR),
        (
            Log(2000, True, {Reason.GPU_OUT_OF_MEMORY: OOM, Reason.DISK_FULL: replace(OOM, offset=1500)}),
            Reason.DISK_FULL,
        ),
        (Log(2000, True), Reason.ERROR),
    ],
    ids=["at the end", "long before the end", "not the whole log", "the last of two", "nothing said"],
)
def test_what_the_log_of_the_failed_rank_ends_with_may_be_the_reason(log: Log, reason: Reason) -> None:
    it = replace(RUNNING, nodes=1, log=log, status=Status.TERMINATING, log_due=NOW)
    action = decide(NOW, it, seen(exited(0, 1)))
    assert isinstance(action, Finish)
    assert action.ending.reason is reason
    assert ("at line 12" in action.ending.message) == (reason is not Reason.ERROR)


def test_an_engines_own_reason_goes_before_what_a_log_says() -> None:
    killed = replace(exited(0, 137), reason="OutOfMemory")
    assert wants_log(1, seen(killed)) is None
    it = replace(RUNNING, nodes=1, log=Log(2000, True, {Reason.GPU_OUT_OF_MEMORY: OOM}))
    action = decide(NOW, it, seen(killed))
    assert isinstance(action, Finish) and action.ending.reason is Reason.OUT_OF_MEMORY


def test_the_kinds_of_image_pull_failures_are_told_apart() -> None:
    pull = replace(
        exited(0, None), reason="FailedImagePull", case="RateLimit", message="429 Too Many Requests"
    )
    action = decide(NOW, replace(RUNNING, nodes=1, status=Status.STARTING), seen(pull))
    assert isinstance(action, Finish)
    assert action.ending.reason is Reason.FAILED_IMAGE_PULL
    assert action.ending.message == "The registry's rate limit was reached. 429 Too Many Requests"
    assert action.ending.evidence["case"] == "RateLimit"


def test_ranks_that_were_stopped_though_nobody_asked_here_were_stopped_outside() -> None:
    action = decide(NOW, replace(RUNNING, nodes=1), seen(exited(0, 143, stopped=True)))
    assert isinstance(action, Finish) and action.ending.reason is Reason.STOPPED_OUTSIDE


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
