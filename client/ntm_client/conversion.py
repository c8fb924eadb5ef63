"""Converts between messages of the API and numpy arrays and plain values. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import numpy as np
import numpy.typing as npt

from ntm.tensors import Array, StepTensor, Type, parts
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


TYPES: dict[int, Type] = {
    pb.ELEMENT_TYPE_UNSPECIFIED: "float32",
    pb.ELEMENT_TYPE_FLOAT32: "float32",
    pb.ELEMENT_TYPE_FLOAT16: "float16",
    pb.ELEMENT_TYPE_INT64: "int64",
    pb.ELEMENT_TYPE_INT32: "int32",
    pb.ELEMENT_TYPE_BOOL: "bool",
}

Inputs = npt.ArrayLike | Mapping[str, Any]
"""What steps are given as: an array, or arrays by the name of the input."""


def decode_floats(data: bytes, *shape: int) -> Float32:
    """Read little-endian float32 values into an array of this shape."""
    # A copy, because arrays on the bytes of a message could not be written.
    return np.frombuffer(bytearray(data), "<f4").astype(np.float32, copy=False).reshape(shape)


def decode_indices(data: bytes, *shape: int) -> UInt32:
    """Read little-endian uint32 values into an array of this shape."""
    return np.frombuffer(data, "<u4").astype(np.uint32).reshape(shape)


def as_steps(inputs: Inputs, model: Model) -> tuple[Array, bool]:
    """
    The inputs as steps, [steps] of `Model.input_record`, and whether they are one step that was
    given without the axis of steps.

    Raises:
        InvalidArgument: the inputs are not of the model's types and shapes.
    """
    if isinstance(inputs, Mapping) or not model.input_width:
        return _as_records(inputs, model)
    expected = (
        f"a step of {model.name} takes {model.input_width} value{'s' * (model.input_width != 1)}"
    )
    steps = arguments.floats(f"{expected}; the inputs", inputs)
    if steps.ndim not in (1, 2) or steps.shape[-1] != model.input_width:
        shape = " x ".join(map(str, steps.shape))
        found = f"have the shape {shape}" if shape else "are one number"
        raise InvalidArgument(f"{expected}; the inputs {found}")
    steps = steps.astype("<f4", copy=False)
    return (steps, False) if steps.ndim == 2 else (steps[None], True)


def _as_records(inputs: Inputs, model: Model) -> tuple[Array, bool]:
    """The same for any model."""
    tensors = model.inputs
    if not isinstance(inputs, Mapping):
        if len(tensors) > 1:
            raise InvalidArgument(
                f"a step of {model.name} takes {_listed(tensors)}: give a dict of them"
            )
        inputs = {tensors[0].name: inputs}
    if inputs.keys() != {tensor.name for tensor in tensors}:
        given = ", ".join(map(repr, inputs)) or "nothing"
        raise InvalidArgument(
            f"a step of {model.name} takes {_listed(tensors)}; the inputs have {given}"
        )
    arrays = [arguments.typed(repr(each.name), inputs[each.name], each.type) for each in tensors]
    counts = set()
    for tensor, array in zip(tensors, arrays, strict=True):
        axes = array.ndim - len(tensor.shape)
        if axes not in (0, 1) or array.shape[axes:] != tensor.shape:
            raise InvalidArgument(
                f"a step of {model.name} takes {tensor}; {tensor.name!r} has the shape "
                f"{list(array.shape)}"
            )
        counts.add(len(array) if axes else None)
    if len(counts) > 1:
        shapes = {each.name: list(array.shape) for each, array in zip(tensors, arrays, strict=True)}
        raise InvalidArgument(f"the inputs must all have the same number of steps; have {shapes}")
    (count,) = counts
    steps = np.empty(1 if count is None else count, model.input_record)
    for part, array in zip(parts(steps, tensors), arrays, strict=True):
        part[...] = array
    return steps, count is None


def _listed(tensors: Sequence[StepTensor]) -> str:
    return " and ".join(map(str, tensors))


def encode_initial(given: Mapping[str, Any], model: Model, locations: int) -> list[pb.TensorValue]:
    """
    The message for values that a session starts with.

    Raises:
        InvalidArgument: the model has no such tensor, or the value is not of its type and shape.
    """
    tensors = {tensor.name: tensor for tensor in model.state}
    values = []
    for name, value in given.items():
        if name not in tensors:
            known = ", ".join(tensors)
            raise InvalidArgument(f"{model.name} has no state tensor {name!r}; it has {known}")
        tensor = tensors[name]
        array = arguments.typed(f"the initial value of {name!r}", value, tensor.type)
        shape = tuple(locations if size < 0 else size for size in tensor.shape)
        if array.shape != shape:
            raise InvalidArgument(
                f"the initial value of {name!r} has the shape {list(array.shape)}; it must be "
                f"{list(shape)}"
            )
        data = array.astype(tensor.dtype, copy=False).tobytes()
        values.append(pb.TensorValue(name=name, data=data))
    return values


def by_name(result: StepResult, model: Model) -> StepResult:
    """The result with a dict of outputs where a step gives several."""
    if len(model.outputs) == 1:
        return result
    outputs = {
        tensor.name: np.ascontiguousarray(part) if tensor.shape else part.copy()
        for tensor, part in zip(model.outputs, parts(result.array, model.outputs), strict=True)
    }
    return replace(result, outputs=outputs)


def model_from(message: pb.Model) -> Model:
    return Model(
        name=message.name,
        content_hash=message.content_hash,
        task=message.task,
        architecture=message.architecture,
        input_width=message.input_width,
        output_width=message.output_width,
        state=tuple(
            StateTensor(
                tensor.name,
                tuple(tensor.shape),
                _type(tensor.type),
                tensor.given,
                tensor.constant,
            )
            for tensor in message.state
        ),
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
        inputs=tuple(_step_tensor(tensor) for tensor in message.inputs),
        outputs=tuple(_step_tensor(tensor) for tensor in message.outputs),
        batched=message.batched if message.HasField("batched") else True,
    )


def _step_tensor(message: pb.StepTensor) -> StepTensor:
    return StepTensor(message.name, _type(message.type), tuple(message.shape))


def _type(number: int) -> Type:
    """Raises InvalidArgument for a type that a later server has."""
    if number not in TYPES:
        raise InvalidArgument(
            f"the model has a tensor of type {number}, which this client does not know; a newer "
            "ntm-client does"
        )
    return TYPES[number]


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
    # A copy, because arrays on the bytes of a message could not be written.
    outputs = np.frombuffer(bytearray(reply.outputs), model.output_record)
    if model.output_width:
        outputs = outputs.astype(np.float32, copy=False)  # of the machine's byte order
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
