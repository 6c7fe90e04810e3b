"""Who may talk to the API: by key, never by cookie."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from channels.db import database_sync_to_async
from channels.security.websocket import WebsocketDenier
from django.db import DatabaseError

from console.origin import is_foreign
from runs.queries import caller_by_token
from teams.commands import Refused
from teams.crypto import RUN_TOKEN_PREFIX
from teams.queries import Caller, caller_by_key


def authenticate(authorization: object) -> Caller:
    """The caller behind an `Authorization`: an API key as it stands, or after `Bearer `.

    Raises `Refused` (401), saying what to do.
    """
    given = authorization.strip() if isinstance(authorization, str) else ""
    scheme, _, rest = given.partition(" ")
    if scheme.lower() == "bearer":
        given = rest.strip()
    elif scheme.lower() == "basic":
        raise Refused(
            "This API takes an API key, not a user name and password. If you did not send those, a line for "
            "this host in ~/.netrc did: remove it.",
            code=401,
        )
    if not given:
        raise Refused(
            "No API key was sent. Make one on your profile page and set it: export MOSAICML_API_KEY=ryk_…",
            code=401,
        )
    # A digest is looked up, so whatever else was sent may be anything; it must be text all the same.
    caller = None
    if given.isascii():
        caller = caller_by_token(given) if given.startswith(RUN_TOKEN_PREFIX) else caller_by_key(given)
    if caller is None and given.startswith(RUN_TOKEN_PREFIX):
        raise Refused("Invalid token: the attempt of the run that had it has ended.", code=401)
    if caller is None:
        raise Refused(
            "Invalid API key: it is unknown, expired or revoked, or its owner has left the team. Make a new "
            "one on your profile page.",
            code=401,
        )
    return caller


class WithCaller:
    """ASGI middleware for sockets that carry a key in the header of their upgrade: `scope["caller"]` is who
    they speak for, or the `Refused` that they are to be told. Cookies are ignored."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.lower(): value.decode("latin1") for name, value in scope["headers"]}
        if is_foreign(headers.get(b"origin"), headers.get(b"host", "")):
            denier = WebsocketDenier()
            await denier(scope, receive, send)
            return
        look = database_sync_to_async(authenticate, thread_sensitive=False)
        try:
            caller: Caller | Refused = await look(headers.get(b"authorization"))
        except Refused as refused:
            caller = refused
        except DatabaseError:
            caller = Refused("The database is away; try again.", code=503)
        await self.application({**scope, "caller": caller}, receive, send)
