"""/ws/changes: which runs are not what they were. The page fetches what it shows of them."""

from __future__ import annotations

from uuid import UUID

from runs import queries
from runs.consumers.socket import PageSocket
from runs.wake import hub
from teams.queries import Caller

BEAT = 20.0
"""Seconds after which an empty message shows that the socket is alive."""


class ChangesConsumer(PageSocket):
    """Sends `{"runs": {<id>: <status>, …}}`: of all of the caller's teams, or with `?run=<id>` of one run.

    A hint may be lost, and one that comes may say nothing new: pages also look by themselves now and then.
    """

    _topics: tuple[str, ...] = ()

    def authorise(self, caller: Caller) -> bool:
        run = self.query("run")
        if run is None:
            topics = tuple(f"team:{team_id}" for team_id in sorted(caller.team_ids))
            # Joined or left a team: end, and the page comes back with the new ones.
            if self._topics and topics != self._topics:
                return False
            self._topics = topics
            return True
        try:
            run_id = UUID(run)
        except ValueError:
            return False
        self._topics = (f"run:{run_id}",)
        return queries.visible_to(caller).filter(pk=run_id).exists()

    async def pump(self) -> None:
        async with hub().subscribe(*self._topics) as mailbox:
            # Subscribed: from here on nothing is missed. The page looks once when it reads this.
            await self.send_json({"runs": {}})
            while True:
                messages = await mailbox.wait(BEAT)
                await self.send_json(
                    {"runs": {message["run"]: message["status"] for message in messages if "run" in message}}
                )
