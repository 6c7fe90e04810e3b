"""P14: a log of ten million lines in Chromium, against one of a thousand on the same page.

Time from navigation to the first line on screen, to any line, size of the page's heap, elements, long tasks.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import FLAGS
from tests.browser.journey import expect_status, submit
from tests.browser.long_log import PIECE
from tests.stack import ROOT, Stack

SMALL, LARGE = 1_000, 10_000_000
ROUNDS = 7
LONG_TASKS = """() => {
    window.longest = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
    }).observe({ type: "longtask", buffered: true });
}"""


def main() -> int:
    path = os.environ.get("RUNYARD_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    stack = Stack()
    try:
        stack.start()
        with sync_playwright() as playwright:
            flags = [*FLAGS, "--enable-precise-memory-info", "--js-flags=--expose-gc"]
            browser = playwright.chromium.launch(executable_path=path, args=flags)
            page = browser.new_context(base_url=stack.url, viewport={"width": 1280, "height": 900}).new_page()
            login, password = stack.login
            page.goto("/")
            page.get_by_label("E-mail").fill(login)
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Log in").click()
            page.wait_for_url("**/runs")
            figures = {lines: _measure(page, stack, lines) for lines in (SMALL, LARGE)}
            browser.close()
    finally:
        stack.remove()
    print(f"{'':34}{SMALL:>14,}{LARGE:>14,}{'ratio':>8}")
    for what in figures[SMALL]:
        small, large = figures[SMALL][what], figures[LARGE][what]
        print(f"{what:34}{small:14.1f}{large:14.1f}{large / small if small else 0:8.2f}")
    return 0


def _measure(page: Page, stack: Stack, lines: int) -> dict[str, float]:
    name = submit(page, "true")
    expect_status(page, "Completed")
    subprocess.run(
        [sys.executable, "-m", "tests.browser.long_log", name, str(lines)],
        cwd=ROOT, env=stack.environment, check=True,
    )  # fmt: skip
    opened, jumped = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        page.goto(f"/runs/{name}")
        page.locator('.log-line[data-n="1"]:not(.is-loading)').wait_for()
        opened.append(time.perf_counter() - began)
    page.evaluate(LONG_TASKS)
    page.locator(".log-scroll").focus()
    for step in range(ROUNDS):
        line = 1 + (step * 7919 * PIECE + 777) % lines
        page.keyboard.press(":")
        page.keyboard.insert_text(str(line))
        began = time.perf_counter()
        page.keyboard.press("Enter")
        page.locator(f'.log-line[data-n="{line}"]:not(.is-loading)').wait_for()
        jumped.append(time.perf_counter() - began)
    page.evaluate("gc()")
    return {
        "open, ms (median)": statistics.median(opened) * 1000,
        "to any line, ms (median)": statistics.median(jumped) * 1000,
        "heap, MB": page.evaluate("performance.memory.usedJSHeapSize") / 1e6,
        "elements of the page": page.evaluate("document.querySelectorAll('*').length"),
        "longest task, ms": page.evaluate("window.longest"),
    }
