"""/runs/<name>/log/…: a log as lines, for the viewer; what state logs are in; waiting for more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.http import require_safe

from runs import queries
from runs.logs import store
from runs.logs.lines import MOST_LINES, Line, Lines
from runs.models import LogStream
from runs.views.access import get_attempt, get_stream
from runs.wake import hub
from teams.views.access import PageRequest, async_page, page

LINES = 400
TEXT = 64 * 2**10
"""Bytes of one line in one answer."""
WAIT = 5.0


class _BadPlace(ValueError):
    pass


@require_safe
@page
def lines(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """Up to `?n=` lines (400; 2,000 at the most, and 1 MiB of text), from one place on:

    `?from=` a line's number, from 1 (negative: counted from the end) · `?at=` the line that holds this byte ·
    `?time=` the first line with output read at this unix time or later · `?tail=` so many last lines.

    `{"first": 1201, "next": 1601 or null, "sgr": "1;31", "lines": [{"number", "offset", "end", "text", "more", "time",
    "source"}, …], **state}`; `more`: bytes of a line that `text` does not show; `sgr`: parameters of the colour
    sequence in force where the first line begins; `state`: see `described`.
    """
    log = get_stream(request, name, attempt, rank, stream)
    found = Lines(store.location(log), log.committed, log.lines)
    try:
        count = min(_natural(request, "n", LINES), MOST_LINES)
        first = _place(request, found)
        if "tail" in request.GET:
            count = min(_natural(request, "tail", 0), MOST_LINES)
    except _BadPlace as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    window = found.window(first, count)
    following = window[-1].number + 1 if window else first
    return JsonResponse(
        {
            "first": first,
            "next": following if following <= found.total else None,
            "sgr": found.sgr_at(window[0].offset) if window else "",
            "lines": [shown(line) for line in window],
            **described(log),
        }
    )


@require_safe
@page
def line(
    request: PageRequest, name: str, attempt: int, rank: int, stream: str, number: int
) -> HttpResponseBase:
    """The text of one line from its byte `?from=` on, at most 64 KiB: `{"text", "from", "next" or null, "bytes"}`."""
    log = get_stream(request, name, attempt, rank, stream)
    found = Lines(store.location(log), log.committed, log.lines)
    try:
        begin = _natural(request, "from", 0)
    except _BadPlace as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    if not 1 <= number <= found.total:
        return JsonResponse({"error": f"There is no line {number}: there are {found.total}."}, status=404)
    text, end, size = found.text(number, begin, TEXT)
    return JsonResponse({"text": text, "from": begin, "next": end if end < size else None, "bytes": size})


@require_safe
@page
def state(request: PageRequest, name: str, attempt: int) -> HttpResponseBase:
    """The state of every log of an attempt: `{"streams": [{"rank", "stream", "id", **state}, …]}`."""
    streams = queries.streams_of(get_attempt(request, name, attempt))
    return JsonResponse(
        {
            "streams": [
                {"rank": log.rank, "stream": log.name, "id": str(log.pk), **described(log)} for log in streams
            ]
        }
    )


@require_safe
@async_page
async def wait(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """The state of one log as soon as it reaches past byte `?after=` or has ended, after 5 s in any case.

    For those whom websockets do not reach.
    """
    look: Callable[..., Any] = sync_to_async(get_stream, thread_sensitive=False)
    log: LogStream = await look(request, name, attempt, rank, stream)
    try:
        after = _natural(request, "after", 0)
    except _BadPlace as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    async with hub().subscribe(f"stream:{log.pk}") as mailbox:
        log = await look(request, name, attempt, rank, stream)
        if log.committed <= after and log.ended_at is None:
            await mailbox.wait(WAIT)
            log = await look(request, name, attempt, rank, stream)
    return JsonResponse(described(log))


def described(log: LogStream) -> dict[str, Any]:
    """`committed` bytes and `ends` of lines are stored; `total` counts a last line that is `open`, too; `ended` is null,
    "complete" or "incomplete", and then there is the `sha256` of all bytes; `errors` are in the error index; `masked` says how often
    a secret value was hidden, `too_short` how many values of the run are not looked for."""
    found = Lines(store.location(log), log.committed, log.lines)
    return {
        "committed": log.committed,
        "ends": log.lines,
        "total": found.total,
        "open": found.open,
        "ended": (log.end_reason or "complete") if log.ended_at else None,
        "sha256": log.sha256 or None,
        "masked": log.masked,
        "too_short": log.too_short,
        "errors": log.findings.get("errors", 0),
        "last_output_at": log.last_output_at.timestamp() if log.last_output_at else None,
    }


def shown(line: Line) -> dict[str, Any]:
    """A line for a page."""
    return {
        "number": line.number,
        "offset": line.offset,
        "end": line.end,
        "text": line.text,
        "tail": line.tail,
        "more": line.more,
        "time": line.mark.time if line.mark else None,
        "source": line.mark.source if line.mark else None,
    }


def _place(request: HttpRequest, log: Lines) -> int:
    if "tail" in request.GET:
        return max(1, log.total + 1 - min(_natural(request, "tail", 0), MOST_LINES))
    if "at" in request.GET:
        return log.number_at(_natural(request, "at", 0))
    if "time" in request.GET:
        try:
            return log.number_at_time(float(request.GET["time"]))
        except ValueError:
            raise _BadPlace("time: must be unix time in seconds") from None
    try:
        first = int(request.GET.get("from") or 1)
    except ValueError:
        raise _BadPlace("from: must be a line's number") from None
    return max(1, log.total + 1 + first) if first < 0 else max(1, first)


def _natural(request: HttpRequest, name: str, default: int) -> int:
    text = request.GET.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _BadPlace(f"{name}: must be a whole number, 0 or more")
    return int(text)
