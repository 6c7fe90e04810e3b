"""/graphql over HTTP: queries and mutations, one JSON object a request (mapi §1.2)."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from graphql import OperationType as GraphQLOperation
from graphql import get_operation_ast, parse
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from console import rates
from console.delivery import answer_to
from console.graphql import errors
from console.graphql.access import authenticate
from console.origin import is_foreign
from console.schema import schema
from runs.forms import PlainError, plain
from runs.forms.plain import MOST_BYTES, read_json
from teams.commands import Refused
from teams.graphql import Context

CARRIES_SECRETS = "createSecret"
ALLOWED = (OperationType.QUERY, OperationType.MUTATION)


@csrf_exempt
def graphql(request: HttpRequest) -> HttpResponse:
    """Answer one operation.

    No CSRF token: cookies are ignored, and a request without a key gets nowhere. Errors come as a list
    with HTTP 200, as the client reads them from the body only; what never was a GraphQL request, and
    what has no valid key, has its HTTP status too.
    """
    if request.method != "POST":
        return _failed(405, "This address takes POST requests (and websockets) only.", Allow="POST")
    if is_foreign(request.headers.get("Origin"), request.get_host()):
        return _failed(403, "Pages of other sites may not use this API.")
    try:
        query, variables, name = _read(request)
        caller = authenticate(request.headers.get("Authorization"))
        rates.check(caller)
    except rates.TooOften as often:
        return _failed(429, often.message, **{"Retry-After": str(often.after)})
    except Refused as refused:
        return _failed(refused.code, refused.message)
    except (OperationalError, InterfaceError):
        return JsonResponse({"errors": [errors.away()]}, status=503)
    answer = answer_to(request)
    try:
        result = schema.execute_sync(
            query,
            variable_values=variables,
            operation_name=name,
            context_value=Context(caller, request.headers.get("Idempotency-Key", "").strip(), answer),
            allowed_operation_types=ALLOWED,
        )
    except (CannotGetOperationTypeError, InvalidOperationTypeError) as wrong:
        return JsonResponse({"errors": errors.shown([wrong])})
    if result.errors:
        if answer is not None:
            answer.settle(False)  # whatever was done, its doer is not told
        repeatable = answer is not None and answer.repeatable
        if any(map(errors.is_away, result.errors)) and not repeatable and _changes(query, name):
            # Never 503: the client would send it again, and nobody knows whether it was done.
            return _failed(
                500, "The database went away meanwhile. Look whether it was done before you repeat it."
            )
        found = map(errors.without_values, result.errors) if CARRIES_SECRETS in query else result.errors
        # No partial results: the client would not look at them.
        return JsonResponse({"data": None, "errors": errors.shown(found)})
    return JsonResponse({"data": result.data})


def _changes(query: str, name: str | None) -> bool:
    operation = get_operation_ast(parse(query), name)
    return operation is not None and operation.operation is GraphQLOperation.MUTATION


def _failed(code: int, message: str, **headers: str) -> JsonResponse:
    return JsonResponse({"errors": [errors.problem(message, code)]}, status=code, headers=headers)


def _read(request: HttpRequest) -> tuple[str, dict[str, Any], str | None]:
    """The query, its variables, and the name of the operation. Raises `Refused`."""
    too_long = Refused(f"The request is longer than {MOST_BYTES:,} bytes.", code=413)
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_long  # before it is read
    try:
        body = request.body
        if len(body) > MOST_BYTES:
            raise too_long
        sent = read_json(body)
    except RequestDataTooBig:
        raise too_long from None
    except PlainError as problem:
        raise Refused(f"The request {problem.problem}.") from None
    except (ValueError, RecursionError, UnreadablePostError):
        raise Refused("The request is not JSON.") from None
    return operation(sent)


def operation(sent: Any) -> tuple[str, dict[str, Any], str | None]:
    """Check the members of a request or of a websocket's operation. Raises `Refused`."""
    if not isinstance(sent, dict) or not isinstance(sent.get("query"), str) or not sent["query"].strip():
        raise Refused("The request must be one JSON object with `query` (text) and `variables` (an object).")
    variables, name = sent.get("variables"), sent.get("operationName")
    variables = {} if variables is None else variables
    if not isinstance(variables, dict) or not isinstance(name, str | None):
        raise Refused("`variables` must be an object, `operationName` text.")
    try:
        return sent["query"], plain(variables), name
    except PlainError as problem:
        raise Refused(f"variables: {problem}") from None
