"""Requests of the protocol: decoded, and refused in the words that clients of Triton know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import InvalidRequest
from service.inference.v2 import inference_pb2 as pb
from service.spec import ModelSpec, StateTensor, StepTensor, record

DATATYPES = {
    "bool": "BOOL",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
}
"""The protocol's names of the types of a spec."""

_CONTENTS = {
    "bool": "bool_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "float32": "fp32_contents",
}
"""The field of typed contents by type. Half precision has none."""

_MAX_ID = 128
"""The most characters of a sequence's id."""

_IGNORED = {"triton_enable_empty_final_response"}
"""Parameters of Triton's own clients that change nothing here."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    model: str
    request_id: str
    sequence: int | str
    is_start: bool
    is_end: bool
    first_step: int | None
    epoch: int
    locations: int
    """Of the session that the sequence starts; 0 for the model's default."""
    wanted: tuple[str, ...]
    """Names of outputs and traces in the order of the answer."""
    traces: tuple[str, ...]
    """Those of them that are traces."""
    is_chunk: bool
    """Whether tensors have an axis of steps."""
    inputs: bytes
    """A record for each step, as `Chunk.inputs` of our own API."""
    initial: Mapping[str, bytes]
    """Values of tensors of the state, for a sequence that starts."""


def decode(request: pb.ModelInferRequest, spec: ModelSpec) -> Asked:
    """
    Decode a request to a model with this spec.

    Raises:
        InvalidRequest: it is wrong; the message says why.
    """
    name, parameters = request.model_name, request.parameters
    _check_known(parameters)
    inputs, initial, is_chunk = _inputs(request, spec)
    if initial and not starts(request):
        raise InvalidRequest(
            f"{', '.join(initial)} of model {name!r} can be given only with the START flag"
        )
    outputs = [tensor.name for tensor in spec.outputs]
    wanted = tuple(each.name for each in request.outputs) or tuple(outputs)
    for output in wanted:
        if output not in outputs and spec.trace(output) is None:
            raise InvalidRequest(
                f"unexpected inference output {output!r} for model {name!r}; it has the outputs "
                f"{', '.join(outputs)}, and the traces "
                f"{', '.join(trace.name for trace in spec.traces) or 'none'}"
            )
    if len(set(wanted)) < len(wanted):
        raise InvalidRequest(f"an inference output is requested twice for model {name!r}")
    first_step = _whole(parameters, "first_step")
    return Asked(
        model=name,
        request_id=request.id,
        sequence=sequence_of(request),
        is_start=starts(request),
        is_end=_flag(parameters, "sequence_end"),
        first_step=first_step,
        epoch=_whole(parameters, "epoch") or 0,
        locations=_whole(parameters, "locations", 2**32 - 1) or 0,
        wanted=wanted,
        traces=tuple(output for output in wanted if output not in outputs),
        is_chunk=is_chunk,
        inputs=inputs,
        initial=initial,
    )


def _check_known(parameters: Mapping[str, pb.InferParameter]) -> None:
    for name in parameters:
        if name.startswith("triton_") and name not in _IGNORED:
            raise InvalidRequest(
                f"parameter keys starting with 'triton_' are reserved for Triton usage, and "
                f"{name!r} is not known here"
            )
    _whole(parameters, "timeout")
    _whole(parameters, "priority", 2**64 - 1)


def sequence_of(request: pb.ModelInferRequest) -> int | str:
    """The id of the sequence that a request is of. Raises InvalidRequest if it has none."""
    parameters, model = request.parameters, request.model_name
    if "sequence_id" not in parameters:
        sequence: int | str = 0
    else:
        parameter = parameters["sequence_id"]
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in ("int64_param", "uint64_param", "string_param"):
            raise InvalidRequest(
                "invalid value type for 'sequence_id' parameter, expected int64_param or "
                "string_param."
            )
        sequence = getattr(parameter, kind)
    if not sequence:
        raise InvalidRequest(
            f"inference request to model {model!r} must specify a non-zero or non-empty "
            "correlation ID: set the parameter sequence_id"
        )
    if isinstance(sequence, str) and len(sequence) > _MAX_ID:
        raise InvalidRequest(
            f"string correlation ID cannot be longer than {_MAX_ID} characters; this one has "
            f"{len(sequence)}"
        )
    return sequence


def starts(request: pb.ModelInferRequest) -> bool:
    """Whether a request is the first of its sequence. Raises InvalidRequest if that is no flag."""
    return _flag(request.parameters, "sequence_start")


def _flag(parameters: Mapping[str, pb.InferParameter], name: str) -> bool:
    if name not in parameters:
        return False
    parameter = parameters[name]
    if parameter.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(f"invalid value type for {name!r} parameter, expected bool_param.")
    return parameter.bool_param


def _whole(
    parameters: Mapping[str, pb.InferParameter], name: str, most: int = 2**63 - 1
) -> int | None:
    if name not in parameters:
        return None
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise InvalidRequest(f"invalid value type for {name!r} parameter, expected int64_param.")
    value: int = getattr(parameter, kind)
    if not 0 <= value <= most:
        raise InvalidRequest(f"parameter {name!r} is {value}; it must be from 0 to {most}")
    return value


