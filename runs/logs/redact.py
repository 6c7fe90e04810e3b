"""Hiding secret values in output, before a byte of it is stored.

What is looked for are the values that an attempt was given and the ways in which programs write them down
(`spellings`), also where escape sequences stand between their characters. Every place where one of them stands
becomes `***`; the result does not depend on how the output was cut into chunks.
"""

from __future__ import annotations

import base64
import html
import json
import shlex
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import re2

from clusters.engines.base import Mark
from runs import unseal
from runs.logs.text import ANSI, LONGEST_SEQUENCE, SGR, unfinished_sequence

SHORTEST = 8
"""Bytes. A value that is shorter would mask what is none; it is not looked for, and pages say so."""
MASK = b"***"


@dataclass(frozen=True)
class Needles:
    """What to look for, and how many values were too short for that."""

    spelled: frozenset[bytes] = frozenset()
    too_short: int = 0

    @classmethod
    def of(cls, values: Iterable[str]) -> Needles:
        known = {value for value in values if value}
        long = {value for value in known if len(value.encode()) >= SHORTEST}
        return cls(
            frozenset(spelled for value in long for spelled in spellings(value)), len(known) - len(long)
        )


def needles_for(attempt_id: UUID) -> Needles:
    """What no log of an attempt may show. Raises `teams.unseal.CannotOpen`: then none of its output can be stored."""
    return Needles.of(unseal.secret_values(attempt_id))


def spellings(value: str) -> set[bytes]:
    """A value as it is, each of its lines, without quotes and blanks around it, and all of these as base64 (in
    both alphabets, at any place in what is encoded), hexadecimal, in URLs, JSON, XML, shells and Python."""
    texts = {value, value.strip(), value.strip().strip("\"'")}
    texts |= {line.strip() for line in value.splitlines()}
    texts |= {part for text in tuple(texts) for part in text.split("&")}  # PowerShell ends a command there
    texts = {text for text in texts if len(text.encode()) >= SHORTEST}
    found = {text.encode() for text in texts}
    for text in texts:
        found.update(written.encode() for written in _quoted(text))
        raw = text.encode()
        found.update(_base64(raw))
        found.update({raw.hex().encode(), raw.hex().upper().encode(), repr(raw)[2:-1].encode()})
    return {spelled for spelled in found if len(spelled) >= SHORTEST}


def _quoted(text: str) -> Iterator[str]:
    for encoded in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield encoded
        yield "".join(part if at % 2 == 0 else f"%{part}" for at, part in enumerate(_lower_hex(encoded)))
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield from (
            plain,
            plain.replace("/", "\\/"),
            plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        )
    escaped = html.escape(text, quote=False)
    yield from (
        escaped,
        html.escape(text),
        html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    )
    yield from (escaped.replace('"', "&quot;"), escaped.replace('"', "&quot;").replace("'", "&apos;"))
    yield from (shlex.quote(text).strip("'"), text.replace("'", "'\\''"), text.replace("'", "''"))
    yield "".join(char if char.isalnum() or char in "%+,-./:=@_" else f"\\{char}" for char in text)
    yield from (text.replace('"', '\\"'), text.replace("\\", "\\\\").replace('"', '\\"'), repr(text)[1:-1])
    yield "".join(f"\\{char}" if char in '$`"\\' else char for char in text)
    yield "".join(f"`{char}" if char in '$`"' else char for char in text)


def _lower_hex(encoded: str) -> Iterator[str]:
    """Text and escapes of a URL in turn, the latter without `%` and in small letters."""
    first, *rest = encoded.split("%")
    yield first
    for part in rest:
        yield part[:2].lower()
        yield part[2:]


def _base64(raw: bytes) -> Iterator[bytes]:
    """Its characters that do not depend on what stands before and after, and those with nothing after it."""
    for shift, dependent in ((0, 0), (1, 2), (2, 3)):
        padded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")[dependent:]
        whole = (shift + len(raw)) * 8 // 6 - dependent
        for spelled in (padded[:whole], padded):
            yield spelled
            yield spelled.translate(bytes.maketrans(b"+/", b"-_"))


@dataclass(frozen=True)
class Part:
    """Output that is decided: what to store, its marks counted from its beginning, how often it was masked."""

    data: bytes = b""
    marks: tuple[Mark, ...] = ()
    masked: int = 0


