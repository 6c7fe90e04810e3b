from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from runs.views import actions, clusters, detail, editor, listing, logs, reasons

app_name = "runs"
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
    path("runs/<str:name>/clone", editor.clone, name="clone"),
    # /runs/<name>/log/<attempt>/<rank>/<stream>
    path("runs/<str:name>/log/<int:attempt>/<int:rank>/<str:stream>", logs.read, name="log"),
    path("runs/<str:name>/log/<int:attempt>/<int:rank>/<str:stream>/marks", logs.marks, name="log-marks"),
    path("runs/<str:name>/log/<int:attempt>/<int:rank>/<str:stream>/raw", logs.raw, name="log-raw"),
    path("runs/<str:name>/log/<int:attempt>/<int:rank>/<str:stream>/errors", logs.errors, name="log-errors"),
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
