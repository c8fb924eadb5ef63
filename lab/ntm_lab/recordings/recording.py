"""A recording: a sequence that went through a network, its outputs and everything its heads did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ntm_client.blocking import Session
from ntm_client.errors import InvalidRequest
from ntm_client.values import Float32, Memory, Model, StateTensor
from ntm_lab import vectors
from ntm_lab.recordings.window import locations_in_use
from ntm_tasks import Size, TaskSequence

READ_WEIGHTING, WRITE_WEIGHTING = "read_weighting", "write_weighting"
READ_VECTOR, ADD_VECTOR, ERASE_VECTOR = "read_vector", "add_vector", "erase_vector"
ALLOCATION, USAGE = "allocation", "usage"
ALLOCATION_GATE, WRITE_GATE, FREE_GATE, READ_MODE = (
    "allocation_gate",
    "write_gate",
    "free_gate",
    "read_mode",
)
"""The names of traces that pictures show if the model has them; the last two lines are a DNC's."""

OVER_LOCATIONS = (READ_WEIGHTING, WRITE_WEIGHTING, ALLOCATION, USAGE)
"""Those of the traces that have a value for each memory location."""


@dataclass(frozen=True, eq=False)
class Recording:
    """
    T steps of a session. Neither the fields nor the arrays can be changed.

    Everything about a task is None or empty if the inputs are a user's own.
    """

    model: Model
    """As the server described it, without the list of its versions."""
    locations: int
    """Memory locations of the session, N; 0 for a network without memory."""
    inputs: Float32
    """[T, input width]"""
    outputs: Float32
    """[T, output width]"""
    traces: Mapping[str, Float32]
    """Every trace that the model has, by name: [T, heads, width]."""
    before: Memory | None = None
    """Memory [N, M] and weightings [heads, N] before the first step; None without a memory."""
    after: Memory | None = None
    """The same after the last step."""
    size: Size | None = None
    """The size of the task's sequence, in the order of the task's `size_names`."""
    target: Float32 | None = None
    """[T, output width]: the task's answer, 0 or 1; zeros where the mask is 0."""
    mask: Float32 | None = None
    """[T]: 1 in the steps whose output counts, else 0."""
    optimum: Float32 | None = None
    """[T, output width]: the best probabilities that a predictor could give, where known."""
    marks: Mapping[int, str] = field(default_factory=dict)
    """The names of steps to point out, such as a delimiter, by the index of the step."""

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "target", "mask", "optimum"):
            array = getattr(self, name)
            object.__setattr__(self, name, None if array is None else _unchangeable(array))
        for name in ("before", "after"):
            memory = getattr(self, name)
            object.__setattr__(self, name, memory and _unchangeable_memory(memory))
        # As much of the model as files have; a step is a vector each way.
        state = tuple(StateTensor(tensor.name, tensor.shape) for tensor in self.model.state)
        plain = replace(self.model, versions=(), state=state, inputs=(), outputs=(), batched=True)
        object.__setattr__(self, "model", plain)
        traces = {name: _unchangeable(values) for name, values in self.traces.items()}
        object.__setattr__(self, "traces", MappingProxyType(traces))
        object.__setattr__(self, "marks", MappingProxyType(dict(self.marks)))

    @property
    def title(self) -> str:
        """The title of a picture: the model, and the sizes of sequence and memory."""
        places = f"{self.locations} locations" if self.locations else "no memory"
        return f"{self.model.name}: {len(self.inputs)} steps, {places}"

    def wrong(self) -> npt.NDArray[np.bool_] | None:
        """
        [T, output width]: whether a bit counts and differs from the target.

        None without a task, or if the task's bits can only be guessed.
        """
        if self.target is None or self.mask is None or self.optimum is not None:
            return None
        wrong: npt.NDArray[np.bool_] = (self.outputs > 0.5) != (self.target > 0.5)
        return wrong & (self.mask > 0)[:, None]

    def result(self) -> str | None:
        """The number of wrong bits, and the number of bits that count; None if `wrong` is None."""
        wrong = self.wrong()
        if wrong is None or self.mask is None:
            return None
        return f"{wrong.sum()} of {int((self.mask > 0).sum()) * wrong.shape[1]} bits wrong"

    def window(self) -> npt.NDArray[np.intp]:
        """The memory locations that the heads use, in the order in which they are drawn."""
        weightings = [
            self.traces[name] for name in (READ_WEIGHTING, WRITE_WEIGHTING) if name in self.traces
        ]
        if not weightings and self.before is not None and self.after is not None:
            # A network that traces no weighting may still have heads in its state.
            ends = (self.before, self.after)
            weightings = [each.read_weightings[None] for each in ends]
            weightings += [each.write_weightings[None] for each in ends]
        return locations_in_use(weightings) if weightings else np.arange(0)


def record(session: Session, inputs: Float32) -> Recording:
    """Make the steps [T, input width], at least one, with every trace that the model has."""
    model = session.model
    vectors.check(model)
    before = _memory(session)
    result = session.step(inputs, traces=[trace.name for trace in model.traces])
    after = _memory(session)
    return Recording(model, session.locations, inputs, result.array, result.traces, before, after)


def record_task(session: Session, sequence: TaskSequence) -> Recording:
    """
    Let a new session do a task, and record it together with the task.

    Raises:
        InvalidRequest: the widths of model and task differ; no step was made.
    """
    _check(sequence, session.model)
    return replace(
        record(session, sequence.inputs),
        size=sequence.size,
        target=sequence.target,
        mask=sequence.mask,
        optimum=sequence.optimum,
        marks=sequence.marks,
    )


def _check(sequence: TaskSequence, model: Model) -> None:
    vectors.check(model)
    takes, gives = sequence.inputs.shape[1], sequence.target.shape[1]
    if (model.input_width, model.output_width) != (takes, gives):
        raise InvalidRequest(
            f"{model.name} takes {model.input_width} value{'s' * (model.input_width != 1)} "
            f"and gives {model.output_width}: not a model of the {sequence.task} task, "
            f"which takes {takes} and gives {gives}"
        )


def _memory(session: Session) -> Memory | None:
    return session.read_memory() if session.locations else None


def _unchangeable_memory(memory: Memory) -> Memory:
    return replace(
        memory,
        memory=_unchangeable(memory.memory),
        read_weightings=_unchangeable(memory.read_weightings),
        write_weightings=_unchangeable(memory.write_weightings),
    )


def _unchangeable(values: Float32) -> Float32:
    if not values.flags.writeable:
        return values
    copied = np.array(values, np.float32)
    copied.flags.writeable = False
    return copied
