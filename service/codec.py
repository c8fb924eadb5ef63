"""
Converts between protobuf messages and the engine's objects.

It decodes calls and stream operations, and encodes replies and descriptions. It also encodes
sessions as records for a store, with everything that another replica needs to continue them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
from google.protobuf.message import DecodeError

from ntm.v1 import ntm_pb2
from service.engine import checkpoint
from service.engine.admission import Limits
from service.engine.durability import Durability, Policy, SessionView, Snapshot, Stored
from service.engine.replays import Asked, Replay
from service.engine.work import NO_TRACES, Chunk, ChunkOutcome, Selection, TraceRows
from service.errors import CheckpointDamaged, InvalidRequest
from service.models.folder import ModelFile
from service.models.version import Version
from service.records.v1 import record_pb2
from service.session_ref import Caller, SessionRef
from service.spec import LOCATIONS, Array, Dimension, Float32, ModelSpec, StepTensor

_FLOAT, _LOCATION = np.dtype("<f4"), np.dtype("<u4")
_MAX_TRACES = 64
"""
The largest number of trace names in a chunk. No model has as many; a message has room for a
million.
"""

_SAME_SECONDS = 1e-3
"""The largest difference between equal timeouts; a stored timeout is rounded to microseconds."""

_POLICIES = {
    Policy.NONE: ntm_pb2.Durability.POLICY_NONE,
    Policy.ASYNCHRONOUS: ntm_pb2.Durability.POLICY_ASYNCHRONOUS,
    Policy.SYNCHRONOUS: ntm_pb2.Durability.POLICY_SYNCHRONOUS,
}
_ELEMENT_TYPES: dict[str, ntm_pb2.ElementType] = {
    "float32": ntm_pb2.ELEMENT_TYPE_FLOAT32,
    "float16": ntm_pb2.ELEMENT_TYPE_FLOAT16,
    "int64": ntm_pb2.ELEMENT_TYPE_INT64,
    "int32": ntm_pb2.ELEMENT_TYPE_INT32,
    "bool": ntm_pb2.ELEMENT_TYPE_BOOL,
}
_IS_LITTLE_ENDIAN = sys.byteorder == "little"


def chunk(message: ntm_pb2.Chunk, caller: Caller) -> Chunk:
    """
    Make the chunk that a caller asks for. Its inputs are still bytes.

    The chunk has an error if there are too many traces.
    """
    selection, error = NO_TRACES, None
    if message.HasField("traces"):
        names = message.traces.names
        selection = Selection(tuple(names[:_MAX_TRACES]), message.traces.top_k)
        if len(names) > _MAX_TRACES:
            error = InvalidRequest(f"{len(names)} traces are selected; the limit is {_MAX_TRACES}")
    decoded = Chunk(
        SessionRef(message.session_id, caller, message.epoch),
        message.inputs,
        message.first_step if message.HasField("first_step") else None,
        selection,
    )
    if error is not None:
        decoded.error = error
    return decoded


def write_reply(chunk: Chunk, message: ntm_pb2.Reply) -> int:
    """Write a finished chunk's reply into a message; return the bytes of outputs and traces."""
    message.session_id = chunk.ref.id
    message.durable_step = chunk.durable_step
    message.epoch = chunk.epoch
    return write_outcome(chunk.outcome, message)


def write_outcome(outcome: ChunkOutcome, message: ntm_pb2.Reply) -> int:
    """Write a chunk's outcome into a message; return the bytes of outputs and traces."""
    message.first_step = outcome.first_step
    message.next_step = outcome.first_step + len(outcome.outputs)
    message.outputs = outputs = outcome.outputs.tobytes()
    size = len(outputs)
    for rows in outcome.traces:
        trace = _trace(rows)
        size += len(trace.values) + len(trace.locations)
        message.traces.append(trace)
    return size


def session(view: SessionView, limits: Limits | None = None, replica: str = "") -> ntm_pb2.Session:
    """
    The message that describes a session and, for a client, this server: its limits and its name.
    """
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
        limits=ntm_pb2.Limits(**limits._asdict()) if limits else None,
        expires_in=timedelta(seconds=max(0.0, view.expires_unix_seconds - time.time())),
        replica=replica,
    )


def durability(message: ntm_pb2.CreateSessionRequest | ntm_pb2.Session) -> Durability | None:
    """The durability that a message names, or None for the server's default."""
    asked = message.durability
    for policy, value in _POLICIES.items():
        if asked.policy == value:
            return Durability(policy, asked.every_steps)
    return None


def is_as_asked(view: SessionView, request: ntm_pb2.CreateSessionRequest) -> bool:
    """Whether a session has every value that a request sets; an unset field fits any value."""
    timeout, asked = idle_timeout_seconds(request), durability(request)
    return (
        view.model == request.model
        and request.content_hash in ("", view.content_hash)
        and request.locations in (0, view.locations)
        and (timeout is None or abs(timeout - view.idle_timeout_seconds) < _SAME_SECONDS)
        and (asked is None or _is_same(view.durability, asked))
    )


def is_fork_as_asked(
    view: SessionView, source: SessionView, request: ntm_pb2.ForkSessionRequest
) -> bool:
    """Whether a session is as the fork of `source` that a request asks for, besides its state."""
    timeout = idle_timeout_seconds(request)
    asked = source.idle_timeout_seconds if timeout is None else timeout
    return (
        view.model == source.model
        and view.durability == source.durability
        and abs(view.idle_timeout_seconds - asked) < _SAME_SECONDS
    )


