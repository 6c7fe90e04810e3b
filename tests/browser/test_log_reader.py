"""The log pane in the hands of a reader: windows that change, selections, keys, downloads, print."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.journey import expect_status, submit
from tests.browser.test_log_pane import see, shown

FOLLOW = "[data-log-follow]"
LIVE = "for i in $(seq 2000); do echo line $i; [ $i -lt 200 ] || sleep 0.05; done"


def test_a_window_that_changes_its_size_neither_stops_following_nor_empties_the_log(admin: Page) -> None:
    submit(admin, LIVE)
    see(admin, 220, "line 220")
    for width in (400, 1280, 400):
        before = max(shown(admin))
        admin.set_viewport_size({"width": width, "height": 900})
        see(admin, before + 20, "line")
        expect(admin.locator(FOLLOW)).to_have_attribute("aria-pressed", "true")
    assert len(shown(admin)) > 10


def test_a_selection_stops_following(admin: Page) -> None:
    submit(admin, LIVE)
    see(admin, 220, "line 220")
    expect(admin.locator(FOLLOW)).to_have_attribute("aria-pressed", "true")
    admin.evaluate("getSelection().selectAllChildren(document.querySelector('.log-line .log-text'))")
    expect(admin.locator(FOLLOW)).to_have_attribute("aria-pressed", "false")
    expect(admin.locator(".log-pill")).to_contain_text("new line")


def test_what_matches_can_be_downloaded(admin: Page) -> None:
    submit(admin, "printf 'a \\033[31mred\\033[0m line\\nanother\\nRED too\\n'")
    expect_status(admin, "Completed")
    admin.locator(".log-menu summary").click()
    expect(admin.locator("[data-log-matching]")).to_be_hidden()
    admin.locator(".log-menu summary").click()
    admin.locator(".log-query").fill("red")
    expect(admin.locator("[data-log-count]")).to_contain_text("of 2")
    for link, expected in (
        ("", b"a \x1b[31mred\x1b[0m line\nRED too\n"),
        ("-plain", b"a red line\nRED too\n"),
    ):
        admin.locator(".log-menu summary").click()
        with admin.expect_download() as download:
            admin.locator(f"[data-log-matching{link}]").click()
        assert Path(download.value.path()).read_bytes() == expected


def test_single_keys_are_off_while_somebody_types_and_when_they_say_so(admin: Page) -> None:
    submit(admin, "seq 100")
    expect_status(admin, "Completed")
    log = admin.locator("#log")
    admin.locator(".log-query").focus()
    admin.keyboard.type("wtF?")
    expect(log).not_to_have_class("no-wrap")
    expect(admin.locator(".log-query")).to_have_value("wtF?")
    expect(admin.locator("[data-log-sheet]")).to_be_hidden()
    admin.keyboard.press("Escape")
    admin.keyboard.press("?")
    expect(admin.locator("[data-log-sheet]")).to_be_visible()
    expect(admin.locator(".log-keys dt").first).to_be_visible()
    admin.locator("[data-log-keys]").uncheck()
    admin.keyboard.press("Escape")
    expect(admin.locator(".log-scroll")).to_be_focused()
    admin.keyboard.press("w")
    expect(admin.locator("[data-log-wrap]")).to_have_attribute("aria-pressed", "true")
    admin.locator("[data-log-help]").click()
    admin.locator("[data-log-keys]").check()
    admin.keyboard.press("Escape")
    admin.keyboard.press("w")
    expect(admin.locator("[data-log-wrap]")).to_have_attribute("aria-pressed", "false")


def test_full_screen_is_the_whole_window_and_escape_leaves_it(admin: Page) -> None:
    submit(admin, "seq 500")
    expect_status(admin, "Completed")
    admin.locator(".log-scroll").focus()
    admin.keyboard.press("Shift+F")
    box = admin.locator("#log").bounding_box()
    assert box is not None
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 1280, 900)
    admin.keyboard.press("Escape")
    expect(admin.locator("#log")).to_have_class("log")


def test_paper_has_the_lines_and_not_the_tools(admin: Page) -> None:
    submit(admin, "echo on paper")
    expect_status(admin, "Completed")
    see(admin, 1, "on paper")
    admin.emulate_media(media="print")
    expect(admin.locator(".log-line")).to_be_visible()
    expect(admin.locator(".log-tools")).to_be_hidden()


def test_who_wants_no_motion_sees_none(admin: Page) -> None:
    submit(admin, "echo on; sleep 20")
    see(admin, 1, "on")
    moving = "getComputedStyle(document.querySelector('.log-state'), '::before').animationName"
    assert admin.evaluate(moving) == "breathe"
    admin.emulate_media(reduced_motion="reduce")
    assert admin.evaluate(moving) == "none"


def test_the_line_for_the_command_line_names_run_and_rank(admin: Page) -> None:
    name = submit(admin, "echo rank $NODE_RANK", nodes=2)
    expect_status(admin, "Completed")
    admin.get_by_role("tab", name="Rank 1").click()
    see(admin, 1, "rank 1")
    admin.locator(".log-menu summary").click()
    admin.locator("[data-log-copy='mcli']").click()
    expect(admin.locator(".log-note")).to_contain_text(f"mcli logs {name} --node 1")
