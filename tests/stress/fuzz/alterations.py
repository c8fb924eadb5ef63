"""Protobuf messages with fields set, cleared, added and doubled that were meant otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)

_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@st.composite
def altered(
    draw: Any, whole: st.SearchStrategy[M], strings: Sequence[str], blobs: st.SearchStrategy[bytes]
) -> M:
    """
    A copy of a message with a few alterations anywhere in it.

    Args:
        whole: the messages to start from.
        strings: what string fields are often set to: names that mean something.
        blobs: what bytes fields are set to.
    """
    original = draw(whole)
    message = type(original)()
    message.CopyFrom(original)
    for _ in range(draw(st.integers(0, 5))):
        _alter(draw, _part(draw, message), strings, blobs)
    return message  # type: ignore[no-any-return] # what is drawn has no type


def _part(draw: Any, message: Message) -> Message:
    """The message itself, or one of those inside it."""
    while True:
        parts: list[Message] = []
        for field, value in message.ListFields():
            if _is_map(field):
                parts.extend(value[key] for key in sorted(value))
            elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                parts.extend(value if field.is_repeated else [value])
        chosen = draw(st.integers(0, len(parts)))
        if not chosen:
            return message
        message = parts[chosen - 1]


def _alter(
    draw: Any, part: Message, strings: Sequence[str], blobs: st.SearchStrategy[bytes]
) -> None:
    if not part.DESCRIPTOR.fields:
        return
    field = draw(st.sampled_from(list(part.DESCRIPTOR.fields)))
    if draw(st.integers(0, 4)) == 0:
        part.ClearField(field.name)
    elif _is_map(field):  # of messages: our own API has none
        entries = getattr(part, field.name)
        entries[draw(st.sampled_from([*sorted(entries), *strings]))].SetInParent()
    elif field.is_repeated:
        _alter_repeated(draw, getattr(part, field.name), field, strings, blobs)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        getattr(part, field.name).SetInParent()
    else:
        setattr(part, field.name, draw(_values(field, strings, blobs)))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _alter_repeated(
    draw: Any,
    elements: Any,
    field: FieldDescriptor,
    strings: Sequence[str],
    blobs: st.SearchStrategy[bytes],
) -> None:
    how = draw(st.sampled_from(("add", "double", "remove")))
    if how == "remove" and elements:
        del elements[draw(st.integers(0, len(elements) - 1))]
    elif how == "double" and elements:
        elements.extend([elements[draw(st.integers(0, len(elements) - 1))]])
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        elements.add()
    else:
        elements.append(draw(_values(field, strings, blobs)))


def _values(
    field: FieldDescriptor, strings: Sequence[str], blobs: st.SearchStrategy[bytes]
) -> st.SearchStrategy[Any]:
    """What a scalar field can hold, above all the ends of its range."""
    kind = field.cpp_type
    if kind in _BOUNDS:
        least, maximum = _BOUNDS[kind]
        ends = sorted({least, least + 1, 0, 1, 2, 3, 8, 1024, maximum - 1, maximum} - {least - 1})
        return st.sampled_from([end for end in ends if end >= least]) | st.integers(least, maximum)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return blobs
        return st.sampled_from(strings) | st.text(max_size=20)
    return st.floats(width=32)
