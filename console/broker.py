"""Valkey as Celery's broker, for workers that a message which is none does not end.

Whoever can write to Valkey, and whatever cuts a message short, would otherwise stop a worker with each of them: what
reads the queue does not expect anything but what Kombu has put there.
"""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis

log = structlog.get_logger(__name__)


class Channel(redis.Channel):
    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, LookupError, TypeError, AttributeError):
            # It is off the queue already. As a doorbell it is worth no more than one that was lost.
            log.warning("a message that cannot be read was thrown away", exc_info=True)
            return True


class Transport(redis.Transport):
    Channel = Channel


def install() -> None:
    """Let every broker URL of the kinds `redis://` and `redis+socket://` mean this one."""
    TRANSPORT_ALIASES["redis"] = f"{__name__}:Transport"
