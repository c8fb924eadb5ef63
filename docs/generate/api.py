"""The page of the gRPC API: every RPC, message and field, from the .proto file and its comments."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from docs.generate.markdown import cell, head, prose, table

PROTO = Path(__file__).parents[2] / "proto"
FILE = "ntm/v1/ntm.proto"

STATUS = re.compile(rf"(?:{'|'.join(code.name for code in grpc.StatusCode)})(?:,| with\b)")
"""How a line begins that says when a call fails with a code."""

SUBJECT = re.compile(r"^([A-Z][a-z]+\.)(?= [A-Z])")
"""A word that says what a paragraph is about, such as "Retries."."""

Path_ = tuple[int, ...]
"""Where something is declared, as `SourceCodeInfo.Location.path` numbers it."""


class Comments:
    """The comments of a file, by what they are about."""

    def __init__(self, file: FileDescriptorProto) -> None:
        """Index the comments above each declaration."""
        self._by_path = {
            tuple(location.path): location.leading_comments
            for location in file.source_code_info.location
        }

    def text(self, *path: int) -> str:
        """A comment without the space that each line begins with."""
        lines = self._by_path.get(path, "").split("\n")
        return "\n".join(line.removeprefix(" ") for line in lines).strip()

    def markdown(self, *path: int) -> str:
        """A comment as paragraphs, and as lists where lines begin with a status code."""
        paragraphs = self.text(*path).split("\n\n")
        return "\n\n".join("\n".join(_blocks(each)) for each in paragraphs)


def page() -> str:
    """The service's RPCs, then its messages, in the order of the file."""
    file = _file()
    comments = Comments(file)
    parts = [head("API", f"proto/{FILE}"), "\n", comments.markdown(2), "\n"]
    for number, service in enumerate(file.service):
        parts.append(f"\n## {service.name}\n\n{comments.markdown(6, number)}\n")
        for index, method in enumerate(service.method):
            parts.append(_method(method, comments.markdown(6, number, 2, index)))
    parts.append("\n## Messages\n")
    for number, message in enumerate(file.message_type):
        parts.extend(_message(message, (4, number), comments))
    for number, enum in enumerate(file.enum_type):
        parts.extend(_enum(enum, (5, number), comments, "###"))
    return "".join(parts)


def _file() -> FileDescriptorProto:
    """The API as protoc reads it, comments included."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={target}", FILE], check=True)
        return FileDescriptorSet.FromString(target.read_bytes()).file[0]


def _blocks(paragraph: str) -> Iterator[str]:
    """A paragraph's lines, where each status begins an item of a list."""
    if not STATUS.match(paragraph):
        yield SUBJECT.sub(r"**\1**", prose(paragraph))
        return
    items: list[list[str]] = []
    for line in paragraph.split("\n"):
        if STATUS.match(line):
            items.append([])
        items[-1].append(line)
    yield from (prose("- " + "\n  ".join(item)) for item in items)


def _method(method: MethodDescriptorProto, text: str) -> str:
    asked = "stream of " * method.client_streaming + _reference(method.input_type)
    answered = "stream of " * method.server_streaming + _reference(method.output_type)
    return f"\n### {method.name}\n\n{asked} → {answered}\n\n{text}\n"


def _message(message: DescriptorProto, path: Path_, comments: Comments) -> Iterator[str]:
    yield f"\n### {message.name}\n\n{comments.markdown(*path)}\n"
    entries = {each.name: each for each in message.nested_type if each.options.map_entry}
    rows = [
        [
            f"`{field.name}`",
            str(field.number),
            _kind(field, entries),
            _choice(message, field) + cell(comments.text(*path, 2, index)),
        ]
        for index, field in enumerate(message.field)
    ]
    if rows:
        yield "\n" + table(("field", "number", "type", "what"), rows)
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, 4, number), comments)


def _enum(
    enum: EnumDescriptorProto, path: Path_, comments: Comments, heading: str = "####"
) -> Iterator[str]:
    yield f"\n{heading} {enum.name}\n\n{comments.markdown(*path)}\n\n"
    rows = [
        [f"`{value.name}`", str(value.number), cell(comments.text(*path, 2, index))]
        for index, value in enumerate(enum.value)
    ]
    yield table(("value", "number", "what"), rows)


def _choice(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """Whether a field is one of several of which a message has at most one."""
    if field.HasField("oneof_index") and not field.proto3_optional:
        return f"*One of `{message.oneof_decl[field.oneof_index].name}`.* "
    return ""


def _kind(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    """A field's type, with a link where it is a message or an enumeration of this page."""
    name = field.type_name.rsplit(".", 1)[-1]
    if name in entries:
        key, value = entries[name].field
        return f"map of {_kind(key, {})} to {_kind(value, {})}"
    if field.type_name:
        kind = _reference(field.type_name)
    else:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _reference(type_name: str) -> str:
    """A link to a type of this page; the whole name of any other."""
    if type_name.startswith(".ntm.v1."):
        name = type_name.rsplit(".", 1)[-1]
        return f"[{name}](#{name.lower()})"
    return f"`{type_name.removeprefix('.')}`"
