"""Opening terminals in runs: who may, in what, and the record of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clusters.engines.base import MAIN
from runs import queries
from runs.models import Attempt, Run
from runs.states import TERMINAL, Status
from teams import audit
from teams.commands import Refused
from teams.queries import Caller


@dataclass(frozen=True)
class Visit:
    """Somebody at a terminal in one rank of an attempt."""

    caller: Caller
    run: Run
    attempt: Attempt
    rank: int
    container: str


def enter(caller: Caller, name: str, rank: int, *, container: str = MAIN, shell: bool = True) -> Visit:
    """Let somebody into a running run. Whoever sits in a run can do what it can, so it takes the right to change it.

    `shell` false = for one command; which one is not recorded, for it may hold secrets. Raises `Refused`.
    """
    run = queries.find(caller, name)
    if run is None:
        raise Refused(f"Could not find run: {name}", code=404, field="name")
    if not caller.may_change(team_id=run.team_id, owner_id=run.creator_id):
        raise Refused(
            f"You may not open a terminal in run {name}: it is {run.creator.email}'s, and that takes the role admin "
            "(or, for a key, the scope write).",
            code=403,
        )
    attempt = run.attempts.select_related("cluster").latest("index")
    status = Status(attempt.status)
    if status in TERMINAL:
        raise Refused(f"Run {name} has ended ({status}).", code=409, field="status")
    if status is not Status.RUNNING:
        raise Refused(
            f"Run {name} is {status}; a terminal opens while it is RUNNING.", code=409, field="status"
        )
    if not 0 <= rank < attempt.nodes:
        raise Refused(f"Run {name} has no rank {rank}: its ranks are 0 to {attempt.nodes - 1}.", field="rank")
    visit = Visit(caller, run, attempt, rank, container)
    _record(visit, "terminal.opened", shell=shell)
    return visit


def leave(visit: Visit, *, seconds: float, why: str) -> None:
    """It has ended, or never came to be, `seconds` after it was asked for."""
    _record(visit, "terminal.closed", seconds=round(seconds, 3), why=why)


def may_stay(visit: Visit) -> str:
    """Empty, or why it has to end: its attempt is over, or the right to it is gone."""
    if Attempt.objects.values_list("status", flat=True).get(pk=visit.attempt.pk) in TERMINAL:
        return f"Run {visit.run.name} has ended."
    caller = replace(visit.caller)  # Its roles are of now.
    if not caller.may_change(team_id=visit.run.team_id, owner_id=visit.run.creator_id):
        return f"You may not use run {visit.run.name} any more."
    return ""


def _record(visit: Visit, action: str, **data: object) -> None:
    audit.record(
        visit.caller,
        action,
        visit.run.name,
        team_id=visit.run.team_id,
        attempt=visit.attempt.index,
        rank=visit.rank,
        container=visit.container,
        **data,
    )
