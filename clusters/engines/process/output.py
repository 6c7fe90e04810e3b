"""What becomes of a rank's output when it is too much: quota, a reader who is away, a full disk.

The rank is never killed for it. What is not kept is counted and said in the stream itself, in one line,
as soon as a line can be written.
"""

from __future__ import annotations

from clusters.engines.process.spool import SEGMENT, STDERR, Spool


def size(count: int) -> str:
    """A number of bytes as people write it: 5 GiB, 1.5 MiB, 17 bytes."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


def limit_line(quota: int, *, at_line_start: bool) -> bytes:
    """What a log ends with that was longer than is kept."""
    return said(f"log limit of {size(quota)} reached; later output is not kept", at_line_start=at_line_start)


def said(sentence: str, *, at_line_start: bool) -> bytes:
    """A line of the platform's in a rank's output."""
    return (b"" if at_line_start else b"\n") + f"[runyard] {sentence}\n".encode()


class Output:
    """Policy over a spool. `full` asks the caller to stop reading; `take` accepts whatever it read."""

    def __init__(self, *, limit: int, quota: int, patience: float, spool: Spool | None = None) -> None:
        # Four files at least below the limit: the last one can never be freed, and must not fill it alone.
        self.spool = spool or Spool(min(SEGMENT, max(1, limit // 4)))
        self._limit = limit
        self._quota = quota
        self._patience = patience
        self._kept = self.spool.offset
        self._over = self._kept >= quota
        self._lost = 0
        self._why = ""
        self._full_since: float | None = None
        self._dropping = False
        self._at_line_start = True

    def full(self, now: float) -> bool:
        """Whether the rank should wait for the reader. True for `patience` seconds at most: then its
        output is dropped instead, until half of the room is free again."""
        unreleased = self.spool.unreleased()
        if self._dropping:
            self._dropping = unreleased >= self._limit // 2
            return False
        if unreleased < self._limit or self._over:
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since >= self._patience:
            self._full_since = None
            self._dropping = True
            return False
        return True

    def take(self, data: bytes, source: int, now: float) -> None:
        """Keep these bytes, or count them as lost. `now` is the time at which they were read."""
        if self._over:
            return
        if self._dropping:
            self._lose(len(data), f"nobody had collected them for {self._patience:.0f} s")
            return
        if self._lost and not self.say_what_was_lost(now):
            self._lose(len(data), self._why)
            return
        fitting = data[: self._quota - self._kept]
        kept = self._write(fitting, source, now)
        if kept < len(fitting):
            self._lose(len(fitting) - kept, "the disk was full or failed")
        self._kept += kept
        if kept:
            self._at_line_start = fitting[kept - 1 : kept] == b"\n"
        if self._kept >= self._quota:
            self._over = self._write_line(limit_line(self._quota, at_line_start=self._at_line_start), now)

    def _write(self, data: bytes, source: int, now: float) -> int:
        """Write on until all is kept or the disk takes no more. Returns how many bytes were kept."""
        kept = 0
        while kept < len(data):
            written = self.spool.write(data[kept:], source, now)
            if not written:
                break
            kept += written
        return kept

    def _lose(self, count: int, why: str) -> None:
        self._lost += count
        self._why = why

    def say_what_was_lost(self, now: float) -> bool:
        """Write the line about lost bytes, if there are any. False if it cannot be written now."""
        sentence = f"{self._lost} bytes of output were not kept: {self._why}"
        if self._lost and self.say(sentence, now):
            self._lost = 0
        return not self._lost

    def say(self, sentence: str, now: float) -> bool:
        """A line of our own. False if it could not be written whole."""
        return self._write_line(said(sentence, at_line_start=self._at_line_start), now)

    def _write_line(self, line: bytes, now: float) -> bool:
        written = self._write(line, STDERR, now)
        if written:
            self._at_line_start = written == len(line)
        return written == len(line)
