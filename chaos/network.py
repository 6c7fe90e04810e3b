"""Scenarios on a console whose only way to PostgreSQL and Valkey is a bad network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from chaos.faults import for_a_while
from chaos.ground import Ground
from chaos.proxy import Proxy, Weather

RESUMES = 60.0
"""Seconds after a fault within which a run that is submitted then has to end: a hung client gives up before."""


@contextmanager
def weather(now: Weather, proxies: Sequence[Proxy]) -> Iterator[None]:
    with ExitStack() as stack:
        for proxy in proxies:
            stack.enter_context(proxy.weather(now))
        yield


def slow(ground: Ground) -> None:
    """Late answers delay, and nothing more: runs are submitted, start and end meanwhile."""
    with weather(Weather(delay=0.1), ground.network.proxies):
        ground.mixture(6, lines=5)
        ground.until(ground.all_ended, "every run has ended in spite of 200 ms", 120)


def lossy(ground: Ground) -> None:
    with weather(Weather(reset=0.05), ground.network.proxies):
        ground.mixture(8, lines=30)
        for_a_while(10)
    resumes(ground)


def gone(ground: Ground) -> None:
    """Half-open: whoever is connected is told nothing, neither then nor after."""
    _cut_off(ground, Weather(silent=True))


def answers_lost(ground: Ground) -> None:
    _cut_off(ground, Weather(swallowed="answers"))


def requests_lost(ground: Ground) -> None:
    _cut_off(ground, Weather(swallowed="requests"))


def _cut_off(ground: Ground, how: Weather) -> None:
    """Both servers, one alone, the other alone: while runs start, run and end."""
    postgres, valkey = ground.network.proxies
    for cut in ([postgres, valkey], [postgres], [valkey]):
        ground.mixture(4, lines=100)
        ground.running(2)
        with weather(how, cut):
            for_a_while(10)
        resumes(ground)


def resumes(ground: Ground) -> None:
    """A run that is submitted now ends soon: web, worker and collector all have found their servers again."""
    began = time.monotonic()
    job = ground.submit(lines=1)
    ask = (
        "SELECT count(*) AS n FROM runs_run run JOIN runs_attempt attempt ON attempt.run_id = run.id"
        " JOIN runs_logstream stream ON stream.attempt_id = attempt.id"
        " WHERE run.name = %s AND run.status = 'COMPLETED' AND stream.ended_at IS NOT NULL"
    )
    ground.until(
        lambda: ground.rows(ask, job.name)[0]["n"] > 0, f"{job.name} has ended after the fault", RESUMES
    )
    ground.notes.append(f"resumed after {time.monotonic() - began:.1f} s")
