from __future__ import annotations

import re
from base64 import b64encode

import pytest
from playwright.sync_api import Page, expect

from tests.browser.journey import expect_status, log_text, submit

SPANS = """async ([pieces, start]) => {
    const { LineReader } = await import("/static/js/log/lines.js");
    const lines = [];
    const reader = new LineReader((line) => lines.push(line), { midway: start > 0 });
    let offset = start;
    for (const piece of pieces) {
        const bytes = Uint8Array.from(atob(piece), (char) => char.charCodeAt(0));
        reader.push(offset, bytes);
        offset += bytes.length;
    }
    if (!reader.empty) lines.push(reader.current);
    return lines.map(({ offset, spans }) => [offset, spans.map(({ text, style }) => [text,
        Object.fromEntries(Object.entries(style).filter(([, value]) => value !== null && value !== false))])]);
}"""

Line = list[object]


def read(page: Page, data: bytes, *, cut: int = 0, start: int = 0) -> list[Line]:
    """What the page's log reader makes of bytes, handed over in pieces of `cut`."""
    size = cut or len(data)
    pieces = [b64encode(data[i : i + size]).decode() for i in range(0, len(data), size)]
    lines: list[Line] = page.evaluate(SPANS, [pieces, start])
    return lines


def text(lines: list[Line]) -> list[str]:
    return ["".join(span[0] for span in spans) for _, spans in lines]  # type: ignore[attr-defined]


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
def test_it_reads_as_a_terminal_would_whatever_the_pieces(admin: Page, data: bytes, shown: list[str]) -> None:
    for cut in (0, 1, 3):
        assert text(read(admin, data, cut=cut)) == shown


def test_colours_and_links(admin: Page) -> None:
    data = (
        b"\x1b[1;31mred\x1b[0m\x1b[38;5;208m256\x1b[48;2;1;2;3mtrue\x1b[0m\x1b[97;44mbright\x1b[7minverse\n"
        b"\x1b]8;;https://example.com/a\x07safe\x1b]8;;\x07 \x1b]8;;javascript:alert(1)\x07not\x1b]8;;\x07\n"
    )
    first, second = read(admin, data, cut=2)
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


def test_lines_know_their_offsets_and_a_tail_begins_with_a_whole_line(admin: Page) -> None:
    data = "é rest of a line\nsecond é\nthird\n".encode()[1:]
    lines = read(admin, data, cut=5, start=1000)
    first = 1000 + data.index(b"\n") + 1
    assert [line[0] for line in lines] == [first, first + len("second é\n".encode())]
    assert text(lines) == ["second é", "third"]


def test_it_follows_until_the_reader_scrolls_up_and_again_when_asked(admin: Page) -> None:
    submit(admin, "for i in $(seq 400); do echo line $i; [ $i -lt 200 ] || sleep 0.05; done")
    scroller = admin.locator(".log-scroll")
    pill = admin.locator(".log-pill")
    expect(admin.locator(".log-line").nth(220)).to_be_attached()
    scroller.hover()
    admin.mouse.wheel(0, -2000)
    expect(admin.locator("[data-log-follow]")).to_have_attribute("aria-pressed", "false")
    top = scroller.evaluate("e => e.scrollTop")
    expect(pill).to_contain_text("new line")
    assert scroller.evaluate("e => e.scrollTop") == top
    pill.click()
    expect(pill).to_be_hidden()
    expect_status(admin, "Completed")
    expect(admin.locator(".log-line")).to_have_count(400)
    assert scroller.evaluate("e => e.scrollHeight - e.clientHeight - e.scrollTop") < 4


def test_earlier_lines_are_loaded_where_they_belong(admin: Page) -> None:
    submit(admin, "seq -f 'this is line %06.0f of the log' 40000")
    expect_status(admin, "Completed")
    admin.reload()
    expect(admin.locator(".log-state")).to_contain_text("Complete ·")
    expect(admin.locator(".log-line").last).to_have_text("this is line 040000 of the log")
    before = admin.locator(".log-line").count()
    admin.locator(".log-scroll").evaluate("e => { e.scrollTop = 0; }")
    admin.get_by_role("button", name="Load earlier").click()
    admin.wait_for_function("n => document.querySelectorAll('.log-line').length > n", arg=before)
    numbers = [int(line.split()[3]) for line in log_text(admin).splitlines()]
    assert numbers == list(range(numbers[0], 40001))


def test_times_and_wrapping_stick(admin: Page) -> None:
    submit(admin, "echo out; sleep 0.1; echo err >&2")
    expect_status(admin, "Completed")
    admin.get_by_label("Timestamps").select_option("utc")
    admin.get_by_role("button", name="Wrap long lines").click()
    admin.reload()
    line = admin.locator(".log-line").first
    expect(line).to_have_attribute("data-time", re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    expect(line).to_have_text("out")
    expect(admin.locator("#log")).to_have_class(re.compile("no-wrap"))
    expect(admin.locator(".log-line.is-stderr")).to_have_text(["err"])
