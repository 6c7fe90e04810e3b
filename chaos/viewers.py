"""Readers that follow logs as the client does, and must have got every byte, in order, whatever was cut off."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import websockets

from chaos.ground import Ground, Job

LOGS = """subscription($d: GetRunLogsInput!) { getRunLogsV2(getRunLogsInput: $d) { chunk endOffset } }"""
WITHIN = 90.0


@contextmanager
def followed(ground: Ground, jobs: Sequence[Job]) -> Iterator[None]:
    """Follow each job's first rank from now to its end. Raises AssertionError if a reader got anything else
    than what was written."""
    got: dict[str, bytes] = {}

    def follow(job: Job) -> None:
        got[job.name] = asyncio.run(asyncio.wait_for(_follow(ground, job), WITHIN))

    threads = [threading.Thread(target=follow, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    for job in jobs:
        assert got.get(job.name) == job.output(0), (
            f"I4: a reader of {job.name} got {len(got.get(job.name, b''))} bytes"
        )


async def _follow(ground: Ground, job: Job) -> bytes:
    environment = ground.stack.env
    url = urlsplit(environment["MOSAICML_API_ENDPOINT"])._replace(scheme="ws").geturl()
    text, offset = b"", 0
    while True:
        try:
            async with websockets.connect(url, subprotocols=[websockets.Subprotocol("graphql-ws")]) as socket:
                headers = {"Authorization": environment["MOSAICML_API_KEY"]}
                await socket.send(json.dumps({"type": "connection_init", "payload": headers}))
                data = {"name": job.name, "follow": True, "offset": offset, "nodeRank": 0}
                payload = {"query": LOGS, "variables": {"d": data}}
                await socket.send(json.dumps({"type": "start", "id": "1", "payload": payload}))
                async for message in socket:
                    said: dict[str, Any] = json.loads(message)
                    if said["type"] == "complete":
                        return text
                    if said["type"] == "data":
                        chunk = said["payload"]["data"]["getRunLogsV2"]
                        text += base64.b64decode(chunk["chunk"])
                        offset = chunk["endOffset"]
        except (OSError, websockets.WebSocketException):
            await asyncio.sleep(0.3)
