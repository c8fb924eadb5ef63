"""The contract between a network and the server, which the metadata of the ONNX file holds."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as dataclass_fields
from functools import cached_property
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

# The names of `ntm.tensors` are parts of this contract too, and are taken from here.
from ntm.tensors import TYPES as TYPES
from ntm.tensors import Array as Array
from ntm.tensors import StepTensor as StepTensor
from ntm.tensors import Type as Type
from ntm.tensors import parts as parts
from ntm.tensors import record as record
from ntm.tensors import vector as vector
from service.errors import ModelInvalid

METADATA_KEY = "ntm.spec"
"""Key in the ONNX file's `metadata_props` of the spec, which is JSON."""

FORMATS = (1, 2)
"""
Versions of the JSON layout; a file with another one is refused.

In 1, a step takes one float32 vector and gives one. In 2, it takes and gives named tensors with a
type and a shape, state tensors have a type, and whether rows are `batched` is stated. A spec that
1 can hold is written as 1, so that older servers read it.
"""

BLANK = 1e-6
"""Elements of a positional memory that mark no position; a vector of 0 would have no direction."""

LOCATIONS = "N"
"""Stands in a shape for the number of memory locations, which each session chooses."""

MAX_NAME = 128
"""The most characters in the name of a model."""

Float32 = npt.NDArray[np.float32]
Dimension = int | Literal["N"]
Rule = Literal["constant", "one_hot", "positional", "values", "given"]

_FIXED_COUNTS = {"constant": 1, "one_hot": 0, "given": 0}
"""The number of values that these rules need."""

_MAX_RECORD_BYTES = 2**31 - 1
"""The most that the inputs, or the outputs, of a step can have. numpy's records end there."""

_MAX_STATE_NAME_BYTES = 255
"""The most that a checkpoint can hold of a state tensor's name."""

_MAX_TEXT = 1024
"""The most characters in any other text of a spec. Descriptions of models have all of them."""

_MAX_COUNT = 2**31 - 1
"""The most of anything, such as heads, that a description can tell."""


def is_name(text: str) -> bool:
    """
    Whether a model, or a file of one, may have this name. Lists, metrics and logs show names, so
    they are printable; what the system could not read as UTF-8 is not.
    """
    return text.isprintable() and 0 < len(text) <= MAX_NAME


def printable(text: str) -> str:
    """The text itself; quoted and escaped if it is not printable."""
    return text if text.isprintable() else repr(text)


@dataclass(frozen=True)
class Initial:
    """
    How a state tensor starts.

    `constant`: every element is `values[0]`. `one_hot`: 1 at index 0 of the last axis, 0 elsewhere
    (a head at location 0). `positional`: `values` are wavelengths. Each takes two elements of
    location i, which start as sin and cos of 2 pi i / wavelength + pi / 4; the other elements start
    as `BLANK`. `values`: the elements themselves, in row-major order, as learned in training. If
    such a tensor has an axis of locations, the model's number of locations is fixed. `given`: the
    client gives the tensor when it opens a session; until then every element is 0.
    """

    rule: Rule
    values: tuple[float, ...] = ()

    def value(self, shape: tuple[int, ...], dtype: np.dtype[Any] = TYPES["float32"]) -> Array:
        """Return a tensor of this shape and type as it starts; its last axis is the locations."""
        if self.rule == "values":
            return np.array(self.values, dtype).reshape(shape)
        if self.rule == "constant":
            return np.full(shape, self.values[0], dtype)
        if self.rule == "positional":
            value = np.full(shape, BLANK, dtype)
            for index, wavelength in enumerate(self.values):
                phase = 2 * math.pi * np.arange(shape[-1]) / wavelength + math.pi / 4
                value[..., 2 * index, :] = np.sin(phase)
                value[..., 2 * index + 1, :] = np.cos(phase)
            return value
        value = np.zeros(shape, dtype)
        if self.rule == "one_hot":
            value[..., 0] = 1
        return value


