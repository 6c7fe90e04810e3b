"""`runInput`, as the client sends it (mapi §4), checked and understood.

It is one JSON value to the GraphQL schema, on purpose: it has to be stored as it came, without members
that an input class would fill in, and wrong input deserves better words than a coercion error has.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from runs.commands import LONGEST_HOURS, MOST_METADATA, Compute, RunRequest
from runs.forms import integrations
from runs.forms.plain import MOST_BYTES, PlainError, plain
from runs.states import PRIORITY_NAMES, Priority, RunType
from teams.commands import Refused

NAME_LENGTH = 56
"""A run's whole name is a DNS label of 63; the suffix takes 7."""
ARGUMENT_BYTES = 128 * 1024
"""The longest single argument or NAME=value that Linux hands to a program, its NUL included."""
METADATA_KEY_LENGTH, METADATA_VALUE_BYTES = 200, 100_000
INTERACTIVE = {"runName": "interactive", "image": "mosaicml/pytorch", "command": "sleep infinity"}
"""What an interactive run is where its author does not say (mapi §4.8): it only has to be there."""
INTERACTIVE_SECONDS = 8 * 3600
"""How long one lasts where nobody said: forgotten, it would hold its GPUs for ever."""
_LARGEST = 2**31 - 1

_KEYS = (
    *("runName", "parentName", "image", "command", "cluster", "gpuType", "gpuNum", "cpus", "compute"),
    *("scheduling", "integrations", "envVariables", "parameters", "metadata", "dependentDeployment"),
)
_COMPUTE = ("cluster", "instance", "nodes", "nodeNames", "gpuType", "gpus", "cpus")
_SCHEDULING = (
    *("priority", "preemptible", "maxRetries", "retryOnSystemFailure", "watchdogEnabled"),
    *("maxDuration", "resumable"),
)
_ENV = ("envKey", "envValue")
_MAY_BE_NULL = frozenset(
    {"runName", "parentName", "image", "command", "gpuType", "gpuNum", "cpus", "cluster", "metadata"}
)
"""The client reads the stored input back; null under another key breaks every look at the run (mapi §2.6)."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"  # registry.example.org:5000/
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"  # team/name
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"  # :tag
    r"(?:@sha256:[0-9a-fA-F]{64})?"
)


def parse_run_input(raw: object, *, spell: Callable[[str], str] = str) -> RunRequest:
    """Check a `runInput` as it came over the wire.

    Raises `Refused` (400) with every problem: `Bad run request: <field>: <what is wrong, what is allowed>`,
    and for those that are missing exactly `<field> is a required field`, which the client translates.
    `spell` turns a wire name into the one that the writer knows (a YAML key and its line).
    """
    if not isinstance(raw, dict):
        raise Refused("Bad run request: runInput: must be an object", field="runInput")
    try:
        given: dict[str, Any] = plain({k: v for k, v in raw.items() if v is not None or k in _MAY_BE_NULL})
    except PlainError as problem:
        field = problem.path or "runInput"
        raise Refused(f"Bad run request: {spell(field)}: {problem.problem}", field=field) from None
    size = len(json.dumps(given, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise Refused(
            f"Bad run request: runInput: has {size:,} bytes; at most {MOST_BYTES:,} are allowed",
            field="runInput",
        )
    form = _Form(spell)
    request = _read(form, given)
    form.refuse_problems()
    return request


def parse_interactive_input(raw: object, seconds: int | None) -> RunRequest:
    """The same for `createInteractiveRun`: a run to connect to, that ends after `seconds`. Raises `Refused` (400)."""
    longest = LONGEST_HOURS * 3600
    if seconds is not None and not 0 < seconds <= longest:
        raise Refused(
            f"Bad run request: seconds: must be more than 0 and at most {longest}, not {seconds}",
            field="seconds",
        )
    if not isinstance(raw, dict):
        return parse_run_input(raw)
    empty = {name for name in INTERACTIVE if raw.get(name) is None or not str(raw[name]).strip()}
    request = parse_run_input({**raw, **{name: INTERACTIVE[name] for name in empty}})
    written = {name: value for name, value in request.submitted.items() if name not in empty}
    return replace(
        request,
        submitted={**written, **{name: raw[name] for name in empty if name in raw}},
        run_type=RunType.INTERACTIVE,
        max_duration_seconds=seconds or request.max_duration_seconds or INTERACTIVE_SECONDS,
    )


def parse_metadata(raw: object) -> dict[str, Any]:
    """Check metadata that are to be merged into a run's. Raises `Refused` (400)."""
    if not isinstance(raw, dict):
        raise Refused("metadata: must be an object with named members", field="metadata")
    try:
        metadata: dict[str, Any] = plain(raw)
    except PlainError as problem:
        raise Refused(f"metadata: {problem}", field="metadata") from None
    form = _Form(str)
    _check_metadata(form, metadata)
    form.refuse_problems()
    return metadata


