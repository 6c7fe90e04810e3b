"""The YAML that people write for `mcli run -f`, to the wire form and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import yaml

from runs.commands import RunRequest
from runs.forms.plain import DEPTH, NODES
from runs.forms.wire import parse_run_input
from teams.commands import Refused

MOST_YAML = 256 * 1024
"""Bytes that somebody writes; the same input as JSON from a program may have more."""
_TOP = {
    "name": "runName",
    "parent_name": "parentName",
    "image": "image",
    "command": "command",
    "cluster": "cluster",
    "gpu_type": "gpuType",
    "gpu_num": "gpuNum",
    "cpus": "cpus",
    "compute": "compute",
    "scheduling": "scheduling",
    "integrations": "integrations",
    "env_variables": "envVariables",
    "parameters": "parameters",
    "metadata": "metadata",
    "dependent_deployment": "dependentDeployment",
}
_COMPUTE = {
    "cluster": "cluster",
    "instance": "instance",
    "nodes": "nodes",
    "node_names": "nodeNames",
    "gpus": "gpus",
    "gpu_type": "gpuType",
    "cpus": "cpus",
}
_SCHEDULING = {
    "priority": "priority",
    "preemptible": "preemptible",
    "max_retries": "maxRetries",
    "retry_on_system_failure": "retryOnSystemFailure",
    "watchdog_enabled": "watchdogEnabled",
    "max_duration": "maxDuration",
    "resumable": "resumable",
}
_INNER = {"compute": _COMPUTE, "scheduling": _SCHEDULING}


class RefusedYAML(Refused):
    """`line` is where the first problem is, from 1; None where it is nowhere."""

    def __init__(self, message: str, *, field: str | None = None, line: int | None = None) -> None:
        super().__init__(message, field=field)
        self.line = line


def parse_run_yaml(text: str) -> RunRequest:
    """Check a run written as YAML, by the same rules as one from the wire (`parse_run_input`).

    Raises `RefusedYAML` (400), naming fields as YAML does and the line where there is one.
    """
    if len(text.encode(errors="replace")) > MOST_YAML:
        raise RefusedYAML(f"The YAML is longer than {MOST_YAML:,} bytes.", field="yaml")
    data, lines = _load(text)
    if not isinstance(data, dict):
        raise RefusedYAML(
            "The YAML must be a mapping: `name: …`, `image: …`, `command: …`, one a line.", field="yaml"
        )
    wire, written = _to_wire(data)
    try:
        return parse_run_input(wire, spell=_speller(written, lines))
    except Refused as refused:
        field = written.get(refused.field or "", refused.field)
        raise RefusedYAML(refused.message, field=field, line=lines.get(field or "")) from None


def to_yaml(submitted: Mapping[str, Any]) -> str:
    """A stored `runInput` as the YAML that its author would write; what was not said is left out."""
    data: dict[str, Any] = {}
    for name, key in _TOP.items():
        value = submitted.get(key)
        if value in (None, "", [], {}) or (name == "cpus" and value == 0):
            continue
        if name in _INNER:
            back = {wire: yaml_name for yaml_name, wire in _INNER[name].items()}
            value = {back.get(member, member): item for member, item in value.items()}
        elif name == "env_variables":
            value = {row["envKey"]: row.get("envValue") for row in value}
        elif name == "integrations":
            value = [
                {
                    "integration_type": row.get("type"),
                    **{_snake(member): item for member, item in (row.get("params") or {}).items()},
                }
                for row in value
            ]
        data[name] = value
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, the way people write commands."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if any(mark in text for mark in "\x85\u2028\u2029"):  # line breaks to YAML, which would be one blank
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    style = "|" if "\n" in text and not any(line.endswith((" ", "\t")) for line in text.split("\n")) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def _to_wire(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The wire form, and wire path → the path as it was written."""
    wire: dict[str, Any] = {}
    written = {key: name for name, key in _TOP.items()}
    for name, value in data.items():
        # A name that is not known stays as it is: the check of the wire form refuses it.
        key = _TOP.get(name, name)
        if name in _INNER and isinstance(value, dict):
            members = _INNER[name]
            written |= {f"{key}.{member}": f"{name}.{inner}" for inner, member in members.items()}
            value = {members.get(member, member): item for member, item in value.items()}
        elif name == "env_variables":
            value, paths = _env(value)
            written |= paths
        elif name == "integrations" and isinstance(value, list):
            value = [_integration(row) for row in value]
        elif name == "command" and isinstance(value, str):
            value = value.strip()
        wire[key] = value
    return wire, written


