"""The contract between an exported network and the server, read from the ONNX file's metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

import numpy as np
import numpy.typing as npt

from service.errors import ModelInvalid

METADATA_KEY = "ntm.spec"
"""Key of the spec's JSON text in the ONNX file's `metadata_props`."""

FORMAT = 1
"""Version of the JSON layout; a file of another format is refused."""

BLANK = 1e-6
"""An element of a positional memory that marks no position; not 0, which has no direction."""

LOCATIONS = "N"
"""Stands in a shape for the number of memory locations, which each session chooses."""

Float32 = npt.NDArray[np.float32]
Dimension = int | Literal["N"]


@dataclass(frozen=True)
class Initial:
    """
    How a state tensor starts.

    `constant`: every element is `values[0]`. `one_hot`: 1 at index 0 of the last axis, 0 elsewhere
    (a head at location 0). `positional`: location i starts with sin and cos of
    2 pi i / wavelength + pi / 4 for each wavelength in `values`, in turn, in its first elements,
    and with `BLANK` in the rest. `values`: the elements themselves, in row-major order (learned
    by training); a tensor over locations that starts so fixes the model's number of locations.
    """

    rule: Literal["constant", "one_hot", "positional", "values"]
    values: tuple[float, ...] = ()

    def value(self, shape: tuple[int, ...]) -> Float32:
        """A tensor of that shape at its start; locations are the last axis."""
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
    """One tensor of a session's state: the graph reads it as `input` and writes it as `output`."""

    name: str
    input: str
    output: str
    shape: tuple[Dimension, ...]
    """Shape for one session, without the batch axis; "N" where the locations go."""
    initial: Initial

    def shape_at(self, locations: int) -> tuple[int, ...]:
        """The shape for one session with that many memory locations."""
        return tuple(locations if size == LOCATIONS else int(size) for size in self.shape)

    def initial_value(self, locations: int) -> Float32:
        """The tensor of a session that has made no step, of shape `shape_at(locations)`."""
        return self.initial.value(self.shape_at(locations))


@dataclass(frozen=True)
class TraceTensor:
    """What some heads did in a step: rows `first_head` .. `first_head + heads - 1` of an output."""

    name: str
    output: str
    """Graph output of shape [B, all heads, width]."""
    first_head: int
    heads: int
    width: Dimension
    """Elements for one head; "N" for a weighting."""


@dataclass(frozen=True)
class ModelSpec:
    """Everything the server knows of a network: widths, state, traces, and its memory."""

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
    """Locations of a session that asks for none; 0 for a network without memory."""
    fixed_locations: bool
    """Whether the network works with `default_locations` only."""

    @property
    def has_memory(self) -> bool:
        """Whether there is a memory whose size a session can choose and a client can read."""
        return self.default_locations > 0

    def trace(self, name: str) -> TraceTensor | None:
        """The trace of that name, or None."""
        return next((trace for trace in self.traces if trace.name == name), None)

    def state_bytes(self, locations: int) -> int:
        """Bytes of one session's state."""
        return 4 * sum(math.prod(tensor.shape_at(locations)) for tensor in self.state)

    def to_json(self) -> str:
        """The text that belongs under `METADATA_KEY`; `from_json` reads it back unchanged."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """
        Read a spec.

        Raises:
            ModelInvalid: the text is not a spec of this format, or contradicts itself.
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
            raise ModelInvalid(f"graph names used twice in the spec: {sorted(repeated)}")
        for tensor in self.state:
            self._check_state(tensor)
        for trace in self.traces:
            _check_dimensions(f"trace {trace.name!r}", (trace.heads, trace.width))
        if self.has_memory and {"memory", "weighting"} - {tensor.name for tensor in self.state}:
            raise ModelInvalid("a model with memory needs the state tensors memory and weighting")

    def _check_state(self, tensor: StateTensor) -> None:
        over_locations = LOCATIONS in tensor.shape
        if over_locations and not self.has_memory:
            raise ModelInvalid(f"state {tensor.name!r} spans locations, but the model has none")
        _check_dimensions(f"state {tensor.name!r}", tensor.shape)
        count, rule = len(tensor.initial.values), tensor.initial.rule
        if rule == "values":
            if over_locations and not self.fixed_locations:
                raise ModelInvalid(f"state {tensor.name!r} starts from values: locations are fixed")
            expected = math.prod(tensor.shape_at(self.default_locations))
        elif rule == "positional":
            expected = self._check_positional(tensor)
        else:
            expected = {"constant": 1, "one_hot": 0}.get(rule, -1)
        if count != expected:
            raise ModelInvalid(f"state {tensor.name!r} starts by {rule!r} with {count} values")
        if not np.isfinite(np.array(tensor.initial.values, np.float32)).all():
            raise ModelInvalid(f"state {tensor.name!r} starts from values that are not finite")

    def _check_positional(self, tensor: StateTensor) -> int:
        """How many wavelengths there may be: those there are, if they fit."""
        wavelengths = tensor.initial.values
        fits = len(tensor.shape) == 2 and tensor.shape[1] == LOCATIONS
        if not fits or 2 * len(wavelengths) > int(tensor.shape[0]):
            raise ModelInvalid(
                f"state {tensor.name!r} of shape {tensor.shape} cannot start positional with "
                f"{len(wavelengths)} wavelengths: it must be [at least two each, {LOCATIONS!r}]"
            )
        if not wavelengths or min(wavelengths) <= 0:
            raise ModelInvalid(f"state {tensor.name!r} has the wavelengths {wavelengths}")
        return len(wavelengths)


def _check_types(part: object) -> None:
    """Refuse a number where a name belongs, and the like, before anything relies on it."""
    for name, kind in get_type_hints(type(part)).items():
        value = getattr(part, name)
        if kind in (str, int, bool) and type(value) is not kind:
            raise ModelInvalid(
                f"{name} in the spec is {value!r}; it must be of type {kind.__name__}"
            )


def _check_dimensions(what: str, shape: tuple[object, ...]) -> None:
    if any(size != LOCATIONS and not (type(size) is int and size >= 1) for size in shape):
        raise ModelInvalid(f"{what} has shape {shape}; sizes are positive or {LOCATIONS!r}")


def _state_tensor(fields: Mapping[str, Any]) -> StateTensor:
    initial = fields["initial"]
    return StateTensor(
        name=fields["name"],
        input=fields["input"],
        output=fields["output"],
        shape=tuple(fields["shape"]),
        initial=Initial(initial["rule"], tuple(initial["values"])),
    )
