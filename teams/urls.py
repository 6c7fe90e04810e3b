from __future__ import annotations

from django.urls import path

from teams.views import profile, secrets

app_name = "teams"
urlpatterns = [
    # /profile
    path("profile", profile.show, name="profile"),
    path("profile/keys", profile.create_key, name="create-key"),
    path("profile/keys/<uuid:key_id>/revoke", profile.revoke_key, name="revoke-key"),
    path("profile/teams/<uuid:team_id>/runs", profile.runs_may_submit, name="runs-may-submit"),
    # /secrets
    path("secrets", secrets.show, name="secrets"),
    path("secrets/new", secrets.create, name="create-secret"),
    path("secrets/<uuid:secret_id>/rotate", secrets.rotate, name="rotate-secret"),
    path("secrets/<uuid:secret_id>/delete", secrets.delete, name="delete-secret"),
]
