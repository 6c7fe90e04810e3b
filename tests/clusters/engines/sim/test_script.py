"""The language of simulated runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.engines.sim import script
from clusters.engines.sim.course import chart, refusal
from clusters.engines.sim.script import Only, parse


def course(text: str, *, rank: int = 0, attempt: int = 0, seed: str = "0", speed: float = 1.0):
    return chart(parse(text), rank=rank, attempt=attempt, environment="A=1\n", seed=seed, speed=speed)


def test_a_script_is_found_in_the_lines_that_say_so_or_in_the_variable() -> None:
    command = "set -e\n# sim: run 5s\n  sim: exit 3\npython train.py # sim: no\n"
    assert script.find(command, {}) == " run 5s\n exit 3"
    assert script.find(command, {"SIM_SCRIPT": "hang"}) == "hang"
    assert script.find("python train.py", {}) == ""


def test_statements_end_with_a_line_or_a_semicolon_but_not_within_a_text() -> None:
    assert parse('log "a; b"; run 1m30s\n\n;exit 2') == (
        script.Log("a; b\n"),
        script.Run(script.span(90)),
        script.Exit(2),
    )


def test_a_statement_may_be_limited_to_ranks_attempts_and_a_share() -> None:
    assert parse("exit 1 on ranks 0,2-4 on attempt 1 chance 12.5%") == (
        script.Exit(1, only=Only(((0, 0), (2, 4)), ((1, 1),), 12.5)),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slep 5s", r"'slep 5s': no such word: slep; allowed are .*hang.*"),
        ("run", "a duration is missing"),
        ("run 5", "is like 500ms, 5s"),
        ("run 5s..2s", "2s is shorter than 5s"),
        ("exit 256", "whole number from 0 to 255"),
        ('log "no end', 'needs a " at both ends'),
        ("log hello", 'a text in "…" is needed, not hello'),
        ("pull error Gone", "allowed are InvalidName, NotFound, NoAccess, RateLimit, Unreachable"),
        ("exit 1 on rank x", "numbers are like 0, 2-5"),
        ("exit 1 chance 101%", "percentage"),
        ("exit 1 sometimes", "sometimes is too much here"),
        ('log "x" every 0s', "needs more than 0s"),
        ('log "x" to gpu 64', "a GPU must be a whole number from 0 to 63, not 64"),
        ("fail nodefailure", "one word such as NodeFailure"),
        ("lose rank", "only a node can be lost"),
        ("on rank 1 exit 2", "stands at its end"),
    ],
)
def test_what_cannot_be_read_is_quoted_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


spans = st.builds(lambda a, b: script.span(a / 8, (a + b) / 8), st.integers(0, 9999), st.integers(0, 99))
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(
    lambda said: "".join(said.splitlines())
)
limits = st.builds(
    Only,
    st.lists(st.tuples(st.integers(0, 9), st.integers(9, 99)), max_size=2).map(tuple),
    st.lists(st.tuples(st.integers(0, 9), st.integers(9, 99)), max_size=2).map(tuple),
    st.sampled_from([100.0, 50.0, 0.5]),
)
statements = st.one_of(
    st.builds(script.Pull, spans, only=limits),
    st.builds(script.PullError, st.sampled_from(sorted(script.CASES)), words, only=limits),
    st.builds(script.Reject, st.just("DoesNotFit"), words, only=limits),
    st.builds(lambda said, only: script.Log(said + "\n", "stderr", only=only), words, limits),
    st.builds(lambda said, n, only: script.Log(said + "\n", every=1.5, times=n, only=only), words, st.integers(2, 9), limits),
    st.builds(lambda said: script.Log(said + "\n", every=0.25, times=None), words),
    st.builds(lambda said, gpu, n: script.Log(said, every=1.5, times=n, gpu=gpu), words, st.integers(0, 63), st.integers(2, 9)),
    st.builds(script.Fill, st.integers(0, 1 << 20), only=limits),
    st.builds(script.Env, only=limits),
    st.builds(script.Run, spans, only=limits),
    st.builds(script.Hang, only=limits),
    st.builds(script.Exit, st.integers(0, 255), only=limits),
    st.builds(script.Fail, st.just("Evicted"), words, st.none() | st.integers(0, 255), only=limits),
    st.builds(script.LoseNode, st.integers(1, 99).map(float), only=limits),
    st.builds(script.OnTerm, ignore=st.just(True), only=limits),
    st.builds(script.OnTerm, code=st.integers(0, 255), after=st.just(1.5), text=words.map(lambda w: w and w + "\n"), only=limits),
)  # fmt: skip


@given(st.lists(statements, max_size=6))
def test_statements_written_down_are_read_back(found: list[script.Statement]) -> None:
    assert parse(script.text(*found)) == tuple(found)


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        parse(text)
    except ValueError as problem:
        assert str(problem)


def test_a_course_follows_from_the_script_and_nothing_else() -> None:
    text = 'pull 1s..9s; log "x"; run 1m..9m; exit 4 chance 50%; run 1s'
    for rank in range(20):
        assert course(text, rank=rank) == course(text, rank=rank)
    assert len({course(text, rank=rank).ends for rank in range(20)}) == 20
    assert {course(text, rank=rank).exit_code for rank in range(20)} == {0, 4}
    assert course(text, seed="1") != course(text, seed="2")


def test_ranks_and_attempts_go_their_own_ways() -> None:
    text = "run 5s; exit 1 on rank 2 on attempt 0; run 10s"
    assert [course(text, rank=rank).ends for rank in range(4)] == [15, 15, 5, 15]
    assert course(text, rank=2, attempt=1).ends == 15


def test_speed_divides_every_duration() -> None:
    it = course('pull 60s; log "x" every 60s times 3; lose node for 10m', speed=60)
    assert (it.starts, it.ends, it.loses_node) == (1, 3, 10)
    assert [at for at, _, _ in it.output(0, 0)] == [1, 2, 3]


def test_what_is_repeated_is_counted_and_placed_in_time() -> None:
    it = course('log "step {n} of rank {rank}, attempt {attempt}" every 2s times 3; err "done"', rank=1)
    assert list(it.output(1, 0)) == [
        (0.0, b"step 1 of rank 1, attempt 0\n", "stdout"),
        (2.0, b"step 2 of rank 1, attempt 0\n", "stdout"),
        (4.0, b"step 3 of rank 1, attempt 0\n", "stdout"),
        (4.0, b"done\n", "stderr"),
    ]
    assert it.ends == 4


def test_an_image_that_is_not_pulled_lets_nothing_begin() -> None:
    it = course("pull 5s; pull error NotFound")
    assert (it.starts, it.ends, it.reason, it.case) == (float("inf"), 5, "FailedImagePull", "NotFound")
    assert it.message


def test_a_refusal_is_of_the_whole_launch() -> None:
    found = refusal(parse('reject DoesNotFit "too large" on attempt 0'), 0, "")
    assert found is not None and (found.reason, found.message) == ("DoesNotFit", "too large")
    assert refusal(parse('reject DoesNotFit "too large" on attempt 0'), 1, "") is None
