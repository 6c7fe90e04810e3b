"""/runs/<name>/log/…/raw and /runs/<name>/log/<attempt>/zip: whole logs as files.

They stream from the store and hold one piece in memory. What they give was chosen by a run: no browser may make
a page of it.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.http import HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe

from runs import queries
from runs.logs import store
from runs.logs.lines import Lines
from runs.logs.search import BadQuery, Query, matching
from runs.logs.text import AnsiStripper
from runs.models import LogStream
from runs.views.access import get_attempt, get_stream
from runs.views.log_query import query_of, wanted
from teams.views.access import PageRequest, page

FRAME = 2**18


@require_safe
@page
def raw(request: PageRequest, name: str, attempt: int, rank: int, stream: str) -> HttpResponseBase:
    """The whole log as it is stored now, byte for byte. `?plain=1`: without escape sequences; `?gz=1`: compressed;
    `?q=`, with the flags of a search: only the lines that match."""
    log = get_stream(request, name, attempt, rank, stream)
    plain, query = wanted(request, "plain"), query_of(request) if "q" in request.GET else None
    filename = f"{name}-attempt{attempt}-{_name(log)}"
    try:
        pieces = _pieces(log, query, plain=plain)
    except BadQuery as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    if wanted(request, "gz"):
        return _attachment(_gzipped(pieces), f"{filename}.gz", "application/gzip")
    response = _attachment(pieces, filename, "text/plain; charset=utf-8")
    if not plain and query is None:
        response["Content-Length"] = str(log.committed)
    return response


@require_safe
@page
def archive(request: PageRequest, name: str, attempt: int) -> HttpResponseBase:
    """All logs of an attempt as a zip, made while it is sent. `?plain=1` and `?q=` as for one."""
    logs = list(queries.streams_of(get_attempt(request, name, attempt)))
    plain, query = wanted(request, "plain"), query_of(request) if "q" in request.GET else None
    try:
        files = [(_name(log), _pieces(log, query, plain=plain)) for log in logs]
    except BadQuery as problem:
        return JsonResponse({"error": str(problem)}, status=400)
    return _attachment(_zipped(files), f"{name}-attempt{attempt}.zip", "application/zip")


def _name(log: LogStream) -> str:
    part = "" if log.name == "MAIN" else f"-{log.name.lower()}"
    return f"rank{log.rank}{part}.log"


def _attachment(pieces: Iterator[bytes], filename: str, content_type: str) -> StreamingHttpResponse:
    response = StreamingHttpResponse(in_threads(pieces), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox"
    return response


async def in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each piece is read in a thread, and only once the one before was taken."""
    following: Callable[..., Any] = next
    while piece := await asyncio.to_thread(following, pieces, b""):
        yield piece


def _pieces(log: LogStream, query: Query | None, *, plain: bool) -> Iterator[bytes]:
    """Raises BadQuery."""
    if query is None:
        return _everything(log, plain=plain)
    return matching(Lines(store.location(log), log.committed, log.lines), query, plain=plain)


def _everything(log: LogStream, *, plain: bool) -> Iterator[bytes]:
    where, offset = store.location(log), 0
    stripper = AnsiStripper()
    while offset < log.committed:
        data = store.read(where, offset, FRAME, log.committed)
        offset += len(data)
        if plain:
            data = stripper.feed(data)
        if data:
            yield data
    if plain and (rest := stripper.finish()):
        yield rest


def _gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _zipped(files: list[tuple[str, Iterator[bytes]]]) -> Iterator[bytes]:
    out = _Written()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, pieces in files:
            # A log may be longer than what a zip takes without being told before.
            with archive.open(name, "w", force_zip64=True) as entry:
                for piece in pieces:
                    entry.write(piece)
                    if taken := out.take():
                        yield taken
    if taken := out.take():
        yield taken


class _Written(io.RawIOBase):
    """A file that can only be written on, and is emptied as it grows."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
