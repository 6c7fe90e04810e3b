"""Who may talk to the API: by key, never by cookie."""

from __future__ import annotations

from teams.commands import Refused
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
    caller = caller_by_key(given) if given.isascii() else None
    if caller is None:
        raise Refused(
            "Invalid API key: it is unknown, expired or revoked, or its owner has left the team. Make a new "
            "one on your profile page.",
            code=401,
        )
    return caller
