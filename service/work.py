"""What a session can be asked to do in order: chunks of steps, and operations between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from service.errors import NtmError
from service.spec import Float32, TraceTensor

if TYPE_CHECKING:
    from service.sessions import Session


@dataclass(eq=False, slots=True)
class Work:
    """Something asked of one session. Finished once it has an outcome or an error."""

    session_id: str
    cancelled: bool = field(default=False, init=False)
    """Set when nobody waits for the outcome any more; waiting work is then dropped."""
    outcome: Any = field(default=None, init=False)
    error: NtmError | None = field(default=None, init=False)


@dataclass(eq=False, slots=True)
class Operation(Work):
    """Something done to a session in one go, after all that waits before it."""

    action: Callable[[Session], Any]
    """Its result is the outcome."""


@dataclass(frozen=True, slots=True)
class TraceRows:
    """A trace of a chunk: values [steps, heads, width]; with top k, also their locations."""

    name: str
    values: Float32
    locations: npt.NDArray[np.uint32] | None


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """The outputs of a chunk's steps, [steps, Y], and what was traced."""

    first_step: int
    outputs: Float32
    traces: tuple[TraceRows, ...]


@dataclass(eq=False, slots=True)
class Chunk(Work):
    """Consecutive steps of one session."""

    inputs: Float32
    """[steps, X]."""
    first_step: int | None
    """Index that the session must have reached, or None for any."""
    selection: tuple[str, ...] = ()
    """Names of the traces wanted."""
    top_k: int = 0
    submitted_seconds: float | None = field(default=None, init=False)
    """When it was admitted, by the engine's clock; None if it was refused."""
    done: int = field(default=0, init=False)
    """Steps made so far."""
    outputs: Float32 = field(init=False)
    """[steps, Y]; the first `done` rows are filled. Allocated by `begin`."""
    traces: list[tuple[TraceTensor, TraceRows]] = field(default_factory=list, init=False)

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return len(self.inputs)

    @property
    def remaining(self) -> int:
        """Steps not yet made."""
        return len(self.inputs) - self.done

    def begin(self, session: Session) -> None:
        """Allocate the buffers and note the index of the first step."""
        spec = session.slab.network.spec
        self.first_step = session.next_step
        self.outputs = np.empty((self.steps, spec.output_width), np.float32)
        for name in self.selection:
            tensor = spec.trace(name)
            assert tensor is not None, "selections are checked when a chunk is submitted"
            width, sparse = trace_width(tensor, session.locations, self.top_k)
            shape = (self.steps, tensor.heads, width)
            locations = np.empty(shape, np.uint32) if sparse else None
            self.traces.append((tensor, TraceRows(name, np.empty(shape, np.float32), locations)))

    def advance(self, outputs: Float32, traces: dict[str, Float32]) -> None:
        """
        Take over the results of the next ticks.

        Args:
            outputs: [ticks, Y].
            traces: by graph output, [ticks, all heads, width].
        """
        made = slice(self.done, self.done + len(outputs))
        self.outputs[made] = outputs
        for tensor, rows in self.traces:
            heads = slice(tensor.first_head, tensor.first_head + tensor.heads)
            values = traces[tensor.output][:, heads]
            if rows.locations is None:
                rows.values[made] = values
            else:
                rows.locations[made] = _largest(values, rows.values.shape[-1])
                rows.values[made] = np.take_along_axis(values, rows.locations[made], axis=-1)
        self.done += len(outputs)

    def finish(self) -> None:
        """Set the outcome; every step has been made."""
        assert self.first_step is not None, "begun"
        traces = tuple(rows for _, rows in self.traces)
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
