"""The first line of every view of a run."""

from __future__ import annotations

from django.http import Http404

from runs import queries
from runs.models import Attempt, LogStream, Run
from teams.views.access import PageRequest


def get_run(request: PageRequest, name: str) -> Run:
    """The run, if it is one of the caller's teams'. What is not theirs is not there: 404."""
    run = queries.find(request.caller, name)
    if run is None:
        raise Http404(f"There is no run {name!r} in your teams.")
    return run


def get_attempt(request: PageRequest, name: str, attempt: int) -> Attempt:
    """One attempt of a run that the caller may see."""
    found = get_run(request, name).attempts.filter(index=attempt).first()
    if found is None:
        raise Http404(f"Run {name} has no attempt {attempt}.")
    return found


def get_stream(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> LogStream:
    """One log stream of a run that the caller may see, with its attempt."""
    run = get_run(request, name)
    found = (
        LogStream.objects.filter(attempt__run=run, attempt__index=attempt, rank=rank, name=stream)
        .select_related("attempt")
        .first()
    )
    if found is None:
        raise Http404(f"Run {name} has no log {stream} of rank {rank} in attempt {attempt}.")
    return found


def may_change(request: PageRequest, run: Run) -> bool:
    return request.caller.may_change(team_id=run.team_id, owner_id=run.creator_id)


def chosen(attempts: list[Attempt], wanted: str | None) -> Attempt:
    """The attempt that `?attempt=` names; the latest without it."""
    if wanted is None:
        return attempts[-1]
    for attempt in attempts:
        if str(attempt.index) == wanted:
            return attempt
    raise Http404(f"There is no attempt {wanted}.")
