"""Between protobuf messages and what the engine works with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from ntm.v1 import ntm_pb2
from service.engine.saving import Durability, Policy
from service.engine.views import SessionView
from service.engine.work import Chunk, ChunkOutcome, TraceRows
from service.errors import InvalidRequest
from service.models.folder import ModelFile
from service.spec import LOCATIONS, Dimension, Float32, ModelSpec

T = TypeVar("T")

_FLOAT = np.dtype("<f4")
_MOST_TRACES = 64
"""Names that a chunk may select: more than any model has; a message has room for a million."""

_SAME_SECONDS = 1e-3
"""A timeout that was stored has lost what is less than a microsecond."""

_POLICIES = {
    Policy.NONE: ntm_pb2.Durability.POLICY_NONE,
    Policy.ASYNCHRONOUS: ntm_pb2.Durability.POLICY_ASYNCHRONOUS,
    Policy.SYNCHRONOUS: ntm_pb2.Durability.POLICY_SYNCHRONOUS,
}
_IS_LITTLE_ENDIAN = sys.byteorder == "little"


def request(parse: Callable[[bytes], T], content: bytes) -> T:
    """
    The request in the bytes of a message.

    Raises:
        InvalidRequest: the bytes are no message of that type.
    """
    try:
        return parse(content)
    except DecodeError as error:
        raise InvalidRequest(
            f"a request of {len(content)} bytes cannot be decoded; is it of this method's type?"
        ) from error


def chunk(message: ntm_pb2.Chunk) -> Chunk:
    """
    The chunk of a message; its inputs are still one row of values.

    It has an error already if the inputs are no float32 values, or the traces too many.
    """
    inputs = message.inputs
    size = len(inputs)
    whole = size % _FLOAT.itemsize == 0
    decoded = Chunk(
        message.session_id,
        np.frombuffer(inputs if whole else b"", _FLOAT),
        message.first_step if message.HasField("first_step") else None,
    )
    decoded.known_epoch = message.epoch
    if message.HasField("traces"):
        decoded.selection = tuple(message.traces.names[:_MOST_TRACES])
        decoded.top_k = message.traces.top_k
        if len(message.traces.names) > _MOST_TRACES:
            decoded.error = InvalidRequest(
                f"{len(message.traces.names)} traces are selected; the limit is {_MOST_TRACES}"
            )
    if not whole:
        decoded.error = InvalidRequest(
            f"inputs are {size} bytes, which is no whole number of float32 values"
        )
    return decoded


def write_reply(chunk: Chunk, message: ntm_pb2.Reply) -> int:
    """Write a finished chunk's outputs and traces into a message; how many bytes they are."""
    message.session_id = chunk.session_id
    message.durable_step = chunk.durable_step
    message.epoch = chunk.epoch
    return write_outcome(chunk.outcome, message)


def write_outcome(outcome: ChunkOutcome, message: ntm_pb2.Reply) -> int:
    """Write what a chunk led to into a message; how many bytes of outputs and traces there are."""
    message.first_step = outcome.first_step
    message.next_step = outcome.first_step + len(outcome.outputs)
    message.outputs = outputs = _bytes(outcome.outputs)
    size = len(outputs)
    for rows in outcome.traces:
        trace = _trace(rows)
        size += len(trace.values) + len(trace.locations)
        message.traces.append(trace)
    return size


def session(view: SessionView) -> ntm_pb2.Session:
    """A session's description."""
    return ntm_pb2.Session(
        id=view.id,
        model=view.model,
        content_hash=view.content_hash,
        locations=view.locations,
        idle_timeout=timedelta(seconds=view.idle_timeout_seconds),
        next_step=view.next_step,
        state_bytes=view.state_bytes,
        create_time=datetime.fromtimestamp(view.created_unix_seconds, UTC),
        expire_time=datetime.fromtimestamp(view.expires_unix_seconds, UTC),
        durability=ntm_pb2.Durability(
            policy=_POLICIES[view.durability.policy], every_steps=view.durability.every_steps
        ),
        durable_step=view.durable_step,
        epoch=view.epoch,
    )


