"""What people do in the browser, in words."""

from __future__ import annotations

from playwright.sync_api import Page, expect


def submit(page: Page, command: str, *, name: str = "hello", **compute: object) -> str:
    """Submit a run through the editor; returns its full name. The page is the run's then."""
    lines = [f"name: {name}", "image: python:3.12", "compute:", "  cluster: local", "  gpus: 0"]
    lines += [f"  {key}: {value}" for key, value in compute.items()]
    lines += ["command: |", *(f"  {line}" for line in command.splitlines())]
    page.goto("/runs/new")
    page.locator("#editor textarea").focus()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("\n".join(lines) + "\n")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(f"**/runs/{name}-*")
    return page.url.rsplit("/", 1)[1]


def expect_status(page: Page, status: str) -> None:
    """The run page shows this status, without having been loaded anew."""
    expect(page.locator("#run-live .status-mark").first).to_have_text(status, timeout=30_000)


def log_text(page: Page) -> str:
    """What a reader of a short log sees, line by line."""
    lines: list[str] = page.locator(".log-line .log-text").all_text_contents()
    return "\n".join(lines)
