"""What a session can be asked to do in order: chunks of steps, and operations between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.spec import Float32, TraceTensor

if TYPE_CHECKING:
    from service.engine.sessions import Session


def _nobody(_: object) -> None:
    """Is told of work that nobody waits for."""


# Without slots: what most work never changes stays in the class, and costs nothing to set up.
@dataclass(eq=False)
class Work:
    """Something asked of one session. Finished once it has an outcome or an error."""

    session_id: str
    caller: str = field(default="", init=False)
    """Owner that the session must have; empty where whoever knows its id may use it."""
    known_epoch: int = field(default=0, init=False)
    """The session's latest epoch that whoever asked was told; 0 for none."""
    tag: int = field(default=0, init=False)
    """For whoever asked: told from other work of his by it."""
    answered: Callable[[Any], object] = field(default=staticmethod(_nobody), init=False)
    """Called on the event loop with the work itself when it is finished."""
    cancelled: bool = field(default=False, init=False)
    """Set when nobody waits for the outcome any more; waiting work is then dropped."""
    outcome: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)


@dataclass(eq=False)
class Operation(Work):
    """Something done to a session in one go, after all that waits before it."""

    action: Callable[[Session], Any]
    """Its result is the outcome."""


class Run(NamedTuple):
    """One run of the network that a chunk was part of."""

    started_seconds: float
    """By the monotonic clock."""
    seconds: float
    ticks: int
    rows: int


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
    """The outputs of a chunk's steps, [steps, Y], and what was traced."""

    first_step: int
    outputs: Float32
    traces: tuple[TraceRows, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the outputs and the traces."""
        traced = sum(rows.nbytes for rows in self.traces) if self.traces else 0
        return self.outputs.nbytes + traced


@dataclass(eq=False)
class Chunk(Work):
    """Consecutive steps of one session."""

    inputs: Float32
    """[steps, X]."""
    first_step: int | None
    """Index that the session must have reached, or None for any; set when it has begun."""
    selection: tuple[str, ...] = ()
    """Names of the traces wanted."""
    top_k: int = 0
    is_indexed: bool = field(default=False, init=False)
    """Whether it came with its first step, so that its client may send it again."""
    model: str = field(default="", init=False)
    """Name of the session's model, once it has begun or was found to be made."""
    submitted_seconds: float = field(default=0.0, init=False)
    """When it was admitted, by the engine's clock."""
    begun_seconds: float = field(default=0.0, init=False)
    """When its first tick was scheduled, by the engine's clock."""
    finished_seconds: float = field(default=0.0, init=False)
    """When its last tick was committed, or it was found to be made, by the engine's clock."""
    durable_step: int = field(default=0, init=False)
    """Steps of the session before this one were stored when the chunk was answered."""
    epoch: int = field(default=0, init=False)
    """The session's when the chunk was answered; 0 where there is no store."""
    reply_bytes: int = field(default=0, init=False)
    """About what its outputs and traces will take, unless that is little; from its admission on."""
    remaining: int = field(default=0, init=False)
    """Steps not yet made, from its admission on."""
    done: int = field(default=0, init=False)
    """Steps made so far."""
    outputs: Float32 = field(init=False)
    """[steps, Y]; the first `done` rows are filled."""
    traces: Sequence[tuple[TraceTensor, TraceRows]] = field(default=(), init=False)
    """Allocated by `begin`, filled like the outputs."""
    runs: list[Run] | None = field(default=None, init=False)
    """Every run so far; None unless somebody wants to know."""

    def __post_init__(self) -> None:
        """Note whether there is an index."""
        self.is_indexed = self.first_step is not None

    def begin(self, session: Session) -> None:
        """Note the index of the first step, and allocate what is to be traced."""
        self.first_step = session.next_step
        self.model = session.model
        if self.selection:
            self.traces = [self._traced(name, session) for name in self.selection]

    def advance(self, outputs: Float32, traces: Mapping[str, Float32], row: int) -> None:
        """
        Take over the results of the next ticks.

        Args:
            outputs: [ticks, Y]; kept if they are all that the chunk has, else copied.
            traces: by graph output, [ticks, batch, all heads, width]; copied.
            row: the chunk's in the batch.
        """
        ticks = len(outputs)
        if ticks == len(self.inputs):
            self.outputs = outputs
        else:
            if not self.done:
                self.outputs = np.empty((len(self.inputs), outputs.shape[1]), np.float32)
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

    def _traced(self, name: str, session: Session) -> tuple[TraceTensor, TraceRows]:
        """A trace and the rows to fill of it."""
        tensor = session.slab.network.spec.trace(name)
        assert tensor is not None, "selections are checked when a chunk is submitted"
        width, sparse = trace_width(tensor, session.locations, self.top_k)
        shape = (len(self.inputs), tensor.heads, width)
        locations = np.empty(shape, np.uint32) if sparse else None
        return tensor, TraceRows(name, np.empty(shape, np.float32), locations)

    def finish(self, now_seconds: float) -> None:
        """Set the outcome; every step has been made, the last one now."""
        self.finished_seconds = now_seconds
        assert self.first_step is not None, "begun"
        traces = tuple(rows for _, rows in self.traces) if self.traces else ()
        self.outcome = ChunkOutcome(self.first_step, self.outputs, traces)


def trace_width(tensor: TraceTensor, locations: int, top_k: int) -> tuple[int, bool]:
    """Values for a head and step, and whether they are the top k of a weighting."""
    if isinstance(tensor.width, int):
        return tensor.width, False
    return (min(top_k, locations), True) if top_k else (locations, False)


def _largest(values: Float32, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` largest elements along the last axis, in falling order of value."""
    order: npt.NDArray[np.int64] = np.argsort(-values, axis=-1, kind="stable")[..., :count]
    return order
