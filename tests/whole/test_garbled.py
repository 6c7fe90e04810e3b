"""What lies on the broker's queues and is no message: it is thrown away, and the worker goes on."""

from __future__ import annotations

import json

import redis

from tests.client.real import Client
from tests.stack import Stack

WHOLE = json.dumps(
    {
        "body": "W10=",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "runs.no_such_task", "id": "x", "lang": "py"},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "t",
        },
    }
).encode()
GARBLED = [
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"{}",
    b"7",
    b'{"body": 7}',
    b'{"properties": {"delivery_tag": {}}, "body": null}',
    WHOLE[:50],
    WHOLE[:-20],
    WHOLE.replace(b"W10=", b"!"),
    WHOLE.replace(b"base64", b"no such"),
    WHOLE.replace(b"no_such_task", b"reconcile"),
    WHOLE,
]


def test_a_message_that_is_none_does_not_end_the_worker(stack: Stack, client: Client) -> None:
    server = redis.Redis.from_url(stack.home.redis_url)
    worker = stack.pid("worker")
    for message in GARBLED:
        server.lpush("celery", message)
    assert client.wait(client.submit("true")) == "COMPLETED"
    # Queues are first in, first out: what was put there before has been read.
    assert server.llen("celery") == 0
    assert stack.pid("worker") == worker