def _env(value: Any) -> tuple[Any, dict[str, str]]:
    """A mapping of name to value, or the older list of {key, value}."""
    if isinstance(value, dict):
        rows: Any = [{"envKey": key, "envValue": item} for key, item in value.items()]
        return rows, {f"envVariables[{i}]": f"env_variables.{key}" for i, key in enumerate(value)}
    if isinstance(value, list):
        rows = [
            {"envKey": row["key"], "envValue": row.get("value")}
            if isinstance(row, dict) and "key" in row
            else row
            for row in value
        ]
        return rows, {f"envVariables[{i}]": f"env_variables[{i}]" for i in range(len(rows))}
    return value, {}


def _integration(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    params = {_camel(key): value for key, value in row.items() if key not in {"integration_type", "type"}}
    return {"type": row.get("integration_type", row.get("type")), "params": params}


def _camel(name: Any) -> Any:
    """`experiment_name` → `experimentName`, as the client sends it."""
    if not isinstance(name, str) or "_" not in name.strip("_"):
        return name
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _snake(name: str) -> str:
    """The way back."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _speller(written: Mapping[str, str], lines: Mapping[str, int]) -> Callable[[str], str]:
    def spell(field: str) -> str:
        path = written.get(field, field)
        line = lines.get(path)
        return f"{path} (line {line})" if line else path

    return spell


def _load(text: str) -> tuple[Any, dict[str, int]]:
    """The data, and path → line. Safe tags only; limits and duplicate keys are checked before values."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        lines: dict[str, int] = {}
        _inspect(loader, node, "", 0, lines, [0])
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else None
        where = f"line {line}, column {mark.column + 1}: " if mark else ""
        raise RefusedYAML(
            f"The YAML cannot be read: {where}{problem.problem or problem.context}", field="yaml", line=line
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise RefusedYAML(
            f"The YAML cannot be read: {str(problem) or 'nested too deeply'}", field="yaml"
        ) from None


class _Loader(yaml.SafeLoader):
    """Dates stay the text that was written: JSON has no dates, and a run's parameters are JSON.

    Too many values, or too deep ones, are refused while they are read: half a megabyte of brackets would take seconds.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._values += 1
        self._level += 1
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        if self._values > 2 * NODES:  # keys are nodes, too
            raise _too_many()
        if self._level > DEPTH + 2:
            raise _too_deep(line)
        node = super().compose_node(parent, index)
        self._level -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _too_many() -> RefusedYAML:
    return RefusedYAML(f"The YAML holds more than {NODES:,} values.", field="yaml")


def _too_deep(line: int) -> RefusedYAML:
    return RefusedYAML(
        f"The YAML is nested more than {DEPTH} levels deep (line {line}).", field="yaml", line=line
    )


def _inspect(
    loader: yaml.SafeLoader, node: yaml.Node, path: str, depth: int, lines: dict[str, int], count: list[int]
) -> None:
    """Count as the data will be after aliases are followed: a few of them can stand for billions."""
    count[0] += 1
    if count[0] > NODES:
        raise _too_many()
    if depth > DEPTH:
        raise _too_deep(node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _inspect(loader, item, f"{path}[{i}]", depth + 1, lines, count)
    elif isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise RefusedYAML(
                    f"The YAML's keys must be plain text (line {line}).", field="yaml", line=line
                )
            key = key_node.value
            if key in seen:
                raise RefusedYAML(f"The YAML says {key!r} twice (line {line}).", field=key, line=line)
            seen.add(key)
            inner = f"{path}.{key}" if path else key
            lines.setdefault(inner, line)
            _inspect(loader, value, inner, depth + 1, lines, count)
