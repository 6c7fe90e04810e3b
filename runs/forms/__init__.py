"""What people submit, checked: from the wire (`runInput`) and from YAML, both ways."""

from __future__ import annotations

from runs.forms.plain import PlainError, plain
from runs.forms.wire import parse_interactive_input, parse_metadata, parse_run_input
from runs.forms.written import parse_run_yaml, to_yaml

__all__ = [
    "PlainError",
    "parse_interactive_input",
    "parse_metadata",
    "parse_run_input",
    "parse_run_yaml",
    "plain",
    "to_yaml",
]
