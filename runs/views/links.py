"""Where else a run can be looked at: addresses that its training has reported, as far as they are safe to follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SUFFIX = "run_url"
"""Composer reports `mosaicml/wandb/run_url` and `mosaicml/mlflow/run_url`; others may say `run_url`."""
TRACKERS: Mapping[str, str] = {
    "wandb": "Weights & Biases",
    "mlflow": "MLflow",
    "comet_ml": "Comet",
    "cometml": "Comet",
}
MOST, LONGEST = 4, 2000


@dataclass(frozen=True)
class Link:
    title: str
    """The tracker's name, else the host's."""
    url: str


def links(metadata: Mapping[str, Any]) -> list[Link]:
    """Web addresses only: whoever may write metadata must not make a button that runs a script."""
    found = []
    for key, value in sorted(metadata.items()):
        *path, last = key.split("/")
        if last == SUFFIX and isinstance(value, str) and (host := _host(value)):
            found.append(Link(TRACKERS.get(path[-1] if path else "", host), value.strip()))
    return found[:MOST]


def _host(url: str) -> str | None:
    """None for what is not an http or https address of a host, or tries to look like another one."""
    text = url.strip()
    if len(text) > LONGEST or any(character.isspace() or not character.isprintable() for character in text):
        return None
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc or "\\" in text:
        return None
    return host
