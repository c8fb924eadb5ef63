"""
How to step a file: what it takes and gives in a step, what is state, and where the batch is.

A description is a TOML file, which `export.wrapping.proposal` writes and a human corrects.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from export.wrapping.file import OnnxFile, Size, Tensor
from export.wrapping.refusal import FileRefused
from service.spec import TYPES, Array

GIVEN = "given"
"""Says of a state that its session's client gives its initial value."""

NO_BATCH = "none"
"""Says of a tensor that it has no axis of the batch, so that a run steps one session."""

_KEYS = {
    "": {"task", "batched", "constants", "input", "output", "state"},
    "input": {"name", "shape", "batch_axis", "past", "past_axis", "draw"},
    "output": {"name", "batch_axis"},
    "state": {"name", "input", "output", "shape", "batch_axis", "initial"},
}

Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Input:
    """What a step takes."""

    tensor: Tensor
    shape: Shape
    """Of one step of one session."""
    batch_axis: int | None
    """Where the file has the axis of the batch; None if it has none."""
    past: int
    """How many values of past steps the file wants before those of a step."""
    past_axis: int
    """The axis of `shape` along which it wants them."""
    draw: tuple[float, float] | None
    """The range of the values that the file is verified with."""

    @property
    def name(self) -> str:
        """The name in the file and in the spec."""
        return self.tensor.name

    @property
    def past_name(self) -> str:
        """The name of the state that holds values of past steps."""
        return f"{self.name}_past"

    @property
    def past_shape(self) -> Shape:
        """The shape of that state."""
        return _resized(self.shape, self.past_axis, self.past)

    @property
    def shape_in_file(self) -> Shape:
        """The shape that the file takes, without the batch."""
        return _resized(self.shape, self.past_axis, self.shape[self.past_axis] + self.past)


@dataclass(frozen=True)
class Output:
    """What a step gives."""

    tensor: Tensor
    batch_axis: int | None

    @property
    def name(self) -> str:
        """The name in the file and in the spec."""
        return self.tensor.name


@dataclass(frozen=True)
class State:
    """A tensor that a session keeps from step to step, or all through."""

    name: str
    tensor: Tensor
    """The file's input."""
    output: Tensor | None
    """The file's output with the next value; None of a constant of the session."""
    shape: Shape
    """Of one session."""
    batch_axis: int | None
    initial: Array | None
    """The value that a session starts with; None if the client gives it."""


@dataclass(frozen=True)
class Description:
    """How to step a file."""

    task: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    states: tuple[State, ...]
    constants: Mapping[str, Array]
    """Values of the inputs that are the same in each step of each session."""
    batched: bool
    """Whether several sessions may be stepped in one run, if the check finds no difference."""

    @property
    def outputs_in_file(self) -> list[str]:
        """The file's names of what a step gives, and of the next states."""
        names = [each.name for each in self.outputs]
        return names + [each.output.name for each in self.states if each.output]


