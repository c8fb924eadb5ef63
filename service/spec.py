"""The contract between a network and the server, which the metadata of the ONNX file holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from service.errors import ModelInvalid

METADATA_KEY = "ntm.spec"
"""Key in the ONNX file's `metadata_props` of the spec, which is JSON."""

FORMAT = 1
"""Version of the JSON layout. A file with another version is refused."""

BLANK = 1e-6
"""Elements of a positional memory that mark no position; a vector of 0 would have no direction."""

LOCATIONS = "N"
"""Stands in a shape for the number of memory locations, which each session chooses."""

MAX_NAME = 128
"""The most characters in the name of a model."""

Float32 = npt.NDArray[np.float32]
Dimension = int | Literal["N"]
Rule = Literal["constant", "one_hot", "positional", "values"]

_FIXED_COUNTS = {"constant": 1, "one_hot": 0}
"""The number of values that these rules need."""


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
    such a tensor has an axis of locations, the model's number of locations is fixed.
    """

    rule: Rule
    values: tuple[float, ...] = ()

    def value(self, shape: tuple[int, ...]) -> Float32:
        """Return a tensor of this shape as it starts; its last axis is the locations."""
        if self.rule == "values":
            return np.array(self.values, np.float32).reshape(shape)
        if self.rule == "constant":
            return np.full(shape, self.values[0], np.float32)
        if self.rule == "positional":
            value = np.full(shape, BLANK, np.float32)
            for index, wavelength in enumerate(self.values):
                phase = 2 * math.pi * np.arange(shape[-1]) / wavelength + math.pi / 4
                value[..., 2 * index, :] = np.sin(phase)
                value[..., 2 * index + 1, :] = np.cos(phase)
            return value
        value = np.zeros(shape, np.float32)
        value[..., 0] = 1.0
        return value


@dataclass(frozen=True)
class StateTensor:
    """One tensor of a session's state. The graph reads it as `input` and writes it as `output`."""

    name: str
    input: str
    output: str
    shape: tuple[Dimension, ...]
    """Shape for one session, without the batch axis; "N" stands for the number of locations."""
    initial: Initial

    def shape_at(self, locations: int) -> tuple[int, ...]:
        """Return the shape for a session with this number of memory locations."""
        return tuple(locations if size == LOCATIONS else int(size) for size in self.shape)

    def initial_value(self, locations: int) -> Float32:
        """Return the tensor of a session without a step, of shape `shape_at(locations)`."""
        return self.initial.value(self.shape_at(locations))


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
    """Everything that the server has to know of a network: widths, state, traces and memory."""

    task: str
    architecture: str
    input: str
    input_width: int
    output: str
    output_width: int
    state: tuple[StateTensor, ...]
    traces: tuple[TraceTensor, ...]
    read_heads: int
    write_heads: int
    default_locations: int
    """Memory locations of a session that does not choose; 0 for a network without memory."""
    fixed_locations: bool
    """Whether the network runs with `default_locations` alone."""

    @property
    def has_memory(self) -> bool:
        """Whether the network has a memory, which clients can read."""
        return self.default_locations > 0

    def trace(self, name: str) -> TraceTensor | None:
        """Return the trace of this name; None if there is none."""
        return next((trace for trace in self.traces if trace.name == name), None)

    def state_bytes(self, locations: int) -> int:
        """Return the bytes of one session's state with this number of locations."""
        return 4 * sum(math.prod(tensor.shape_at(locations)) for tensor in self.state)

    def to_json(self) -> str:
        """Return the text for `METADATA_KEY`; `from_json` reads the same spec from it."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """
        Read a spec from the text of `METADATA_KEY`.

        Raises:
            ModelInvalid: the text is not a spec of this format, or it contradicts itself.
        """
        try:
            fields = json.loads(text)
            found = fields.pop("format")
            if found != FORMAT:
                raise ModelInvalid(f"spec format is {found!r}; this server reads format {FORMAT}")
            spec = cls(
                **{
                    **fields,
                    "state": tuple(_state_tensor(tensor) for tensor in fields["state"]),
                    "traces": tuple(TraceTensor(**trace) for trace in fields["traces"]),
                }
            )
            for part in (spec, *spec.state, *spec.traces):
                _check_types(part)
            spec._check()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelInvalid(f"the spec in the metadata cannot be read: {error!r}") from error
        except RecursionError as error:
            raise ModelInvalid("the spec in the metadata is nested too deeply") from error
        return spec

    def _check(self) -> None:
        if self.input_width < 1 or self.output_width < 1:
            raise ModelInvalid(
                f"input and output widths must be positive, not "
                f"{self.input_width} and {self.output_width}"
            )
        if self.default_locations < 0:
            raise ModelInvalid(f"default locations must not be negative: {self.default_locations}")
        graph_names = [self.input, self.output]
        graph_names += [name for tensor in self.state for name in (tensor.input, tensor.output)]
        repeated = {name for name in graph_names if graph_names.count(name) > 1}
        if repeated:
            raise ModelInvalid(f"the spec has graph names more than once: {sorted(repeated)}")
        for tensor in self.state:
            self._check_state(tensor)
        for trace in self.traces:
            _check_dimensions(f"trace {trace.name!r}", (trace.heads, trace.width))
        if self.has_memory and {"memory", "weighting"} - {tensor.name for tensor in self.state}:
            raise ModelInvalid("a model with memory needs the state tensors memory and weighting")

    def _check_state(self, tensor: StateTensor) -> None:
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
        with np.errstate(over="ignore"):  # too large a value becomes infinite
            values = np.array(tensor.initial.values, np.float32)
        if not np.isfinite(values).all():
            raise ModelInvalid(
                f"state {tensor.name!r} has an initial value that is infinite or NaN"
            )

    def _check_positional(self, tensor: StateTensor) -> int:
        """Check the wavelengths of a positional start; return their number."""
        wavelengths = tensor.initial.values
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
                f"{name} in the spec is {value!r}; it must be of type {kind.__name__}"
            )
        # Lists, metrics and logs show it.
        if kind is str and not value.isprintable():
            raise ModelInvalid(f"{name} in the spec is {value!r}; it must be printable")


def _check_dimensions(what: str, shape: tuple[object, ...]) -> None:
    if any(size != LOCATIONS and not (type(size) is int and size >= 1) for size in shape):
        raise ModelInvalid(f"{what} has shape {shape}; each size must be positive or {LOCATIONS!r}")


def _state_tensor(fields: Mapping[str, Any]) -> StateTensor:
    initial = fields["initial"]
    return StateTensor(
        name=fields["name"],
        input=fields["input"],
        output=fields["output"],
        shape=tuple(fields["shape"]),
        initial=Initial(initial["rule"], tuple(initial["values"])),
    )
