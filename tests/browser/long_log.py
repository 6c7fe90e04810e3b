"""Puts a log of any length in the place of a run's: `python -m tests.browser.long_log NAME LINES`, in the console's
environment. Through the store's own writer, so its index, times and errors are what a collector would have made."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

PIECE = 20_000
ERROR_AT = 7_654_321
BEGINS_AT = 1_750_000_000.0
"""When line 1 was read; a piece takes a second."""


def pieces(lines: int) -> Iterator[bytes]:
    for first in range(1, lines + 1, PIECE):
        numbers = range(first, min(first + PIECE, lines + 1))
        block = "".join(f"line {number:08d} of the log\n" for number in numbers)
        if ERROR_AT in numbers:
            block = block.replace(
                f"line {ERROR_AT:08d} of the log\n",
                "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB\n",
            )
        yield block.encode()


def main(name: str, lines: int) -> None:
    from django.utils import timezone

    from clusters.engines.base import Mark, Source
    from runs.logs import store
    from runs.models import LogStream

    stream = LogStream.objects.get(attempt__run__name=name)
    where = store.location(stream)
    shutil.rmtree(where.folder)
    writer = store.Writer(where, 0)
    for second, piece in enumerate(pieces(lines)):
        writer.append(piece, [Mark(writer.offset, BEGINS_AT + second, Source.STDOUT)])
    writer.finish()
    LogStream.objects.filter(pk=stream.pk).update(
        committed=writer.offset, lines=writer.lines, findings=writer.findings, sha256=writer.sha256,
        ended_at=timezone.now(),
    )  # fmt: skip
    writer.close()


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    django.setup()
    main(sys.argv[1], int(sys.argv[2]))
