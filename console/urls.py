"""The site map."""

from __future__ import annotations

from allauth.account import views as account
from django.urls import URLPattern, URLResolver, include, path

from console import health, views
from console.graphql.http import graphql
from runs.urls import cluster_pages

# Of allauth's pages only those that were meant: an admin sets addresses and resets passwords, no mail is
# sent. The other names exist, since its templates may ask for them, and lead nowhere.
accounts: list[URLPattern | URLResolver] = [
    path("login/", account.login, name="account_login"),
    path("logout/", account.logout, name="account_logout"),
    path("inactive/", account.account_inactive, name="account_inactive"),
    path("reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path("password/change/", account.password_change, name="account_change_password"),
    path("2fa/", include("allauth.mfa.urls")),
    *(
        path(f"no/{name}/", views.not_here, name=f"account_{name}")
        for name in ("signup", "email", "set_password", "reset_password", "email_verification_sent")
    ),
]

urlpatterns: list[URLPattern | URLResolver] = [
    # /healthz, /readyz, /metrics
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    # /graphql: the API; its websockets are routed in console.asgi
    path("graphql", graphql, name="graphql"),
    # /runs, /clusters, /profile, /secrets
    path("", include("runs.urls")),
    path("", include(cluster_pages)),
    path("", include("teams.urls")),
    # /accounts/: log in and out, change one's password, second factor
    path("accounts/", include(accounts)),
]

handler403 = "console.views.forbidden"
handler404 = "console.views.not_found"
