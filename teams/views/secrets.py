"""/secrets: what runs get and nobody reads. Values come in by forms and never go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from teams import commands
from teams.commands import Refused, SecretRequest
from teams.models import Secret, Team
from teams.queries import secrets_visible_to
from teams.states import SHAPES, Action, SecretKind, Shape
from teams.views.access import PageRequest, page, redirect

LABELS: Mapping[str, str] = {
    "value": "Value",
    "config": "Configuration file",
    "credentials": "Credentials file",
    "profile": "Profile",
    "keyFile": "Private key file",
    "host": "Host",
    "token": "Token",
    "username": "User name",
    "password": "Password",
    "email": "E-mail",
    "server": "Registry",
    "key": "Variable",
    "mountPath": "Folder in the run",
    "mountDirectory": "Folder in the run",
}
FILES = frozenset({"config", "credentials", "keyFile"})
"""Parts that are whole files; of the kinds with one part, all but a variable are."""
OPEN = frozenset({"profile", "host", "username", "email", "server"})
"""Parts that may be seen while they are typed."""
HINTS: Mapping[str, str] = {
    "key": "WANDB_API_KEY",
    "mountPath": "/secrets/my-key",
    "mountDirectory": "/secrets/s3",
    "server": "https://index.docker.io/v1/",
    "host": "https://adb-123.azuredatabricks.net",
}


@dataclass(frozen=True)
class Field:
    """One input of a form for a value."""

    name: str
    label: str
    control: str
    """`file`: many lines; `hidden`: a line that is not shown; `open`: one that is."""
    required: bool
    hint: str


@require_safe
@page
def show(request: PageRequest) -> TemplateResponse:
    return _secrets(request, _kind(request.GET.get("kind", SecretKind.ENV_VAR)))


@require_POST
@sensitive_post_parameters()
@page
def create(request: PageRequest) -> HttpResponse:
    kind = _kind(request.POST.get("kind"))
    shape = SHAPES[kind]
    try:
        team = _team(request)
        secret = commands.create_secret(
            request.caller,
            team,
            SecretRequest(
                request.POST.get("name", "").strip(),
                kind,
                _value(request, kind),
                {shape.place: request.POST.get(shape.place, "").strip()} if shape.place else {},
            ),
            team_wide=request.POST.get("whose") == "team",
        )
    except Refused as refused:
        return _secrets(request, kind, refused=refused)
    messages.success(request, f"{secret.name} is sealed; runs that start from now on get it.")
    return redirect(request, reverse("teams:secrets"))


@require_POST
@sensitive_post_parameters()
@page
def rotate(request: PageRequest, secret_id: UUID) -> HttpResponse:
    secret = _visible(request, secret_id)
    try:
        commands.rotate_secret(request.caller, secret_id, _value(request, SecretKind(secret.kind)))
    except Refused as refused:
        return _secrets(request, SecretKind.ENV_VAR, refused=refused)
    messages.success(request, f"{secret.name} has a new value; runs that have started keep the old one.")
    return redirect(request, reverse("teams:secrets"))


@require_POST
@page
def delete(request: PageRequest, secret_id: UUID) -> HttpResponse:
    secret = _visible(request, secret_id)
    try:
        commands.delete_secrets(request.caller, [secret_id])
    except Refused as refused:
        return _secrets(request, SecretKind.ENV_VAR, refused=refused)
    messages.success(request, f"{secret.name} is gone; runs that have started keep it until they end.")
    return redirect(request, reverse("teams:secrets"))


def fields(kind: SecretKind) -> list[Field]:
    """The inputs for a value of that kind."""
    shape = SHAPES[kind]
    return [
        Field(name, LABELS[name], _control(kind, name), name not in shape.optional, HINTS.get(name, ""))
        for name in shape.fields
    ]


def _control(kind: SecretKind, name: str) -> str:
    if name in FILES or (name == "value" and kind is not SecretKind.ENV_VAR):
        return "file"
    return "open" if name in OPEN else "hidden"


def _value(request: PageRequest, kind: SecretKind) -> dict[str, str]:
    """The parts of a value. Browsers send CRLF, which no key file may hold; and a file's last line ends."""
    value = {}
    for field in fields(kind):
        text = request.POST.get(field.name, "").replace("\r\n", "\n")
        if field.control == "file" and text.strip():
            text = text.rstrip("\n") + "\n"
        value[field.name] = text if field.control != "open" else text.strip()
    return value


def _kind(given: str | None) -> SecretKind:
    if given not in set(SecretKind):
        raise Http404(f"There is no kind of secret {given!r}.")
    return SecretKind(given)


def _team(request: PageRequest) -> Team:
    found = next((t for t in request.caller.teams() if str(t.pk) == request.POST.get("team")), None)
    if found is None:
        raise Refused("Choose one of your teams.", field="team")
    return found


def _visible(request: PageRequest, secret_id: UUID) -> Secret:
    secret = secrets_visible_to(request.caller).filter(pk=secret_id).first()
    if secret is None:
        raise Http404("There is no such secret.")
    return secret


def _secrets(request: PageRequest, kind: SecretKind, refused: Refused | None = None) -> TemplateResponse:
    caller = request.caller
    rows = [
        {
            "secret": row,
            "shape": SHAPES[SecretKind(row.kind)],
            "place": next(iter(row.metadata.values()), ""),
            "fields": fields(SecretKind(row.kind)),
            "may_change": caller.may(
                Action.MANAGE_SECRETS if row.owner_id is None else Action.KEEP_OWN_SECRETS, row.team_id
            ),
        }
        for row in secrets_visible_to(caller)
    ]
    shape: Shape = SHAPES[kind]
    context = {
        "rows": rows,
        "kinds": [(one.value, SHAPES[one].title) for one in SecretKind],
        "kind": kind.value,
        "shape": shape,
        "place_label": LABELS[shape.place] if shape.place else "",
        "place_hint": HINTS[shape.place] if shape.place else "",
        "fields": fields(kind),
        "teams": [team for team in caller.teams() if caller.may(Action.KEEP_OWN_SECRETS, team.pk)],
        "may_share": any(caller.may(Action.MANAGE_SECRETS, team_id) for team_id in caller.team_ids),
        "refused": refused,
        # What was typed but for the value: that is not sent back, not even once.
        "typed": {
            name: request.POST.get(name, "") for name in ("name", "key", "mountPath", "mountDirectory")
        },
        "typed_place": request.POST.get(shape.place, "") if shape.place else "",
    }
    target = request.htmx.target
    template = "secrets.html#form" if target == "secret-form" else "secrets.html"
    status = refused.code if refused and not request.htmx else 200
    return TemplateResponse(request, template, context, status=status)
