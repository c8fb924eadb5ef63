"""Converts between messages of the API and numpy arrays and plain values. Does no I/O."""

from __future__ import annotations

from datetime import UTC

import numpy as np
import numpy.typing as npt

from ntm.v1 import ntm_pb2 as pb
from ntm_client import arguments
from ntm_client.errors import InvalidArgument
from ntm_client.values import (
    Durability,
    Float32,
    Limits,
    Memory,
    Model,
    ModelVersion,
    Policy,
    SessionInfo,
    StateTensor,
    StepResult,
    TraceTensor,
    UInt32,
)

MESSAGES: dict[Policy, pb.Durability.Policy] = {
    "none": pb.Durability.POLICY_NONE,
    "asynchronous": pb.Durability.POLICY_ASYNCHRONOUS,
    "synchronous": pb.Durability.POLICY_SYNCHRONOUS,
}


def encode_floats(values: Float32) -> bytes:
    """The values in row-major order, as little-endian float32."""
    return values.astype("<f4", copy=False).tobytes()


def decode_floats(data: bytes, *shape: int) -> Float32:
    """Read little-endian float32 values into an array of this shape."""
    # A copy, because arrays on the bytes of a message could not be written.
    return np.frombuffer(bytearray(data), "<f4").astype(np.float32, copy=False).reshape(shape)


def decode_indices(data: bytes, *shape: int) -> UInt32:
    """Read little-endian uint32 values into an array of this shape."""
    return np.frombuffer(data, "<u4").astype(np.uint32).reshape(shape)


def as_steps(inputs: npt.ArrayLike, model: Model) -> Float32:
    """
    The inputs as steps of the model, [steps, input_width]; one vector is one step.

    Raises:
        InvalidArgument: the inputs are not finite real numbers, or have another width.
    """
    expected = (
        f"a step of {model.name} takes {model.input_width} value{'s' * (model.input_width != 1)}"
    )
    steps = arguments.floats(f"{expected}; the inputs", inputs)
    if steps.ndim not in (1, 2) or steps.shape[-1] != model.input_width:
        shape = " x ".join(map(str, steps.shape))
        found = f"have the shape {shape}" if shape else "are one number"
        raise InvalidArgument(f"{expected}; the inputs {found}")
    return steps if steps.ndim == 2 else steps[None]


def model_from(message: pb.Model) -> Model:
    return Model(
        name=message.name,
        content_hash=message.content_hash,
        task=message.task,
        architecture=message.architecture,
        input_width=message.input_width,
        output_width=message.output_width,
        state=tuple(StateTensor(tensor.name, tuple(tensor.shape)) for tensor in message.state),
        traces=tuple(TraceTensor(trace.name, trace.heads, trace.width) for trace in message.traces),
        read_heads=message.read_heads,
        write_heads=message.write_heads,
        default_locations=message.default_locations,
        fixed_locations=message.fixed_locations,
        provider=message.provider,
        versions=tuple(
            ModelVersion(version.content_hash, version.current, version.loaded)
            for version in message.versions
        ),
    )


def session_from(message: pb.Session) -> SessionInfo:
    return SessionInfo(
        id=message.id,
        model=message.model,
        content_hash=message.content_hash,
        locations=message.locations,
        idle_timeout=message.idle_timeout.ToTimedelta(),
        next_step=message.next_step,
        state_bytes=message.state_bytes,
        create_time=message.create_time.ToDatetime(UTC),
        expire_time=message.expire_time.ToDatetime(UTC),
        durability=durability_from(message.durability),
        durable_step=message.durable_step,
        epoch=message.epoch,
        expires_in=message.expires_in.ToTimedelta(),
        limits=limits_from(message),
        replica=message.replica,
    )


def limits_from(message: pb.Session) -> Limits:
    """The limits of the server that described a session."""
    if not message.HasField("limits"):
        return Limits()
    told = message.limits
    return Limits(
        told.max_chunk_steps,
        told.max_waiting_steps,
        told.max_message_bytes,
        told.max_reply_bytes,
        told.max_replay_bytes,
    )


def durability_from(message: pb.Durability) -> Durability:
    """The policy in a message; `none` if the server is too old to send one."""
    names = {number: name for name, number in MESSAGES.items()}
    policy = names.get(message.policy, "none")
    return Durability(policy, message.every_steps if policy == "asynchronous" else 0)


def durability_message(durability: Durability) -> pb.Durability:
    """The message that asks for a policy."""
    policy = MESSAGES[durability.policy]
    return pb.Durability(policy=policy, every_steps=durability.every_steps)


def result_from(reply: pb.Reply, model: Model) -> StepResult:
    """The outputs and traces of one chunk."""
    outputs = decode_floats(reply.outputs, -1, model.output_width)
    steps = len(outputs)
    return StepResult(
        first_step=reply.first_step,
        outputs=outputs,
        traces={
            trace.name: decode_floats(trace.values, steps, trace.heads, trace.width)
            for trace in reply.traces
        },
        locations={
            trace.name: decode_indices(trace.locations, steps, trace.heads, trace.width)
            for trace in reply.traces
            if trace.locations
        },
    )


def memory_from(message: pb.ReadMemoryResponse) -> Memory:
    locations = message.locations
    return Memory(
        next_step=message.next_step,
        memory=decode_floats(message.memory, locations, message.width),
        read_weightings=decode_floats(message.read_weightings, -1, locations),
        write_weightings=decode_floats(message.write_weightings, -1, locations),
    )
