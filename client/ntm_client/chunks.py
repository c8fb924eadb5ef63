"""Splits steps into messages, and joins the results of several messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.errors import InvalidRequest
from ntm_client.values import Model, StepResult, TraceTensor

MESSAGE_OVERHEAD_BYTES = 4096
"""An upper bound for everything in a chunk or a reply besides values: ids, names, lengths."""

VALUE_BYTES = 4


@dataclass(frozen=True)
class Limits:
    """The limits of one message."""

    chunk_steps: int = 256
    max_message_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        if self.chunk_steps < 1:
            raise ValueError(f"chunk_steps must be at least 1, not {self.chunk_steps}")
        if self.max_message_bytes <= MESSAGE_OVERHEAD_BYTES:
            raise ValueError(
                f"max_message_bytes must be more than {MESSAGE_OVERHEAD_BYTES}, "
                f"not {self.max_message_bytes}"
            )


@dataclass(frozen=True)
class Selection:
    """The traces that a call asks for, in a session with `locations` memory locations."""

    traces: tuple[TraceTensor, ...]
    locations: int
    top_k: int

    @classmethod
    def of(cls, model: Model, names: Sequence[str], locations: int, top_k: int) -> Selection:
        """
        Select the model's traces with these names.

        Raises:
            InvalidRequest: the model has no trace of some name, or top_k is negative.
        """
        if top_k < 0:
            raise InvalidRequest(f"top_k must not be negative, not {top_k}")
        found = {trace.name: trace for trace in model.traces}
        unknown = [name for name in names if name not in found]
        if unknown:
            known = ", ".join(found) or "none"
            raise InvalidRequest(f"{model.name} has no trace {unknown[0]!r}; its traces: {known}")
        return cls(tuple(found[name] for name in names), locations, top_k)

    def step_bytes(self) -> int:
        """The bytes of the traces of one step."""
        return sum(
            trace.heads
            * trace.width_at(self.locations, self.top_k)
            * VALUE_BYTES
            * (2 if self.top_k and trace.width < 0 else 1)
            for trace in self.traces
        )

    def empty(self, model: Model, first_step: int) -> StepResult:
        """A result without steps, whose arrays have the right widths."""
        shapes = {
            trace.name: (0, trace.heads, trace.width_at(self.locations, self.top_k))
            for trace in self.traces
        }
        return StepResult(
            first_step=first_step,
            outputs=np.zeros((0, model.output_width), np.float32),
            traces={name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
            locations={
                trace.name: np.zeros(shapes[trace.name], np.uint32)
                for trace in self.traces
                if self.top_k and trace.width < 0
            },
        )


def steps_per_chunk(model: Model, selection: Selection, limits: Limits) -> int:
    """
    The largest number of steps whose inputs and reply each fit into one message.

    Raises:
        InvalidRequest: not even one step does.
    """
    answer_bytes = model.output_width * VALUE_BYTES + selection.step_bytes()
    step_bytes = max(model.input_width * VALUE_BYTES, answer_bytes)
    fitting = (limits.max_message_bytes - MESSAGE_OVERHEAD_BYTES) // step_bytes
    if fitting < 1:
        raise InvalidRequest(
            f"one step takes {step_bytes} bytes and a message holds {limits.max_message_bytes}: "
            f"select fewer traces, set top_k, or raise max_message_bytes here and on the server"
        )
    return min(limits.chunk_steps, fitting)


def join(results: Sequence[StepResult]) -> StepResult:
    """Join the results of consecutive chunks into one."""
    first = results[0]
    if len(results) == 1:
        return first
    return StepResult(
        first_step=first.first_step,
        outputs=np.concatenate([result.outputs for result in results]),
        traces={
            name: np.concatenate([result.traces[name] for result in results])
            for name in first.traces
        },
        locations={
            name: np.concatenate([result.locations[name] for result in results])
            for name in first.locations
        },
    )


def only_step(result: StepResult) -> StepResult:
    """The result of a single step, without the axis of steps."""
    return StepResult(
        first_step=result.first_step,
        outputs=result.outputs[0],
        traces={name: values[0] for name, values in result.traces.items()},
        locations={name: values[0] for name, values in result.locations.items()},
    )
