"""`integrations` (mapi §4.4): those that are checked here and become variables of the run.

What a run cannot be given yet is refused: nothing that was asked for is dropped in silence.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from typing import Any

from runs.states import TRACKERS

Problem = Callable[[str, str], object]
"""Takes the field and what is wrong with it."""
LATER = ("git_repo", "pip_packages", "apt_packages")
MOST = 50
LONGEST = 1000


def check(given: Any, problem: Problem) -> None:
    """Say everything that is wrong with a list of integrations."""
    if given is None:
        return
    if not isinstance(given, list):
        problem("integrations", "must be a list")
        return
    if len(given) > MOST:
        problem("integrations", f"has {len(given)} entries; at most {MOST} are allowed")
        return
    later = sorted({one["type"] for one in given if isinstance(one, dict) and one.get("type") in LATER})
    if later:
        problem(
            "integrations",
            f"this version of Runyard does not carry out {', '.join(later)} yet; leave it out and do the same "
            "in command",
        )
    kinds = [one.get("type") for one in given if isinstance(one, dict)]
    for index, one in enumerate(given):
        field = f"integrations[{index}]"
        if not isinstance(one, dict) or not isinstance(one.get("type"), str):
            problem(field, "must be {type, params}, the type as text")
        elif one["type"] in TRACKERS:
            _tracker(field, one["type"], one.get("params", {}), problem)
            if kinds.count(one["type"]) > 1 and kinds.index(one["type"]) == index:
                problem(field, f"{one['type']} is there {kinds.count(one['type'])} times; once is allowed")
        elif one["type"] not in LATER:
            known = [*TRACKERS, *LATER]
            near = difflib.get_close_matches(one["type"], known, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            problem(field, f"there is no integration {json.dumps(one['type'][:80])}; {hint}")


def _tracker(field: str, kind: str, params: Any, problem: Problem) -> None:
    if not isinstance(params, dict):
        problem(f"{field}.params", "must be an object with named members")
        return
    tracker = TRACKERS[kind]
    for name, value in params.items():
        if name not in tracker.variables:
            near = difflib.get_close_matches(name, tracker.variables, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(tracker.variables)}"
            problem(f"{field}.params.{name[:80]}", f"{kind} has no such parameter; {hint}")
        elif not _is_text(name, value):
            what = "a list of texts" if name == "tags" else "text"
            problem(f"{field}.params.{name}", f"must be {what} of at most {LONGEST} characters, in one line")
    if not any(params.get(name) for name in tracker.required):
        problem(f"{field}.params", f"{kind} needs {' or '.join(tracker.required)}")


def _is_text(name: str, value: Any) -> bool:
    if name == "tags" and isinstance(value, list):
        return (
            all(isinstance(tag, str) and "," not in tag for tag in value) and len(",".join(value)) <= LONGEST
        )
    return value is None or (isinstance(value, str) and len(value) <= LONGEST and "\n" not in value)
