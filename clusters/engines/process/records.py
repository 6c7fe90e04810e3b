"""Small files that outlive the process which wrote them. Imported before a rank's `exec`.

Records are JSON, written whole or not at all. The settings of a rank are `NAME=value` records ended by
NUL, the format of /proc/<pid>/environ: exactly what `exec` can take, nothing to escape, and nothing to
import for reading it (`json` alone would cost a third of the time that a start may take).
"""

from __future__ import annotations

import os
import time

FALSE = False
if FALSE:  # `typing` costs 3 ms; only the type checker needs it.
    from collections.abc import Mapping
    from typing import Any

RESERVED = 4096
RESERVED_EXIT = "exit.json.reserved"
"""The blocks that become a rank's exit record, under another name until then."""


def write_atomic(path: str, content: bytes, *, sync: bool = False) -> None:
    """Replace a file as a whole. With `sync` it survives a power cut from the return on."""
    fresh = f"{path}.{os.getpid()}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, content)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(fresh, path)
    if sync:
        sync_folder(os.path.dirname(path) or ".")


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: str, record: Mapping[str, Any], *, sync: bool = False) -> None:
    import json

    write_atomic(path, json.dumps(record).encode() + b"\n", sync=sync)


def read_json(path: str) -> dict[str, Any] | None:
    """The record, or None if it was never written; a power cut may leave an empty or torn one: the same."""
    import json

    try:
        with open(path, "rb") as file:
            record: dict[str, Any] = json.loads(file.read())
            return record
    except (FileNotFoundError, ValueError):
        return None


def reserve(path: str) -> None:
    """Take the blocks of a record now, so that no disk that is full later can keep it from being written."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(fd, 0, RESERVED)
    except OSError:
        pass  # Not every file system can; then `exit.json` waits for room like everything else.
    finally:
        os.close(fd)


def write_reserved(path: str, reserved: str, content: bytes) -> None:
    """Like `write_atomic(…, sync=True)`, into blocks that `reserve` has taken."""
    fd = os.open(reserved, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(reserved, path)
    sync_folder(os.path.dirname(path) or ".")


def pack(values: Mapping[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in values.items())


def unpack(content: bytes) -> dict[str, str]:
    pairs = (os.fsdecode(record).partition("=") for record in content.split(b"\0") if record)
    return {name: value for name, _, value in pairs}


def read_settings(path: str) -> dict[str, str]:
    with open(path, "rb") as file:
        return unpack(file.read())


def utc(moment: float) -> str:
    """Unix seconds as ISO 8601 in UTC with microseconds (importing `datetime` would cost 3 ms)."""
    whole = int(moment)
    micro = int((moment - whole) * 1e6)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micro:06d}+00:00"
