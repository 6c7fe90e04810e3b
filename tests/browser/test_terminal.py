"""A terminal in a run, in a page."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.journey import expect_status, submit


def shown(page: Page, text: str) -> None:
    expect(page.locator(".xterm-rows")).to_contain_text(text)


def open_terminal(admin: Page, name: str) -> None:
    admin.goto(f"/runs/{name}")
    expect_status(admin, "Running")
    admin.get_by_role("link", name="Terminal").click()
    admin.wait_for_url("**/terminal")
    expect(admin.get_by_role("status").get_by_text("Connected")).to_be_visible()


def stop(page: Page, name: str) -> None:
    page.goto(f"/runs/{name}")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()


def test_what_is_typed_is_heard_what_is_shown_fits_and_f6_leaves(admin: Page) -> None:
    name = submit(admin, "sleep 1000")
    open_terminal(admin, name)
    admin.keyboard.type("echo rank-$NODE_RANK-$((40 + 2))\n")
    shown(admin, "rank-0-42")
    admin.keyboard.type("clear; stty size\n")
    rows = admin.locator(".xterm-rows > div").count()
    shown(admin, f"{rows} ")
    admin.set_viewport_size({"width": 700, "height": 500})
    admin.wait_for_function(f"document.querySelectorAll('.xterm-rows > div').length < {rows}")
    smaller = admin.locator(".xterm-rows > div").count()
    admin.keyboard.type(
        f"clear; until stty size | grep -q '^{smaller} '; do sleep 0.1; done; echo now-$((1 + 1))\n"
    )
    shown(admin, "now-2")
    for width in (320, 1280):
        admin.set_viewport_size({"width": width, "height": 700})
        assert admin.evaluate("document.documentElement.scrollWidth") <= width
    admin.keyboard.press("Tab")
    expect(admin.get_by_label("Terminal; F6 leaves it")).to_be_focused()
    admin.keyboard.press("F6")
    expect(admin.get_by_role("link", name="To the run")).to_be_focused()
    stop(admin, name)


def test_its_end_is_said_and_another_can_be_opened(admin: Page) -> None:
    name = submit(admin, "sleep 1000")
    open_terminal(admin, name)
    admin.keyboard.type("exit 3\n")
    expect(admin.locator("#terminal-state")).to_have_text("The command ended with exit code 3.")
    admin.get_by_role("button", name="Connect").click()
    expect(admin.locator("#terminal-state")).to_have_text("Connected")
    admin.keyboard.type("echo again-$((1 + 1))\n")
    shown(admin, "again-2")
    stop(admin.context.new_page(), name)
    expect(admin.locator("#terminal-state")).to_have_text(f"Run {name} has ended.")


def test_a_run_that_does_not_run_says_when_there_is_one(admin: Page) -> None:
    name = submit(admin, "true")
    expect_status(admin, "Completed")
    admin.goto(f"/runs/{name}/terminal")
    expect(admin.locator("#terminal-state")).to_contain_text("a terminal opens while it is Running")
