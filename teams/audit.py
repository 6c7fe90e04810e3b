"""The record of who did what. Call it inside the transaction of the change that it records."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from teams.models import AuditEntry
from teams.queries import Caller


def record(caller: Caller | None, action: str, target: str, *, team_id: UUID | None, **data: Any) -> None:
    """Write one audit row. `caller` None is the system itself. `data` holds no secret values, ever."""
    AuditEntry.objects.create(
        team_id=team_id,
        user=caller.user if caller else None,
        api_key=caller.key if caller else None,
        actor=caller.user.email if caller else "system",
        action=action,
        target=target[:300],
        data={**data, "by_run": str(caller.run)} if caller and caller.run else data,
    )
