"""From a cluster's row to its engine: the only bridge between the database and the engines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from clusters.engines.base import TIMEOUTS, Engine, EngineUnavailable
from clusters.engines.registry import build
from clusters.models import Cluster

T = TypeVar("T")

_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[UUID, tuple[dict[str, Any], Engine]]] = (
    WeakKeyDictionary()
)


def connect(cluster: Cluster) -> Engine:
    """The engine of a cluster, kept until the cluster's configuration changes.

    An engine lives in one event loop: the running one, or from synchronous code the one that `call` uses.
    Raises `ValueError`, naming the key, if the configuration is wrong.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = engine_loop()
    engines = _engines.setdefault(loop, {})
    known = engines.get(cluster.pk)
    if known is not None and known[0] == cluster.config:
        return known[1]
    engine = build(cluster.engine, cluster.config)
    engines[cluster.pk] = (cluster.config, engine)
    return engine


@cache
def engine_loop() -> asyncio.AbstractEventLoop:
    """The one event loop of this process that engines' clients live in, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="engines", daemon=True).start()
    return loop


def call(method: str, work: Coroutine[Any, Any, T]) -> T:
    """Run one engine method from synchronous code to its end, or to its time-out: `EngineUnavailable`.

    A coroutine that was cut off is cancelled; every method may be repeated (the engine's contract).
    """
    future = asyncio.run_coroutine_threadsafe(work, engine_loop())
    try:
        return future.result(TIMEOUTS[method])
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise EngineUnavailable(f"{method} did not answer within {TIMEOUTS[method]:g} s") from None
