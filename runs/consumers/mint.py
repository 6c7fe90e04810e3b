"""The client's messages to a terminal (mapi §6.6): protobuf, package `proto`, described here instead of compiled.

message UserInput    { string input = 1; }
message TerminalSize { int32 width = 1; int32 height = 2; }
message MINTMessage  { oneof message { UserInput user_input = 1; TerminalSize terminal_size = 2; } }
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_Field = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True)
class Typed:
    data: bytes


@dataclass(frozen=True)
class Size:
    columns: int
    lines: int


def _describe() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="runyard/mint.proto", package="proto", syntax="proto3")
    for name, fields in (
        ("UserInput", [("input", _Field.TYPE_STRING)]),
        ("TerminalSize", [("width", _Field.TYPE_INT32), ("height", _Field.TYPE_INT32)]),
    ):
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            message.field.add(name=field, number=number, type=kind, label=_Field.LABEL_OPTIONAL)
    outer = file.message_type.add(name="MINTMessage")
    outer.oneof_decl.add(name="message")
    for number, (field, inner) in enumerate(
        [("user_input", "UserInput"), ("terminal_size", "TerminalSize")], 1
    ):
        outer.field.add(
            name=field,
            number=number,
            type=_Field.TYPE_MESSAGE,
            type_name=f".proto.{inner}",
            label=_Field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("proto.MINTMessage"))


MINTMessage = _describe()


def read(frame: bytes) -> Typed | Size | None:
    """What a frame says; None for a message that we do not know. Raises `ValueError` for what is none."""
    try:
        message = MINTMessage.FromString(frame)
    except DecodeError as problem:
        raise ValueError(f"not a MINTMessage: {problem}") from None
    kind = message.WhichOneof("message")
    if kind == "user_input":
        return Typed(message.user_input.input.encode())
    if kind == "terminal_size":
        return Size(message.terminal_size.width, message.terminal_size.height)
    return None
