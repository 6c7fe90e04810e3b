"""From which pages this console may be used: its own, to the port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host


def is_foreign(origin: str | None, host: str) -> bool:
    """Whether a request comes from a page that is not the console's own. The client sends no Origin."""
    if origin is None:
        return False
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return False
    name, _ = split_domain_port(host)
    own = bool(name) and validate_host(name, settings.ALLOWED_HOSTS)
    return not (own and urlsplit(origin).netloc.lower() == host.lower())


class OwnPagesOnly:
    """ASGI middleware for sockets that carry a cookie: their Origin must be there and be ours.

    Channels' own validator looks at the host only; a cookie does not tell ports apart either.
    """

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.lower(): value.decode("latin1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is None or is_foreign(origin, headers.get(b"host", "")):
            denier = WebsocketDenier()
            await denier(scope, receive, send)
            return
        await self.application(scope, receive, send)
