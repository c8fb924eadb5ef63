"""Decodes requests, after a check that decoding costs no more than the bytes of the message."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from service.errors import InvalidRequest

M = TypeVar("M", bound=Message)

MAX_PARTS = 65_536
"""
The largest number of messages in one field of a message. An empty one takes two bytes in a request,
and 130 when it is decoded.
"""

_MOST_BYTES_UNCHECKED = 2 * MAX_PARTS
"""A message of this size has room for no more than the largest number of parts."""


def request(kind: type[M], content: bytes) -> M:
    """
    Decode a request from the bytes of a message.

    Raises:
        InvalidRequest: the bytes are not a message of this type, or it has too many parts.
    """
    try:
        _check_parts(kind.DESCRIPTOR, content)
        return kind.FromString(content)
    except DecodeError as error:
        raise InvalidRequest(
            f"a request of {len(content)} bytes cannot be decoded; is it of this method's type?"
        ) from error


def _check_parts(descriptor: Any, content: bytes) -> None:
    """Raise InvalidRequest if a field of the message, or of a part of it, has too many parts."""
    if len(content) <= _MOST_BYTES_UNCHECKED or not (fields := _parts(descriptor)):
        return
    split = _split(descriptor).FromString(content)
    for field in fields:
        parts = getattr(split, field.name)
        if len(parts) > MAX_PARTS:
            raise InvalidRequest(
                f"{descriptor.name} has {len(parts)} {field.name}; send at most {MAX_PARTS} in one "
                "message"
            )
        for part in parts:
            _check_parts(field.message_type, part)


def _parts(descriptor: Any) -> list[FieldDescriptor]:
    """The fields that hold messages."""
    return [field for field in descriptor.fields if field.message_type is not None]


@cache
def _split(descriptor: Any) -> Any:
    """A message with the same fields of messages, which leaves each of them as bytes."""
    file = descriptor_pb2.FileDescriptorProto(name="split.proto", syntax="proto3")
    message = file.message_type.add(name="Split")
    for field in _parts(descriptor):
        message.field.add(
            name=field.name,
            number=field.number,
            type=FieldDescriptor.TYPE_BYTES,
            label=FieldDescriptor.LABEL_REPEATED,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Split"))
