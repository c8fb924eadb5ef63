"""Work: what callers ask of a session, done in order. Most work is chunks of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.session_ref import SessionRef
from service.spec import Array, Float32, ModelSpec, TraceTensor


def _ignore(_: object) -> None:
    """Does nothing with an answer that nobody waits for."""


# This class has no slots: an attribute that most work never changes stays in the class and costs
# nothing.
@dataclass(eq=False)
class Work:
    """
    Something that a caller asks of one session. It is finished once it has an outcome or an error.
    """

    ref: SessionRef
    """The session, and the caller that asks."""
    tag: int = field(default=0, init=False)
    """A number chosen by the caller, which distinguishes the answers of one stream."""
    answered: Callable[[Any], object] = field(default=staticmethod(_ignore), init=False)
    """Called on the event loop with the work itself when it is finished."""
    cancelled: bool = field(default=False, init=False)
    """Set when the caller no longer waits for the outcome; waiting work is then dropped."""
    outcome: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)


class NetworkRun(NamedTuple):
    """One run of the network that a chunk was part of."""

    started_seconds: float
    """When the run began, by the monotonic clock."""
    seconds: float
    ticks: int
    rows: int


class Selection(NamedTuple):
    """The traces that a chunk asks for."""

    names: tuple[str, ...] = ()
    top_k: int = 0
    """The number of elements of each weighting to return, the largest ones; 0 for all."""


NO_TRACES = Selection()


@dataclass(frozen=True, slots=True)
class TraceRows:
    """A trace of a chunk: values [steps, heads, width]; with top k, also their locations."""

    name: str
    values: Float32
    locations: npt.NDArray[np.uint32] | None

    @property
    def nbytes(self) -> int:
        """Bytes of the values and the locations."""
        return self.values.nbytes * (1 if self.locations is None else 2)


class ChunkOutcome(NamedTuple):
    """The outputs of a chunk's steps, and what was traced."""

    first_step: int
    outputs: Array
    """[steps] of `ModelSpec.output_record`, [steps, Y] for a model that gives one vector."""
    traces: tuple[TraceRows, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the outputs and the traces."""
        traced = sum(rows.nbytes for rows in self.traces) if self.traces else 0
        return self.outputs.nbytes + traced


@dataclass(eq=False)
class Chunk(Work):
    """Consecutive steps of one session."""

    # The caller's request.
    content: bytes | Array
    """The inputs as they came, in one row."""
    first_step: int | None
    """Index that the session must have reached; None for any, and then it cannot be sent again."""
    selection: Selection = NO_TRACES

    # The progress so far.
    inputs: Array = field(init=False)
    """
    A view of `content`, set on admission: [steps] of `ModelSpec.input_record`, [steps, X] for a
    model that takes one vector.
    """
    reply_bytes: int = field(default=0, init=False)
    """Size of its outputs and traces, set on admission; 0 where they are small."""
    remaining: int = field(default=0, init=False)
    """Steps not yet made, from its admission on."""
    done: int = field(default=0, init=False)
    """Steps made so far."""
    start: int = field(default=0, init=False)
    """Index of its first step, once it has begun."""
    outputs: Array = field(init=False)
    """As in `ChunkOutcome`; the first `done` rows are filled."""
    traces: Sequence[tuple[TraceTensor, TraceRows]] = field(default=(), init=False)
    """Allocated by `begin`, filled like the outputs."""
    submitted_seconds: float = field(default=0.0, init=False)
    """When it was admitted, by the engine's clock."""
    begun_seconds: float = field(default=0.0, init=False)
    """When its first tick was scheduled, by the engine's clock."""
    finished_seconds: float = field(default=0.0, init=False)
    """When its last tick was committed or its replay was found, by the engine's clock."""
    runs: list[NetworkRun] | None = field(default=None, init=False)
    """The runs so far; None unless the call is traced."""

    # The answer's values besides the outcome.
    model: str = field(default="", init=False)
    """Name of the session's model, once it has begun or its replay was found."""
    durable_step: int = field(default=0, init=False)
    """Steps of the session before this one were stored when the chunk was answered."""
    epoch: int = field(default=0, init=False)
    """The session's epoch when the chunk was answered; 0 if there is no store."""

    def begin(self, next_step: int, model: str, spec: ModelSpec, locations: int) -> None:
        """Start at the session's next step, and allocate the rows of its traces."""
        self.start = next_step
        self.model = model
        if self.selection.names:
            self.traces = [self._traced(name, spec, locations) for name in self.selection.names]

    def advance(self, outputs: Array, traces: Mapping[str, Float32], row: int) -> None:
        """
        Take over the results of the next ticks.

        Args:
            outputs: [ticks, ...]; kept without a copy if the chunk has no other steps, else copied.
            traces: by graph output, [ticks, batch, all heads, width]; copied.
            row: the chunk's in the batch.
        """
        ticks = len(outputs)
        if ticks == len(self.inputs):
            self.outputs = outputs
        else:
            if not self.done:
                self.outputs = np.empty((len(self.inputs), *outputs.shape[1:]), outputs.dtype)
            self.outputs[self.done : self.done + ticks] = outputs
        for tensor, rows in self.traces:
            made = slice(self.done, self.done + ticks)
            heads = slice(tensor.first_head, tensor.first_head + tensor.heads)
            values = traces[tensor.output][:, row, heads]
            if rows.locations is None:
                rows.values[made] = values
            else:
                rows.locations[made] = _largest(values, rows.values.shape[-1])
                rows.values[made] = np.take_along_axis(values, rows.locations[made], axis=-1)
        self.done += ticks
        self.remaining -= ticks

    def _traced(self, name: str, spec: ModelSpec, locations: int) -> tuple[TraceTensor, TraceRows]:
        """A trace and the rows that will hold it."""
        tensor = spec.trace(name)
        assert tensor is not None, "selections are checked when a chunk is submitted"
        width, sparse = trace_width(tensor, locations, self.selection.top_k)
        shape = (len(self.inputs), tensor.heads, width)
        places = np.empty(shape, np.uint32) if sparse else None
        return tensor, TraceRows(name, np.empty(shape, np.float32), places)

    def finish(self, now_seconds: float) -> None:
        """Set the outcome, after the last step was made."""
        self.finished_seconds = now_seconds
        traces = tuple(rows for _, rows in self.traces) if self.traces else ()
        self.outcome = ChunkOutcome(self.start, self.outputs, traces)


def trace_width(tensor: TraceTensor, locations: int, top_k: int) -> tuple[int, bool]:
    """Values of a head at a step, and whether they are the `top_k` largest of a weighting."""
    if isinstance(tensor.width, int):
        return tensor.width, False
    return (min(top_k, locations), True) if top_k else (locations, False)


def _largest(values: Float32, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` largest elements along the last axis, in falling order of value."""
    order: npt.NDArray[np.int64] = np.argsort(-values, axis=-1, kind="stable")[..., :count]
    return order
