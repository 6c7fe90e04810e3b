"""The colour in which text goes on: what the SGR sequences before a place add up to. Pure.

A reader that begins in the middle of a log is given it as one sequence, so that it shows what somebody would
see who had read from the start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

LONGEST = 64
"""Bytes of a sequence that is understood; what is longer is none."""
_SGR = re.compile(rb"\x1b\[([0-9;:]{0,60})m")
_RESET = re.compile(rb"\x1b\[0*m")
_PALETTE, _RGB = 1 << 24, 2 << 24
_FLAGS = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 7: 32, 8: 64, 9: 128}
"""SGR number → bit."""
_OFF = {22: 1 | 2, 23: 4, 24: 8, 25: 16, 27: 32, 28: 64, 29: 128}


@dataclass(frozen=True)
class Colour:
    """Foreground and background (0: the default, 1 << 24 | palette number, 2 << 24 | RGB), and bits of styles."""

    fg: int = 0
    bg: int = 0
    flags: int = 0

    def after(self, data: bytes) -> Colour:
        """The colour after these bytes. A sequence that is cut in two by their end does not count yet."""
        if b"\x1b[" not in data:
            return self
        colour, begin = self, 0
        # All that lies before the last reset is of no account: most colouring programs reset at each line.
        last = max(data.rfind(b"\x1b[0m"), data.rfind(b"\x1b[m"))
        if last >= 0:
            colour, begin = PLAIN, last
        for found in _SGR.finditer(data, begin):
            colour = PLAIN if _RESET.fullmatch(found[0]) else colour._with(found[1].decode())
        return colour

    @property
    def sgr(self) -> str:
        """The parameters of one SGR sequence that gives this colour; "" for plain text."""
        parts = [str(number) for number, bit in _FLAGS.items() if self.flags & bit]
        parts += [*_parameters(self.fg, 30), *_parameters(self.bg, 40)]
        return ";".join(parts)

    def _with(self, parameters: str) -> Colour:
        colour = self
        numbers = _numbers(parameters)
        for number in numbers:
            if number == 0:
                colour = PLAIN
            elif number in _FLAGS:
                colour = replace(colour, flags=colour.flags | _FLAGS[number])
            elif number == 21:  # doubly underlined
                colour = replace(colour, flags=colour.flags | _FLAGS[4])
            elif number in _OFF:
                colour = replace(colour, flags=colour.flags & ~_OFF[number])
            elif number in (38, 48):
                value = _extended(numbers)
                if value is None:
                    break
                colour = replace(colour, fg=value) if number == 38 else replace(colour, bg=value)
            elif number == 39:
                colour = replace(colour, fg=0)
            elif number == 49:
                colour = replace(colour, bg=0)
            elif 30 <= number <= 37 or 90 <= number <= 97:
                colour = replace(colour, fg=_PALETTE | (number - 30 if number < 90 else number - 82))
            elif 40 <= number <= 47 or 100 <= number <= 107:
                colour = replace(colour, bg=_PALETTE | (number - 40 if number < 100 else number - 92))
        return colour


PLAIN = Colour()


def _numbers(parameters: str) -> Iterator[int]:
    """`38:2::r:g:b` has an empty place for a colour space, which `38;2;r;g;b` has not."""
    for group in parameters.split(";"):
        parts = group.split(":")
        if len(parts) == 6 and parts[1] == "2":
            del parts[2]
        if len(parts) > 1 and parts[0] == "4":  # 4:3, a curly underline
            parts = ["24" if parts[1] == "0" else "4"]
        yield from (int(part or 0) for part in parts)


def _extended(numbers: Iterator[int]) -> int | None:
    kind = next(numbers, None)
    if kind == 5:
        number = next(numbers, None)
        return None if number is None or number > 255 else _PALETTE | number
    if kind == 2:
        rgb = [next(numbers, None) for _ in range(3)]
        if all(part is not None and part <= 255 for part in rgb):
            red, green, blue = (part or 0 for part in rgb)
            return _RGB | red << 16 | green << 8 | blue
    return None


def _parameters(value: int, base: int) -> list[str]:
    if value & _RGB:
        return [str(base + 8), "2", str(value >> 16 & 255), str(value >> 8 & 255), str(value & 255)]
    if value & _PALETTE:
        number = value & 255
        if number < 8:
            return [str(base + number)]
        return [str(base + 52 + number)] if number < 16 else [str(base + 8), "5", str(number)]
    return []
