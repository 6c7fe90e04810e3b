from __future__ import annotations

import pytest

from teams import unseal
from teams.commands import create_secret
from teams.models import Secret
from teams.states import SHAPES, SecretKind
from tests.runs.conftest import world  # noqa: F401
from tests.runs.views.pages import browser, htmx, plain_static  # noqa: F401
from tests.secrets import PLANTED, VALUES, metadata, request, slug
from tests.world import World


def form(kind: SecretKind, world: World, **more: str) -> dict[str, str]:  # noqa: F811
    """What the page's form for that kind sends."""
    base = {"kind": kind.value, "name": slug(kind), "team": str(world.vision.pk), "whose": "me"}
    return {**base, **metadata(kind), **VALUES[kind], **more}


@pytest.mark.parametrize("kind", SecretKind)
def test_every_kind_has_a_form_that_keeps_it_and_never_shows_it(kind: SecretKind, world: World) -> None:  # noqa: F811
    ada = browser(world.ada)
    page = ada.get(f"/secrets?kind={kind.value}").content.decode()
    for name in (*SHAPES[kind].fields, SHAPES[kind].place or "name"):
        assert f'name="{name}"' in page
    assert ada.post("/secrets/new", form(kind, world)).status_code == 303
    (opened,) = unseal.for_run(world.vision.pk, world.ada.user.pk)
    assert opened.value == {
        name: text if text.endswith("\n") or name not in {"value", "config", "credentials", "keyFile"} or kind is SecretKind.ENV_VAR
        else f"{text}\n"
        for name, text in VALUES[kind].items()
    }  # fmt: skip
    shown = ada.get("/secrets").content.decode()
    assert slug(kind) in shown
    assert not any(text in shown for text in PLANTED)


def test_a_key_file_from_a_browser_has_the_line_ends_that_ssh_takes(world: World) -> None:  # noqa: F811
    sent = form(SecretKind.SSH, world, value="-----BEGIN KEY-----\r\nabcdefgh\r\n-----END KEY-----")
    browser(world.ada).post("/secrets/new", sent)
    (opened,) = unseal.for_run(world.vision.pk, world.ada.user.pk)
    assert opened.value["value"] == "-----BEGIN KEY-----\nabcdefgh\n-----END KEY-----\n"


def test_what_is_refused_is_said_and_the_value_is_not_sent_back(world: World) -> None:  # noqa: F811
    sent = form(SecretKind.ENV_VAR, world, key="RUN_NAME")
    answer = browser(world.ada).post("/secrets/new", sent)
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "RUN_NAME is set by Runyard itself" in page
    assert 'value="env-var"' in page
    assert not any(text in page for text in PLANTED)
    assert not Secret.objects.exists()


def test_choosing_a_kind_fetches_its_form_alone(world: World) -> None:  # noqa: F811
    part = browser(world.ada).get("/secrets?kind=S3", headers=htmx("secret-form")).content.decode()
    assert "<html" not in part
    assert 'name="mountDirectory"' in part
    assert browser(world.ada).get("/secrets?kind=NOPE").status_code == 404


def test_short_values_say_that_they_are_not_masked(world: World) -> None:  # noqa: F811
    create_secret(world.ada, world.vision, request(SecretKind.ENV_VAR, value={"value": "1234567"}))
    create_secret(world.ada, world.vision, request(SecretKind.MOUNTED))
    page = browser(world.ada).get("/secrets").content.decode()
    assert page.count("not masked: shorter than 8 characters") == 1


def test_everybody_sees_their_own_and_the_teams_and_changes_what_they_may(world: World) -> None:  # noqa: F811
    mine = create_secret(world.ada, world.vision, request(SecretKind.ENV_VAR, name="adas"))
    shared = create_secret(
        world.max, world.vision, request(SecretKind.MOUNTED, name="shared"), team_wide=True
    )
    ada = browser(world.ada)
    assert [row["secret"].name for row in ada.get("/secrets").context["rows"]] == ["adas", "shared"]
    assert [row["may_change"] for row in ada.get("/secrets").context["rows"]] == [True, False]
    assert [row["secret"].name for row in browser(world.bob).get("/secrets").context["rows"]] == ["shared"]
    assert browser(world.olaf).get("/secrets").context["rows"] == []
    assert ada.post(f"/secrets/{shared.pk}/delete").status_code == 403
    assert browser(world.bob).post(f"/secrets/{mine.pk}/delete").status_code == 404
    assert browser(world.olaf).post(f"/secrets/{shared.pk}/rotate", {"value": "x"}).status_code == 404
    assert Secret.objects.count() == 2
    assert ada.post(f"/secrets/{mine.pk}/rotate", {"value": "another-value"}).status_code == 303
    assert ada.post(f"/secrets/{mine.pk}/delete").status_code == 303
    assert browser(world.max).post(f"/secrets/{shared.pk}/delete").status_code == 303
    assert not Secret.objects.exists()


def test_a_viewer_sees_no_form_and_is_refused_without_one(world: World) -> None:  # noqa: F811
    vera = browser(world.vera)
    assert 'id="secret-form"' not in vera.get("/secrets").content.decode()
    assert vera.post("/secrets/new", form(SecretKind.ENV_VAR, world)).status_code == 403
    assert not Secret.objects.exists()


def test_a_form_for_a_foreign_team_is_refused(world: World) -> None:  # noqa: F811
    sent = form(SecretKind.ENV_VAR, world, team=str(world.other.pk))
    assert browser(world.ada).post("/secrets/new", sent).status_code == 400
    assert (
        browser(world.ada)
        .post("/secrets/new", {**form(SecretKind.ENV_VAR, world), "whose": "team"})
        .status_code
        == 403
    )
    assert not Secret.objects.exists()
