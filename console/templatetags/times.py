"""Times in pages: `<time>` elements that static/js/times.js keeps up to date.

What the server writes is already right when the page is made, so nothing depends on the script.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@register.filter
def duration(value: timedelta | float | None) -> str:
    """`3d 4h`, `2h 5m`, `4m 10s`, `12s`, `1.4s`, `230ms`: two units at the most. Empty for None."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    seconds = max(0.0, seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    whole, words = int(seconds), list[str]()
    for size, unit in _UNITS:
        count, whole = divmod(whole, size)
        if count or words:
            words.append(f"{count}{unit}")
    return " ".join(word for word in words[:2] if not word.startswith("0"))


@register.simple_tag
def ago(moment: datetime | None, missing: str = "never") -> SafeString | str:
    """`<time>` that reads "4m ago" and shows the exact time on hover."""
    if moment is None:
        return missing
    passed = timezone.now() - moment
    text = "just now" if abs(passed) < timedelta(seconds=5) else f"{_coarse(abs(passed))} ago"
    if passed < timedelta(seconds=-5):
        text = f"in {_coarse(-passed)}"
    return _time(moment, "ago", text)


@register.simple_tag
def elapsed(start: datetime | None, end: datetime | None = None) -> SafeString | str:
    """How long it took, or, without an end, a `<time>` that counts on. A dash before the start."""
    if start is None:
        return format_html('<span class="text-secondary">{}</span>', "–")
    if end is not None:
        return format_html(
            '<time datetime="PT{}S" title="{} – {}">{}</time>',
            f"{(end - start).total_seconds():.3f}", exact(start), exact(end), duration(end - start),
        )  # fmt: skip
    return _time(start, "elapsed", duration(timezone.now() - start))


@register.simple_tag
def clock(moment: datetime | None) -> SafeString | str:
    """`<time>` with date and time to the millisecond, which the script puts into the reader's time zone."""
    return "" if moment is None else _time(moment, "clock", exact(moment))


@register.filter
def exact(moment: datetime) -> str:
    """`2026-11-22 09:30:12.345 UTC`"""
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"


def _coarse(value: timedelta) -> str:
    return duration(timedelta(seconds=int(value.total_seconds()))).split(" ", 1)[0]


def _time(moment: datetime, kind: str, text: str) -> SafeString:
    return format_html(
        '<time datetime="{}" data-{} title="{}">{}</time>', moment.isoformat(), kind, exact(moment), text
    )
