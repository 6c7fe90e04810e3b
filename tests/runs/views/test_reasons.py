"""Every reason has a page that says what it means, what it rests on, and what to do."""

from __future__ import annotations

import html
import re

import pytest

from runs.reasons import EXPLANATIONS, IMAGE_PULL
from runs.states import Reason
from tests.runs.views.pages import browser
from tests.world import World


@pytest.mark.parametrize("reason", list(Reason))
def test_each_has_its_page(world: World, reason: Reason) -> None:
    response = browser(world.vera).get(f"/reasons/{reason}")
    page = re.sub(r"</?code>", "`", html.unescape(response.content.decode()))
    said = EXPLANATIONS[reason]
    assert response.status_code == 200
    assert not [text for text in (said.sentence, said.remedy, said.evidence) if text not in page]


def test_the_list_has_them_all(world: World) -> None:
    page = browser(world.vera).get("/reasons/").content.decode()
    assert not [reason for reason in Reason if f'href="/reasons/{reason}"' not in page]


def test_the_cases_of_an_image_pull_are_told_apart(world: World) -> None:
    page = html.unescape(browser(world.vera).get("/reasons/FailedImagePull").content.decode())
    assert not [text for texts in IMAGE_PULL.values() for text in texts if text not in page]


def test_codes_are_found_in_any_case_and_near_misses_are_helped(world: World) -> None:
    vera = browser(world.vera)
    assert vera.get("/reasons/outofmemory").status_code == 200
    missing = vera.get("/reasons/OutOfMemroy")
    assert missing.status_code == 404
    assert "Did you mean OutOfMemory?" in missing.context["reason"]


def test_they_are_for_people_who_are_logged_in(world: World) -> None:
    assert browser().get("/reasons/Error").status_code == 302
