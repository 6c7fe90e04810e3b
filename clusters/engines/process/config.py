"""The configuration of a process cluster: plain JSON data in, a checked object out."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_UIDS = "70000-99999"
"""Above all accounts of people, packages and systemd's dynamic users (61184–65519), below the first range
that `useradd` hands to user namespaces (100000)."""
NARROW_UIDS = "61184-65519"
"""In a container that maps 65536 accounts only, where systemd makes no dynamic users."""
DEFAULT_SPOOL_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class Config:
    root: Path
    """The cluster's folder; everything that the engine writes is below it."""
    host_id: str
    """The host that the cluster belongs to, as `host.host_id()` gave it there."""
    hostname: str
    slots: int
    cpus: int
    gpus: int | None
    """GPUs declared; None = those that are found."""
    gpu_type: str | None
    path: str
    """PATH of the ranks, and where their bash is looked for."""
    rank_uids: range
    """Accounts for attempts when we are root. Best not shared with another cluster of the host."""
    spool_limit: int
    """Bytes of output of one rank that may wait for the reader before the rank has to."""


def parse(config: Mapping[str, Any]) -> Config:
    """Check a configuration. Raises `ValueError` with a sentence that names the key and what is allowed."""
    known = {
        "root", "host_id", "hostname", "slots", "cpus", "gpus", "gpu_type", "path", "rank_uids",
        "spool_limit",
    }  # fmt: skip
    for key in config:
        if key not in known:
            raise ValueError(f"{key}: no such key; allowed are {', '.join(sorted(known))}")
    root = Path(_text(config, "root"))
    if not root.is_absolute() or ".." in root.parts or len(root.parts) < 2:
        raise ValueError("root: must be the absolute path of a folder, without '..'")
    slots = _whole(config, "slots", 4, least=1)
    return Config(
        root=root,
        host_id=_text(config, "host_id"),
        hostname=_text(config, "hostname", platform.node() or "localhost"),
        slots=slots,
        # They are counted, not enforced: on a small host every slot has one all the same.
        cpus=_whole(config, "cpus", max(os.cpu_count() or 1, slots), least=1),
        gpus=None if config.get("gpus") is None else _whole(config, "gpus", 0, least=0),
        gpu_type=None if config.get("gpu_type") is None else _text(config, "gpu_type"),
        path=_path(_text(config, "path", DEFAULT_PATH)),
        rank_uids=_uids(_text(config, "rank_uids", _default_uids())),
        spool_limit=_whole(config, "spool_limit", DEFAULT_SPOOL_LIMIT, least=1 << 16),
    )


def _text(config: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = config.get(key, default)
    if value is None:
        raise ValueError(f"{key}: is required")
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{key}: must be text and not empty, not {value!r}")
    return value


def _whole(config: Mapping[str, Any], key: str, default: int, *, least: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}: must be a whole number of at least {least}, not {value!r}")
    return value


def _path(value: str) -> str:
    if not all(part.startswith("/") for part in value.split(":")):
        raise ValueError(f"path: must be absolute folders joined by ':', not {value!r}")
    return value


def _default_uids() -> str:
    """The range of accounts that this user namespace has."""
    last = int(DEFAULT_UIDS.partition("-")[2])
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first_here, _, count = (int(word) for word in line.split())
        if first_here <= last < first_here + count:
            return DEFAULT_UIDS
    return NARROW_UIDS


def _uids(value: str) -> range:
    first, _, last = value.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1000 <= int(first) <= int(last) < 2**32 - 2):
        raise ValueError(f"rank_uids: must be like '{DEFAULT_UIDS}', from 1000 up, not {value!r}")
    return range(int(first), int(last) + 1)
