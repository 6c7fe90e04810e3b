from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import expect_problem
from tests.browser.journey import expect_status, submit

ROWS = """async ([lines, states]) => {
    const { replay, PLAIN } = await import("/static/js/log/ansi.js");
    const decoded = lines.map((line, at) => ({ number: at + 1, text: line }));
    return replay(decoded, PLAIN, { states }).rows.map(({ number, spans }) => [number, spans.map(({ text, style }) => [text,
        Object.fromEntries(Object.entries(style).filter(([, value]) => value !== null && value !== false))])]);
}"""

Row = list[object]


def read(page: Page, data: bytes, *, states: bool = False) -> list[Row]:
    """What the page's terminal makes of a log: rows of [line number, spans]."""
    lines = data.removesuffix(b"\n").decode(errors="replace").split("\n")
    rows: list[Row] = page.evaluate(ROWS, [lines, states])
    return rows


def text(rows: list[Row]) -> list[str]:
    return ["".join(span[0] for span in spans) for _, spans in rows]  # type: ignore[attr-defined]


def shown(page: Page) -> dict[int, str]:
    """The rows that can be seen, by line number."""
    rows: list[tuple[int, str]] = page.evaluate("""() => {
        const box = document.querySelector(".log-scroll").getBoundingClientRect();
        return [...document.querySelectorAll(".log-line")].filter((line) => {
            const { top, bottom } = line.getBoundingClientRect();
            return bottom > box.top + 1 && top < box.bottom - 1;
        }).map((line) => [Number(line.dataset.n), line.querySelector(".log-text").textContent]);
    }""")
    return dict(rows)


def see(page: Page, number: int, words: str) -> None:
    """A line is, or comes, into view."""
    wanted = """([number, words]) => {
        const line = document.querySelector(`.log-line[data-n="${number}"]`);
        const box = document.querySelector(".log-scroll").getBoundingClientRect();
        const { top, bottom } = line?.getBoundingClientRect() ?? { top: 0, bottom: 0 };
        return line && line.querySelector(".log-text").textContent.includes(words) && bottom > box.top && top < box.bottom;
    }"""
    page.wait_for_function(wanted, arg=[number, words])


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"long line\rshort\n", ["shortline"]),
        (b"long line\r\x1b[Kshort\n", ["short"]),
        (b"ab\bc\n", ["ac"]),
        (b"a\x1b[2Jb\x1b[?25lc\x1b[10;5Hd\n", ["abcd"]),
        (b"\x1b]0;title\x07x\x1b]0;title\x1b\\y\n", ["xy"]),
        (b"\x1bPsixel\x1b\\x\x1b_apc\x1b\\y\x1b(Bz\n", ["xyz"]),
        (b"\x1b[31\nnext\n", ["", "next"]),
        (b"\x1b]never closed\nnext\n", ["", "next"]),
        (b"\x1b\nnext\n", ["", "next"]),
        (b"nul\x00bell\x07del\x7f\n", ["nul\u2400bell\u2407del\u2421"]),
        ("ab\u202etxt.exe\n".encode(), ["ab\u27e6U+202E\u27e7txt.exe"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        ("🙂 ü\n".encode(), ["🙂 ü"]),
        (b"<b onclick=x>&amp;\n", ["<b onclick=x>&amp;"]),
        (b"no end", ["no end"]),
    ],
)
def test_it_reads_as_a_terminal_would(admin: Page, data: bytes, shown: list[str]) -> None:
    assert text(read(admin, data)) == shown


def test_a_bar_is_one_row_nested_ones_are_theirs_and_every_state_can_be_seen(admin: Page) -> None:
    bars = b"epoch\n0%\x1b[K\n\x1b[2A\repoch 2\n\r50%\x1b[K\n\x1b[1A\r100%\x1b[K\nafter\n"
    assert text(read(admin, bars)) == ["epoch 2", "100%", "after"]
    assert [row[0] for row in read(admin, bars)] == [1, 2, 6]
    assert text(read(admin, b"0%\r50%\r100%\r\nnext\n", states=True)) == ["0%", "50%", "100%", "next"]


