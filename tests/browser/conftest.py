"""A real browser on a whole console. A test fails on any CSP violation, console error or page error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.stack import Stack

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless. For a module, not the session: Playwright leaves an event loop running in
    the thread for as long as it lives, and the next tests may want one of their own."""
    path = os.environ.get("RUNYARD_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.fail("no Chromium: apt-get install chromium, or set RUNYARD_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def nobody(chromium: Browser, stack: Stack) -> Iterator[BrowserContext]:
    """A browser that has not been here before."""
    context = chromium.new_context(base_url=stack.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    problems: list[str] = []
    expected = context.__dict__.setdefault("expected", [])
    context.on("console", lambda message: _note(problems, message))
    context.on("weberror", lambda error: problems.append(f"{error.page and error.page.url}: {error.error}"))
    yield context
    context.close()
    unexpected = [problem for problem in problems if not any(words in problem for words in expected)]
    assert not unexpected, "\n".join(unexpected)


@pytest.fixture
def admin(nobody: BrowserContext, stack: Stack) -> Page:
    """A page on which the first admin has logged in."""
    page = nobody.new_page()
    page.goto("/")
    login, password = stack.login
    page.get_by_label("E-mail").fill(login)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/runs")
    return page


def expect_problem(page: Page, words: str) -> None:
    """This test brings about an error on the console that contains `words`."""
    page.context.__dict__.setdefault("expected", []).append(words)


def _note(problems: list[str], message: ConsoleMessage) -> None:
    # A violation of the content security policy is an error on the console.
    if message.type in ("error", "warning"):
        problems.append(f"{message.page and message.page.url}: {message.text}")
