"""The card that says why an attempt ended: what was seen, where, and what to do; nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from runs.lifecycle import Outcome, Step, advance, create_next_attempt, open_streams
from runs.logs import store
from runs.models import LogStream, NodeState, Run, RunEvent
from runs.reasons import IMAGE_PULL
from runs.states import ImagePullCase, Reason, Status
from runs.views.failure import Failure
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_FAILED, TO_RUNNING, as_if, browser
from tests.world import World, latest, make_run

TRACEBACK = b'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: <boom>\n'


def fail(run: Run, because: Reason = Reason.ERROR, **outcome: Any) -> None:
    end = Outcome.because(because, **outcome)
    advance(latest(run), [Step(Status.TERMINATING), Step(end.status)], outcome=end)


def two_ranks(world: World, log: bytes = b"one\n" + TRACEBACK + b"later\n", **outcome: Any) -> Run:
    """Rank 1 fails first, rank 0 is stopped for it."""
    run = make_run(world.ada, nodes=2)
    attempt = as_if(run, *TO_RUNNING)
    write(run, b"fine\n", rank=0, end=True)
    write(run, log, rank=1, end=True)
    codes: dict[int, dict[str, Any]] = {0: {"exit_code": 143, "stopped": True}, 1: {"exit_code": 1}}
    for rank, fields in codes.items():
        NodeState.objects.filter(attempt=attempt, rank=rank).update(phase="exited", node=f"n{rank}", **fields)
    outcome.setdefault("evidence", {"exit_codes": {"0": 143, "1": 1}, "node": "n1", "engine": ""})
    fail(run, exit_code=1, failed_rank=1, **outcome)
    return run


def card(world: World, run: Run, query: str = "") -> tuple[Failure, str]:
    response = browser(world.ada).get(f"/runs/{run.name}{query}")
    return response.context["failure"], response.content.decode()


def test_it_shows_rank_node_exit_codes_and_the_first_traceback_with_its_line(world: World) -> None:
    failure, page = card(world, two_ranks(world))
    assert failure.where == "Rank 1 on n1"
    assert [(group.ranks, group.text) for group in failure.exits] == [
        ("Rank 1", "exit code 1"),
        ("Rank 0", "exit code 143: killed by SIGTERM (stopped in consequence)"),
    ]
    assert failure.traceback is not None
    assert failure.traceback.text == TRACEBACK.decode().rstrip("\n")
    assert (failure.traceback.rank, failure.traceback.line) == (1, 2)
    assert 'href="?attempt=0&amp;rank=1#L2"' in page
    assert "ValueError: &lt;boom&gt;" in page
    assert 'href="/reasons/Error"' in page
    assert "Not retried: max_retries was 0." in page


def test_ranks_that_ended_alike_are_said_once(world: World) -> None:
    run = make_run(world.ada, nodes=6)
    attempt = as_if(run, *TO_RUNNING)
    states = NodeState.objects.filter(attempt=attempt)
    states.update(phase="exited", exit_code=143, stopped=True)
    states.filter(rank__in=[0, 4]).update(exit_code=0, stopped=False)
    states.filter(rank=2).update(exit_code=1, stopped=False)
    fail(run, exit_code=1, failed_rank=2)
    failure, _ = card(world, run)
    assert [group.ranks for group in failure.exits] == ["Rank 2", "Ranks 0, 4", "Ranks 1, 3, 5"]


def test_a_sign_in_the_log_is_shown_with_its_line(world: World) -> None:
    sign = {"offset": 4, "line": 2, "text": "torch.OutOfMemoryError: CUDA out of memory."}
    evidence = {"exit_codes": {"0": 143, "1": 1}, "log": {"complete": True, "sign": sign}}
    run = two_ranks(world, because=Reason.GPU_OUT_OF_MEMORY, evidence=evidence)
    failure, page = card(world, run)
    assert failure.sign is not None
    assert "torch.OutOfMemoryError: CUDA out of memory." in page
    assert "Lower the batch size" in page


def test_without_a_traceback_it_shows_the_last_line_and_says_so(world: World) -> None:
    failure, page = card(world, two_ranks(world, b"one\nbash: nvcc: not found\n\n"))
    assert failure.traceback is None
    assert failure.last_words is not None
    assert (failure.last_words.line, failure.last_words.text) == (2, "bash: nvcc: not found")
    assert "there is no Python traceback" in page


def test_of_several_streams_of_a_rank_the_cause_is_shown_and_not_its_consequence(world: World) -> None:
    consequence = TRACEBACK.replace(b"ValueError: <boom>", b"torch.errors.ChildFailedError:")
    run = two_ranks(world, consequence)
    attempt = latest(run)
    LogStream.objects.create(attempt=attempt, rank=1, name="gpu-1")
    stream = attempt.log_streams.get(name="gpu-1")
    writer = store.Writer(store.location(stream), 0)
    writer.append(b"x\n" + TRACEBACK, [])
    writer.finish()
    writer.close()
    LogStream.objects.filter(pk=stream.pk).update(committed=writer.offset, findings=writer.findings)
    failure, _ = card(world, run)
    assert failure.traceback is not None
    assert failure.traceback.url == "?attempt=0&rank=1&stream=gpu-1#L2"
    assert failure.traceback.text.endswith("ValueError: <boom>")


def test_a_long_traceback_is_shortened_in_its_middle(world: World) -> None:
    frames = b"".join(b'  File "a.py", line %d, in f\n    f()\n' % i for i in range(2000))
    log = b"Traceback (most recent call last):\n" + frames + b"RecursionError: too deep\n"
    failure, page = card(world, two_ranks(world, log))
    assert failure.traceback is not None
    assert failure.traceback.cut
    assert failure.traceback.text.startswith("Traceback")
    assert failure.traceback.text.endswith("RecursionError: too deep")
    assert ", shortened" in page


def test_colours_and_control_characters_do_not_reach_the_page(world: World) -> None:
    log = TRACEBACK.replace(b"ValueError", b"\x1b[1;35mValueError\x1b[0m").replace(b">", b">\x07\x00")
    failure, _ = card(world, two_ranks(world, log))
    assert failure.traceback is not None
    assert failure.traceback.text.endswith("ValueError: <boom>")


def test_a_log_that_is_gone_costs_the_card_nothing_but_its_text(world: World) -> None:
    run = two_ranks(world)
    for _, path in store.location(latest(run).log_streams.get(rank=1)).segments():
        path.unlink()
    failure, _ = card(world, run)
    assert failure.traceback is not None
    assert failure.traceback.text == "ValueError: <boom>"


def test_what_the_engine_said_is_shown_as_its_own_words(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    said = "oom_kill 1 in memory.events"
    fail(run, Reason.OUT_OF_MEMORY, exit_code=137, failed_rank=0,
         evidence={"exit_codes": {"0": 137}, "engine": said})  # fmt: skip
    failure, page = card(world, run)
    assert failure.engine == said
    assert "The engine says" in page
    assert "Ask for more memory" in page


@pytest.mark.parametrize("case", list(ImagePullCase))
def test_each_case_of_an_image_that_was_not_pulled_has_its_own_remedy(
    world: World, case: ImagePullCase
) -> None:
    run = make_run(world.ada)
    as_if(run, Status.QUEUED, Status.STARTING)
    fail(run, Reason.FAILED_IMAGE_PULL, evidence={"engine": "manifest unknown", "case": str(case)})
    failure, page = card(world, run)
    assert (failure.sentence, failure.remedy) == IMAGE_PULL[case]
    assert "manifest unknown" in page
    assert "Not retried: what failed for this reason would fail again." in page


def test_a_crash_loop_says_why_it_was_not_retried(world: World) -> None:
    run = two_ranks(world)
    RunEvent.objects.create(
        run=run, attempt=latest(run), type="RETRIES_STOPPED", message="Not retried: three alike"
    )
    assert card(world, run)[0].again == "Not retried: three alike"


def test_an_attempt_that_was_retried_does_not_say_that_it_was_not(world: World) -> None:
    run = two_ranks(world)
    create_next_attempt(run, actor="test")
    assert card(world, run)[0] is None
    assert card(world, run, "?attempt=0")[0].again == ""


def test_exit_code_137_alone_is_never_called_lack_of_memory(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_FAILED, because=Reason.ERROR, exit_code=137, failed_rank=0)
    _, page = card(world, run)
    assert "killed from outside (SIGKILL): memory, a time limit or a person" in page
    assert "OutOfMemory" not in page


def test_who_stopped_a_run_is_told_and_its_ranks_did_not_fail(world: World) -> None:
    run = make_run(world.ada, nodes=4)
    attempt = as_if(run, *TO_RUNNING)
    NodeState.objects.filter(attempt=attempt).update(phase="exited", exit_code=143, stopped=True)
    fail(run, Reason.USER_STOPPED, message="Stopped by ada@example.com: lunch", evidence={"exit_codes": {}})
    failure, page = card(world, run)
    assert failure.message == "Stopped by ada@example.com: lunch"
    assert [(group.ranks, group.text) for group in failure.exits] == [
        ("Ranks 0–3", "exit code 143: killed by SIGTERM (stopped)")
    ]
    assert f"<code>mcli run -r {run.name}</code>" in page
    assert "Not retried" not in page


def test_the_card_of_a_step_that_failed_shows_what_it_wrote(world: World) -> None:
    run = make_run(world.ada)
    attempt = as_if(run, *TO_RUNNING)
    open_streams(attempt, ["setup"])
    lines = [f"line {number}" for number in range(1, 31)]
    write(run, ("\n".join(lines) + "\n").encode(), name="setup", end=True)
    write(run, b"", end=True)
    NodeState.objects.filter(attempt=attempt).update(phase="exited", exit_code=128)
    end = Outcome.because(Reason.INTEGRATION_FAILED, "it failed", exit_code=128, failed_rank=0)
    advance(attempt, [Step(Status.TERMINATING), Step(end.status)], outcome=end)
    response = browser(world.ada).get(f"/runs/{run.name}")
    shown = response.context["failure"].setup_output
    assert shown.text == "\n".join(lines[10:])
    assert shown.url == "?attempt=0&rank=0&stream=setup#L11"
    assert "End of the output before the command, rank 0" in response.content.decode()
    assert response.context["failure"].again == "Not retried: max_retries was 0."
