"""Which engines there are. Adding one = one folder, one line here, the conformance suite green."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from clusters.engines.base import Engine

ENGINES: Mapping[str, str] = {
    "process": "clusters.engines.process.engine",
    "sim": "clusters.engines.sim.engine",
}
"""Kind → module with a function `from_config(config) -> Engine`."""


def build(kind: str, config: Mapping[str, Any]) -> Engine:
    """Make the engine of a cluster from its configuration (plain JSON data, secrets unsealed).

    Raises `KeyError` for an unknown kind and `ValueError`, naming the key, for a bad configuration.
    """
    make = cast("Callable[[Mapping[str, Any]], Engine]", import_module(ENGINES[kind]).from_config)
    return make(config)
