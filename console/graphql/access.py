"""Who may talk to the API: by key, never by cookie; and from which pages."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host

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


def is_foreign(origin: str | None, host: str) -> bool:
    """Whether a request comes from a page that is not the console's own. The client sends no Origin."""
    if origin is None:
        return False
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return False
    name, _ = split_domain_port(host)
    own = bool(name) and validate_host(name, settings.ALLOWED_HOSTS)
    return not (own and urlsplit(origin).netloc.lower() == host.lower())