def test_colours_and_links(admin: Page) -> None:
    data = (
        b"\x1b[1;31mred\x1b[0m\x1b[38;5;208m256\x1b[48;2;1;2;3mtrue\x1b[0m\x1b[97;44mbright\x1b[7minverse\n"
        b"\x1b]8;;https://example.com/a\x07safe\x1b]8;;\x07 \x1b]8;;javascript:alert(1)\x07not\x1b]8;;\x07\n"
    )
    first, second = read(admin, data)
    assert first[1] == [
        ["red", {"bold": True, "fg": 1}],
        ["256", {"fg": "#ff8700"}],
        ["true", {"fg": "#ff8700", "bg": "#010203"}],
        ["bright", {"fg": 15, "bg": 4}],
        ["inverse", {"fg": 15, "bg": 4, "inverse": True}],
    ]
    links = [span[1].get("link") for span in second[1]]  # type: ignore[attr-defined]
    assert links[0] == "https://example.com/a"
    assert not any(links[1:])


def test_it_follows_until_the_reader_scrolls_up_and_again_when_asked(admin: Page) -> None:
    submit(admin, "for i in $(seq 400); do echo line $i; [ $i -lt 200 ] || sleep 0.05; done")
    pill = admin.locator(".log-pill")
    see(admin, 220, "line 220")
    admin.locator(".log-scroll").hover()
    admin.mouse.wheel(0, -800)
    expect(admin.locator("[data-log-follow]")).to_have_attribute("aria-pressed", "false")
    expect(admin.locator(".log-state")).to_contain_text("paused")
    expect(pill).to_contain_text("new line")
    before = min(shown(admin))
    admin.wait_for_function("() => parseInt(document.querySelector('.log-pill').textContent) > 20")
    assert min(shown(admin)) == before
    pill.click()
    expect(pill).to_be_hidden()
    expect_status(admin, "Completed")
    see(admin, 400, "line 400")
    assert max(shown(admin)) == 400


def test_a_finished_log_opens_at_its_top_and_any_line_of_it_can_be_reached(admin: Page) -> None:
    name = submit(admin, "seq -f 'this is line %06.0f of the log' 40000")
    expect_status(admin, "Completed")
    admin.reload()
    expect(admin.locator(".log-state")).to_contain_text("sha256 ✓")
    see(admin, 1, "this is line 000001 of the log")
    scroller = admin.locator(".log-scroll")
    scroller.focus()
    admin.keyboard.press("Shift+G")
    see(admin, 40000, "line 040000")
    admin.keyboard.press("PageUp")
    admin.keyboard.press("g")
    admin.keyboard.press("g")
    see(admin, 1, "line 000001")
    scroller.evaluate("e => { e.scrollTop = e.scrollHeight / 2; }")
    admin.wait_for_function("() => Math.abs(document.querySelector('.log-line')?.dataset.n - 20000) < 300")
    admin.keyboard.press(":")
    admin.keyboard.type("31,234")
    admin.keyboard.press("Enter")
    see(admin, 31234, "line 031234")
    assert admin.url.endswith(f"/runs/{name}?attempt=0&rank=0#L31234")
    assert admin.locator(".log-line").count() <= 300
    admin.goto(f"/runs/{name}?attempt=0&rank=0#L12345-L12347")
    see(admin, 12345, "line 012345")
    expect(admin.locator(".log-line.is-chosen")).to_have_count(3)
    admin.locator('.log-line[data-n="12350"] .log-no').click(modifiers=["Shift"])
    expect(admin).to_have_url(re.compile(r"\?attempt=0&rank=0#L12345-L12350$"))


def test_a_failed_run_opens_at_its_first_error_and_the_failure_leads_to_its_line(admin: Page) -> None:
    command = "seq 3000; echo 'ERROR: disk is slow'; seq 2000; python3 -c 'raise RuntimeError(\"boom\")'; seq 3000; exit 3"
    submit(admin, command)
    expect_status(admin, "Failed")
    admin.reload()
    see(admin, 5002, "Traceback (most recent call last)")
    expect(admin.locator("[data-log-error-list]")).to_be_visible()
    expect(admin.locator(".log-map")).to_be_visible()
    admin.locator("[data-log-error-list]").click()
    expect(admin.locator(".log-error").first).to_contain_text("disk is slow")
    admin.locator(".log-error").first.click()
    see(admin, 3001, "disk is slow")
    admin.locator(".log-scroll").focus()
    admin.keyboard.press("]")
    see(admin, 5002, "Traceback")
    admin.keyboard.press("[")
    see(admin, 3001, "disk is slow")
    admin.locator("[data-log-line]").first.click()
    see(admin, 5002, "Traceback")


