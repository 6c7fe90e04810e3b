"""The site map."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from console import health
from console.graphql.http import graphql
from runs.urls import cluster_pages

urlpatterns: list[URLPattern | URLResolver] = [
    # /healthz, /readyz, /metrics
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    # /graphql: the API; its websockets are routed in console.asgi
    path("graphql", graphql, name="graphql"),
    # /runs, /clusters, /profile
    path("", include("runs.urls")),
    path("", include(cluster_pages)),
    path("", include("teams.urls")),
    # /accounts/: log in and out, password, second factor
    path("accounts/", include("allauth.urls")),
]

handler403 = "console.views.forbidden"
handler404 = "console.views.not_found"
