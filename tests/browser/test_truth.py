"""What the run page says of why a run ended, why it waits, and whether it can be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from tests.browser.journey import expect_status, submit
from tests.stack import ROOT, Stack

AXE = (ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text()
LOOKS_WITHIN = 40_000
"""Milliseconds. No bell rings for what is not seen: pages look now and then."""
BREAKS = """\
test $NODE_RANK = $((NUM_NODES - 1)) || sleep 60
python3 -c '
def train(batch):
    raise ValueError(f"bad <b>batch</b> {batch}")
train(3)
'
"""


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page for those who cannot see it, or not well."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{item['id']}: {node['html'][:200]} {node['failureSummary']}"
        for item in found["violations"]
        for node in item["nodes"]
    ]


def shell(stack: Stack, code: str) -> None:
    """Run Python inside the console, with its database."""
    command = [sys.executable, "manage.py", "shell", "-c", code]
    subprocess.run(command, cwd=ROOT, env=stack.environment, check=True, capture_output=True)


@contextmanager
def nobody_looks(stack: Stack) -> Iterator[None]:
    """While this lasts the control loop stands still, as on a host that is overloaded."""
    pid = stack.pid("worker")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_card_says_what_failed_where_why_and_what_to_do(admin: Page) -> None:
    name = submit(admin, BREAKS, nodes=2)
    expect_status(admin, "Failed")
    card = admin.locator(".why")
    expect(card.locator("pre")).to_contain_text("ValueError: bad <b>batch</b> 3")
    expect(card).to_contain_text("Failed first")
    expect(card).to_contain_text("exit code 143: killed by SIGTERM (stopped in consequence)")
    expect(card).to_contain_text("Not retried: max_retries was 0.")
    expect(card.get_by_role("link", name="line 1", exact=True)).to_have_attribute(
        "href", "?attempt=0&rank=1#L1"
    )
    card.get_by_role("link", name="Error", exact=True).click()
    expect(admin.locator("h1")).to_have_text("Error")
    admin.get_by_role("link", name="Reasons").click()
    expect(admin.locator("h1")).to_have_text("Why runs end")
    admin.get_by_role("link", name="Runs", exact=True).click()
    row = admin.locator("tr", has_text=name)
    row.get_by_role("link", name="Error").click()
    expect(admin.locator("h1")).to_have_text("Error")


def test_attempts_stand_on_one_line_of_time_and_lead_to_themselves(admin: Page) -> None:
    name = submit(admin, "exit 3")
    expect_status(admin, "Failed")
    admin.get_by_role("button", name="Restart").click()
    admin.locator("#dialog-restart").get_by_role("button", name="Restart").click()
    lanes = admin.locator(".lane")
    expect(lanes).to_have_count(2)
    expect(lanes.nth(1)).to_contain_text("Restarted by admin@")
    expect_status(admin, "Failed")
    assert violations(admin) == []
    lanes.nth(0).get_by_role("link").click()
    admin.wait_for_url(f"**/runs/{name}?attempt=0")
    expect(admin.locator(".lane.is-shown")).to_contain_text("Attempt 1")


def test_what_cannot_be_seen_says_so_while_the_page_is_open_and_goes_on(admin: Page, stack: Stack) -> None:
    name = submit(admin, "echo up; sleep 300")
    expect_status(admin, "Running")
    listed = admin.context.new_page()
    listed.goto("/runs")
    row = listed.locator("tr", has_text=name)
    expect(row.locator(".status-mark")).to_have_text("Running")
    expect(admin.locator(".unseen")).to_have_count(0)
    with nobody_looks(stack):
        shell(
            stack,
            "from datetime import timedelta\n"
            "from clusters.models import Cluster\n"
            "from runs import lifecycle\n"
            "from runs.models import Attempt\n"
            "ago = lifecycle.database_now() - timedelta(minutes=12)\n"
            f"Attempt.objects.filter(run__name='{name}').update(seen_at=ago, started_at=ago)\n"
            "Cluster.objects.update(swept_at=ago, seen_at=ago)",
        )
        expect(admin.locator(".run-title .unseen")).to_contain_text("not seen for 12m", timeout=LOOKS_WITHIN)
        expect(admin.locator("#run-live")).to_contain_text("The control loop has not looked at local for 12m")
        expect(row.locator(".unseen")).to_contain_text("not seen for 12m", timeout=LOOKS_WITHIN)
        expect(row.locator(".status-mark")).to_have_text("Running")
        for page in (admin, listed):
            assert violations(page) == []
    expect(admin.locator(".unseen")).to_have_count(0, timeout=LOOKS_WITHIN)
    expect(admin.locator("#run-live")).not_to_contain_text("The control loop")
    expect(row.locator(".unseen")).to_have_count(0, timeout=LOOKS_WITHIN)
    expect_status(admin, "Running")
    admin.get_by_role("button", name="Stop").click()
    admin.locator("#dialog-stop").get_by_role("button", name="Stop").click()
    expect_status(admin, "Stopped")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_these_pages_are_for_everybody(admin: Page, theme: str) -> None:
    name = submit(admin, BREAKS)
    expect_status(admin, "Failed")
    admin.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    for url in (
        f"/runs/{name}?tab=events",
        "/runs",
        "/clusters/local",
        "/reasons/",
        "/reasons/FailedImagePull",
    ):
        admin.goto(url)
        expect(admin.locator("html")).to_have_attribute("data-bs-theme", theme)
        assert violations(admin) == [], url