@dataclass(frozen=True)
class StateTensor:
    """One tensor of a session's state. The graph reads it as `input` and writes it as `output`."""

    name: str
    input: str
    output: str
    """Empty for a constant of the session, which the graph only reads."""
    shape: tuple[Dimension, ...]
    """Shape for one session, without the batch axis; "N" stands for the number of locations."""
    initial: Initial
    type: Type = "float32"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements, little-endian."""
        return TYPES[self.type]

    @property
    def is_given(self) -> bool:
        """Whether the client has to give its value when it opens a session."""
        return self.initial.rule == "given"

    def shape_at(self, locations: int) -> tuple[int, ...]:
        """Return the shape for a session with this number of memory locations."""
        return tuple(locations if size == LOCATIONS else int(size) for size in self.shape)

    def bytes_at(self, locations: int) -> int:
        """Return the bytes of the tensor of a session with this number of memory locations."""
        return self.dtype.itemsize * math.prod(self.shape_at(locations))

    def initial_value(self, locations: int) -> Array:
        """Return the tensor of a session without a step, of shape `shape_at(locations)`."""
        return self.initial.value(self.shape_at(locations), self.dtype)


@dataclass(frozen=True)
class TraceTensor:
    """A trace of some heads: rows `first_head` to `first_head + heads - 1` of an output."""

    name: str
    output: str
    """Graph output of shape [B, all heads, width]."""
    first_head: int
    heads: int
    width: Dimension
    """Elements for one head; "N" for a weighting."""


@dataclass(frozen=True)
class ModelSpec:
    """Everything that the server has to know of a network: steps, state, traces and memory."""

    task: str
    architecture: str
    inputs: tuple[StepTensor, ...]
    outputs: tuple[StepTensor, ...]
    state: tuple[StateTensor, ...]
    traces: tuple[TraceTensor, ...]
    read_heads: int
    write_heads: int
    default_locations: int
    """Memory locations of a session that does not choose; 0 for a network without memory."""
    fixed_locations: bool
    """Whether the network runs with `default_locations` alone."""
    batched: bool = True
    """Whether the rows of a batch do not depend on one another, and it can have any number."""

    @cached_property
    def input_record(self) -> np.dtype[Any]:
        """The type of what a step takes, as `record` makes it."""
        return record(self.inputs)

    @cached_property
    def output_record(self) -> np.dtype[Any]:
        """The type of what a step gives, as `record` makes it."""
        return record(self.outputs)

    @property
    def input(self) -> str:
        """The graph's name of the first input, of a network like the trainer's the only one."""
        return self.inputs[0].name

    @property
    def output(self) -> str:
        """The graph's name of the first output, of a network like the trainer's the only one."""
        return self.outputs[0].name

    @property
    def input_width(self) -> int:
        """The number of float32 values of a step's input; 0 unless a step is a vector each way."""
        return self.inputs[0].size if self._takes_vectors else 0

    @property
    def output_width(self) -> int:
        """The number of float32 values of a step's output; 0 unless a step is a vector each way."""
        return self.outputs[0].size if self._takes_vectors else 0

    @property
    def _takes_vectors(self) -> bool:
        """Whether a step takes one float32 vector and gives one."""
        return all(
            len(tensors) == 1 and tensors[0].type == "float32" and len(tensors[0].shape) == 1
            for tensors in (self.inputs, self.outputs)
        )

    @property
    def _format(self) -> int:
        """The first version of the layout that can hold this spec."""
        plain = all(
            tensor.type == "float32" and tensor.output and not tensor.is_given
            for tensor in self.state
        )
        return 1 if self._takes_vectors and plain and self.batched else 2

    @cached_property
    def unseen(self) -> tuple[StateTensor, ...]:
        """The floating states that steps change, of a network whose outputs cannot show a NaN."""
        if any(tensor.is_floating for tensor in self.outputs):
            return ()
        return tuple(each for each in self.state if each.output and each.dtype.kind == "f")

    @property
    def has_memory(self) -> bool:
        """Whether the network has a memory, which clients can read."""
        return self.default_locations > 0

    def trace(self, name: str) -> TraceTensor | None:
        """Return the trace of this name; None if there is none."""
        return next((trace for trace in self.traces if trace.name == name), None)

    def state_bytes(self, locations: int) -> int:
        """Return the bytes of one session's state with this number of locations."""
        return sum(tensor.bytes_at(locations) for tensor in self.state)

    def to_json(self) -> str:
        """Return the text for `METADATA_KEY`; `from_json` reads the same spec from it."""
        fields = asdict(self)
        if self._format == 1:
            plain: dict[str, Any] = {}
            for name, value in fields.items():
                if name in ("inputs", "outputs"):
                    plain[name[:-1]] = value[0]["name"]
                    plain[f"{name[:-1]}_width"] = value[0]["shape"][0]
                elif name != "batched":
                    plain[name] = value
            for tensor in plain["state"]:
                del tensor["type"]
            fields = plain
        return json.dumps({"format": self._format, **fields})

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """
        Read a spec from the text of `METADATA_KEY`.

        Raises:
            ModelInvalid: the text is not a spec of this format, or it contradicts itself.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ModelInvalid(f"the spec is {_shown(fields)}; it must be a JSON object")
            found = fields.pop("format", None)
            if found not in FORMATS:
                known = " and ".join(map(str, FORMATS))
                raise ModelInvalid(f"spec format is {found!r}; this server reads formats {known}")
            if found == 1:
                fields = _of_format_1(fields)
            _check_fields("the spec", fields, cls)
            spec = cls(
                **{
                    **fields,
                    "inputs": tuple(_step_tensor(tensor) for tensor in fields["inputs"]),
                    "outputs": tuple(_step_tensor(tensor) for tensor in fields["outputs"]),
                    "state": tuple(_state_tensor(tensor) for tensor in fields["state"]),
                    "traces": tuple(_trace_tensor(trace) for trace in fields["traces"]),
                }
            )
            for part in (spec, *spec.inputs, *spec.outputs, *spec.state, *spec.traces):
                _check_types(part)
            spec._check()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelInvalid(f"the spec in the metadata cannot be read: {error!r}") from error
        except RecursionError as error:
            raise ModelInvalid("the spec in the metadata is nested too deeply") from error
        return spec

    def _check(self) -> None:
        for what, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            _check_step_tensors(what, tensors)
        if self.default_locations < 0:
            raise ModelInvalid(f"default locations must not be negative: {self.default_locations}")
        graph_names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        graph_names += [name for tensor in self.state for name in (tensor.input, tensor.output)]
        repeated = {name for name, count in Counter(graph_names).items() if name and count > 1}
        if repeated:
            raise ModelInvalid(f"the spec has graph names more than once: {sorted(repeated)}")
        names = Counter(tensor.name for tensor in self.state)
        if repeated := {name for name, count in names.items() if count > 1}:
            raise ModelInvalid(f"the spec has state tensors more than once: {sorted(repeated)}")
        for tensor in self.state:
            self._check_state(tensor)
        for trace in self.traces:
            _check_count("first_head", trace.first_head)
            _check_count("heads", trace.heads)
            _check_dimensions(f"trace {trace.name!r}", (trace.heads, trace.width))
        if self.has_memory and {"memory", "weighting"} - {tensor.name for tensor in self.state}:
            raise ModelInvalid("a model with memory needs the state tensors memory and weighting")
        self._check_heads()
        for tensor in self.state:
            shown = self.has_memory and tensor.name in ("memory", "weighting")
            if shown and tensor.type != "float32":
                raise ModelInvalid(
                    f"state {tensor.name!r} is {tensor.type}; clients read it as float32"
                )

    def _check_heads(self) -> None:
        _check_count("read_heads", self.read_heads)
        _check_count("write_heads", self.write_heads)
        heads = self.read_heads + self.write_heads
        for tensor in self.state:
            if self.has_memory and tensor.name == "weighting" and tensor.shape[:1] != (heads,):
                raise ModelInvalid(
                    f"state 'weighting' has shape {tensor.shape}; with {self.read_heads} read and "
                    f"{self.write_heads} write heads it must be [{heads}, {LOCATIONS!r}]"
                )

    def _check_state(self, tensor: StateTensor) -> None:
        if not tensor.name or len(tensor.name.encode()) > _MAX_STATE_NAME_BYTES:
            raise ModelInvalid(
                f"the name of a state tensor has {len(tensor.name.encode())} bytes; it must have "
                f"1 to {_MAX_STATE_NAME_BYTES}: {tensor.name[:64]!r}"
            )
        if not tensor.input:
            raise ModelInvalid(f"state {tensor.name!r} names no input of the graph")
        _check_type(f"state {tensor.name!r}", tensor.type)
        over_locations = LOCATIONS in tensor.shape
        if over_locations and not self.has_memory:
            raise ModelInvalid(
                f"state {tensor.name!r} has an axis of locations, but default_locations is 0"
            )
        _check_dimensions(f"state {tensor.name!r}", tensor.shape)
        count, rule = len(tensor.initial.values), tensor.initial.rule
        if rule == "values":
            if over_locations and not self.fixed_locations:
                raise ModelInvalid(
                    f"state {tensor.name!r} starts from values over locations; "
                    "fixed_locations must be true"
                )
            expected = math.prod(tensor.shape_at(self.default_locations))
        elif rule == "positional":
            expected = self._check_positional(tensor)
        else:
            if rule not in _FIXED_COUNTS:
                known = ", ".join(get_args(Rule))
                raise ModelInvalid(f"state {tensor.name!r} starts by {rule!r}; rules are {known}")
            expected = _FIXED_COUNTS[rule]
        if count != expected:
            raise ModelInvalid(
                f"state {tensor.name!r} has {count} initial values; the rule {rule!r} needs "
                f"{expected}"
            )
        _check_values(tensor)

    def _check_positional(self, tensor: StateTensor) -> int:
        """Check the wavelengths of a positional start; return their number."""
        wavelengths = tensor.initial.values
        if tensor.dtype.kind != "f":
            raise ModelInvalid(
                f"state {tensor.name!r} is {tensor.type}; only floating tensors start positional"
            )
        fits = len(tensor.shape) == 2 and tensor.shape[1] == LOCATIONS
        if not fits or 2 * len(wavelengths) > int(tensor.shape[0]):
            raise ModelInvalid(
                f"state {tensor.name!r} of shape {tensor.shape} cannot start positional with "
                f"{len(wavelengths)} wavelengths; its shape must be [at least "
                f"{2 * len(wavelengths)}, {LOCATIONS!r}]"
            )
        if not wavelengths or min(wavelengths) <= 0:
            raise ModelInvalid(
                f"state {tensor.name!r} has the wavelengths {wavelengths}; it needs one or more, "
                "all above 0"
            )
        return len(wavelengths)


def _check_types(part: object) -> None:
    """
    Raise ModelInvalid for values of a wrong type, such as a number for a name, before they are
    used.
    """
    for name, kind in get_type_hints(type(part)).items():
        value = getattr(part, name)
        if kind in (str, int, bool) and type(value) is not kind:
            raise ModelInvalid(
                f"{name} in the spec is {_shown(value)}; it must be of type {kind.__name__}"
            )
        # Lists, metrics and logs show it.
        if kind is str and not value.isprintable():
            raise ModelInvalid(f"{name} in the spec is {_shown(value)}; it must be printable")
        if kind is str and len(value) > _MAX_TEXT:
            raise ModelInvalid(
                f"{name} in the spec has {len(value)} characters; the most is {_MAX_TEXT}"
            )


def _check_count(name: str, value: int) -> None:
    if not 0 <= value <= _MAX_COUNT:
        raise ModelInvalid(f"{name} in the spec is {value}; it must be from 0 to {_MAX_COUNT}")


def _check_fields(what: str, fields: Any, kind: type) -> None:
    """Raise ModelInvalid unless these are all fields of a kind, and no others."""
    if not isinstance(fields, dict):
        raise ModelInvalid(f"{what} is {_shown(fields)}; it must be a JSON object")
    known = {field.name: field.default is MISSING for field in dataclass_fields(kind)}
    if missing := [name for name, is_needed in known.items() if is_needed and name not in fields]:
        raise ModelInvalid(f"{what} lacks {', '.join(missing)}")
    if unknown := sorted(fields.keys() - known.keys()):
        raise ModelInvalid(
            f"{what} has {_shown(', '.join(unknown))}, which it cannot have; it can have "
            f"{', '.join(known)}"
        )


def _shown(value: object) -> str:
    """A value of somebody's file, cut to what a sentence can have."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _check_dimensions(what: str, shape: tuple[object, ...]) -> None:
    if any(size != LOCATIONS and not (type(size) is int and size >= 1) for size in shape):
        raise ModelInvalid(f"{what} has shape {shape}; each size must be positive or {LOCATIONS!r}")


