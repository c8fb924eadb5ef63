"""Step a file as it is, on plain onnxruntime, one session at a time, as its own program would."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export.wrapping.description import Description, State
from export.wrapping.file import OnnxFile
from export.wrapping.refusal import FileRefused, tried
from service.spec import Array

Arrays = dict[str, Array]


class Original:
    """
    A file in plain onnxruntime. States and inputs are of one session, without the batch.

    States of past inputs are made here in numpy, by their names in the spec.
    """

    def __init__(self, file: OnnxFile, description: Description) -> None:
        """Take a file and how to step it."""
        self._file = file
        self._description = description

    def step(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[Arrays, Arrays]:
        """
        Make a step; return the outputs, and the next states by name.

        Raises:
            FileRefused: onnxruntime cannot, or the next state has another shape than the state.
        """
        feeds, following = self.feeds(inputs, states)
        with tried(
            f"{self._file.path} cannot make a step of these shapes",
            "correct shape, batch_axis or past of the tensor in question",
        ):
            names = self._description.outputs_in_file
            found = dict(zip(names, self._file.session.run(names, feeds), strict=True))
        made = self._description
        outputs = {}
        for output in made.outputs:
            outputs[output.name] = _without_batch(
                found[output.name], output.batch_axis, f"output {output.name!r}"
            )
        for state in made.states:
            following[state.name] = states[state.name]
            if state.output:
                following[state.name] = _next(state, found[state.output.name])
        return outputs, following

    def feeds(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[Arrays, Arrays]:
        """Return what the file takes in a step, by its names, and the next past inputs."""
        made = self._description
        feeds = dict(made.constants)
        following: Arrays = {}
        for each in made.inputs:
            value = inputs[each.name]
            if each.past:
                value = np.concatenate((states[each.past_name], value), each.past_axis)
                kept = value.shape[each.past_axis] - each.past
                following[each.past_name] = np.split(value, [kept], each.past_axis)[1]
            feeds[each.name] = _with_batch(value, each.batch_axis)
        for state in made.states:
            feeds[state.tensor.name] = _with_batch(states[state.name], state.batch_axis)
        return feeds, following


def _next(state: State, value: Array) -> Array:
    before = state.shape
    goes_in = _with_batch(np.empty(before, np.bool_), state.batch_axis).shape
    if value.shape == goes_in:
        return _without_batch(value, state.batch_axis, f"state {state.name!r}")
    shapes = f"goes in with shape {list(goes_in)} and comes out with {list(value.shape)}"
    grows = len(value.shape) == len(goes_in) and any(
        after > size for after, size in zip(value.shape, goes_in, strict=True)
    )
    if grows:
        raise FileRefused(
            f"state {state.name!r} grows: it {shapes}; a session's state keeps its shape, so "
            "export the network with a state of fixed size that drops what is oldest"
        )
    raise FileRefused(
        f"state {state.name!r} {shapes}; name its own pair, or correct its shape and batch_axis"
    )


def _with_batch(value: Array, axis: int | None) -> Array:
    return value if axis is None else np.expand_dims(value, axis)


def _without_batch(value: Array, axis: int | None, what: str) -> Array:
    if axis is None:
        return value
    if axis >= value.ndim or value.shape[axis] != 1:
        raise FileRefused(
            f"{what} comes with shape {list(value.shape)} for one session, which has no axis "
            f'{axis} of a batch of 1; correct its batch_axis, or say "none"'
        )
    return np.squeeze(value, axis)
