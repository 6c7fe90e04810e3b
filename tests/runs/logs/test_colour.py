"""What SGR sequences add up to."""

from __future__ import annotations

import pytest

from runs.logs.colour import PLAIN


@pytest.mark.parametrize(
    ("data", "sgr"),
    [
        (b"plain", ""),
        (b"\x1b[31mred", "31"),
        (b"\x1b[1;4;92;103mx", "1;4;92;103"),
        (b"\x1b[1m\x1b[22m", ""),
        (b"\x1b[38;5;196m\x1b[48;5;3m", "38;5;196;43"),
        (b"\x1b[38;2;10;20;30mx", "38;2;10;20;30"),
        (b"\x1b[38:2::10:20:30mx\x1b[39m\x1b[7m", "7"),
        (b"\x1b[4:3m", "4"),
        (b"\x1b[31m\x1b[0;32m", "32"),
        (b"\x1b[31m\x1b[m", ""),
        (b"\x1b[31m\x1b[2K\x1b[3", "31"),
        (b"\x1b[38;5;999m\x1b[38;9m\x1b[38m", ""),
    ],
)
def test_the_colour_after_some_text(data: bytes, sgr: str) -> None:
    assert PLAIN.after(data).sgr == sgr
    # Given as one sequence it is the same colour again.
    assert PLAIN.after(f"\x1b[{sgr}m".encode()) == PLAIN.after(data)