def durability(message: ntm_pb2.CreateSessionRequest | ntm_pb2.Session) -> Durability | None:
    """The durability that a message names, or None."""
    asked = message.durability
    for policy, value in _POLICIES.items():
        if asked.policy == value:
            return Durability(policy, asked.every_steps)
    return None


def is_as_asked(view: SessionView, request: ntm_pb2.CreateSessionRequest) -> bool:
    """Whether a session has all that a request for one sets; where it sets nothing, all will do."""
    timeout, asked = idle_timeout_seconds(request), durability(request)
    return (
        view.model == request.model
        and request.content_hash in ("", view.content_hash)
        and request.locations in (0, view.locations)
        and (timeout is None or abs(timeout - view.idle_timeout_seconds) < _SAME_SECONDS)
        and (asked is None or _is_same(view.durability, asked))
    )


def _is_same(given: Durability, asked: Durability) -> bool:
    """Whether a session's durability is the one that was asked for."""
    every_steps = asked.every_steps if asked.policy is Policy.ASYNCHRONOUS else 0
    return given.policy is asked.policy and every_steps in (0, given.every_steps)


def model(
    file: ModelFile, provider: str, versions: Iterable[ntm_pb2.ModelVersion]
) -> ntm_pb2.Model:
    """A model's description, by one of its versions."""
    spec = file.spec
    return ntm_pb2.Model(
        name=file.version.model,
        content_hash=file.version.content_hash,
        task=spec.task,
        architecture=spec.architecture,
        input_width=spec.input_width,
        output_width=spec.output_width,
        state=[
            ntm_pb2.StateTensor(name=tensor.name, shape=[_size(size) for size in tensor.shape])
            for tensor in spec.state
        ],
        traces=[
            ntm_pb2.TraceTensor(name=trace.name, heads=trace.heads, width=_size(trace.width))
            for trace in spec.traces
        ],
        read_heads=spec.read_heads,
        write_heads=spec.write_heads,
        default_locations=spec.default_locations,
        fixed_locations=spec.fixed_locations,
        provider=provider,
        versions=versions,
    )


def memory(
    view: SessionView, spec: ModelSpec, state: dict[str, Float32]
) -> ntm_pb2.ReadMemoryResponse:
    """A session's memory, a row for each location, and its heads' weightings."""
    rows = state["memory"].T
    weightings = state["weighting"]
    return ntm_pb2.ReadMemoryResponse(
        session_id=view.id,
        next_step=view.next_step,
        locations=rows.shape[0],
        width=rows.shape[1],
        memory=_bytes(rows),
        read_weightings=_bytes(weightings[: spec.read_heads]),
        write_weightings=_bytes(weightings[spec.read_heads :]),
        epoch=view.epoch,
    )


def idle_timeout_seconds(
    request: ntm_pb2.CreateSessionRequest | ntm_pb2.ForkSessionRequest,
) -> float | None:
    """The idle timeout that a request asks for, or None."""
    if not request.HasField("idle_timeout"):
        return None
    return request.idle_timeout.seconds + request.idle_timeout.nanos / 1e9


def _trace(rows: TraceRows) -> ntm_pb2.Trace:
    _, heads, width = rows.values.shape
    return ntm_pb2.Trace(
        name=rows.name,
        heads=heads,
        width=width,
        values=_bytes(rows.values),
        locations=b"" if rows.locations is None else rows.locations.astype("<u4").tobytes(),
    )


def _bytes(values: Float32) -> bytes:
    return (values if _IS_LITTLE_ENDIAN else values.astype(_FLOAT)).tobytes()


def _size(size: Dimension) -> int:
    return -1 if size == LOCATIONS else int(size)