def _check_type(what: str, name: object) -> None:
    if name not in TYPES:
        raise ModelInvalid(f"{what} has the type {name!r}; types are {', '.join(TYPES)}")


def _check_step_tensors(what: str, tensors: tuple[StepTensor, ...]) -> None:
    if not tensors:
        raise ModelInvalid(f"the spec has no {what}; a step takes and gives one tensor or more")
    for tensor in tensors:
        label = f"{tensor.name!r} among the {what}"
        if not tensor.name:
            raise ModelInvalid(f"one of the {what} has no name")
        _check_type(label, tensor.type)
        if not all(type(size) is int and size >= 1 for size in tensor.shape):
            raise ModelInvalid(
                f"{label} has shape {list(tensor.shape)}; each size must be a positive whole number"
            )
    size = sum(tensor.size * tensor.dtype.itemsize for tensor in tensors)
    if size > _MAX_RECORD_BYTES:
        raise ModelInvalid(f"the {what} of a step have {size} bytes; the most is 2 GiB")


def _check_values(tensor: StateTensor) -> None:
    """Raise ModelInvalid for initial values that the tensor's type cannot hold."""
    values, dtype = tensor.initial.values, tensor.dtype
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # too large a value becomes infinite
            if np.isfinite(np.array(values, dtype)).all():
                return
        raise ModelInvalid(f"state {tensor.name!r} has an initial value that is infinite or NaN")
    lowest, highest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for value in values:
        if value != int(value) or not lowest <= value <= highest:
            raise ModelInvalid(
                f"state {tensor.name!r} has the initial value {value!r}; {tensor.type} holds whole "
                f"numbers from {lowest} to {highest}"
            )


