from __future__ import annotations

from tests.runs.views.pages import plain_static

__all__ = ["plain_static"]
