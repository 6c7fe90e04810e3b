"""The one way in which a command says no."""

from __future__ import annotations


class Refused(Exception):
    """A command that was not carried out. Nothing has changed.

    `code` is what an HTTP answer would carry: 400 wrong input, 403 not allowed, 404 not there (or not
    yours: the two look the same), 409 in conflict with what is. `field` names the input at fault.
    """

    def __init__(self, message: str, *, code: int = 400, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
