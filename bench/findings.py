"""What it costs to recognise errors in a log: against counting its newlines, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from runs.logs.findings import Recogniser

SIZE = 256 * 2**20
CHUNK = 2**20
PLAIN = b"2026-11-25 07:21:10,123 INFO [train] epoch 3 step %d loss=0.%04d lr=1e-4 tokens/s=12345.6\n"
ERROR = b"2026-11-25 07:21:10,124 ERROR [data] sample %d could not be read: it is %d bytes short\n"


def main() -> int:
    for name, every in (("plain", 0), ("an error in 1,000 lines", 1000), ("an error in 10 lines", 10)):
        chunks = _log(every)
        rounds = [(_seconds(_recognise, chunks), _seconds(_count, chunks)) for _ in range(5)]
        found = statistics.median(ours for ours, _ in rounds)
        ratio = statistics.median(ours / floor for ours, floor in rounds)
        print(f"findings, {name}: {SIZE / found / 1e6:.0f} MB/s; {ratio:.1f} × the time of counting newlines")
    return 0


def _log(every: int) -> list[bytes]:
    lines, size, number = [], 0, 0
    while size < 16 * 2**20:
        number += 1
        pattern = ERROR if every and number % every == 0 else PLAIN
        lines.append(pattern % (number, number * 7919 % 10_000))
        size += len(lines[-1])
    data = b"".join(lines)
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    return chunks * (SIZE // len(data))


def _seconds(work: Callable[[list[bytes]], object], chunks: list[bytes]) -> float:
    start = time.perf_counter()
    work(chunks)
    return time.perf_counter() - start


def _recognise(chunks: list[bytes]) -> None:
    recogniser = Recogniser()
    for chunk in chunks:
        recogniser.feed(chunk)


def _count(chunks: list[bytes]) -> int:
    return sum(chunk.count(b"\n") for chunk in chunks)
