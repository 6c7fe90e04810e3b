"""/ws/log/<stream>: the bytes of one log stream, from an offset on, as they come."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async

from runs.consumers.socket import PageSocket
from runs.logs.stream import follow
from runs.models import LogStream
from teams.queries import Caller

_OFFSET = struct.Struct(">Q")


class LogConsumer(PageSocket):
    """Sends, in this order:

    - `{"from": offset, "committed": n, "started": unix time or null}`, once: `?from=N` made exact; a negative N
      counts from the end, N beyond the end is the end;
    - binary frames, 8 bytes big-endian offset and at most 64 KiB as the rank wrote them, without gap or
      repeat, each after `{"marks": [[offset, unix time, "stdout"], …]}`, the marks in force for its bytes;
    - `{"end": {"total": n, "sha256": …, "reason": …}}` when the stream has its end record; then it closes.

    Closes with 4404 for a stream that is not there or not the caller's.
    """

    _stream: LogStream | None = None

    def authorise(self, caller: Caller) -> bool:
        stream_id: UUID = self.scope["url_route"]["kwargs"]["stream_id"]
        self._stream = (
            LogStream.objects.filter(pk=stream_id, attempt__run__team__in=caller.team_ids)
            .select_related("attempt")
            .first()
        )
        return self._stream is not None

    async def pump(self) -> None:
        stream = self._stream
        assert stream is not None
        first = _first(self.query("from"), stream.committed)
        started = stream.attempt.started_at
        await self.send_json(
            {
                "from": first,
                "committed": stream.committed,
                "started": started.timestamp() if started else None,
            }
        )
        last_mark = -1
        async for frame in follow(stream.pk, first, follow=True):
            # The mark in force at the beginning was sent with the frame before, mostly.
            fresh = [[mark.offset, mark.time, mark.source] for mark in frame.marks if mark.offset > last_mark]
            if fresh:
                last_mark = frame.marks[-1].offset
                await self.send_json({"marks": fresh})
            await self.send(bytes_data=_OFFSET.pack(frame.offset) + frame.data)
        await self.send_json({"end": await _end_record(stream.pk)})


def _first(wanted: str | None, committed: int) -> int:
    try:
        offset = int(wanted or 0)
    except ValueError:
        offset = 0
    return max(0, committed + offset) if offset < 0 else min(offset, committed)


@database_sync_to_async
def _end_record(stream_id: UUID) -> dict[str, Any]:
    stream = LogStream.objects.get(pk=stream_id)
    return {"total": stream.committed, "sha256": stream.sha256, "reason": stream.end_reason}
