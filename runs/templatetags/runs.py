"""How runs look: a status is an icon, a word and a colour, everywhere the same."""

from __future__ import annotations

from collections.abc import Mapping

from django import template

from runs.states import Status

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


@register.filter
def priority_icon(priority: str) -> str:
    return {"high": "chevrons-up", "low": "chevron-down", "lowest": "chevrons-down"}.get(priority, "minus")
