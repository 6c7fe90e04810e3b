"""/graphql over HTTP: who gets in, what is refused, and how errors look (mapi §1.2, §1.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from runs import queries
from runs.models import Run
from teams.commands import revoke_api_key
from teams.models import APIKey, Membership
from tests.runs.graphql.asking import API, Failed, document, variant
from tests.world import World, make_run

ME = document(variant("getUsers"))
VARIABLES: dict[str, Any] = {"getUsersData": {"filters": {}}}


def errors(response: object) -> list[tuple[int, str]]:
    answer = json.loads(response.content)  # type: ignore[attr-defined]
    assert answer.get("data") is None
    return [(error["extensions"]["code"], error["message"]) for error in answer["errors"]]


def refusal(key: str) -> tuple[int, str]:
    (error,) = errors(API(key).post({"query": ME, "variables": VARIABLES}))
    return error


def test_a_key_counts_as_it_stands_and_after_bearer(ada: API, world: World) -> None:
    (me,) = ada.ask(ME, **VARIABLES)
    assert me["email"] == "ada@example.com"
    assert [team["name"] for team in me["organizations"]] == ["vision"]
    assert API(f"Bearer {ada.key}").ask(ME, **VARIABLES) == [me]


@pytest.mark.parametrize("key", ["", "wrong", "Bearer ", "Bearer wrong", "ryk_" + "a" * 43, "ß", "x" * 5000])
def test_without_a_valid_key_the_answer_is_401_and_a_sentence(key: str, db: None) -> None:
    code, message = refusal(key)
    assert code == 401
    assert "API key" in message


def test_basic_credentials_are_explained(db: None) -> None:
    code, message = refusal("Basic YTpi")
    assert code == 401
    assert ".netrc" in message


def test_a_key_ends_with_its_revocation_and_with_its_owners_membership(
    world: World, api_of: Callable[..., API]
) -> None:
    ada, bob = api_of(world.ada), api_of(world.bob)
    revoke_api_key(world.ada, APIKey.objects.get(user=world.ada.user).pk)
    Membership.objects.filter(user=world.bob.user).delete()
    assert refusal(ada.key)[0] == refusal(bob.key)[0] == 401


def test_a_session_is_not_a_key(world: World) -> None:
    browser = Client()
    browser.force_login(world.ada.user, backend="django.contrib.auth.backends.ModelBackend")
    response = browser.post("/graphql", {"query": ME}, content_type="application/json")
    assert response.status_code == 401


def test_only_post_is_taken(ada: API) -> None:
    for method in ("get", "put", "delete", "patch"):
        response = getattr(ada.http, method)("/graphql", headers={"authorization": ada.key})
        assert response.status_code == 405
        assert response["Allow"] == "POST"
        assert errors(response)[0][0] == 405


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://testserver.evil.example", 403),
        ("http://127.0.0.1:8000", 200),
        ("http://testserver", 200),
    ],
)
def test_pages_of_other_sites_are_refused(ada: API, origin: str, status: int) -> None:
    assert ada.post({"query": ME, "variables": VARIABLES}, origin=origin).status_code == status


@pytest.mark.parametrize(
    "body", ["", "nothing", "[]", "3", '{"query": 3}', '{"query": "{a}", "variables": []}', "{" * 5000]
)
def test_what_is_no_request_is_400(ada: API, body: str) -> None:
    response = ada.post(body)
    assert response.status_code == 400
    assert errors(response)[0][0] == 400


def test_batches_are_refused(ada: API) -> None:
    assert errors(ada.post([{"query": ME, "variables": VARIABLES}]))[0][0] == 400


def test_a_request_longer_than_a_mebibyte_is_413(ada: API) -> None:
    response = ada.post({"query": ME, "variables": {**VARIABLES, "padding": "x" * 2**20}})
    assert errors(response)[0][0] == 413


@pytest.mark.parametrize(
    "query",
    [
        "query { nothing }",
        "query {",
        "{ getUsers(getUsersData: {filters: 3}) { id } }",
        'subscription { watchRunStatus(watchRunStatusInput: {name: "a"}) }',
        "{ __typename " * 12 + "}" * 12,
        "{" * 1900,
        "fragment a on Query { __typename }",
    ],
)
def test_bad_documents_are_400_never_500(ada: API, query: str) -> None:
    for code, message in errors(ada.post({"query": query})):
        assert code == 400
        assert message


AT_ONCE = "query { getUsers(getUsersData: {}) { organizations { id } } }"
FAN = " ".join(  # a kilobyte in which each fragment takes the next three times: 3^13 fields
    f"fragment f{n} on User {{ a: id {f'...f{n + 1} ' * 3} }}" for n in range(13)
)
TOO_MUCH: list[tuple[str, str]] = [
    ("{ " + " ".join(f"a{i}: __typename" for i in range(16)) + " }", "more than 15 aliases"),
    ("{ " + "__typename " * 600 + "}", "more than 400 fields"),
    ("{ " + "__typename " * 3000 + "}", "2000 tokens"),
    ("{ " + "__typename " * 6 + "}", "6 fields at its top; at most 5"),
    ("{ ...a } fragment a on Query { " + "__typename " * 6 + "}", "6 fields at its top; at most 5"),
    (
        "{ getUsers(getUsersData: {}) " + "{ organizations " * 13 + "{ id }" + "}" * 14,
        "getUsers.organizations.organizations",
    ),
    (
        "{ getUsers(getUsersData: {}) { ...f0 } } " + FAN + " fragment f13 on User { id }",
        "more than 15 aliases",
    ),
    (
        "{ getUsers(getUsersData: {}) { ...f0 } } " + FAN.replace("a: ", "") + " fragment f13 on User { id }",
        "more than 400 fields",
    ),
    ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "The fragment a contains itself"),
    ("{ __schema { types { name } } }", "__schema: introspection is off"),
    ('{ __type(name: "Run") { name } }', "__type: introspection is off"),
]


@pytest.mark.parametrize(("query", "words"), TOO_MUCH)
def test_a_document_that_asks_for_too_much_is_told_of_what_and_how_much_is_allowed(
    ada: API, query: str, words: str
) -> None:
    ((code, message),) = errors(ada.post({"query": query}))
    assert code == 400
    assert words in message


def test_nobody_is_told_what_else_there_is(ada: API) -> None:
    for query in ("{ getUser { id } }", "{ getUsers(getUsersDat: {}) { id } }", AT_ONCE.replace("id", "ids")):
        ((_, message), *_) = errors(ada.post({"query": query}))
        assert "Did you mean" not in message
    answer = ada.post({"query": ME, "variables": {"getUsersData": {"filter": {}}}})
    assert "Did you mean" not in errors(answer)[0][1]


def with_input(text: str) -> str:
    """A request whose run has that text for an input."""
    query = json.dumps(document(variant("createRun")))
    least = '"runName": "a", "image": "b", "command": "c"'
    return f'{{"query": {query}, "variables": {{"createRunData": {{"runInput": {{{least}, {text}}}}}}}}}'


WRONG_JSON: list[tuple[str, str]] = [
    ('"command": "d"', "says 'command' twice"),
    (
        '"parameters": {"n": ' + "9" * 310 + "}",
        "runInput.parameters.n: is a number with more than 308 digits",
    ),
    (
        '"parameters": {"n": -' + "9" * 9000 + "}",
        "runInput.parameters.n: is a number with more than 308 digits",
    ),
    ('"parameters": {"x": ' + "[" * 30 + "]" * 30 + "}", "is nested more than 20 levels deep"),
    ('"parameters": {"x": ' + "[" * 90_000 + "]" * 90_000 + "}", "is nested more than 20 levels deep"),
    ('"parameters": {"x": [' + "0," * 10_000 + "0]}", "holds more than 10,000 values"),
    ('"metadata": {"x": "a\\u0000b"}', "runInput.metadata.x: holds a NUL character"),
    ('"metadata": {"x": "\\ud800"}', "runInput.metadata.x: holds half of a surrogate pair"),
    ('"envVariables": [{"envKey": "A", "envValue": "' + "x" * 131_072 + '"}]', "envVariables[0]"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_JSON)
def test_json_that_cannot_be_kept_names_where_and_the_limit(ada: API, text: str, words: str) -> None:
    ((code, message),) = errors(ada.post(with_input(text)))
    assert code == 400
    assert words in message
    assert not Run.objects.exists()


def test_values_that_do_not_fit_are_400(ada: API) -> None:
    with pytest.raises(Failed) as failed:
        ada.runs(limit="many")
    assert failed.value.code == 400


def test_text_that_no_database_takes_is_400(ada: API) -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(Failed, match="variables") as failed:
            ada.runs(filters={"name": {"in": [name]}})
        assert failed.value.code == 400


def test_internal_errors_are_masked(ada: API, monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(queries, "page", boom)
    with pytest.raises(Failed, match=r"^500: Internal error [0-9a-f]{8}") as failed:
        ada.runs()
    assert "hunter2" not in failed.value.message


def test_while_the_database_is_away_only_what_changes_nothing_is_to_be_repeated(
    ada: API, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    run = make_run(world.ada)
    monkeypatch.setattr(queries, "visible_to", away)
    with pytest.raises(Failed, match="503: The console's database is away"):
        ada.runs()
    with pytest.raises(Failed, match="500: The database went away meanwhile"):
        ada.change("stopRuns", run.name)
    monkeypatch.setattr("console.graphql.http.authenticate", away)
    with pytest.raises(Failed, match="503: "):
        ada.change("stopRuns", run.name)


def test_nan_and_infinity_are_kept_as_words(ada: API) -> None:
    given = {
        "runName": "a",
        "image": "b",
        "command": "c",
        "metadata": {"x": float("nan"), "y": [float("inf")]},
    }
    body = json.dumps(
        {"query": document(variant("createRun")), "variables": {"createRunData": {"runInput": given}}}
    )
    assert "NaN" in body
    answer = ada.post(body).json()
    (run,) = answer["data"]["createRun"]
    assert run["details"]["metadata"] == {"x": "NaN", "y": ["Infinity"]}


def test_the_number_of_queries_does_not_grow_with_the_runs(ada: API, world: World) -> None:
    def count(details: bool) -> int:
        with CaptureQueriesContext(connection) as captured:
            ada.runs(details=details)
        return len(captured)

    make_run(world.ada)
    ada.runs()  # a key's first use is noted
    few = count(False), count(True)
    for _ in range(5):
        make_run(world.ada)
    assert (count(False), count(True)) == few
    assert few[1] <= 12
