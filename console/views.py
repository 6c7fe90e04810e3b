"""Pages for what went wrong: what happened, and what to do next."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404. Says what was looked for where a view knows; an unknown address says nothing of how URLs are made."""
    reason = exception.args[0] if exception.args and isinstance(exception.args[0], str) else ""
    return render(request, "404.html", {"reason": reason}, status=404)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403"""
    return render(request, "403.html", {"reason": str(exception)}, status=403)


def not_here(request: HttpRequest) -> HttpResponse:
    """A page that a library knows and this console does not have."""
    raise Http404("This console has no such page.")
