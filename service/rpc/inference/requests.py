"""Requests of the protocol: decoded, and refused in the words that clients of Triton know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine.work import NO_TRACES, Selection
from service.errors import InvalidRequest
from service.inference.v2 import inference_pb2 as pb
from service.models.version import Version
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

MAX_FORMS = 1024
"""The number of forms that are kept."""

_MAX_FORM_BYTES = 4096
"""The size of the largest request, without its values, whose form is kept."""

_IGNORED = {"triton_enable_empty_final_response"}
"""Parameters of Triton's own clients that change nothing here."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What the requests of a sequence have in common: all but ids, values and the first step."""

    model: str
    version: Version
    spec: ModelSpec
    is_start: bool
    is_end: bool
    epoch: int
    locations: int
    """Of the session that the sequence starts; 0 for the model's default."""
    given: tuple[str, ...]
    """Names of the tensors in the request, in its order."""
    initial: tuple[str, ...]
    """Those of them that are tensors of the state, for a sequence that starts."""
    wanted: tuple[str, ...]
    """Names of outputs and traces in the order of the answer."""
    selection: Selection
    """Those of them that are traces."""
    is_chunk: bool
    """Whether tensors have an axis of steps."""
    steps: int


@dataclass(slots=True)
class Asked:
    """What a request asks for."""

    form: Form
    request_id: str
    sequence: int | str
    first_step: int | None
    inputs: bytes
    """A record for each step, as `Chunk.inputs` of our own API."""
    initial: Mapping[str, bytes]
    """Values of tensors of the state, for a sequence that starts."""


class Forms:
    """
    Decodes requests, and keeps the forms of the latest ones: most have the form of one before, and
    to find that takes a fifth of the time of checking and decoding it again.
    """

    def __init__(self, spec: Callable[[Version], ModelSpec]) -> None:
        """`spec` gives that of a version."""
        self._spec = spec
        self._forms: dict[tuple[bytes, Version, Version], Form] = {}

    def decode(
        self, request: pb.ModelInferRequest, sequence: int | str, current: Version, there: Version
    ) -> Asked:
        """
        Decode a request of a sequence, which takes the ids and the values out of it.

        Args:
            request: what the client sent.
            sequence: the id of its sequence.
            current: the version of the sequence if it starts.
            there: the version of the sequence if it does not.

        Raises:
            InvalidRequest: it is wrong; the message says why.
        """
        request_id, raw = request.id, list(request.raw_input_contents)
        parameters = request.parameters
        first_step = _whole(parameters, "first_step")
        if first_step is not None:
            del parameters["first_step"]
        del parameters["sequence_id"]
        request.ClearField("id")
        request.ClearField("raw_input_contents")
        key = (request.SerializeToString(deterministic=True), current, there) if raw else None
        form = self._forms.get(key) if key else None
        if form is None:
            form = self._form(request, current, there)
            if key is not None:
                _check_raw(request)
                self._keep(key, form)
        inputs, initial = _values(request, form, raw)
        return Asked(form, request_id, sequence, first_step, inputs, initial)

    def _keep(self, key: tuple[bytes, Version, Version], form: Form) -> None:
        if len(key[0]) <= _MAX_FORM_BYTES:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[key] = form

    def _form(self, request: pb.ModelInferRequest, current: Version, there: Version) -> Form:
        name, parameters = request.model_name, request.parameters
        is_start = _flag(parameters, "sequence_start")
        version = current if is_start else there
        spec = self._spec(version)
        _check_known(parameters)
        given, initial, steps = _given(request, spec)
        if initial and not is_start:
            raise InvalidRequest(
                f"{', '.join(initial)} of model {name!r} can be given only with the START flag"
            )
        outputs = [tensor.name for tensor in spec.outputs]
        wanted = tuple(each.name for each in request.outputs) or tuple(outputs)
        for output in wanted:
            if output not in outputs and spec.trace(output) is None:
                raise InvalidRequest(
                    f"unexpected inference output {output!r} for model {name!r}; it has the "
                    f"outputs {', '.join(outputs)}, and the traces "
                    f"{', '.join(trace.name for trace in spec.traces) or 'none'}"
                )
        if len(set(wanted)) < len(wanted):
            raise InvalidRequest(f"an inference output is requested twice for model {name!r}")
        traces = tuple(output for output in wanted if output not in outputs)
        return Form(
            model=name,
            version=version,
            spec=spec,
            is_start=is_start,
            is_end=_flag(parameters, "sequence_end"),
            epoch=_whole(parameters, "epoch") or 0,
            locations=_whole(parameters, "locations", 2**32 - 1) or 0,
            given=given,
            initial=initial,
            wanted=wanted,
            selection=Selection(traces) if traces else NO_TRACES,
            is_chunk=steps is not None,
            steps=steps or 1,
        )


