"""/runs/<name>/log/…/search, /picked and /merged: which lines match, some lines by their numbers, all ranks as one log."""

from __future__ import annotations

from django.http import HttpResponseBase, JsonResponse
from django.views.decorators.http import require_safe

from runs import queries
from runs.logs import store
from runs.logs.lines import Lines
from runs.logs.merged import MOST_LINES, Merged
from runs.logs.search import BadQuery, search
from runs.views.access import get_attempt, get_stream
from runs.views.log_lines import shown
from runs.views.log_query import query_of
from teams.views.access import PageRequest, page

MOST_PICKED = 200


@require_safe
@page
def matches(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """Numbers of lines with `?q=`, of those that begin at byte `?from=` or later: `{"lines": [7, …], "next": byte from
    which to go on, "done": whether the end was reached, "committed"}`. In bounded time: ask again until `done`.

    `?case=1`, `?word=1`, `?regex=1` (RE2), `?invert=1`: the lines that do not match.
    """
    log = get_stream(request, name, attempt, rank, stream)
    try:
        start = int(request.GET.get("from") or 0)
    except ValueError:
        return JsonResponse({"error": "from: must be a byte's place"}, status=400)
    lines = Lines(store.location(log), log.committed, log.lines)
    try:
        found = search(lines, query_of(request), start)
    except BadQuery as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    return JsonResponse(
        {"lines": found.lines, "next": found.next, "done": found.done, "committed": log.committed}
    )


@require_safe
@page
def picked(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """Lines by their numbers, `?lines=3,17,18` in rising order, at most 200: `{"lines": [as in /lines, …]}`."""
    log = get_stream(request, name, attempt, rank, stream)
    try:
        numbers = [int(number) for number in request.GET.get("lines", "").split(",")]
    except ValueError:
        numbers = []
    if not 0 < len(numbers) <= MOST_PICKED or numbers != sorted(numbers) or numbers[0] < 1:
        return JsonResponse(
            {"error": f"lines: must be 1 to {MOST_PICKED} numbers in rising order"}, status=400
        )
    lines = Lines(store.location(log), log.committed, log.lines)
    found = []
    while numbers:
        # Neighbours come in one piece.
        run = 1
        while run < len(numbers) and numbers[run] == numbers[0] + run:
            run += 1
        window = lines.window(numbers[0], run)
        found += [shown(line) for line in window]
        numbers = numbers[max(1, len(window)) :]
    return JsonResponse({"lines": found})


@require_safe
@page
def merged(request: PageRequest, name: str, attempt: int) -> HttpResponseBase:
    """Lines of all streams of an attempt by the time at which they began: `?from=` a position, from 1, or `?time=`;
    `?n=` lines, at most 500; `?ranks=0,3` only of these.

    `{"first", "total", "lines": [as in /lines, and "position", "rank", "stream", …]}`.
    """
    row = get_attempt(request, name, attempt)
    try:
        wanted = {int(rank) for rank in request.GET.get("ranks", "").split(",") if rank}
        first, count = int(request.GET.get("from") or 1), int(request.GET.get("n") or MOST_LINES)
        time = float(request.GET["time"]) if "time" in request.GET else None
    except ValueError:
        return JsonResponse({"error": "ranks, from, n and time: must be numbers"}, status=400)
    logs = [log for log in queries.streams_of(row) if not wanted or log.rank in wanted]
    begin = row.created_at.timestamp()
    end = max((log.last_output_at.timestamp() for log in logs if log.last_output_at), default=begin)
    book = Merged([Lines(store.location(log), log.committed, log.lines) for log in logs], begin, end)
    if time is not None:
        first = book.position_at(time)
    lines = [
        {**shown(placed.line), "position": placed.position, "rank": logs[placed.stream].rank,
         "stream": logs[placed.stream].name}
        for placed in book.window(first, count)
    ]  # fmt: skip
    return JsonResponse({"first": first, "total": book.total, "lines": lines})
