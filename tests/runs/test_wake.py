"""Hints: a mailbox for whoever waits, and a subscription that ends when it is told to."""

from __future__ import annotations

import asyncio
import uuid

from runs import wake
from runs.wake import Hub, Mailbox


async def test_a_mailbox_keeps_the_newest_message_about_each_thing() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put({"stream": "a", "to": number})
    mailbox.put({"run": "b"})
    assert await mailbox.wait(1) == [{"stream": "a", "to": 2}, {"run": "b"}]
    assert await mailbox.wait(0.001) == []


async def test_a_hint_reaches_those_who_asked_for_it_and_nobody_else() -> None:
    hub, stream = Hub(), uuid.uuid4()
    async with hub.subscribe(f"stream:{stream}") as mailbox, hub.subscribe(f"stream:{uuid.uuid4()}") as other:
        messages: list[dict[str, object]] = []
        while not messages:
            await asyncio.to_thread(wake.streams_grew, {stream: (7, True)})
            messages = await mailbox.wait(0.05)
        assert messages == [{"stream": str(stream), "to": 7, "end": True}]
        assert await other.wait(0.05) == []


async def test_the_subscription_ends_whenever_it_is_cancelled() -> None:
    """redis-py loses some cancellations that come while it connects."""
    for pause in (0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01):
        listening = asyncio.create_task(Hub()._listen())
        await asyncio.sleep(pause)
        listening.cancel()
        done, _ = await asyncio.wait([listening], timeout=10)
        assert done
