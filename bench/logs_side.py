"""What logs cost: storing them with masking against `cat | cat`, finding a place and a text in a long one."""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusters.engines.base import Mark, Source
from runs.logs import store
from runs.logs.lines import Lines
from runs.logs.redact import Needles, Redactor
from runs.logs.search import Query, search

INGESTED = 256 * 2**20
SEARCHED = 2**30
CHUNK = 2**20
ROUNDS = 7
LINE = "2026-11-25 07:21:10,%03d INFO [train] epoch %d step %d loss=0.%04d lr=1e-4 tokens/s=%d.%d\n"


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="runyard-bench-"))
    try:
        return max(_ingest(folder), _long_log(folder))
    finally:
        shutil.rmtree(folder)


def _ingest(folder: Path) -> int:
    """Source to stored, indexed, masked, synced, hashed: P5."""
    source = folder / "source"
    _write(source, INGESTED)
    worst = 0.0
    for count, bar in ((20, 0.2), (200, 0.2)):
        values = [f"secret-{random.Random(at).randbytes(15).hex()}" for at in range(count)]
        needles = Needles.of(values)
        rounds = []
        for _ in range(ROUNDS):
            ours = _timed(_store, source, folder / "stored", needles)
            peer = _timed(
                _run, ["sh", "-c", 'cat "$0" | cat > "$1" && sync -d "$1"', source, folder / "copy"]
            )
            shutil.rmtree(folder / "stored")
            rounds.append((ours, peer))
        ratio = statistics.median(peer / ours for ours, peer in rounds)
        ours, peer = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"logs, stored with {len(needles.spelled)} needles: {INGESTED / ours / 1e6:.0f} MB/s; cat | cat > file: "
            f"{INGESTED / peer / 1e6:.0f} MB/s; {ratio:.2f} × its speed (bar {bar})"
        )
        worst = max(worst, bar / ratio)
    return int(worst > 1)


def _store(source: Path, folder: Path, needles: Needles) -> None:
    writer, redactor = store.Writer(store.Location(folder), 0), Redactor(needles.spelled, 0)
    with source.open("rb") as file:
        while data := file.read(CHUNK):
            part = redactor.feed(data, [Mark(redactor.offset, time.time(), Source.STDOUT)])
            if part.data:
                writer.append(
                    part.data,
                    [Mark(writer.offset + mark.offset, mark.time, mark.source) for mark in part.marks],
                )
    writer.append(redactor.finish().data, [])
    assert writer.sha256
    writer.close()


def _long_log(folder: Path) -> int:
    """Random access (P13) and search (P12) in one log of a gibibyte."""
    source, where = folder / "source", store.Location(folder / "long")
    _write(source, SEARCHED)
    _store(source, where.folder, Needles())
    size = source.stat().st_size
    ends = int(_run(["wc", "-l", source]).split()[0])
    chance, failed = random.Random(7), 0
    firsts, anywhere, seds = [], [], []
    for _ in range(200):
        firsts.append(_timed(_window, where, size, ends, 1))
        anywhere.append(_timed(_window, where, size, ends, chance.randint(1, ends - 100)))
    for _ in range(ROUNDS):
        number = chance.randint(ends // 2, ends - 100)
        seds.append(_timed(_run, ["sed", "-n", f"{number},{number + 99}p;{number + 99}q", source]))
    first, there = _p95(firsts), _p95(anywhere)
    print(
        f"logs, 100 lines of {ends}: the first {first * 1000:.2f} ms, any {there * 1000:.2f} ms (p95), sed -n "
        f"{statistics.median(seds) * 1000:.0f} ms; {there / first:.1f} × the first (bar 1.5 or 5 ms), "
        f"{statistics.median(seds) / statistics.median(anywhere):.0f} × faster than sed (bar 100)"
    )
    failed |= there > max(1.5 * first, 0.005) or statistics.median(seds) < 100 * statistics.median(anywhere)
    for name, query, grep in (
        ("a rare text", Query("needle in it", case=True), ["-c", "-F", "needle in it"]),
        (
            "an expression",
            Query(r"step \d+99 loss=0\.00\d5 ", case=True, regex=True),
            ["-c", "-E", r"step [0-9]+99 loss=0\.00[0-9]5 "],
        ),
    ):
        rounds = []
        for _ in range(ROUNDS):
            ours = _timed(_all, Lines(where, size, ends), query)
            peer = _timed(_run, ["env", "LC_ALL=C", "grep", *grep, source])
            rounds.append((ours, peer))
        ratio = statistics.median(ours / peer for ours, peer in rounds)
        ours, peer = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"logs, {name} in 1 GiB: {ours:.2f} s; grep {peer:.2f} s; {ratio:.2f} × its time (bar 2)")
        failed |= ratio > 2
    return int(failed)


def _run(command: list[str | Path]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


def _window(where: store.Location, size: int, ends: int, number: int) -> None:
    assert len(Lines(where, size, ends).window(number, 100)) == 100


def _all(lines: Lines, query: Query) -> int:
    at, count, done = 0, 0, False
    while not done:
        found = search(lines, query, at)
        at, done, count = found.next, found.done, count + len(found.lines)
    return count


def _write(path: Path, size: int) -> None:
    """Lines of a training run; one in two million holds a needle."""
    chance, block = random.Random(3), []
    for step in range(120_000):
        block.append(
            LINE % (step % 1000, step // 1000, step, chance.randrange(10_000), step % 9999, step % 10)
        )
    data = "".join(block).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(data)
            file.write(b"a needle in it\n")


def _timed(work: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def _p95(times: list[float]) -> float:
    return sorted(times)[len(times) * 95 // 100]
