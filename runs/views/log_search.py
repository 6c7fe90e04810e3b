"""/runs/<name>/log/…/search, /picked and /merged: which lines match, some lines by their numbers, all ranks as one log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from django.http import HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe

from runs import queries
from runs.logs import store
from runs.logs.findings import line_text
from runs.logs.lines import Lines
from runs.logs.merged import MOST_LINES, Merged
from runs.logs.search import BadQuery, Query, search
from runs.models import LogStream
from runs.views.access import get_attempt, get_run, get_stream
from runs.views.log_files import in_threads
from runs.views.log_lines import shown
from runs.views.log_query import query_of
from teams.views.access import PageRequest, page

MOST_PICKED = 200
ANSWER = 5.0
"""Seconds that one answer about several logs takes at the most; a session that has ended sees no more."""


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
def everywhere(request: PageRequest, name: str, attempt: int | None = None) -> HttpResponseBase:
    """Search in all logs of an attempt, or of a run, in order of attempt, rank and name, as `matches` does in one.

    One JSON value a line, sent as soon as it is known: `{"attempt", "rank", "stream", "id", "lines": [7, …], "first": text of
    the first of them, "next", "done"}`, several for a log with many; at last `{"after": null}`, or, after 5 s, the place
    with which to ask again as `?after=`.
    """
    query = query_of(request)
    run = get_run(request, name) if attempt is None else get_attempt(request, name, attempt).run
    after = _after(request.GET.get("after", ""))
    if after is None:
        return JsonResponse(
            {"error": "after: must be what an answer to this search had as `after`"}, status=400
        )
    try:
        query.compiled()
    except BadQuery as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    logs = LogStream.objects.filter(attempt__run=run).select_related("attempt")
    if attempt is not None:
        logs = logs.filter(attempt__index=attempt)
    ordered = logs.order_by("attempt__index", "rank", "name")
    begin = [log for log in ordered if _place(log) >= after[0]]
    return StreamingHttpResponse(
        in_threads(_found_in(begin, query, after)), content_type="application/x-ndjson"
    )


_Place = tuple[int, int, str]


def _place(log: LogStream) -> _Place:
    return (log.attempt.index, log.rank, log.name)


def _after(text: str) -> tuple[_Place, int] | None:
    """`0.3.MAIN:4711`: go on in this log, from this byte. None for what is none."""
    if not text:
        return (0, 0, ""), 0
    found = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.([\w-]{1,64}):(\d{1,18})", text, re.ASCII)
    return ((int(found[1]), int(found[2]), found[3]), int(found[4])) if found else None


def _found_in(logs: list[LogStream], query: Query, after: tuple[_Place, int]) -> Iterator[bytes]:
    deadline = time.monotonic() + ANSWER
    for log in logs:
        place = _place(log)
        lines = Lines(store.location(log), log.committed, log.lines)
        offset, done = after[1] if place == after[0] else 0, False
        while not done:
            if time.monotonic() > deadline:
                yield _line({"after": "{}.{}.{}:{}".format(*place, offset)})
                return
            found = search(lines, query, offset)
            offset, done = found.next, found.done
            first = lines.window(found.lines[0], 1) if found.lines else []
            yield _line(
                {
                    "attempt": place[0], "rank": place[1], "stream": place[2], "id": str(log.pk),
                    "lines": found.lines, "first": line_text(first[0].text.encode()) if first else "",
                    "next": offset, "done": done,
                }
            )  # fmt: skip
    yield _line({"after": None})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


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
        at = float(request.GET["time"]) if "time" in request.GET else None
    except ValueError:
        return JsonResponse({"error": "ranks, from, n and time: must be numbers"}, status=400)
    logs = [log for log in queries.streams_of(row) if not wanted or log.rank in wanted]
    begin = row.created_at.timestamp()
    end = max((log.last_output_at.timestamp() for log in logs if log.last_output_at), default=begin)
    book = Merged([Lines(store.location(log), log.committed, log.lines) for log in logs], begin, end)
    if at is not None:
        first = book.position_at(at)
    lines = [
        {**shown(placed.line), "position": placed.position, "rank": logs[placed.stream].rank,
         "stream": logs[placed.stream].name}
        for placed in book.window(first, count)
    ]  # fmt: skip
    return JsonResponse({"first": first, "total": book.total, "lines": lines})
