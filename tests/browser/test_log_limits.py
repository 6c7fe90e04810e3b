"""The log pane where others give up: ten million lines, hostile output, floods, blocked sockets."""

from __future__ import annotations

import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import expect_problem
from tests.browser.journey import expect_status, submit
from tests.browser.long_log import BEGINS_AT, ERROR_AT, PIECE
from tests.browser.test_log_pane import see, shown
from tests.browser.test_truth import violations
from tests.stack import ROOT, Stack

LINES = 10_000_000
MOST_NODES = 1500
"""Of elements in the log pane, whatever it shows."""


def nodes(page: Page) -> int:
    count: int = page.evaluate("document.querySelectorAll('#log *').length")
    return count


def go(page: Page, place: str) -> None:
    page.locator(".log-scroll").focus()
    page.keyboard.press(":")
    page.keyboard.type(place)
    page.keyboard.press("Enter")


def test_ten_million_lines_are_one_log(admin: Page, stack: Stack) -> None:
    name = submit(admin, "exit 3")
    expect_status(admin, "Failed")
    subprocess.run(
        [sys.executable, "-m", "tests.browser.long_log", name, str(LINES)],
        cwd=ROOT, env=stack.environment, check=True, timeout=600,
    )  # fmt: skip
    admin.goto(f"/runs/{name}")
    see(admin, ERROR_AT, "CUDA out of memory")
    go(admin, "9,123,456")
    see(admin, 9_123_456, "line 09123456")
    assert nodes(admin) <= MOST_NODES
    admin.locator("[data-log-first-error]").click()
    see(admin, ERROR_AT, "CUDA out of memory")
    admin.locator("[data-log-times]").select_option("utc")
    at = admin.evaluate("s => new Date(s * 1000).toISOString()", BEGINS_AT + 100)
    go(admin, at)
    see(admin, 100 * PIECE + 1, "line 02000001")
    admin.keyboard.press("Shift+G")
    see(admin, LINES, "line 10000000")
    # A wheel moves by pixels, however many lines a pixel of the scrollbar stands for.
    admin.locator(".log-scroll").hover()
    admin.mouse.wheel(0, -200)
    admin.wait_for_function(
        "() => !document.querySelector('.log-line[data-n=\"10000000\"]')?.matches(':hover')"
    )
    admin.wait_for_timeout(300)
    assert LINES - 100 < min(shown(admin)) < LINES - 10
    admin.locator(".log-scroll").evaluate("e => { e.scrollTop = e.scrollHeight / 4; }")
    admin.wait_for_function("() => Math.abs(document.querySelector('.log-line')?.dataset.n - 2500000) < 1000")
    admin.locator(".log-query").fill("line 0412345")
    admin.keyboard.press("Enter")
    expect(admin.locator("[data-log-count]")).to_have_text("1 of 10", timeout=60_000)
    see(admin, 4_123_450, "line 04123450")
    assert nodes(admin) <= MOST_NODES
    assert admin.locator(".log-spacer").evaluate("e => e.offsetHeight") <= 16_000_000


def test_what_a_run_writes_is_text_and_nothing_else(admin: Page) -> None:
    requests: list[str] = []
    hostile = (
        "<script>fetch('/pwned')</script>",
        "<img src=/pwned onerror=alert(1)>",
        r"\033]8;;javascript:alert(1)\007click\033]8;;\007",
        r"\033]8;;https://example.com/\007safe\033]8;;\007",
        r"\033]0;title\007\033[2J\033[10;10H\033Pq#0\033\\after",
        r"\033[38;2;1;2;3;4;5;99999999mcolour\033[0m",
        r"\342\200\256gnp.exe \000\007",
        "</div></main>';}*{display:none}",
    )
    submit(admin, "\n".join(f"printf '%b\\n' {_quoted(line)}" for line in hostile))
    expect_status(admin, "Completed")
    admin.on("request", lambda request: requests.append(request.url))
    admin.on("dialog", lambda dialog: pytest.fail(dialog.message))
    admin.reload()
    see(admin, 2, "<img src=/pwned")
    rows = shown(admin)
    assert rows[1] == hostile[0]
    assert rows[5] == "after"
    assert rows[7] == "\u27e6U+202E\u27e7gnp.exe \u2400\u2407"
    assert rows[8] == hostile[-1]
    kinds = admin.evaluate(
        "[...new Set([...document.querySelectorAll('.log-lines *')].map((e) => e.localName))]"
    )
    assert set(kinds) <= {"div", "a", "span"}
    links = admin.locator(".log-text a").evaluate_all("all => all.map((a) => [a.href, a.rel])")
    assert links == [["https://example.com/", "noopener noreferrer nofollow"]]
    assert not any("pwned" in url for url in requests)


