"""/runs/<name>/metrics: the curves of a run's numeric metadata."""

from __future__ import annotations

from django.http import JsonResponse
from django.views.decorators.http import require_safe

from runs import queries
from runs.views.access import get_run
from teams.views.access import PageRequest, page


@require_safe
@page
def points(request: PageRequest, name: str) -> JsonResponse:
    """`{"attempts": [{"index", "from", "to"}], "series": {key: [[attempt, unix time, value], …]}}`, times in seconds.

    `to` is null while the attempt lives; one that never started has no place on the axis and is left out.
    """
    run = get_run(request, name)
    attempts = [
        {
            "index": attempt.index,
            "from": attempt.started_at.timestamp(),
            "to": attempt.ended_at.timestamp() if attempt.ended_at else None,
        }
        for attempt in run.attempts.order_by("index")
        if attempt.started_at is not None
    ]
    return JsonResponse({"attempts": attempts, "series": queries.metrics(run)})
