"""`{% icon "player-play" %}`: Tabler's outline icons, written into the page."""

from __future__ import annotations

import re
from functools import cache

from django import template
from django.conf import settings
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

register = template.Library()


@register.simple_tag
def icon(name: str, label: str = "", extra: str = "") -> SafeString:
    """The icon `name`, as large as the text beside it. Decoration, unless a `label` says what it means."""
    drawing = mark_safe(_drawing(name))  # from the package's own files
    if label:
        return format_html(
            '<span class="icon-box {}" role="img" aria-label="{}">{}</span>', extra, label, drawing
        )
    return format_html('<span class="icon-box {}" aria-hidden="true">{}</span>', extra, drawing)


@cache
def _drawing(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"{name!r} is not the name of an icon")
    text = (settings.ICONS / f"{name}.svg").read_text()
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text).replace('class="', 'focusable="false" class="', 1).strip()
