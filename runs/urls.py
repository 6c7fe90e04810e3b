from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from runs.views import (
    actions,
    clusters,
    detail,
    editor,
    listing,
    log_files,
    log_lines,
    log_search,
    logs,
    metrics,
    reasons,
    terminal,
)

app_name = "runs"
_LOG = "runs/<str:name>/log/<int:attempt>/<int:rank>/<str:stream>"
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="runs:list", query_string=True)),
    # /runs
    path("runs", listing.show, name="list"),
    path("runs/new", editor.new, name="new"),
    # /runs/<name>
    path("runs/<str:name>", detail.show, name="detail"),
    path("runs/<str:name>/stop", actions.stop, name="stop"),
    path("runs/<str:name>/restart", actions.restart, name="restart"),
    path("runs/<str:name>/delete", actions.delete, name="delete"),
    path("runs/<str:name>/undelete", actions.undelete, name="undelete"),
    path("runs/<str:name>/clone", editor.clone, name="clone"),
    path("runs/<str:name>/terminal", terminal.show, name="terminal"),
    path("runs/<str:name>/metrics", metrics.points, name="metrics"),
    path("runs/<str:name>/log/search", log_search.everywhere, name="log-search-run"),
    # /runs/<name>/log/<attempt>
    path("runs/<str:name>/log/<int:attempt>/search", log_search.everywhere, name="log-search-all"),
    path("runs/<str:name>/log/<int:attempt>/state", log_lines.state, name="log-state"),
    path("runs/<str:name>/log/<int:attempt>/merged", log_search.merged, name="log-merged"),
    path("runs/<str:name>/log/<int:attempt>/zip", log_files.archive, name="log-zip"),
    # /runs/<name>/log/<attempt>/<rank>/<stream>
    path(_LOG, logs.read, name="log"),
    path(f"{_LOG}/marks", logs.marks, name="log-marks"),
    path(f"{_LOG}/errors", logs.errors, name="log-errors"),
    path(f"{_LOG}/raw", log_files.raw, name="log-raw"),
    path(f"{_LOG}/lines", log_lines.lines, name="log-lines"),
    path(f"{_LOG}/lines/<int:number>", log_lines.line, name="log-line"),
    path(f"{_LOG}/search", log_search.matches, name="log-search"),
    path(f"{_LOG}/picked", log_search.picked, name="log-picked"),
    path(f"{_LOG}/wait", log_lines.wait, name="log-wait"),
    # /reasons
    path("reasons/", reasons.index, name="reasons"),
    path("reasons/<str:code>", reasons.show, name="reason"),
]

# /clusters: shown with the runs that fill them, so their pages live here.
cluster_pages = (
    [
        path("clusters", clusters.index, name="list"),
        path("clusters/<str:name>", clusters.show, name="detail"),
    ],
    "clusters",
)
