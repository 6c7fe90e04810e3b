"""The one exception of this package."""

from __future__ import annotations


class Refused(Exception):
    """A start that cannot work. Its message is one line for a person: what is wrong, and what to do."""
