"""/runs/<name>/log/<attempt>/<rank>/<stream>: a log's bytes, piece by piece, and what was found in it."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseBase, JsonResponse
from django.views.decorators.http import require_safe

from runs.logs import store
from runs.logs.findings import MOST_MARKS, line_text
from runs.views.access import get_stream
from teams.views.access import PageRequest, page

PIECE = 2**20
"""Bytes in one answer at the most."""
MOST_ERRORS = 500
LINE = 1200
"""Bytes that are read to show the text of one."""


@require_safe
@page
def read(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """Bytes from `?from=` (negative: counted from the end) up to `?to=`, at most 1 MiB, never past what is stored.

    The headers say where they lie (X-Log-Offset), how far the log reaches (X-Log-Committed) and, once it has
    ended, why (X-Log-Ended) and its SHA-256.
    """
    log = get_stream(request, name, attempt, rank, stream)
    first = _number(request.GET.get("from"), 0)
    first = max(0, log.committed + first) if first < 0 else min(first, log.committed)
    last = min(_number(request.GET.get("to"), log.committed), log.committed, first + PIECE)
    data = store.read(store.location(log), first, max(0, last - first), log.committed)
    response = HttpResponse(data, content_type="application/octet-stream")
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox"
    response["X-Log-Offset"] = str(first)
    response["X-Log-Committed"] = str(log.committed)
    if log.ended_at is not None:
        response["X-Log-Ended"] = log.end_reason or "complete"
        response["X-Log-SHA256"] = log.sha256
    return response


@require_safe
@page
def marks(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """`{"marks": [[offset, time, "stdout"], …]}` for the bytes from `?from=` up to `?to=`."""
    log = get_stream(request, name, attempt, rank, stream)
    first, last = _number(request.GET.get("from"), 0), _number(request.GET.get("to"), log.committed)
    found = store.marks(store.location(log), max(0, first), min(last, first + PIECE))
    return JsonResponse({"marks": [[mark.offset, mark.time, mark.source] for mark in found]})


@require_safe
@page
def errors(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """What was found while the log was stored: tracebacks, the last line, and the error index from position
    `?from=` on (`?at=`: from the first line at or after that offset), `MOST_ERRORS` lines at the most.

    `{"errors": [{"offset", "line", "kind", "time", "text"}, …], "from": 0, "next": position or null, "total": 3,
    "full": false, "first": traceback or null, "last": …, "end": …}`. `full`: later error lines are not listed.
    """
    log = get_stream(request, name, attempt, rank, stream)
    where, total = store.location(log), log.findings.get("errors", 0)
    first = max(0, _number(request.GET.get("from"), 0))
    if request.GET.get("at"):
        first = store.errors_before(where, _number(request.GET["at"], 0))
    found = store.errors(where, first, min(MOST_ERRORS, max(0, total - first)))
    following = first + len(found)
    return JsonResponse(
        {
            "errors": [
                {
                    "offset": mark.offset,
                    "line": mark.line,
                    "kind": mark.kind.name.lower(),
                    "time": store.time_at(where, mark.offset),
                    "text": line_text(store.read(where, mark.offset, LINE, log.committed)),
                }
                for mark in found
            ],
            "from": first,
            "next": following if found and following < total else None,
            "total": total,
            "full": total >= MOST_MARKS,
            **{part: log.findings.get(part) for part in ("first", "last", "end")},
        }
    )


def _number(text: str | None, default: int) -> int:
    try:
        return int(text) if text else default
    except ValueError:
        return default