def _is_same(given: Durability, asked: Durability) -> bool:
    """Whether a session's durability is the one that was asked for."""
    every_steps = asked.every_steps if asked.policy is Policy.ASYNCHRONOUS else 0
    return given.policy is asked.policy and every_steps in (0, given.every_steps)


def model(
    file: ModelFile, provider: str, versions: Iterable[ntm_pb2.ModelVersion], *, batched: bool
) -> ntm_pb2.Model:
    """
    The message that describes a model by one of its versions, whose runs step several sessions if
    `batched`.
    """
    spec = file.spec
    return ntm_pb2.Model(
        name=file.version.model,
        content_hash=file.version.content_hash,
        task=spec.task,
        architecture=spec.architecture,
        input_width=spec.input_width,
        output_width=spec.output_width,
        state=[
            ntm_pb2.StateTensor(
                name=tensor.name,
                shape=[_size(size) for size in tensor.shape],
                type=_ELEMENT_TYPES[tensor.type],
                given=tensor.is_given,
                constant=not tensor.output,
            )
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
        inputs=[_step_tensor(tensor) for tensor in spec.inputs],
        outputs=[_step_tensor(tensor) for tensor in spec.outputs],
        batched=batched,
    )


def _step_tensor(tensor: StepTensor) -> ntm_pb2.StepTensor:
    return ntm_pb2.StepTensor(
        name=tensor.name, type=_ELEMENT_TYPES[tensor.type], shape=tensor.shape
    )


def initial(request: ntm_pb2.CreateSessionRequest) -> dict[str, bytes]:
    """
    The values that a client gives for tensors of the state, by name.

    Raises:
        InvalidRequest: a name comes twice.
    """
    given = {value.name: value.data for value in request.initial}
    if len(given) < len(request.initial):
        names = [value.name[:64] for value in request.initial]
        raise InvalidRequest(f"initial has a tensor twice: {names[:_MAX_TRACES]}")
    return given


def memory(
    view: SessionView, spec: ModelSpec, state: dict[str, Array]
) -> ntm_pb2.ReadMemoryResponse:
    """The message with a session's memory, a row for each location, and its heads' weightings."""
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
    """The idle timeout that a request asks for; None if it asks for none."""
    if not request.HasField("idle_timeout"):
        return None
    return request.idle_timeout.seconds + request.idle_timeout.nanos / 1e9


def encode_record(snapshot: Snapshot) -> bytes:
    """The record of a session for a store."""
    described = session(snapshot.view)
    described.ClearField("expires_in")  # is of the moment of an answer
    stored = record_pb2.StoredSession(
        owner=snapshot.owner,
        session=described,
        checkpoint=checkpoint.encode(snapshot.checkpoint),
        initial=[
            ntm_pb2.TensorValue(name=name, data=value.tobytes())
            for name, value in snapshot.given.items()
        ],
    )
    for asked, outcome in snapshot.replays:
        made = stored.chunks.add(inputs_crc32=asked.inputs_crc32)
        if asked.traces or asked.top_k:
            made.traces.names.extend(asked.traces)
            made.traces.top_k = asked.top_k
        write_outcome(outcome, made.reply)
    return stored.SerializeToString()


def decode_record(record: bytes) -> Stored:
    """
    Read a record.

    Raises:
        CheckpointDamaged: the record differs from what was stored.
        CheckpointTooNew: a later server wrote it.
    """
    try:
        stored = record_pb2.StoredSession.FromString(record)
    except DecodeError as error:
        raise CheckpointDamaged(f"the stored session cannot be read: {error}") from error
    taken = checkpoint.decode(stored.checkpoint)
    try:
        replays = tuple(_replay(each) for each in stored.chunks)
    except ValueError as error:
        raise CheckpointDamaged(f"the stored chunks cannot be read: {error}") from error
    kept = stored.session
    return Stored(
        owner=stored.owner,
        version=Version(kept.model, taken.content_hash),
        idle_timeout_seconds=kept.idle_timeout.ToTimedelta().total_seconds(),
        created_unix_seconds=kept.create_time.ToDatetime(UTC).timestamp(),
        durability=durability(kept) or Durability(),
        checkpoint=taken,
        replays=replays,
        given={value.name: value.data for value in stored.initial},
    )


def _replay(stored: record_pb2.StoredChunk) -> Replay:
    reply, selected = stored.reply, stored.traces
    steps = reply.next_step - reply.first_step
    # Bytes, since the type of a step's outputs is the model's.
    outputs = np.frombuffer(reply.outputs, np.uint8).reshape(steps, -1)
    asked = Asked(
        reply.first_step, steps, stored.inputs_crc32, tuple(selected.names), selected.top_k
    )
    traces = tuple(_rows(trace, steps) for trace in reply.traces)
    return asked, ChunkOutcome(reply.first_step, outputs, traces)


def _rows(trace: ntm_pb2.Trace, steps: int) -> TraceRows:
    shape = (steps, trace.heads, trace.width)
    values = np.frombuffer(trace.values, _FLOAT).reshape(shape).astype(np.float32, copy=False)
    locations = None
    if trace.locations:
        locations = np.frombuffer(trace.locations, _LOCATION).reshape(shape).astype(np.uint32)
    return TraceRows(trace.name, values, locations)


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
