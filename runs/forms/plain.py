"""JSON from strangers, made safe to walk, to store in PostgreSQL and to send out again."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_BYTES = 2**20
"""Of a whole request, as JSON."""
DEPTH = 20
NODES = 10_000
DIGITS = 308
"""As many as fit into what JSON's readers in other languages make of a number."""
LARGEST = 10**DIGITS


class PlainError(ValueError):
    """Not something that can be kept. `path` says where, such as `metadata.a[3]`; "" is the whole."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


def read_json(text: str | bytes) -> Any:
    """JSON as strangers send it, for `plain` to check.

    NaN and Infinity are no JSON, but the client writes them (mapi §7.20): as words they can be kept. Raises
    `PlainError` for a name that an object has twice, of which readers make different things, and for what is nested
    beyond what can be read; `ValueError` for what is no JSON.
    """
    try:
        return json.loads(text, parse_constant=str, parse_int=_read_int, object_pairs_hook=_read_object)
    except RecursionError:
        raise PlainError("", f"is nested more than {DEPTH} levels deep") from None


def _read_int(digits: str) -> int:
    """Python reads no more than some thousand digits; `plain` says which number has too many."""
    return int(digits) if len(digits) <= 2 * DIGITS else 10 ** (2 * DIGITS)


def _read_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise PlainError(twice[:60], f"says {twice[:60]!r} twice")
    return found


def plain(value: Any) -> Any:
    """A copy of JSON data that PostgreSQL's jsonb and strict parsers take.

    NaN and the infinities become strings, as the client itself makes them on the top level (mapi §7.20).
    Raises `PlainError` for more than `DEPTH` levels or `NODES` values, and for text that is not Unicode
    text to a database: a NUL, or half of a surrogate pair.
    """
    return _Walk().copy(value, "", 0)


class _Walk:
    def __init__(self) -> None:
        self.nodes = 0

    def copy(self, value: Any, path: str, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > NODES:
            raise PlainError("", f"holds more than {NODES:,} values")
        if depth > DEPTH:
            raise PlainError(path, f"is nested more than {DEPTH} levels deep")
        match value:
            case int() if abs(value) >= LARGEST:
                raise PlainError(path, f"is a number with more than {DIGITS} digits")
            case None | bool() | int():
                return value
            case str():
                return self.text(value, path)
            case float():
                return value if math.isfinite(value) else _not_a_number(value)
            case dict():
                dot = f"{path}." if path else ""
                return {
                    self.text(str(key), path): self.copy(item, f"{dot}{key}", depth + 1)
                    for key, item in value.items()
                }
            case list() | tuple():
                return [self.copy(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
        raise PlainError(path, f"is a {type(value).__name__}, which JSON has no word for")

    def text(self, value: str, path: str) -> str:
        if "\0" in value:
            raise PlainError(path, "holds a NUL character, which cannot be stored")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PlainError(path, "holds half of a surrogate pair, which is not text") from None
        return value


def _not_a_number(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
