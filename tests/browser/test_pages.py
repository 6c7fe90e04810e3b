from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import expect_problem
from tests.browser.journey import expect_status, submit
from tests.stack import Stack

PAGES = ("/runs", "/runs?q=zzz", "/runs/new", "/clusters", "/clusters/local", "/profile", "/accounts/2fa/",
         "/accounts/password/change/")  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_a_phone_and_breaks_no_rule(admin: Page, theme: str) -> None:
    name = submit(admin, "echo hi; exit 3")
    expect_status(admin, "Failed")
    admin.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    tabs = [f"/runs/{name}?tab={tab}" for tab in ("logs", "ranks", "events", "metrics", "config")]
    for url in (*PAGES, *tabs, f"/runs/{name}/clone"):
        for width in (1280, 320):
            admin.set_viewport_size({"width": width, "height": 800})
            admin.goto(url)
            expect(admin.locator("h1")).to_be_visible()
            expect(admin.locator("html")).to_have_attribute("data-bs-theme", theme)
            assert admin.evaluate("document.documentElement.scrollWidth") <= width, (url, width)


def test_the_theme_sticks(admin: Page) -> None:
    admin.get_by_role("button", name="Colours: as the system").click()
    admin.get_by_role("button", name="Colours: light").click()
    admin.reload()
    expect(admin.locator("html")).to_have_attribute("data-bs-theme", "dark")


def test_a_page_that_is_not_there_says_what_to_do(admin: Page) -> None:
    expect_problem(admin, "404 (Not Found)")
    admin.goto("/runs/nothing-abc123")
    expect(admin.locator("h1")).to_have_text("There is nothing here")
    admin.get_by_role("link", name="To the runs").click()
    admin.wait_for_url("**/runs")


def test_filters_change_the_list_and_the_address(admin: Page) -> None:
    submit(admin, "true", name="needle")
    admin.goto("/runs")
    admin.get_by_placeholder("Name").press_sequentially("needle")
    admin.wait_for_url("**/runs?q=needle*")
    expect(admin.locator("#runs tbody tr .c-name").first).to_contain_text("needle-")
    admin.go_back()
    admin.wait_for_url("**/runs")


def test_logging_out_ends_it(admin: Page) -> None:
    admin.get_by_label("Account:").click()
    admin.get_by_role("button", name="Log out").click()
    admin.goto("/runs")
    expect(admin.get_by_role("heading", name="Log in")).to_be_visible()


def test_reading_takes_no_script(chromium: Browser, admin: Page) -> None:
    name = submit(admin, "echo plain; exit 4")
    expect_status(admin, "Failed")
    storage = admin.context.storage_state()
    context = chromium.new_context(
        base_url=admin.url.split("/runs")[0], storage_state=storage, java_script_enabled=False
    )
    page = context.new_page()
    page.goto(f"/runs?q={name}")
    page.get_by_role("link", name=name).click()
    expect(page.locator("#run-live")).to_contain_text("exit code 4")
    page.get_by_role("link", name="Configuration").click()
    expect(page.locator("#config-yaml")).to_contain_text("exit 4")
    context.close()


def test_the_numbers_of_a_run_are_drawn_and_followed(admin: Page, stack: Stack) -> None:
    name = submit(admin, "sleep 1000")
    expect_status(admin, "Running")
    report(stack, name, {"loss": 2.5, "mosaicml/training_progress": "[batch=1/4]"})
    admin.get_by_role("link", name="Metrics").click()
    chart = admin.get_by_role("figure")
    expect(chart).to_have_count(1)
    expect(chart).to_contain_text("2.5")
    expect(chart.locator("canvas")).to_be_visible()
    report(stack, name, {"loss": 1.25, "lr": 0.001})
    expect(chart).to_have_count(2)
    expect(chart.first).to_contain_text("1.25")
    expect(admin.get_by_role("progressbar").first).to_be_visible()
    admin.goto(f"/runs/{name}")
    admin.get_by_role("button", name="Stop").click()
    admin.get_by_role("dialog").get_by_role("button", name="Stop").click()


def report(stack: Stack, name: str, metadata: dict[str, object]) -> None:
    """What `mcli.update_run_metadata` does."""
    document = (
        "mutation($runs: GetRunsInput!, $news: UpdateRunMetadataInput!)"
        " { updateRunMetadata(getRunsData: $runs, updateRunMetadataData: $news) { id } }"
    )
    variables = {"runs": {"filters": {"name": {"in": [name]}}}, "news": {"metadata": metadata}}
    answer = httpx.post(
        stack.env["MOSAICML_API_ENDPOINT"],
        json={"query": document, "variables": variables},
        headers={"Authorization": stack.env["MOSAICML_API_KEY"]},
    )
    assert "errors" not in answer.json()
