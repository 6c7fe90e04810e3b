"""What a request asks a log for: `?q=` and its flags."""

from __future__ import annotations

from django.http import HttpRequest

from runs.logs.search import Query


def query_of(request: HttpRequest) -> Query:
    """`?q=`, `?case=1`, `?word=1`, `?regex=1` (RE2), `?invert=1`: the lines that do not match."""
    flags = {flag: wanted(request, flag) for flag in ("case", "word", "regex", "invert")}
    return Query(request.GET.get("q", ""), **flags)


def wanted(request: HttpRequest, name: str) -> bool:
    return request.GET.get(name) in {"1", "true"}
