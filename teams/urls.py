from __future__ import annotations

from django.urls import path

from teams.views import profile

app_name = "teams"
urlpatterns = [
    # /profile
    path("profile", profile.show, name="profile"),
    path("profile/keys", profile.create_key, name="create-key"),
    path("profile/keys/<uuid:key_id>/revoke", profile.revoke_key, name="revoke-key"),
]
