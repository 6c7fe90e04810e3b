"""/runs: everything that the caller's teams run, newest first. The filters are the URL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from clusters import queries as clusters
from clusters.states import CPU
from runs import queries
from runs.models import Attempt, Run
from runs.queries import BadCursor, RunFilters
from runs.states import Status
from teams.queries import people
from teams.views.access import PageRequest, page, redirect


@dataclass(frozen=True)
class Row:
    run: Run
    attempt: Attempt
    """The latest."""
    place: queries.Place | None
    behind: str


@require_safe
@page
def show(request: PageRequest) -> HttpResponse:
    filters = read_filters(request)
    runs = queries.matching(queries.visible_to(request.caller), filters)
    try:
        found = queries.page(runs, cursor=request.GET.get("cursor"))
    except BadCursor:
        return redirect(request, reverse("runs:list"))
    latest = queries.latest_attempts(found.runs)
    visible = list(clusters.visible_to(request.caller.team_ids))
    places = queries.places(latest.values())
    context = {
        "rows": [_row(run, latest[run.pk], places, request.caller.team_ids) for run in found.runs],
        "older": _with(request, cursor=found.cursor) if found.has_next else None,
        "newest": _with(request, cursor=None) if request.GET.get("cursor") else None,
        "filtered": filters != RunFilters(),
        "statuses": list(Status),
        "clusters": visible,
        "gpu_types": [
            *sorted({kind for cluster in visible for kind in clusters.pool(cluster).gpu_types}),
            CPU,
        ],
        "people": people(request.caller),
        "chosen": request.GET,
        "endpoint": settings.RUNYARD_URL,
    }
    template = "runs/list.html#runs" if request.htmx.target == "runs" else "runs/list.html"
    return TemplateResponse(request, template, context)


def _row(run: Run, attempt: Attempt, places: Mapping[UUID, queries.Place], teams: Iterable[UUID]) -> Row:
    place = places.get(attempt.pk)
    return Row(run, attempt, place, place.behind(teams) if place else "")


def read_filters(request: PageRequest) -> RunFilters:
    """What the URL asks for; a parameter that is empty is one that is not there."""
    get = request.GET
    owner = get.get("owner", "")
    return RunFilters(
        statuses=_some(get.getlist("status")),
        clusters=_some(get.getlist("cluster")),
        gpu_types=_some(get.getlist("gpu")),
        emails=[request.user.email] if owner == "me" else _some([owner]),
        text=get.get("q", "").strip(),
        include_deleted=get.get("deleted") == "1",
    )


def _some(values: list[str]) -> list[str] | None:
    return [value for value in values if value] or None


def _with(request: PageRequest, **changes: str | None) -> str:
    """This page's URL with some parameters changed (None: left out), and without empty ones."""
    query = request.GET.copy()
    for name, value in changes.items():
        query[name] = value or ""
    for name in [name for name in query if not any(query.getlist(name))]:
        del query[name]
    return f"{reverse('runs:list')}?{query.urlencode()}".removesuffix("?")
