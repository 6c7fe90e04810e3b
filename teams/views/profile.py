"""/profile: who I am, what teams I am in, and the keys that act for me."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from teams import commands
from teams.commands import Refused
from teams.models import APIKey, Membership, Team
from teams.states import Scope
from teams.views.access import PageRequest, page, redirect

EXPIRIES = {"": "Never", "7": "In 7 days", "30": "In 30 days", "90": "In 90 days", "365": "In a year"}


@require_safe
@page
def show(request: PageRequest) -> TemplateResponse:
    return _profile(request)


@require_POST
@page
def create_key(request: PageRequest) -> TemplateResponse:
    """Make a key and show it, this once: the answer to this POST is the only page that ever holds it."""
    days = request.POST.get("expires", "")
    scopes = (Scope.READ, Scope.WRITE) if request.POST.get("scope", "write") == "write" else (Scope.READ,)
    try:
        if days not in EXPIRIES:
            raise Refused(f"expires: {days!r} is not one of the choices", field="expires")
        key, secret = commands.create_api_key(
            request.caller,
            _team(request),
            request.POST.get("name", "")[:100],
            scopes=scopes,
            expires_at=timezone.now() + timedelta(days=int(days)) if days else None,
        )
    except Refused as refused:
        return _profile(request, refused=refused, status=refused.code)
    return _profile(request, new_key=key, secret=secret)


@require_POST
@page
def revoke_key(request: PageRequest, key_id: UUID) -> HttpResponse:
    try:
        commands.revoke_api_key(request.caller, key_id)
    except Refused as refused:
        raise Http404 from refused
    messages.success(request, "The key is revoked; nothing that uses it gets in any more.")
    return redirect(request, reverse("teams:profile"))


@require_POST
@page
def runs_may_submit(request: PageRequest, team_id: UUID) -> HttpResponse:
    """The switch of a team that lets its runs submit further runs, or keeps them from it."""
    team = request.caller.teams().filter(pk=team_id).first()
    if team is None:
        raise Http404("There is no such team among yours.")
    allowed = request.POST.get("allowed") == "yes"
    try:
        commands.let_runs_submit(request.caller, team, allowed)
    except Refused as refused:
        raise PermissionDenied(refused.message) from refused
    messages.success(
        request, f"Runs of {team.name} may {'' if allowed else 'not '}submit further runs from now on."
    )
    return redirect(request, reverse("teams:profile"))


def _team(request: PageRequest) -> Team:
    teams = request.caller.teams()
    wanted = request.POST.get("team")
    found = next((team for team in teams if str(team.pk) == wanted), None)
    if found is None:
        raise Refused("Choose one of your teams.", field="team")
    return found


def _profile(
    request: PageRequest,
    *,
    new_key: APIKey | None = None,
    secret: str = "",
    refused: Refused | None = None,
    status: int = 200,
) -> TemplateResponse:
    socket_url = settings.RUNYARD_URL.replace("http", "ws", 1)
    keys = APIKey.objects.filter(user=request.user).select_related("team").order_by("-created_at")
    context = {
        "memberships": Membership.objects.filter(user=request.user)
        .select_related("team")
        .order_by("team__name"),
        "keys": [key for key in keys if key.revoked_at is None],
        "revoked": sum(key.revoked_at is not None for key in keys),
        "now": timezone.now(),
        "expiries": EXPIRIES,
        "new_key": new_key,
        "refused": refused,
        "form": request.POST,
        "exports": [
            ("MOSAICML_API_ENDPOINT", f"{settings.RUNYARD_URL}/graphql"),
            ("MOSAICML_API_KEY", secret),
            ("MOSAICML_MINT_ENDPOINT", f"{socket_url}/v1/shell"),
            ("MCLI_DISABLE_UPGRADE_CHECK", "true"),
        ],
    }
    template = "profile.html#keys" if request.htmx.target == "keys" else "profile.html"
    # htmx swaps only what succeeded; a refusal is shown in the form all the same.
    return TemplateResponse(request, template, context, status=200 if request.htmx else status)
