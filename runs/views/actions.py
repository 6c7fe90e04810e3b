"""What the buttons of a run do. Each is a POST; a refusal comes back as a message on the run's page."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from runs import commands, queries
from runs.models import Run
from runs.views.access import get_run
from runs.views.detail import run_context
from teams.commands import Refused
from teams.views.access import PageRequest, page, redirect


@require_POST
@page
def stop(request: PageRequest, name: str) -> HttpResponse:
    """Stop it; `now=1` does not wait for the grace period any longer."""
    run = get_run(request, name)
    grace = 0.0 if request.POST.get("now") == "1" else None
    message = request.POST.get("message", "")
    if not _carried_out(
        request, run, lambda: commands.stop(request.caller, run, message=message, grace=grace)
    ):
        return redirect(request, _page_of(run))
    if request.htmx.target == "run-live":
        fresh = queries.find(request.caller, name) or run
        return TemplateResponse(request, "runs/detail.html#live", run_context(request, fresh))
    return redirect(request, _page_of(run))


@require_POST
@page
def restart(request: PageRequest, name: str) -> HttpResponse:
    run = get_run(request, name)
    _carried_out(request, run, lambda: commands.restart(request.caller, run))
    return redirect(request, _page_of(run))


@require_POST
@page
def delete(request: PageRequest, name: str) -> HttpResponse:
    run = get_run(request, name)
    if not _carried_out(request, run, lambda: commands.delete(request.caller, run)):
        return redirect(request, _page_of(run))
    messages.success(
        request,
        f"{run.name} is deleted. For {settings.RUNYARD_UNDELETE_HOURS} hours its page can bring it back.",
    )
    return redirect(request, reverse("runs:list"))


@require_POST
@page
def undelete(request: PageRequest, name: str) -> HttpResponse:
    run = get_run(request, name)
    if _carried_out(request, run, lambda: commands.undelete(request.caller, run)):
        messages.success(request, f"{run.name} is back.")
    return redirect(request, _page_of(run))


def _carried_out(request: PageRequest, run: Run, command: Callable[[], object]) -> bool:
    try:
        command()
    except Refused as refused:
        messages.error(request, refused.message)
        return False
    return True


def _page_of(run: Run) -> str:
    return reverse("runs:detail", args=[run.name])
