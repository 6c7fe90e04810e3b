"""/runs/new and /runs/<name>/clone: a run's YAML, edited and submitted."""

from __future__ import annotations

from dataclasses import replace

from django.http import HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from clusters import queries as clusters
from runs import commands, forms
from runs.models import Run
from runs.views.access import get_run
from teams.commands import Refused
from teams.states import Action
from teams.views.access import PageRequest, page, redirect

FIRST = """\
name: hello
image: python:3.12
compute:
  cluster: {cluster}
  gpus: 0
command: |
  echo "Hello from rank $NODE_RANK of $NUM_NODES"
"""


@require_http_methods(["GET", "HEAD", "POST"])
@page
def new(request: PageRequest) -> HttpResponse:
    cluster = clusters.visible_to(request.caller.team_ids).first()
    text = FIRST.format(cluster=cluster.name if cluster else "local")
    return _editor(request, text, parent=None)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def clone(request: PageRequest, name: str) -> HttpResponse:
    run = get_run(request, name)
    return _editor(request, forms.to_yaml(run.spec.submitted), parent=run)


def _editor(request: PageRequest, text: str, *, parent: Run | None) -> HttpResponse:
    refused = None
    if request.method == "POST":
        text = request.POST.get("yaml", "").replace("\r\n", "\n")
        try:
            run = _submit(request, text, parent)
        except Refused as problem:
            refused = problem
        else:
            return redirect(request, reverse("runs:detail", args=[run.name]))
    context = {
        "text": text,
        "parent": parent,
        "refused": refused,
        "line": getattr(refused, "line", None),
        "lines": max(16, min(40, text.count("\n") + 3)),
        "teams": [team for team in request.caller.teams() if request.caller.may(Action.SUBMIT, team.pk)],
        "chosen_team": request.POST.get("team") or (str(parent.team_id) if parent else ""),
        "clusters": clusters.visible_to(request.caller.team_ids),
    }
    return TemplateResponse(request, "runs/edit.html", context, status=refused.code if refused else 200)


def _submit(request: PageRequest, text: str, parent: Run | None) -> Run:
    wanted = request.POST.get("team")
    team = next((team for team in request.caller.teams() if str(team.pk) == wanted), None)
    asked = forms.parse_run_yaml(text)
    if parent is not None:
        asked = replace(asked, parent_name=parent.name)
    return commands.submit(request.caller, asked, team=team)
