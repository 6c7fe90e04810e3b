"""`make docs`: check the links of README and docs/, then make the picture in README from a console of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import unquote

from playwright.sync_api import Page, sync_playwright

from tests.stack import ROOT, Stack

PICTURE = ROOT / "docs" / "screenshot.png"
SIZE = (1280, 800)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def main() -> None:
    broken = list(broken_links())
    for line in broken:
        print(line, file=sys.stderr)
    take_picture()
    print(f"made {PICTURE.relative_to(ROOT)}")
    if broken:
        sys.exit(1)


def broken_links() -> Iterator[str]:
    """Relative links that lead nowhere. What is outside the checkout is not asked."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in LINK.findall(page.read_text()):
            path = unquote(target.partition("#")[0])
            if not path or ":" in path or (page.parent / path).exists() or page.parent / path == PICTURE:
                continue
            yield f"{page.relative_to(ROOT)}: {target} is not there"


def take_picture() -> None:
    """A run of the demo with its log, as the first admin of a team sees it."""
    stack = Stack()
    try:
        stack.start()
        demo = subprocess.run(
            [sys.executable, "manage.py", "seed_demo"],
            cwd=ROOT,
            env=stack.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        login, password = re.findall(r"Log in as (\S+)\s+password (\S+)", demo)[0]
        run = re.findall(r"RUNNING\s+\S+/(\S+)", demo)[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ["RUNYARD_CHROMIUM"],
                args=["--no-sandbox"] if os.geteuid() == 0 else [],
            )
            page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
            log_in(page, stack.url, login, password)
            page.goto(f"{stack.url}/runs/{run}")
            page.wait_for_timeout(8000)  # Long enough for a log worth looking at.
            page.screenshot(path=str(PICTURE))
            browser.close()
    finally:
        stack.remove()


def log_in(page: Page, url: str, login: str, password: str) -> None:
    """Through the form, as a person does."""
    page.goto(f"{url}/accounts/login/")
    page.fill("input[name=login]", login)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{url}/runs*")


if __name__ == "__main__":
    main()
