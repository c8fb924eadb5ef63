"""
Find axes of the batch with which a file steps several sessions in one run.

One session alone does not tell: any axis of size 1 may be its batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime

from export.plain_session import plain_session
from export.wrapping.description import NO_BATCH, Description, Input, Shape, State
from export.wrapping.file import OnnxFile
from export.wrapping.original import Arrays, Original
from export.wrapping.verification import CLOSE, Draws, distance
from service.spec import Array

_SESSIONS = 3
"""Sessions of a run. Few files have as many layers or frames where a batch could be."""

_STEPS = 2
"""Steps of each session alone, after which their states differ."""

_MOST = 1000
"""The most choices of axes that are tried."""

Axes = dict[str, int]
"""The axis of the batch by the file's name of a tensor."""


class Misplaced(NamedTuple):
    """A tensor whose axis of the batch is another than the description says."""

    what: str
    """Such as: state 'h'."""
    given: int | None
    fields: str
    """What the description has to say instead, such as: batch_axis = 1."""


def misplaced(file: OnnxFile, description: Description, draws: Draws) -> list[Misplaced]:
    """
    Return what to change so that the file steps several sessions in one run.

    Empty if nothing helps, or if the axes of the description do it.
    """
    try:
        session = _any_batch(file)
    # Whatever onnxruntime raises: without this model there is nothing to find out.
    except Exception:
        return []
    trial = _Trial(Original(file, description), session, description, draws)
    for axes in trial.choices():
        outputs = trial.outputs(axes)
        if outputs is not None:
            return list(_changes(description, axes, outputs, trial.shapes))
    return []


def told(changes: Sequence[Misplaced]) -> str:
    """Return what to change as part of a sentence."""
    groups: dict[tuple[str, int | None], list[str]] = {}
    for each in changes:
        groups.setdefault((each.fields, each.given), []).append(each.what)
    parts = []
    for (fields, given), names in groups.items():
        *others, last = names
        whom = f"{', '.join(others)} and {last}" if others else last
        said = f'"{NO_BATCH}"' if given is None else given
        parts.append(f"{fields} for {whom}, where it says {said}")
    return "; and with ".join(parts)


def _any_batch(file: OnnxFile) -> onnxruntime.InferenceSession:
    """Load the file with every size of its inputs and outputs left open."""
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        if value.name in file.inputs:
            for axis in value.type.tensor_type.shape.dim:
                axis.Clear()
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return plain_session(proto.SerializeToString())


class _Trial:
    """Sessions as each is alone, and runs of all of them along axes to be tried."""

    def __init__(
        self,
        original: Original,
        session: onnxruntime.InferenceSession,
        description: Description,
        draws: Draws,
    ) -> None:
        self._session = session
        self._description = description
        self._feeds: list[Arrays] = []
        for number in range(_SESSIONS):
            states = draws.start(number)
            *before, last = draws.inputs(number, _STEPS)
            for inputs in before:
                _, states = original.step(inputs, states)
            self._feeds.append(original.feeds(last, states)[0])
        self._alone = [self._run(feeds) for feeds in self._feeds]
        self.shapes: dict[str, Shape] = {
            name: value.shape for name, value in self._feeds[0].items()
        }
        """Of what the file takes for one session, with its batch."""

    def choices(self) -> Iterator[Axes]:
        """
        Yield axes of inputs and states: the description's, then those with the fewest changes.

        Tensors that are alike change together.
        """
        groups: dict[tuple[bool, int | None, Shape], list[str]] = {}
        parts: list[Input | State] = [*self._description.inputs, *self._description.states]
        for each in parts:
            shape = self.shapes[each.tensor.name]
            key = (isinstance(each, State), each.batch_axis, shape)
            groups.setdefault(key, []).append(each.tensor.name)
        axes = [
            [axis for axis in _ones(shape) if axis == given]
            + [axis for axis in _ones(shape) if axis != given]
            for _, given, shape in groups
        ]
        places = itertools.islice(itertools.product(*(range(len(each)) for each in axes)), _MOST)
        for chosen in sorted(places, key=lambda place: sum(map(bool, place))):
            yield {
                name: choices[place]
                for names, choices, place in zip(groups.values(), axes, chosen, strict=True)
                for name in names
            }

    def outputs(self, axes: Axes) -> Axes | None:
        """
        Step all sessions in one run along these axes; return the axes along which they come out.

        None if a session does not get what it gets alone, or a state comes out along another axis
        than it goes in.
        """
        feeds = {
            name: np.concatenate([each[name] for each in self._feeds], axes[name])
            if name in axes
            else value
            for name, value in self._feeds[0].items()
        }
        try:
            made = self._run(feeds)
        except Exception:  # onnxruntime's errors share no other base class
            return None
        found = {}
        for name, value in made.items():
            rows = [each[name] for each in self._alone]
            for axis in _ones(rows[0].shape):
                if distance({name: value}, {name: np.concatenate(rows, axis)}) <= CLOSE:
                    found[name] = axis
        fits = made.keys() == found.keys() and all(
            axes[state.tensor.name] == found[state.output.name]
            for state in self._description.states
            if state.output
        )
        return found if fits else None

    def _run(self, feeds: Mapping[str, Array]) -> Arrays:
        names = self._description.outputs_in_file
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def _ones(shape: Shape) -> list[int]:
    """Return the axes of size 1, of which each may be the batch of one session."""
    return [axis for axis, size in enumerate(shape) if size == 1]


def _changes(
    description: Description, axes: Axes, outputs: Axes, shapes: Mapping[str, Shape]
) -> Iterator[Misplaced]:
    """Yield what differs from a description."""
    for each in description.inputs:
        found = axes[each.name]
        if found != each.batch_axis:
            yield Misplaced(f"input {each.name!r}", each.batch_axis, _of_input(each, found, shapes))
    for output in description.outputs:
        found = outputs[output.name]
        if found != output.batch_axis:
            what = f"output {output.name!r}"
            yield Misplaced(what, output.batch_axis, f"batch_axis = {found}")
    for state in description.states:
        found = axes[state.tensor.name]
        if found != state.batch_axis:
            shape = _without(shapes[state.tensor.name], found)
            fields = _fields(found, shape if shape != state.shape else None)
            yield Misplaced(f"state {state.name!r}", state.batch_axis, fields)


def _of_input(each: Input, found: int, shapes: Mapping[str, Shape]) -> str:
    whole = shapes[each.name]
    if not each.past:
        shape = _without(whole, found)
        return _fields(found, shape if shape != each.shape else None)
    given = each.batch_axis
    past_axis = each.past_axis + (given is not None and given <= each.past_axis)
    sizes = list(whole)
    sizes[past_axis] -= each.past
    shape, past_axis = _without(tuple(sizes), found), past_axis - (past_axis > found)
    fields = _fields(found, shape if shape != each.shape else None)
    return fields + f" and past_axis = {past_axis}" * (past_axis != each.past_axis)


def _fields(batch_axis: int, shape: Shape | None) -> str:
    """Return what a description has to say of a tensor."""
    return f"batch_axis = {batch_axis}" + (f" and shape = {list(shape)}" if shape else "")


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])