def _read(form: _Form, given: dict[str, Any]) -> RunRequest:
    form.known("", given, _KEYS)
    scheduling = form.mapping(given, "scheduling")
    form.known("scheduling", scheduling, _SCHEDULING)
    metadata = form.mapping(given, "metadata")
    _check_metadata(form, metadata)
    _refuse_unsupported(form, given)
    return RunRequest(
        name=_name(form, given),
        image=_image(form, given),
        command=_command(form, given),
        submitted=given,
        compute=_compute(form, given),
        env=_env(form, given),
        parameters=form.mapping(given, "parameters"),
        metadata=metadata,
        parent_name=form.text(given, "parentName"),
        priority=_priority(form, scheduling),
        preemptible=form.flag(scheduling, "scheduling.preemptible"),
        max_retries=form.whole(scheduling, "scheduling.maxRetries", least=0) or 0,
        retry_on_system_failure=form.flag(scheduling, "scheduling.retryOnSystemFailure")
        | form.flag(scheduling, "scheduling.watchdogEnabled"),
        max_duration_seconds=_max_duration(form, scheduling),
        run_type=RunType.HERO_RUN if metadata.get("isHeroRun") is True else RunType.TRAINING,
    )


class _Form:
    """Collects problems, so that one answer names them all. Getters give a harmless value after one."""

    def __init__(self, spell: Callable[[str], str]) -> None:
        self._spell = spell
        self._problems: list[tuple[str, str]] = []

    def problem(self, field: str, text: str) -> None:
        self._problems.append((field, f"{self._spell(field)}: {text}"))

    def missing(self, field: str) -> None:
        self._problems.append((field, f"{self._spell(field).split(' ')[0]} is a required field"))

    def refuse_problems(self) -> None:
        if self._problems:
            text = "; ".join(text for _, text in self._problems)
            raise Refused(f"Bad run request: {text}", field=self._problems[0][0])

    def known(self, where: str, given: Mapping[str, Any], allowed: Collection[str]) -> None:
        for key in given:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, 1, 0.6)
                hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
                self.problem(f"{where}.{key}" if where else key, f"there is no such field; {hint}")

    def text(self, given: Mapping[str, Any], field: str) -> str | None:
        value = given.get(_last(field))
        if value is not None and not isinstance(value, str):
            self.problem(field, f"must be text, not {_shown(value)}")
            return None
        return value or None

    def flag(self, given: Mapping[str, Any], field: str) -> bool:
        value = given.get(_last(field))
        if value is not None and not isinstance(value, bool):
            self.problem(field, f"must be true or false, not {_shown(value)}")
        return value is True

    def whole(self, given: Mapping[str, Any], field: str, *, least: int) -> int | None:
        value = given.get(_last(field))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            self.problem(field, f"must be a whole number, not {_shown(value)}")
            return None
        if not least <= value <= _LARGEST:
            self.problem(field, f"must be {least} or more, not {_shown(value)}")
            return None
        return int(value)

    def mapping(self, given: Mapping[str, Any], field: str) -> dict[str, Any]:
        value = given.get(field)
        if value is not None and not isinstance(value, dict):
            self.problem(field, f"must be an object with named members, not {_shown(value)}")
        return value if isinstance(value, dict) else {}


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _name(form: _Form, given: Mapping[str, Any]) -> str:
    name = form.text(given, "runName")
    if not name:
        if not given.get("runName"):
            form.missing("runName")
        return ""
    if not _LABEL.fullmatch(name):
        form.problem(
            "runName",
            f"{_shown(name)} is not a name: lower-case letters, digits and '-' are allowed, with a letter or "
            "digit first and last",
        )
    elif len(name) > NAME_LENGTH:
        form.problem(
            "runName",
            f"has {len(name)} characters; at most {NAME_LENGTH} are allowed, because a suffix of 7 makes it unique",
        )
    return name


def _image(form: _Form, given: Mapping[str, Any]) -> str:
    image = form.text(given, "image")
    if not image:
        if not given.get("image"):
            form.missing("image")
        return ""
    if len(image) > 500 or not _IMAGE.fullmatch(image):
        form.problem(
            "image",
            f"{_shown(image)} is not an image's name: [registry[:port]/]path[:tag][@sha256:digest], the path in "
            "lower case",
        )
    return image


def _command(form: _Form, given: Mapping[str, Any]) -> str:
    command = form.text(given, "command")
    if command is None or not command.strip():
        if not given.get("command") or isinstance(command, str):
            form.missing("command")
        return ""
    size = len(command.encode())
    if size >= ARGUMENT_BYTES:
        form.problem(
            "command",
            f"has {size:,} bytes; fewer than {ARGUMENT_BYTES:,} are allowed: put it into a script in the image",
        )
    return command