def test_a_line_of_sixteen_megabytes_is_its_beginning_and_more_when_asked(admin: Page) -> None:
    submit(admin, "echo before; head -c 16000000 /dev/zero | tr '\\0' x; echo; echo after")
    expect_status(admin, "Completed")
    admin.reload()
    see(admin, 1, "before")
    more = admin.get_by_role("button", name="Show more")
    expect(more).to_contain_text("15,995,904 bytes")
    more.click()
    expect(more).to_contain_text("15,930,368 bytes")
    admin.locator(".log-scroll").focus()
    admin.keyboard.press("Shift+G")
    see(admin, 3, "after")


def test_a_flood_is_followed_and_the_page_stays_small(admin: Page) -> None:
    submit(admin, 'for i in $(seq 20); do seq -f "line %.0f of round $i" 5000; sleep 0.2; done')
    expect_status(admin, "Completed")
    see(admin, 100_000, "line 5000 of round 20")
    assert nodes(admin) <= MOST_NODES
    assert list(shown(admin)) == sorted(shown(admin))


def test_where_sockets_are_blocked_lines_come_by_requests(admin: Page) -> None:
    expect_problem(admin, "WebSocket")
    admin.add_init_script("""(() => {
        const Real = WebSocket;
        window.WebSocket = class extends Real {
            constructor(url) { super(url.replace("/ws/", "/blocked/")); }
        };
    })()""")
    submit(admin, "for i in $(seq 60); do echo line $i; sleep 0.3; done; sleep 10")
    expect(admin.locator(".log-state")).to_contain_text("by requests", timeout=25_000)
    see(admin, 60, "line 60")
    expect(admin.locator(".log-state")).to_contain_text("sha256 ✓", timeout=40_000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_it(admin: Page, theme: str) -> None:
    colours = 'for c in $(seq 30 37) $(seq 90 97); do printf "\\\\033[${c}mfg $c\\\\033[0m \\\\033[2;${c}mdim\\\\033[0m '
    colours += '\\\\033[$((c + 10))mbg\\\\033[0m \\\\033[7;${c}minverse\\\\033[0m\\n"; done; '
    colours += 'for c in $(seq 16 12 255); do printf "\\\\033[38;5;${c}m256 $c\\\\033[0m \\\\033[48;5;${c}mbg\\\\033[0m\\n"; done; '
    submit(admin, f"{colours} echo 'ERROR: it' >&2; sleep 1; exit 3", nodes=2)
    expect_status(admin, "Failed")
    admin.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    admin.reload()
    expect(admin.locator(".log-state")).to_contain_text("sha256 ✓")
    admin.locator(".log-scroll").focus()
    admin.keyboard.press("g")
    admin.keyboard.press("g")
    see(admin, 1, "fg 30")
    assert violations(admin) == []
    admin.locator("[data-log-error-list]").click()
    expect(admin.locator(".log-error").first).to_be_visible()
    assert violations(admin) == []
    admin.keyboard.press("Escape")
    admin.locator("[data-log-times]").select_option("local")
    admin.locator(".log-query").fill("fg")
    expect(admin.locator(".log-line mark").first).to_be_visible()
    assert violations(admin) == []
    admin.locator("[data-log-help]").click()
    assert violations(admin) == []


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
