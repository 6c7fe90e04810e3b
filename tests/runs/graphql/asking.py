"""Asking the API from outside: documents as the client writes them, over HTTP and websockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from django.test import Client
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from teams.commands import create_api_key
from teams.models import Team
from teams.queries import Caller
from teams.states import Scope

OPERATIONS = json.loads(Path(__file__).with_name("operations.json").read_text())
"""What the client asks for: root field, declared argument types, and the paths of the fields it selects."""


def document(operation: dict[str, Any]) -> str:
    """The GraphQL text of an operation: variables are named as arguments are, everything is selected."""
    arguments = operation["arguments"]
    declared = ", ".join(f"${name}: {kind}" for name, kind in arguments.items())
    passed = ", ".join(f"{name}: ${name}" for name in arguments)
    return f"{operation['kind']} Asked({declared}) {{ {operation['field']}({passed}) {selection(operation['selects'])} }}"


def selection(paths: Iterable[str]) -> str:
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        for name in path.split("."):
            node = node.setdefault(name, {})

    def show(node: dict[str, Any]) -> str:
        return "{ " + " ".join(f"{name} {show(inner)}" for name, inner in node.items()) + " }" if node else ""

    return show(tree)


def variant(root: str, *, having: str = "", lacking: str = "\0") -> dict[str, Any]:
    """The operation of that root field that selects `having` and not `lacking`."""
    return next(
        operation
        for operation in OPERATIONS
        if operation["field"] == root
        and any(path.startswith(having) for path in operation["selects"] or [""])
        and not any(path.startswith(lacking) for path in operation["selects"])
    )


def new_key(caller: Caller, team: Team, *scopes: Scope) -> str:
    return create_api_key(caller, team, "test", scopes=scopes or (Scope.READ, Scope.WRITE))[1]


@dataclass
class Failed(Exception):
    """The answer was a list of errors."""

    code: int
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass
class API:
    """Speaks for one key. Calls return the value of the root field, or raise the first error."""

    key: str
    http: Client = field(default_factory=lambda: Client(enforce_csrf_checks=True))

    def post(self, body: Any, **headers: str) -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        return self.http.post(
            "/graphql",
            text,
            content_type="application/json",
            headers={"authorization": self.key, "x-mosaicml-client": "mcli", **headers},
        )

    def ask(self, query: str, **variables: Any) -> Any:
        answer = self.post({"query": query, "variables": variables}).json()
        assert isinstance(answer, dict)
        if "errors" in answer:
            first = answer["errors"][0]
            for error in answer["errors"]:
                assert isinstance(error["message"], str)
                assert type(error["extensions"]["code"]) is int
            raise Failed(first["extensions"]["code"], first["message"])
        (value,) = answer["data"].values()
        return value

    def call(self, operation: dict[str, Any], **variables: Any) -> Any:
        return self.ask(document(operation), **variables)

    # What tests ask for most.

    def create(self, **run_input: Any) -> Any:
        given = {"runName": "hello", "image": "python:3.12", "command": "true", **run_input}
        (run,) = self.call(variant("createRun"), createRunData={"runInput": given})
        return run

    def runs(self, details: bool = False, **data: Any) -> Any:
        which = variant(
            "getRunsPaginated",
            having="runs.details" if details else "",
            lacking="\0" if details else "runs.details",
        )
        return self.call(
            which, getRunsPaginatedData={"includeDeleted": False, "limit": None, "filters": {}, **data}
        )

    def names(self, **data: Any) -> list[str]:
        return [run["name"] for run in self.runs(**data)["runs"]]

    def change(self, mutation: str, *names: str, **more: Any) -> Any:
        return self.call(variant(mutation), getRunsData={"filters": {"name": {"in": list(names)}}}, **more)


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """The console behind the web server that it has in production; yields the port."""
    from console.asgi import application
    from console.delivery import Protocol

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=Protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


class Socket:
    """One websocket, in one of the client's two dialects."""

    def __init__(self, port: int, key: str | None, *, legacy: bool = True) -> None:
        self.port, self.key, self.legacy = port, key, legacy
        self.number = 0

    async def __aenter__(self) -> Socket:
        protocol = Subprotocol("graphql-ws" if self.legacy else "graphql-transport-ws")
        self.raw = await connect(f"ws://127.0.0.1:{self.port}/graphql", subprotocols=[protocol])
        assert self.raw.subprotocol == protocol
        await self.send(
            type="connection_init", payload={"Authorization": self.key, "x-mosaicml-client": "mcli"}
        )
        assert await self.receive() == {"type": "connection_ack"}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.raw.close()

    async def send(self, **message: Any) -> None:
        await self.raw.send(json.dumps(message))

    async def receive(self, within: float = 15) -> Any:
        async with asyncio.timeout(within):
            return json.loads(await self.raw.recv())

    async def start(self, query: str, **variables: Any) -> str:
        self.number += 1
        payload = {"query": query, "variables": variables}
        await self.send(type="start" if self.legacy else "subscribe", id=str(self.number), payload=payload)
        return str(self.number)

    async def next(self) -> Any:
        """The value of the next result's root field; None at the end. Raises `Failed`."""
        message = await self.receive()
        if message["type"] == "complete":
            return None
        if message["type"] == "error":
            error = message["payload"] if self.legacy else message["payload"][0]
            raise Failed(error["extensions"]["code"], error["message"])
        assert message["type"] == ("data" if self.legacy else "next"), message
        (value,) = message["payload"]["data"].values()
        return value

    async def watch(self, name: str) -> str:
        return await self.start(document(variant("watchRunStatus")), watchRunStatusInput={"name": name})

    async def logs(self, name: str, **wanted: Any) -> str:
        given = {"name": name, "follow": False, "offset": 0, **wanted}
        return await self.start(document(variant("getRunLogsV2")), getRunLogsInput=given)

    async def rest(self) -> list[Any]:
        """Everything up to the end."""
        found = []
        while (value := await self.next()) is not None:
            found.append(value)
        return found
