from __future__ import annotations

import re

import pytest

from teams.commands import create_api_key
from teams.models import APIKey, AuditEntry
from teams.queries import caller_by_key
from tests.runs.conftest import world  # noqa: F401
from tests.runs.views.pages import browser, htmx, plain_static  # noqa: F401
from tests.world import World

KEY = re.compile(r"ryk_[A-Za-z0-9_-]{43}")


def test_a_key_is_shown_once_with_the_lines_to_paste(world: World) -> None:  # noqa: F811
    ada = browser(world.ada)
    form = {"name": "laptop", "team": str(world.vision.pk), "scope": "write", "expires": "30"}
    response = ada.post("/profile/keys", form, headers=htmx("keys"))
    page = response.content.decode()
    assert "<html" not in page
    assert response.headers["Cache-Control"] == "private, no-store"
    key = KEY.search(page)
    assert key is not None
    assert f"export MOSAICML_API_KEY={key[0]}" in page
    for name in ("MOSAICML_API_ENDPOINT", "MOSAICML_MINT_ENDPOINT", "MCLI_DISABLE_UPGRADE_CHECK"):
        assert f"export {name}=" in page
    caller = caller_by_key(key[0])
    assert caller is not None
    assert (caller.user, caller.team) == (world.ada.user, world.vision)
    assert APIKey.objects.get().expires_at is not None
    again = ada.get("/profile").content.decode()
    assert "laptop" in again
    assert key[0] not in again


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true", "HX-Target": "keys"}])
def test_a_key_without_a_name_or_for_a_foreign_team_is_refused_in_words(
    world: World,  # noqa: F811
    headers: dict[str, str],
) -> None:
    ada = browser(world.ada)
    nameless = ada.post("/profile/keys", {"name": " ", "team": str(world.vision.pk)}, headers=headers)
    assert "Give the key a name" in nameless.content.decode()
    foreign = ada.post("/profile/keys", {"name": "x", "team": str(world.other.pk)}, headers=headers)
    assert "Choose one of your teams" in foreign.content.decode()
    assert not APIKey.objects.exists()


def test_only_its_owner_sees_and_revokes_a_key(world: World) -> None:  # noqa: F811
    row, key = create_api_key(world.ada, world.vision, "laptop")
    for other in (world.max, world.olaf):
        assert "laptop" not in browser(other).get("/profile").content.decode().replace('"laptop"', "")
        assert browser(other).post(f"/profile/keys/{row.pk}/revoke").status_code == 404
    assert caller_by_key(key) is not None
    assert browser(world.ada).post(f"/profile/keys/{row.pk}/revoke").status_code == 303
    assert caller_by_key(key) is None


def test_it_shows_teams_with_roles(world: World) -> None:  # noqa: F811
    memberships = browser(world.max).get("/profile").context["memberships"]
    assert [(row.team, row.role) for row in memberships] == [(world.vision, "admin")]


def test_an_admin_says_whether_the_teams_runs_submit_runs(world: World) -> None:  # noqa: F811
    url = f"/profile/teams/{world.vision.pk}/runs"
    admin = browser(world.max)
    assert "may submit further runs" in admin.get("/profile").content.decode()
    for allowed, words in (("no", "may not submit further runs"), ("yes", "may submit further runs")):
        assert words in admin.post(url, {"allowed": allowed}, follow=True).content.decode()
        world.vision.refresh_from_db()
        assert world.vision.runs_may_submit is (allowed == "yes")
    admin.post(url, {"allowed": "yes"})  # as it is: nothing to record
    entries = AuditEntry.objects.filter(action="team.runs_may_submit").order_by("id")
    assert [(entry.actor, entry.target, entry.data["allowed"]) for entry in entries] == [
        ("max@example.com", "vision", False),
        ("max@example.com", "vision", True),
    ]


def test_nobody_else_says_so(world: World) -> None:  # noqa: F811
    for caller, status in ((world.ada, 403), (world.vera, 403), (world.olaf, 404)):
        page = browser(caller)
        assert page.post(f"/profile/teams/{world.vision.pk}/runs", {"allowed": "no"}).status_code == status
    assert "Forbid it" not in browser(world.ada).get("/profile").content.decode()
    world.vision.refresh_from_db()
    assert world.vision.runs_may_submit
    assert not AuditEntry.objects.filter(action="team.runs_may_submit").exists()
