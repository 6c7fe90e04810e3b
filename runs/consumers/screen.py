"""/ws/terminal/<run>/<rank>: a terminal in a page, with the session's rights."""

from __future__ import annotations

import asyncio
import json

from runs import queries
from runs.consumers.socket import PageSocket
from runs.consumers.terminal import SIZE, Session
from teams.commands import Refused
from teams.queries import Caller

SIZE_WITHIN = 5.0


class ScreenConsumer(PageSocket):
    """The page sends what is typed as binary frames, and `{"columns": n, "lines": n}` first and at each change.

    It gets the terminal's bytes as binary frames, `{"open": true}` before them and `{"ended": why, "again": whether
    another may be had}` after. Closes with 4404 for a run that the caller may not change.
    """

    _session: Session | None = None
    _caller: Caller | None = None

    async def connect(self) -> None:
        self._size: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        await super().connect()

    def authorise(self, caller: Caller) -> bool:
        self._caller = caller
        run = queries.find(caller, self.scope["url_route"]["kwargs"]["name"])
        return run is not None and caller.may_change(team_id=run.team_id, owner_id=run.creator_id)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if bytes_data is not None:
            if self._session is not None and not self._session.type(bytes_data):
                await self.close(1009)
            return
        try:
            said = json.loads(text_data or "")
            size = (int(said["columns"]), int(said["lines"]))
        except (ValueError, TypeError, KeyError):
            await self.close(1003)
            return
        if not self._size.done():
            self._size.set_result(size)
        elif self._session is not None:
            await self._session.resize(*size)

    async def pump(self) -> None:
        assert self._caller is not None
        place = self.scope["url_route"]["kwargs"]
        self._session = session = Session(self._caller)
        await asyncio.wait([self._size], timeout=SIZE_WITHIN)
        try:
            size = self._size.result() if self._size.done() else SIZE
            await session.begin(place["name"], place["rank"], size=size)
            await self.send_json({"open": True})
            end = await session.serve(lambda data: self.send(bytes_data=data))
            await self.send_json({"ended": end.text, "again": not end.gone})
        except Refused as refused:
            await self.send_json({"ended": refused.message, "again": refused.code == 503})
