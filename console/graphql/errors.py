"""Errors as the client reads them (mapi §1.3): a message for a person and an integer code, never null."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError
from graphql import GraphQLError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from runs.queries import BadCursor
from teams.commands import Refused

log = structlog.get_logger(__name__)


def problem(message: str, code: int) -> dict[str, Any]:
    """One entry of `errors`. The code is what the client shows and retries by; HTTP's own it ignores."""
    return {"message": message, "extensions": {"code": code}}


def shown(errors: Iterable[GraphQLError | Exception]) -> list[dict[str, Any]]:
    """Errors of an execution, for the outside: what is not the caller's to mend is masked, and logged."""
    return [_shown(error) for error in errors]


def _shown(error: GraphQLError | Exception) -> dict[str, Any]:
    cause = cause_of(error)
    match cause:
        case Refused():
            return problem(cause.message, cause.code)
        case BadCursor():
            return problem(str(cause), 400)
        case GraphQLError():
            # Syntax, validation, values that do not fit their types: no resolver was called.
            return problem(_SUGGESTION.sub("", cause.message) or "Not a valid GraphQL request", 400)
        case OperationalError() | InterfaceError():
            return away()
        case RecursionError():
            return problem("The request is nested too deeply.", 400)
        case InvalidOperationTypeError():
            return problem(
                "Queries and mutations are answered over HTTP, subscriptions over a websocket.", 400
            )
        case CannotGetOperationTypeError():
            return problem(cause.as_http_error_reason(), 400)
    return internal(cause)


_SUGGESTION = re.compile(r" Did you mean [^?]*\?")
"""What GraphQL would say of names that are nearly right, which tells a stranger what else there is."""


def without_values(error: GraphQLError | Exception) -> GraphQLError | Exception:
    """The same without what was sent, which GraphQL's own words repeat: for operations that carry secrets."""
    cause = cause_of(error)
    if not isinstance(cause, GraphQLError):
        return error
    found = _NAMES_ONLY.search(cause.message or "")
    where = _WHERE.search(cause.message or "")
    text = found[0] if found else "it does not fit the schema"
    return GraphQLError(
        f"{where[1] if where else 'createSecretData'}: {text} (what was sent is not repeated: it may hold a secret)"
    )


_NAMES_ONLY = re.compile(
    r"Field '\w+' is not defined by type '\w+'|Field '\w+' of required type '[\w!\[\]]+' was not provided"
    r"|Cannot query field '\w+' on type '\w+'|Expected type '\w+' to be a mapping"
    r"|Variable '\$\w+' of required type '[\w!\[\]]+' was not provided"
)
_WHERE = re.compile(r" at '(createSecretData[\w.]*)'; ")


def away() -> dict[str, Any]:
    """503 makes the client ask again, ten times: right for what changes nothing, and while nothing was done."""
    return problem("The console's database is away; try again in a moment.", 503)


def is_away(error: Exception) -> bool:
    """Whether the database is away: nothing is wrong with the request."""
    return isinstance(cause_of(error), OperationalError | InterfaceError)


def cause_of(error: GraphQLError | Exception) -> Exception:
    """What lies under the layers of GraphQL errors; a GraphQL error if there is nothing else."""
    while isinstance(error, GraphQLError) and error.original_error is not None:
        error = error.original_error
    return error


def internal(cause: BaseException) -> dict[str, Any]:
    """Says nothing of what went wrong but an id, by which the log tells it."""
    number = secrets.token_hex(4)
    log.error("internal error", id=number, exc_info=(type(cause), cause, cause.__traceback__))
    return problem(f"Internal error {number}: the console's log says what happened", 500)
