from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.core.management.base import BaseCommand

from runs.logs.collect import Collector
from runs.logs.keep import Keeper


class Command(BaseCommand):
    help = "Follow engines' logs and events, and put away logs that have ended, until told to stop (the collector service)."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(collect_until_stopped())


async def collect_until_stopped() -> None:
    """Run a collector; TERM and INT end it cleanly: leases are let go, so that the next one need not wait."""
    collector = asyncio.create_task(_collect_and_keep())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, collector.cancel)
    try:
        await collector
    except asyncio.CancelledError:
        pass


async def _collect_and_keep() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(Collector().run(), name="collector")
        group.create_task(Keeper().run(), name="keeper")