def _env(form: _Form, given: Mapping[str, Any]) -> dict[str, str]:
    rows = given.get("envVariables", [])
    if not isinstance(rows, list):
        form.problem("envVariables", "must be a list of {envKey, envValue}")
        return {}
    env: dict[str, str] = {}
    for i, row in enumerate(rows):
        field = f"envVariables[{i}]"
        if not isinstance(row, dict) or not isinstance(row.get("envKey"), str):
            form.problem(field, "must be {envKey, envValue}, the key as text")
            continue
        form.known(field, row, _ENV)
        key, value = row["envKey"], row.get("envValue")
        if not _VARIABLE.fullmatch(key):
            form.problem(
                field,
                f"{_shown(key)} is not a variable's name: letters, digits and '_' are allowed, no digit first",
            )
        elif isinstance(value, (dict, list)):
            form.problem(field, f"the value of {key} must be text, a number, true or false")
        else:
            text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
            if len(key) + len(text.encode()) + 2 > ARGUMENT_BYTES:
                form.problem(
                    field, f"the value of {key} is longer than the {ARGUMENT_BYTES:,} bytes that Linux allows"
                )
            env[key] = text
    return env


def _compute(form: _Form, given: Mapping[str, Any]) -> Compute:
    """`compute`, with the older top-level members where it does not say (mapi §4.1)."""
    inner = form.mapping(given, "compute")
    form.known("compute", inner, _COMPUTE)
    if inner.get("nodeNames"):
        form.problem("compute.nodeNames", "nodes cannot be chosen by name; leave it out")
    wanted = {
        "cluster": form.text(inner, "compute.cluster"),
        "instance": form.text(inner, "compute.instance"),
        "nodes": form.whole(inner, "compute.nodes", least=1),
        "gpus": form.whole(inner, "compute.gpus", least=0),
        "gpu_type": _gpu_type(form, inner, "compute.gpuType"),
        "cpus": form.whole(inner, "compute.cpus", least=0) or None,
    }
    older = {
        "cluster": ("cluster", form.text(given, "cluster")),
        "gpu_type": ("gpuType", _gpu_type(form, given, "gpuType")),
        "gpus": ("gpuNum", form.whole(given, "gpuNum", least=0)),
        "cpus": ("cpus", form.whole(given, "cpus", least=0) or None),
    }
    for name, (field, value) in older.items():
        if value is None:
            continue
        if wanted[name] not in {None, value}:
            form.problem(
                field, f"{_shown(value)} contradicts {_shown(wanted[name])} under compute; say it once"
            )
        wanted[name] = value
    return Compute(**wanted)  # type: ignore[arg-type]


def _gpu_type(form: _Form, given: Mapping[str, Any], field: str) -> str | None:
    """YAML makes a number of `gpu_type: 3090`."""
    value = given.get("gpuType")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return form.text(given, field)


def _priority(form: _Form, scheduling: Mapping[str, Any]) -> Priority:
    name = form.text(scheduling, "scheduling.priority") or Priority.AUTO
    priority = PRIORITY_NAMES.get(name.lower())
    if priority is None:
        form.problem("scheduling.priority", f"{_shown(name)} is not one of {', '.join(PRIORITY_NAMES)}")
    return priority or Priority.AUTO


def _max_duration(form: _Form, scheduling: Mapping[str, Any]) -> int | None:
    """Hours, and fractions of them, to whole seconds."""
    hours = scheduling.get("maxDuration")
    if hours is None:
        return None
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours <= LONGEST_HOURS:
        form.problem(
            "scheduling.maxDuration",
            f"must be a number of hours, more than 0 and at most {LONGEST_HOURS}, not {_shown(hours)}",
        )
        return None
    return math.ceil(hours * 3600)


def _check_metadata(form: _Form, metadata: Mapping[str, Any]) -> None:
    if len(metadata) > MOST_METADATA:
        form.problem("metadata", f"has {len(metadata)} keys; at most {MOST_METADATA} are allowed")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_LENGTH:
            form.problem("metadata", f"the key {_shown(key)} is longer than {METADATA_KEY_LENGTH} characters")
        elif len(json.dumps(value, ensure_ascii=False).encode()) > METADATA_VALUE_BYTES:
            form.problem(f"metadata.{key}", f"is larger than 0.1 MB ({METADATA_VALUE_BYTES:,} bytes)")


def _refuse_unsupported(form: _Form, given: Mapping[str, Any]) -> None:
    """What later versions will do must not be dropped in silence by this one."""
    integrations.check(given.get("integrations"), form.problem)
    if form.mapping(given, "dependentDeployment"):
        form.problem(
            "dependentDeployment", "this version of Runyard does not start side-cars yet; leave it out"
        )
