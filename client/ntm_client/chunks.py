"""Splits steps into messages, and joins the results of several messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client import arguments
from ntm_client.errors import InvalidArgument
from ntm_client.values import Limits, Model, StepResult, TraceTensor

MESSAGE_OVERHEAD_BYTES = 4096
"""An upper bound for everything in a chunk besides values: ids, names, lengths."""

VALUE_BYTES = 4

MAX_CHUNKS_AT_ONCE = 4
"""The largest number of chunks of one session that are sent before they are answered."""


@dataclass(frozen=True)
class OwnLimits:
    """What a client sends and asks for in one message, where the server would allow more."""

    chunk_steps: int = 256
    max_message_bytes: int = 2**31 - 1

    def __post_init__(self) -> None:
        arguments.whole("chunk_steps", self.chunk_steps, 1)
        arguments.whole("max_message_bytes", self.max_message_bytes, MESSAGE_OVERHEAD_BYTES + 1)


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
            InvalidArgument: the model has no trace of some name, or top_k is no whole number.
        """
        names = arguments.names("traces", names)
        top_k = arguments.whole("top_k", top_k)
        if not names:
            return cls((), locations, top_k)
        found = {trace.name: trace for trace in model.traces}
        unknown = [name for name in names if name not in found]
        if unknown:
            known = ", ".join(found) or "none"
            raise InvalidArgument(f"{model.name} has no trace {unknown[0]!r}; its traces: {known}")
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
            outputs=np.zeros(0, model.output_record),
            traces={name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
            locations={
                trace.name: np.zeros(shapes[trace.name], np.uint32)
                for trace in self.traces
                if self.top_k and trace.width < 0
            },
        )


def steps_per_chunk(model: Model, selection: Selection, own: OwnLimits, limits: Limits) -> int:
    """
    The largest number of steps that client and server allow in one chunk, and whose inputs and
    reply each fit into one message.

    Raises:
        InvalidArgument: not even one step does.
    """
    own_room = own.max_message_bytes - MESSAGE_OVERHEAD_BYTES
    input_bytes = model.input_record.itemsize
    reply_bytes = model.output_record.itemsize + selection.step_bytes()
    for_inputs = min(own_room, limits.max_message_bytes - MESSAGE_OVERHEAD_BYTES)
    for_reply = min(own_room, limits.max_reply_bytes)
    fitting = min(for_inputs // input_bytes, for_reply // reply_bytes)
    if fitting < 1:
        is_own = own.max_message_bytes < limits.max_message_bytes
        raise InvalidArgument(
            f"one step takes {input_bytes} bytes, its reply {reply_bytes}, and a message holds "
            f"{min(own.max_message_bytes, limits.max_message_bytes)}: select fewer traces, set "
            "top_k, or "
            + (
                "raise max_message_bytes"
                if is_own
                else "start the server with a larger --max-message-bytes"
            )
        )
    return min(own.chunk_steps, limits.max_chunk_steps, limits.max_waiting_steps, fitting)


def chunks_at_once(model: Model, selection: Selection, steps: int, limits: Limits) -> int:
    """
    The number of chunks of this many steps that may be on their way, so that the server has a next
    one when it finishes one.

    The server keeps the replies of all of them, so that they can be asked for again after a loss.
    """
    reply_bytes = steps * (model.output_record.itemsize + selection.step_bytes())
    kept = limits.max_replay_bytes // max(1, reply_bytes)
    return max(1, min(MAX_CHUNKS_AT_ONCE, kept, limits.max_waiting_steps // steps))


@dataclass(frozen=True)
class Plan:
    """
    How the steps of a call are put into chunks. It is made once for all calls of a session that
    ask for the same, since a lone step takes little longer than to make it.
    """

    names: Sequence[str]
    """What the caller gave as `traces`."""
    top_k: int
    limits: Limits
    selection: Selection
    steps: int
    """The steps of a chunk."""
    at_once: int
    """The chunks that may be on their way."""

    @classmethod
    def of(
        cls,
        model: Model,
        names: Sequence[str],
        locations: int,
        top_k: int,
        own: OwnLimits,
        limits: Limits,
    ) -> Plan:
        """Raises InvalidArgument as `Selection.of` and `steps_per_chunk` do."""
        selection = Selection.of(model, names, locations, top_k)
        steps = steps_per_chunk(model, selection, own, limits)
        at_once = chunks_at_once(model, selection, steps, limits)
        names = tuple(names)  # a list may change
        return cls(names, top_k, limits, selection, steps, at_once)

    def is_for(self, names: Sequence[str], top_k: int, limits: Limits) -> bool:
        """Whether this is the plan of a call with these arguments, which were not checked yet."""
        return (
            self.limits is limits
            and type(top_k) is int
            and top_k == self.top_k
            and type(names) in (tuple, list)
            and tuple(names) == self.names
        )


def join(results: Sequence[StepResult]) -> StepResult:
    """Join the results of consecutive chunks into one."""
    first = results[0]
    if len(results) == 1:
        return first
    return StepResult(
        first_step=first.first_step,
        outputs=np.concatenate([result.array for result in results]),
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
        outputs=result.array[0],
        traces={name: values[0] for name, values in result.traces.items()},
        locations={name: values[0] for name, values in result.locations.items()},
    )