def _inputs(request: pb.ModelInferRequest, spec: ModelSpec) -> tuple[bytes, dict[str, bytes], bool]:
    """The inputs as records, values of the state, and whether inputs have an axis of steps."""
    model, raw = request.model_name, request.raw_input_contents
    expected = {tensor.name: tensor for tensor in spec.inputs}
    states = {tensor.name: tensor for tensor in spec.state if tensor.name not in expected}
    count = sum(given.name not in states for given in request.inputs)
    if count != len(expected):
        raise InvalidRequest(
            f"expected {len(expected)} inputs but got {count} inputs for model {model!r}; it has "
            f"{', '.join(expected)}"
        )
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"expected raw_input_contents for {len(request.inputs)} inputs of model {model!r}, "
            f"got {len(raw)}"
        )
    contents: dict[str, bytes] = {}
    steps: dict[str, int | None] = {}
    for number, given in enumerate(request.inputs):
        tensor = expected.get(given.name) or states.get(given.name)
        if tensor is None or given.name in contents:
            raise InvalidRequest(
                f"unexpected inference input {given.name!r} for model {model!r}; it has "
                f"{', '.join(expected)}"
            )
        _check_type(given, tensor, model)
        if isinstance(tensor, StepTensor):
            steps[given.name] = _steps(given, tensor, model)
        if not raw:
            contents[given.name] = _typed(given, tensor, model)
            continue
        if given.HasField("contents"):
            raise InvalidRequest(
                "contents field must not be specified when using raw_input_contents for "
                f"{given.name!r} for model {model!r}"
            )
        contents[given.name] = raw[number]
    if len(set(steps.values())) > 1:
        raise InvalidRequest(f"the inputs for model {model!r} have different numbers of steps")
    (made,) = set(steps.values())
    records = _records(contents, spec.inputs, made or 1, model)
    return records, {name: contents[name] for name in contents if name in states}, made is not None


def _records(
    contents: Mapping[str, bytes], tensors: Sequence[StepTensor], steps: int, model: str
) -> bytes:
    for tensor in tensors:
        size = steps * tensor.size * tensor.dtype.itemsize
        if len(contents[tensor.name]) != size:
            raise InvalidRequest(
                f"input byte size mismatch for input {tensor.name!r} for model {model!r}. Expected "
                f"{size}, got {len(contents[tensor.name])}"
            )
    if len(tensors) == 1:
        return contents[tensors[0].name]
    records: npt.NDArray[Any] = np.empty(steps, record(tensors))
    for tensor in tensors:
        values = np.frombuffer(contents[tensor.name], tensor.dtype)
        records[tensor.name] = values.reshape(steps, *tensor.shape)
    return records.tobytes()


def _check_type(
    given: pb.ModelInferRequest.InferInputTensor, tensor: StepTensor | StateTensor, model: str
) -> None:
    if given.datatype != DATATYPES[tensor.type]:
        raise InvalidRequest(
            f"inference input {given.name!r} data-type is {given.datatype!r}, but model {model!r} "
            f"expects {DATATYPES[tensor.type]!r}"
        )


def _steps(
    given: pb.ModelInferRequest.InferInputTensor, tensor: StepTensor, model: str
) -> int | None:
    """The number of steps of an input; None if it has no axis of steps."""
    shape = list(given.shape)
    if len(shape) > len(tensor.shape) and shape[0] > 1:
        raise InvalidRequest(
            f"inference request to model {model!r} must specify batch-size 1 due to requirements "
            f"of sequence batcher; input {given.name!r} has batch-size {shape[0]}"
        )
    if shape == [1, *tensor.shape]:
        return None
    if len(shape) > 1 and shape[1] > 0 and shape == [1, shape[1], *tensor.shape]:
        return shape[1]
    one = ",".join(str(size) for size in (-1, *tensor.shape))
    raise InvalidRequest(
        f"unexpected shape for input {given.name!r} for model {model!r}. Expected [{one}], or "
        f"[{','.join(('1', 'S', *(str(size) for size in tensor.shape)))}] for a chunk of S steps, "
        f"got [{','.join(str(size) for size in shape)}]"
    )


def _typed(
    given: pb.ModelInferRequest.InferInputTensor, tensor: StepTensor | StateTensor, model: str
) -> bytes:
    """The bytes of typed contents."""
    field = _CONTENTS.get(tensor.type)
    if field is None:
        raise InvalidRequest(
            f"input {given.name!r} for model {model!r} is of {DATATYPES[tensor.type]}, which only "
            "raw_input_contents can hold"
        )
    others = [each.name for each, _ in given.contents.ListFields() if each.name != field]
    if others:
        raise InvalidRequest(
            f"input {given.name!r} for model {model!r} has {others[0]}; its type needs {field}"
        )
    return np.array(getattr(given.contents, field), tensor.dtype).tobytes()