def _values(
    request: pb.ModelInferRequest, form: Form, raw: Sequence[bytes]
) -> tuple[bytes, Mapping[str, bytes]]:
    """
    The inputs of a request of this form as records, and the values of the state.

    Raises:
        InvalidRequest: a tensor has not the bytes that its shape needs.
    """
    given = form.given
    if raw and len(raw) != len(given):
        raise InvalidRequest(
            f"expected raw_input_contents for {len(given)} inputs of model {form.model!r}, "
            f"got {len(raw)}"
        )
    contents = dict(zip(given, raw or _typed_contents(request, form.spec), strict=True))
    records = _records(contents, form.spec.inputs, form.steps, form.model)
    return records, {name: contents[name] for name in form.initial} if form.initial else {}


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


def _tensors(spec: ModelSpec) -> tuple[dict[str, StepTensor], dict[str, StateTensor]]:
    """The inputs, and the tensors of the state that have no input's name, by name."""
    inputs = {tensor.name: tensor for tensor in spec.inputs}
    return inputs, {tensor.name: tensor for tensor in spec.state if tensor.name not in inputs}


def _given(
    request: pb.ModelInferRequest, spec: ModelSpec
) -> tuple[tuple[str, ...], tuple[str, ...], int | None]:
    """
    The names of the tensors in a request, those that are of the state, and the number of steps;
    None if inputs have no axis of steps.
    """
    model = request.model_name
    expected, states = _tensors(spec)
    names = tuple(given.name for given in request.inputs)
    count = sum(name not in states for name in names)
    if count != len(expected):
        raise InvalidRequest(
            f"expected {len(expected)} inputs but got {count} inputs for model {model!r}; it has "
            f"{', '.join(expected)}"
        )
    steps: set[int | None] = set()
    for number, given in enumerate(request.inputs):
        tensor = expected.get(given.name) or states.get(given.name)
        if tensor is None or given.name in names[:number]:
            raise InvalidRequest(
                f"unexpected inference input {given.name!r} for model {model!r}; it has "
                f"{', '.join(expected)}"
            )
        _check_type(given, tensor, model)
        if isinstance(tensor, StepTensor):
            steps.add(_steps(given, tensor, model))
    if len(steps) > 1:
        raise InvalidRequest(f"the inputs for model {model!r} have different numbers of steps")
    (made,) = steps
    return names, tuple(name for name in names if name in states), made


def _check_raw(request: pb.ModelInferRequest) -> None:
    """Raise InvalidRequest if an input of a request with raw contents has typed ones too."""
    for given in request.inputs:
        if given.HasField("contents"):
            raise InvalidRequest(
                "contents field must not be specified when using raw_input_contents for "
                f"{given.name!r} for model {request.model_name!r}"
            )


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


def _typed_contents(request: pb.ModelInferRequest, spec: ModelSpec) -> list[bytes]:
    """The bytes of each tensor of a request with typed contents."""
    inputs, states = _tensors(spec)
    tensors: dict[str, StepTensor | StateTensor] = {**states, **inputs}
    return [_typed(given, tensors[given.name], request.model_name) for given in request.inputs]


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