def _of_format_1(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of format 2 for those of format 1."""
    made = dict(fields)
    for place in ("input", "output"):
        if missing := [name for name in (place, f"{place}_width") if name not in made]:
            raise ModelInvalid(f"the spec lacks {', '.join(missing)}")
        name, width = made.pop(place), made.pop(f"{place}_width")
        made[f"{place}s"] = [{"name": name, "type": "float32", "shape": [width]}]
    if "batched" in made or any("type" in tensor for tensor in made.get("state", ())):
        raise ModelInvalid("the spec has fields of format 2, and its format is 1")
    return made


def _step_tensor(fields: Mapping[str, Any]) -> StepTensor:
    _check_fields("a tensor of the step in the spec", fields, StepTensor)
    return StepTensor(**{**fields, "shape": tuple(fields["shape"])})


def _trace_tensor(fields: Mapping[str, Any]) -> TraceTensor:
    _check_fields("a trace in the spec", fields, TraceTensor)
    return TraceTensor(**fields)


def _state_tensor(fields: Mapping[str, Any]) -> StateTensor:
    _check_fields("a state tensor in the spec", fields, StateTensor)
    initial = fields["initial"]
    _check_fields("the initial of a state tensor in the spec", initial, Initial)
    return StateTensor(
        **{
            **fields,
            "shape": tuple(fields["shape"]),
            "initial": Initial(initial["rule"], tuple(initial["values"])),
        }
    )
