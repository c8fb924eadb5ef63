"""What blocking and asynchronous connections to a server have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from service.pb.ntm_pb2_grpc import NtmServiceStub

DEFAULT_TIMEOUT_SECONDS = 60.0


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """The options of a channel whose messages have at most that many bytes."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    ]


def stub_of(channel: grpc.Channel | grpc.aio.Channel) -> NtmServiceStub:
    """The generated stub on that channel."""
    return NtmServiceStub(channel)


def method_for(stub: NtmServiceStub, request: Message) -> Callable[..., Any]:
    """The method that takes that request: of `StepRequest`, it is `Step`."""
    method: Callable[..., Any] = getattr(stub, type(request).__name__.removesuffix("Request"))
    return method