def test_search_counts_steps_filters_and_refuses_what_is_no_expression(admin: Page) -> None:
    submit(
        admin, "for i in $(seq 2000); do printf 'step %s of \\033[31mloss\\033[0m\\n' $i; done; echo Stepping"
    )
    expect_status(admin, "Completed")
    admin.reload()
    see(admin, 1, "step 1 of loss")
    admin.locator(".log-scroll").focus()
    admin.keyboard.press("/")
    admin.keyboard.type("STEP 17")
    count = admin.locator("[data-log-count]")
    expect(count).to_have_text("1 of 111")
    see(admin, 17, "step 17 of")
    admin.keyboard.press("Enter")
    expect(count).to_have_text("2 of 111")
    see(admin, 170, "step 170")
    admin.keyboard.press("Shift+Enter")
    admin.keyboard.press("Shift+Enter")
    expect(count).to_have_text("111 of 111")
    see(admin, 1799, "step 1799")
    expect(admin.locator(".log-line mark").first).to_have_text("step 17")
    admin.get_by_role("button", name="Whole words").click()
    expect(count).to_have_text("1 of 1")
    admin.locator("[data-log-filter]").select_option("3")
    admin.wait_for_function("() => document.querySelectorAll('.log-line:not(.is-loading)').length === 7")
    assert list(shown(admin)) == [14, 15, 16, 17, 18, 19, 20]
    admin.locator("[data-log-filter]").select_option("")
    admin.get_by_role("button", name="Whole words").click()
    admin.get_by_role("button", name="Match case").click()
    expect(count).to_have_text("none")
    admin.locator(".log-query").fill("Stepping|17\\d of loss")
    admin.get_by_role("button", name="Regular expression").click()
    expect(count).to_have_text(re.compile(r"of 21$"))
    expect_problem(admin, "400 (Bad Request)")
    admin.locator(".log-query").fill("(17")
    expect(count).to_contain_text("missing )")


def test_times_and_wrapping_stick(admin: Page) -> None:
    submit(admin, "echo out; sleep 0.1; echo err >&2")
    expect_status(admin, "Completed")
    admin.get_by_label("Timestamps").select_option("utc")
    admin.get_by_role("button", name="Wrap long lines").click()
    admin.reload()
    line = admin.locator(".log-line").first
    expect(line.locator(".log-time")).to_have_attribute("data-time", re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    expect(line).to_have_text("out")
    expect(admin.locator("#log")).to_have_class(re.compile("no-wrap"))
    expect(admin.locator(".log-line.is-stderr")).to_have_text(["err"])


def test_all_ranks_are_one_log_and_what_they_write_alike_is_one_row(admin: Page) -> None:
    name = submit(admin, "echo alike; sleep 1; echo I am $NODE_RANK; sleep 1; echo the end", nodes=2)
    expect_status(admin, "Completed")
    admin.reload()
    see(admin, 1, "alike")
    admin.locator(".log-scroll").focus()
    admin.keyboard.press("m")
    expect(admin.get_by_role("tab", name="All ranks")).to_have_attribute("aria-selected", "true")
    text = admin.locator(".log-line .log-text")
    expect(text).to_have_count(4)
    assert sorted(text.all_text_contents()) == ["I am 0", "I am 1", "alike", "the end"]
    expect(admin.locator(".log-times").first).to_have_attribute("data-times", "×2")
    admin.get_by_role("button", name="One row for what several ranks write alike").click()
    expect(text).to_have_count(6)
    admin.locator(".log-rank[data-rank='1']").first.click()
    expect(text).to_have_text(["alike", "I am 1", "the end"])
    admin.locator(".log-no").nth(1).click()
    expect(admin.get_by_role("tab", name="Rank 1")).to_have_attribute("aria-selected", "true")
    expect(admin.locator(".log-line.is-chosen")).to_have_text("I am 1")
    assert admin.url.endswith(f"/runs/{name}?attempt=0&rank=1#L2")
