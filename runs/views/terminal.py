"""/runs/<name>/terminal: a terminal in a rank of a running run, for those who may change it."""

from __future__ import annotations

from csp.decorators import csp_update
from django.http import Http404
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe

from runs.states import Status
from runs.views.access import get_run, may_change
from teams.views.access import PageRequest, page


# The one exception from the policy: the terminal writes its own style sheet. Hence a page of its own.
@csp_update({"style-src": ["'unsafe-inline'"]})  # type: ignore[arg-type]  # its stub knows views without further arguments only
@require_safe
@page
def show(request: PageRequest, name: str) -> TemplateResponse:
    run = get_run(request, name)
    if not may_change(request, run):
        raise Http404(f"Only the owner of run {name} and admins of its team have terminals in it.")
    attempt = run.attempts.latest("index")
    ranks = range(attempt.nodes)
    wanted = request.GET.get("rank", "0")
    rank = int(wanted) if wanted.isdecimal() and len(wanted) < 10 else -1
    if rank not in ranks:
        raise Http404(f"Run {name} has no rank {wanted}: its ranks are 0 to {attempt.nodes - 1}.")
    context = {
        "run": run,
        "attempt": attempt,
        "rank": rank,
        "several": attempt.nodes > 1,
        "last": attempt.nodes - 1,
        "runs_now": attempt.status == Status.RUNNING,
    }
    return TemplateResponse(request, "runs/terminal.html", context)