@dataclass
class Redactor:
    """Takes the output of one stream from source offset `offset` on.

    `offset` moves up to where the output is decided: what may be the beginning of a value is held back, in
    memory alone. Whoever goes on later reads again from there, and comes to the same result.
    """

    needles: frozenset[bytes]
    offset: int
    _held: bytes = b""
    _marks: list[Mark] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_head: dict[bytes, list[bytes]] = {}
        for needle in sorted(self.needles, key=len, reverse=True):
            self._by_head.setdefault(needle[:SHORTEST], []).append(needle)
        self._beginnings = {head[:size] for head in self._by_head for size in range(1, SHORTEST)}
        self._longest = max(map(len, self.needles), default=0)
        self._heads = _any_of(self._by_head) if self.needles else None

    def feed(self, data: bytes, marks: Sequence[Mark] = ()) -> Part:
        """Take the next bytes, with marks at source offsets."""
        if self._heads is None:
            return self._through(data, marks)
        if self._held:
            data, self._held = self._held + data, b""
        self._marks.extend(marks)
        return self._decide(data, final=False)

    def finish(self) -> Part:
        """Nothing follows what was held back."""
        data, self._held = self._held, b""
        return self._decide(data, final=True) if data else Part()

    def _through(self, data: bytes, marks: Sequence[Mark]) -> Part:
        begin, self.offset = self.offset, self.offset + len(data)
        return Part(data, tuple(Mark(mark.offset - begin, mark.time, mark.source) for mark in marks))

    def _decide(self, data: bytes, *, final: bool) -> Part:
        places = self._places(data)
        end = len(data) if final else self._certain(data, places)
        places = [place for place in places if place[1] <= end]
        pieces: list[bytes] = []
        froms, tos = [0], [0]
        """Where each piece begins in what came and in what is stored: marks move with their bytes."""
        at = stored = 0
        for begin, stop in places:
            mask = MASK + b"".join(self._colours(data[begin:stop]))
            pieces += [data[at:begin], mask]
            froms += [begin, stop]
            tos += [stored + begin - at, stored + begin - at + len(mask)]
            at, stored = stop, tos[-1]
        pieces.append(data[at:end])
        decided, self._marks = self._split(self.offset + end)
        moved = []
        for mark in decided:
            offset = max(0, mark.offset - self.offset)
            position = bisect_right(froms, offset) - 1
            to = tos[position]
            if position % 2 == 0:  # a piece as it came, not a mask
                to += offset - froms[position]
            moved.append(Mark(to, mark.time, mark.source))
        self._held = data[end:]
        self.offset += end
        return Part(b"".join(pieces), tuple(moved), len(places))

    def _split(self, offset: int) -> tuple[list[Mark], list[Mark]]:
        before = [mark for mark in self._marks if mark.offset < offset]
        return before, [mark for mark in self._marks if mark.offset >= offset]

    def _colours(self, hidden: bytes) -> Iterator[bytes]:
        """Colours that are set inside a value stay in force behind it."""
        if b"\x1b" in hidden and self._heads is not None:
            yield from (found[0] for found in SGR.finditer(hidden) if not self._heads.search(found[0]))

    # -- where values stand ---------------------------------------------------------------------------

    def _places(self, data: bytes) -> list[tuple[int, int]]:
        """[begin, end) of what to mask, in order; what overlaps is one."""
        found = list(self._matches(data))
        if b"\x1b" in data:
            visible = ANSI.sub(b"", data)
            hidden = list(self._matches(visible))
            if hidden:
                place = _Places(data)
                found += [(place.of(begin), place.of(end - 1) + 1) for begin, end in hidden]
                found.sort()
        merged: list[tuple[int, int]] = []
        for begin, end in found:
            if merged and begin < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def _matches(self, data: bytes) -> Iterator[tuple[int, int]]:
        """The longest value at every place where one begins."""
        assert self._heads is not None
        at = 0
        while (head := self._heads.search(data, at)) is not None:
            at = head.start()
            for needle in self._by_head[data[at : at + SHORTEST]]:
                if data.startswith(needle, at):
                    yield at, at + len(needle)
                    break
            at += 1

    # -- what is not certain yet ----------------------------------------------------------------------

    def _certain(self, data: bytes, places: Sequence[tuple[int, int]]) -> int:
        """Up to where nothing that follows can change the result."""
        end = min(self._begun(data), unfinished_sequence(data))
        if b"\x1b" in data:
            visible = ANSI.sub(b"", data[:end])
            begun = self._begun(visible)
            if begun < len(visible):
                end = min(end, _Places(data[:end]).of(begun))
        while True:
            # Neither in the middle of what is masked, nor of an escape sequence.
            for begin, stop in places:
                if begin < end < stop:
                    end = begin
            escape = data.rfind(b"\x1b", max(0, end - LONGEST_SEQUENCE), end)
            sequence = ANSI.match(data, escape) if escape >= 0 else None
            if sequence is None or sequence.end() <= end:
                if not any(begin < end < stop for begin, stop in places):
                    return end
                continue
            end = escape

    def _begun(self, data: bytes) -> int:
        """Where a value may begin that `data` does not hold to its end; its length if there is none."""
        assert self._heads is not None
        at: int = max(0, len(data) - self._longest)
        while (head := self._heads.search(data, at)) is not None:
            at = head.start()
            rest = data[at:]
            if any(
                len(needle) > len(rest) and needle.startswith(rest)
                for needle in self._by_head[rest[:SHORTEST]]
            ):
                return at
            at += 1
        for start in range(max(0, len(data) - SHORTEST + 1), len(data)):
            if data[start:] in self._beginnings:
                return start
        return len(data)


class _Places:
    """Where visible bytes stand among escape sequences."""

    def __init__(self, data: bytes) -> None:
        self._visible, self._raw = [0], [0]
        left_out = 0
        for found in ANSI.finditer(data):
            left_out += found.end() - found.start()
            self._visible.append(found.end() - left_out)
            self._raw.append(found.end())

    def of(self, visible: int) -> int:
        position = bisect_right(self._visible, visible) - 1
        return self._raw[position] + visible - self._visible[position]


def _any_of(heads: Iterable[bytes]) -> Any:
    options = re2.Options()
    options.encoding = options.Encoding.LATIN1
    options.max_mem = 256 * 2**20
    pattern = b"|".join(b"".join(b"\\x%02x" % byte for byte in head) for head in sorted(heads))
    return re2.compile(pattern, options)
