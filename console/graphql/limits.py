"""How much one document may ask for. The client's largest has 80 fields, seven deep.

Measured before the document is checked against the schema: those checks compare fields in pairs and follow fragments
again and again, so a kilobyte can be made to cost them minutes. Here each fragment is looked at once, and counted as
often as it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)
from strawberry.extensions import ValidationCache

MOST_TOKENS = 2_000
DEPTH, MOST_FIELDS, MOST_ALIASES, MOST_ROOTS = 12, 400, 15, 5
_INTROSPECTION = frozenset({"__schema", "__type"})


class MeasuredValidation(ValidationCache):
    """Validation of documents that are small enough for it."""

    def on_validate(self) -> Iterator[None]:
        document = self.execution_context.graphql_document
        problem = too_much(document) if document is not None else None
        if problem is None:
            yield from super().on_validate()
        else:
            self.execution_context.pre_execution_errors = [GraphQLError(problem)]
            yield


@lru_cache(maxsize=128)
def too_much(document: DocumentNode) -> str | None:
    """What a document has too much of, naming the field and the limit; None if nothing."""
    fragments = {
        part.name.value: part for part in document.definitions if isinstance(part, FragmentDefinitionNode)
    }
    walk = _Walk(fragments)
    try:
        for part in document.definitions:
            if isinstance(part, OperationDefinitionNode):
                walk.roots(part)
    except _TooMuch as problem:
        return str(problem)
    return None


class _TooMuch(Exception):
    pass


@dataclass(frozen=True)
class _Size:
    """Of what stands in a pair of braces, fragments put in."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    roots: int = 0


@dataclass
class _Walk:
    fragments: dict[str, FragmentDefinitionNode]
    known: dict[str, _Size] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)

    def roots(self, operation: OperationDefinitionNode) -> None:
        size = self.braces(operation.selection_set, "the operation", 0)
        if size.roots > MOST_ROOTS:
            raise _TooMuch(
                f"The operation asks for {size.roots:,} fields at its top; at most {MOST_ROOTS} are allowed."
            )

    def braces(self, selections: SelectionSetNode, where: str, above: int) -> _Size:
        """`above`: how deep these braces are known to lie. What is beyond a limit ends the walk at once."""
        depth = fields = aliases = roots = 0
        for part in selections.selections:
            match part:
                case FieldNode():
                    size = self.one(part, where, above)
                    roots += 1
                case InlineFragmentNode():
                    size = self.braces(part.selection_set, where, above)
                    roots += size.roots
                case FragmentSpreadNode():
                    size = self.fragment(part.name.value)
                    roots += size.roots
                case _:
                    continue
            depth, fields, aliases = max(depth, size.depth), fields + size.fields, aliases + size.aliases
            if above + depth > DEPTH:
                raise _TooMuch(
                    f"{where}: is nested {above + depth} levels deep or more; at most {DEPTH} are allowed."
                )
            if fields > MOST_FIELDS:
                raise _TooMuch(f"{where}: has more than {MOST_FIELDS} fields below it; no more are allowed.")
            if aliases > MOST_ALIASES:
                raise _TooMuch(f"{where}: has more than {MOST_ALIASES} aliases; no more are allowed.")
        return _Size(depth, fields, aliases, roots)

    def one(self, node: FieldNode, where: str, above: int) -> _Size:
        name = node.name.value
        if name in _INTROSPECTION:
            raise _TooMuch(
                f"{name}: introspection is off; the schema is the file console/schema.graphql of Runyard's source."
            )
        inner = _Size()
        if node.selection_set is not None:
            path = name if where == "the operation" else f"{where}.{name}"
            inner = self.braces(node.selection_set, path, above + 1)
        return _Size(inner.depth + 1, inner.fields + 1, inner.aliases + (node.alias is not None))

    def fragment(self, name: str) -> _Size:
        found = self.fragments.get(name)
        if name in self.inside:
            raise _TooMuch(f"The fragment {name} contains itself.")
        if name not in self.known:
            self.inside.add(name)
            self.known[name] = self.braces(found.selection_set, f"fragment {name}", 0) if found else _Size()
            self.inside.remove(name)
        return self.known[name]
