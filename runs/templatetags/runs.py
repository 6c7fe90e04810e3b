"""How runs look: a status is an icon, a word and a colour, everywhere the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from clusters.models import Cluster
from clusters.states import Sight, loop_is_late
from runs import queries
from runs.models import Attempt, Run
from runs.states import WAITING, Status

register = template.Library()

_LOOKS: Mapping[str, tuple[str, str]] = {
    Status.PENDING: ("circle-dashed", "secondary"),
    Status.QUEUED: ("hourglass", "purple"),
    Status.STARTING: ("rocket", "cyan"),
    Status.RUNNING: ("player-play", "blue"),
    Status.TERMINATING: ("hand-stop", "orange"),
    Status.COMPLETED: ("circle-check", "green"),
    Status.STOPPED: ("player-stop", "yellow"),
    Status.FAILED: ("circle-x", "red"),
}


@register.filter
def status_icon(status: str) -> str:
    """The name of a status's icon."""
    return _LOOKS[status][0]


@register.filter
def status_colour(status: str) -> str:
    """The name of a status's colour: static/css/runyard.css has `.tone-<name>`."""
    return _LOOKS[status][1]


_EVENTS: Mapping[str, tuple[str, str]] = {
    "CREATED": ("plus", "secondary"),
    "STARTED": _LOOKS[Status.RUNNING],
    "COMPLETED": _LOOKS[Status.COMPLETED],
    "STOPPED": _LOOKS[Status.STOPPED],
    "FAILED": _LOOKS[Status.FAILED],
    "REQUEUED": ("refresh", "blue"),
    "PREEMPTED": ("arrows-exchange", "orange"),
    "STOP_REQUESTED": ("hand-stop", "orange"),
    "RETRIES_STOPPED": ("refresh-off", "red"),
    "TAKEN_UP_LATE": ("eye-off", "orange"),
    "DELETED": ("trash", "red"),
    "INTEGRATION_DONE": ("package", "cyan"),
    "INTEGRATION_FAILED": ("package-off", "red"),
    "DATA_VALIDATED": ("checks", "cyan"),
    "MODEL_INITIALIZED": ("box-model", "cyan"),
    "TRAIN_STARTED": ("trending-up", "blue"),
    "TRAIN_UPDATED": ("trending-up", "blue"),
    "TRAIN_FINISHED": ("flag-check", "green"),
    "CHECKPOINT_SAVED": ("device-floppy", "cyan"),
    "FAILED_EXCEPTION": ("bug", "red"),
}


@register.filter
def event_icon(kind: str) -> str:
    return _EVENTS.get(kind, ("point", "secondary"))[0]


@register.filter
def event_colour(kind: str) -> str:
    return _EVENTS.get(kind, ("point", "secondary"))[1]


@register.filter
def priority_icon(priority: str) -> str:
    return {"high": "chevrons-up", "low": "chevron-down", "lowest": "chevrons-down"}.get(priority, "minus")


@register.filter
def percent(share: float) -> str:
    """0.3 → 30 %; only what is done says 100."""
    return f"{int(share * 100)}\N{NO-BREAK SPACE}%"


@register.filter
def compute(run: Run | Attempt) -> str:
    """`2 × 4 H100`: nodes, and GPUs on each. `2 × CPU` where there are none."""
    if not run.gpus:
        return f"{run.nodes} × CPU"
    return f"{run.nodes} × {run.gpus // run.nodes} {run.gpu_type}"


@register.filter
def compute_long(run: Run | Attempt) -> str:
    """The same as a sentence's part."""
    nodes = f"{run.nodes} node" + "s" * (run.nodes != 1)
    if not run.gpus:
        return f"{nodes}, {run.cpus} CPU" + "s" * (run.cpus != 1)
    return f"{nodes}, {run.gpus} GPU" + "s" * (run.gpus != 1) + f" of type {run.gpu_type}"


@register.filter
def reason_or_status(code: str) -> str:
    """A reason as it is; a status in the words of the pages."""
    return code.title() if code in set(Status) else code


@register.filter
def words(code: str) -> str:
    """`STOP_REQUESTED` → `Stop requested`."""
    return code.replace("_", " ").capitalize()


@register.filter
def with_code(text: str) -> SafeString:
    """A sentence in which what stands in backticks is code."""
    parts = text.split("`")
    return format_html_join(
        "",
        "{}{}",
        (
            (parts[i], format_html("<code>{}</code>", parts[i + 1]) if i + 1 < len(parts) else "")
            for i in range(0, len(parts), 2)
        ),
    )


@register.filter
def only(cluster: Cluster) -> list[Cluster]:
    """One as a list."""
    return [cluster]


@register.inclusion_tag("parts/unseen.html")
def unseen(attempt: Attempt, cluster: Cluster) -> dict[str, Any]:
    """`not seen for 12m`, beside a status; nothing where what is shown is fresh."""
    seen = queries.seen(attempt, cluster, timezone.now())
    shown = seen if seen is not None and seen.sight is not Sight.FRESH else None
    return {"seen": shown, "waits": attempt.status in WAITING}


@register.inclusion_tag("parts/loop.html")
def loop_note(clusters: Iterable[Cluster]) -> dict[str, Any]:
    """A warning where the control loop has not looked for a while; nothing else."""
    return {"late": sorted(filter(late, clusters), key=lambda c: c.swept_at or c.created_at)}


@register.filter
def late(cluster: Cluster) -> bool:
    """Whether the control loop has not looked at it for a while."""
    return loop_is_late(cluster.swept_at, cluster.created_at, timezone.now())