def read(path: Path, file: OnnxFile) -> Description:
    """
    Read a description, and check it against its file.

    Raises:
        FileRefused: it is wrong; the message says what to change.
        OSError: it cannot be read.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileRefused(f"{path} is not TOML: {error}") from error
    try:
        return _Reader(path.parent, file).description(table)
    except FileRefused as error:
        raise FileRefused(f"{path}: {error}") from error


class _Reader:
    """Reads tables of a description, each of which it calls by its kind and name."""

    def __init__(self, folder: Path, file: OnnxFile) -> None:
        self._folder = folder
        self._file = file

    def description(self, table: dict[str, Any]) -> Description:
        _check_keys(table, "", "the description")
        constants = _of_type(table.get("constants", {}), dict, "constants", "a table NAME = VALUE")
        found = Description(
            task=_of_type(table.get("task", ""), str, "task", "a text"),
            inputs=tuple(map(self._input, _tables(table, "input"))),
            outputs=tuple(map(self._output, _tables(table, "output"))),
            states=tuple(map(self._state, _tables(table, "state"))),
            constants={name: self._constant(name, value) for name, value in constants.items()},
            batched=_of_type(table.get("batched", True), bool, "batched", "true or false"),
        )
        self._check_whole(found)
        return found

    def _input(self, table: dict[str, Any]) -> Input:
        tensor = self._tensor(_name(table, "input"), "input", self._file.inputs)
        what = f"input {tensor.name!r}"
        _check_keys(table, "input", what)
        axis = _batch_axis(table, what, tensor)
        past = _whole(table.get("past", 0), f"past of {what}", 0, 2**31)
        shape, past_axis = self._shape(table, what, tensor, axis, past=past)
        draw = table.get("draw")
        if draw is not None and not (
            isinstance(draw, list)
            and len(draw) == 2
            and all(type(each) in (int, float) and math.isfinite(each) for each in draw)
            and draw[0] <= draw[1]
        ):
            raise FileRefused(f"draw of {what} is {draw!r}; give [LOWEST, HIGHEST]")
        return Input(tensor, shape, axis, past, past_axis, tuple(draw) if draw else None)

    def _output(self, table: dict[str, Any]) -> Output:
        tensor = self._tensor(_name(table, "output"), "output", self._file.outputs)
        what = f"output {tensor.name!r}"
        _check_keys(table, "output", what)
        return Output(tensor, _batch_axis(table, what, tensor))

    def _state(self, table: dict[str, Any]) -> State:
        named = table.get("input", table.get("name"))
        tensor = self._tensor(_name({"name": named}, "state"), "input", self._file.inputs)
        what = f"state {tensor.name!r}"
        _check_keys(table, "state", what)
        if not isinstance(output := table.get("output"), str):
            raise FileRefused(
                f"{what} has no pair; name the output that has its next value, as output = "
                f'"{next(iter(self._file.outputs))}", or say output = "" if it keeps its value'
            )
        following = self._tensor(output, "output", self._file.outputs) if output else None
        if following and following.type != tensor.type:
            raise FileRefused(
                f"{what} is {tensor.type}, and its next value {output!r} is {following.type}; "
                "name the output of its type"
            )
        axis = _batch_axis(table, what, tensor)
        shape, _ = self._shape(table, what, tensor, axis)
        if following:
            _check_fits(following, _with_batch(shape, axis), f"the next value of {what}", shape)
        initial = self._initial(table.get("initial", 0), what, tensor, shape)
        name = _of_type(table.get("name", tensor.name), str, f"the name of {what}", "a text")
        return State(name, tensor, following, shape, axis, initial)

    def _constant(self, name: str, value: object) -> Array:
        tensor = self._tensor(name, "input", self._file.inputs)
        found = self._values(value, f"constant {name!r}", tensor)
        _check_fits(tensor, found.shape, f"constant {name!r}", found.shape)
        return found

    def _tensor(self, name: str, kind: str, there: Mapping[str, Tensor]) -> Tensor:
        """Return what the file calls by a name."""
        if name not in there:
            raise FileRefused(
                f"{self._file.path} has no {kind} {name!r}; its {kind}s are {', '.join(there)}"
            )
        tensor = there[name]
        if tensor.type not in TYPES:
            raise FileRefused(
                f"{kind} {name!r} is {tensor.type}; tensors of {', '.join(TYPES)} can be "
                "served, so export the network with one of these"
            )
        return tensor

    def _shape(
        self,
        table: dict[str, Any],
        what: str,
        tensor: Tensor,
        batch_axis: int | None,
        past: int = 0,
    ) -> tuple[Shape, int]:
        """Return the shape of one session, and the axis of past values."""
        sizes = None
        if tensor.shape is not None:
            sizes = [size for axis, size in enumerate(tensor.shape) if axis != batch_axis]
        given = table.get("shape")
        if given is None:
            if sizes is None or not all(isinstance(size, int) for size in sizes):
                raise FileRefused(
                    f"{what} is {tensor} in the file, which leaves sizes open; give its shape for "
                    "one session without the batch, such as shape = [512]"
                )
            given = sizes
        if not isinstance(given, list):
            raise FileRefused(f"shape of {what} is {given!r}; give a list, such as [512]")
        shape = tuple(_whole(size, f"a size in the shape of {what}", 1, 2**31) for size in given)
        past_axis = _whole(table.get("past_axis", 0), f"past_axis of {what}", 0, 2**31)
        if past or past_axis:
            if past_axis >= len(shape):
                raise FileRefused(
                    f"past_axis of {what} is {past_axis}, and its shape {list(shape)} has "
                    f"{len(shape)} axes; count from 0, without the batch"
                )
            if "shape" not in table:  # which is then that of the file, with the past
                shape = _resized(shape, past_axis, shape[past_axis] - past)
            if shape[past_axis] < 1:
                raise FileRefused(
                    f"past of {what} is {past}, which leaves nothing for a step; make it smaller"
                )
        whole = _resized(shape, past_axis, shape[past_axis] + past) if past else shape
        _check_fits(tensor, _with_batch(whole, batch_axis), what, shape)
        return shape, past_axis

    def _initial(self, value: object, what: str, tensor: Tensor, shape: Shape) -> Array | None:
        if value == GIVEN:
            return None
        found = self._values(value, f"initial of {what}", tensor)
        if found.size not in (1, math.prod(shape)):
            raise FileRefused(
                f"initial of {what} has {found.size} values; its shape {list(shape)} needs "
                f"{math.prod(shape)}, or one for all"
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise FileRefused(f"initial of {what} has values that are infinite or NaN")
        return np.array(np.broadcast_to(found.reshape(shape if found.size > 1 else ()), shape))

    def _values(self, value: object, what: str, tensor: Tensor) -> Array:
        """Return numbers, or those of a .npy file beside the description, as the file's type."""
        needed = f"{what} has to be a number, a list of numbers or the name of a .npy file"
        read: Array
        if isinstance(value, str):
            try:
                read = np.load(self._folder / value, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise FileRefused(f"{needed}; {value!r} cannot be read as one: {error}") from error
        else:
            try:
                read = np.array(value)
            except ValueError as error:
                raise FileRefused(f"{needed}; {value!r:.80} is none") from error
        if not isinstance(read, np.ndarray) or read.dtype.kind not in "bif":
            raise FileRefused(f"{needed}; {value!r:.80} is none")
        with np.errstate(over="ignore", invalid="ignore"):
            found = read.astype(tensor.dtype)
            exact = tensor.dtype.kind == "f" or bool((found == read).all())
        if not exact:
            raise FileRefused(f"{what} is {value!r:.80}, which {tensor.type} cannot hold")
        return found

    def _check_whole(self, found: Description) -> None:
        """Check that each input of the file has a part, and that no name has two."""
        inputs = [each.name for each in found.inputs]
        inputs += [each.tensor.name for each in found.states] + list(found.constants)
        outputs = [each.name for each in found.outputs]
        outputs += [each.output.name for each in found.states if each.output]
        for kind, names in (("input", inputs), ("output", outputs)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise FileRefused(
                    f"the {kind} {twice!r} is named twice; name it once, as an {kind} or in a state"
                )
        for name, tensor in self._file.inputs.items():
            if name not in inputs:
                raise FileRefused(
                    f"the file's input {name!r}, {tensor}, has no part; add it as an [[input]], a "
                    "[[state]] or one of the [constants]"
                )
        for kind, parts in (("input", found.inputs), ("output", found.outputs)):
            if not parts:
                raise FileRefused(f"there is no [[{kind}]]; a step needs one")
        states = [each.name for each in found.states]
        states += [each.past_name for each in found.inputs if each.past]
        if not states:
            raise FileRefused("there is no [[state]]; a session without one has nothing to keep")
        graph = [*inputs, *outputs, *states]
        for name in states:
            if states.count(name) > 1:
                raise FileRefused(f"two states are named {name!r}; give each a name of its own")
        for name in graph:
            if not name.isprintable():
                raise FileRefused(f"the name {name!r} is not printable; give the tensor another")
        for each in found.inputs:
            if each.past and each.past_name in (*inputs, *outputs):
                raise FileRefused(
                    f"{each.past_name!r} would be the state with past values of {each.name!r}, and "
                    "the file has a tensor of that name; rename it in the file"
                )


def _tables(table: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found = table.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise FileRefused(f"{kind} is {found!r:.80}; write each in a table [[{kind}]]")
    return found


def _check_keys(table: Mapping[str, Any], kind: str, what: str) -> None:
    wrong = sorted(set(table) - _KEYS[kind])
    if wrong:
        raise FileRefused(f"{what} has the key {wrong[0]!r}; keys are {', '.join(_KEYS[kind])}")


def _name(table: Mapping[str, Any], kind: str) -> str:
    if not isinstance(name := table.get("name"), str):
        raise FileRefused(f'an [[{kind}]] has no name; give the file\'s, as name = "..."')
    return name


def _of_type(value: object, kind: type[T], what: str, needed: str) -> T:
    if not isinstance(value, kind):
        raise FileRefused(f"{what} is {value!r:.80}; it has to be {needed}")
    return value


def _whole(value: object, what: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise FileRefused(f"{what} is {value!r:.80}; it has to be a whole number from {least}")
    return value


def _batch_axis(table: Mapping[str, Any], what: str, tensor: Tensor) -> int | None:
    axis = table.get("batch_axis", 0)
    if axis == NO_BATCH:
        return None
    axes = 2**31 if tensor.shape is None else len(tensor.shape)
    if type(axis) is not int or not 0 <= axis < axes:
        raise FileRefused(
            f"batch_axis of {what} is {axis!r:.80}, and it is {tensor} in the file; give the "
            f'number of one of its axes, from 0, or "{NO_BATCH}"'
        )
    return axis


def _check_fits(tensor: Tensor, shape: Sequence[Size], what: str, of_step: Shape) -> None:
    """Raise FileRefused if a tensor of the file cannot have a shape; "" is any size."""
    if tensor.shape is None:
        return
    fits = len(tensor.shape) == len(shape) and all(
        isinstance(there, str) or isinstance(size, str) or there == size
        for there, size in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        shown = ", ".join(str(size) or "the batch" for size in shape)
        raise FileRefused(
            f"{what} has shape {list(of_step)} here, which makes [{shown}] of it, and it is "
            f"{tensor} in the file; change shape, batch_axis or past"
        )


def _with_batch(shape: Shape, batch_axis: int | None) -> list[Size]:
    if batch_axis is None:
        return [*shape]
    return [*shape[:batch_axis], "", *shape[batch_axis:]]


def _resized(shape: Shape, axis: int, size: int) -> Shape:
    return shape if not shape else (*shape[:axis], size, *shape[axis + 1 :])
