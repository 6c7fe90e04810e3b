"""Who is looking at a page. Pages are for people with a session; keys are for the API."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from asgiref.sync import sync_to_async
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django_htmx.http import HttpResponseClientRedirect, HttpResponseClientRefresh
from django_htmx.middleware import HtmxDetails

from teams.models import User
from teams.queries import Caller

P = ParamSpec("P")


class PageRequest(HttpRequest):
    """A request whose session belongs to somebody."""

    user: User
    htmx: HtmxDetails
    caller: Caller


def page(
    view: Callable[Concatenate[PageRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Turn a view into one that needs a session, and gets it as `request.caller`.

    Without a session people are sent to log in; a part of a page that finds it gone reloads the page instead
    of showing a log-in form in its corner. What pages show is nobody else's: no cache keeps it.
    """

    @wraps(view)
    def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if (refused := _refused(request)) is not None:
            return refused
        return _uncached(view(request, *args, **kwargs))  # type: ignore[arg-type]

    return checked


def async_page(
    view: Callable[Concatenate[PageRequest, P], Coroutine[Any, Any, HttpResponseBase]],
) -> Callable[Concatenate[HttpRequest, P], Coroutine[Any, Any, HttpResponseBase]]:
    """The same for a view that waits, which no thread should do."""

    @wraps(view)
    async def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if (refused := await sync_to_async(_refused)(request)) is not None:
            return refused
        return _uncached(await view(request, *args, **kwargs))  # type: ignore[arg-type]

    return checked


def _refused(request: HttpRequest) -> HttpResponseBase | None:
    """What somebody gets who has no session; None, and `request.caller`, for somebody who has."""
    if has_nul(request):
        raise SuspiciousOperation("A NUL character, which no name or text here can hold.")
    if not request.user.is_authenticated:
        if request.htmx:  # type: ignore[attr-defined]
            return HttpResponseClientRefresh()
        return redirect_to_login(request.get_full_path())
    request.caller = Caller(request.user)  # type: ignore[attr-defined]
    return None


def _uncached(response: HttpResponseBase) -> HttpResponseBase:
    if not response.has_header("Cache-Control"):
        response["Cache-Control"] = "private, no-store"
    return response


def has_nul(request: HttpRequest) -> bool:
    """Whether what was asked for holds a NUL, which PostgreSQL's texts cannot. A YAML has a loader that says so."""
    given = [request.path, *(value for key in request.GET for value in (key, *request.GET.getlist(key)))]
    given += [value for key in request.POST if key != "yaml" for value in request.POST.getlist(key)]
    return any("\0" in text for text in given)


class SeeOther(HttpResponseRedirect):
    """What a POST is answered with: look there, with a GET."""

    status_code = 303


def redirect(request: PageRequest, url: str) -> HttpResponse:
    """Go to another page: a redirect, said in htmx's way where htmx asks."""
    return HttpResponseClientRedirect(url) if request.htmx else SeeOther(url)
