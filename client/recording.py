"""A sequence as it went through a network, with what the heads did: what pictures show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from client.blocking import Session
from client.copy_task import CopySequence
from client.records import Float32
from client.window import locations_in_use

READ_WEIGHTING, WRITE_WEIGHTING = "read_weighting", "write_weighting"
READ_VECTOR, ADD_VECTOR = "read_vector", "add_vector"
TRACES = (READ_WEIGHTING, WRITE_WEIGHTING, READ_VECTOR, ADD_VECTOR)
"""The traces that a picture shows, as far as the model has them."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A sequence as it went through a network."""

    title: str
    inputs: Float32
    """[steps, input_width]"""
    outputs: Float32
    """[steps, output_width]"""
    traces: Mapping[str, Float32]
    """By name, [steps, heads, width]."""
    marks: Mapping[int, str] = field(default_factory=dict)
    """Steps to point out, such as a delimiter, with what they are."""
    answer_start: int = 0
    """First step whose outputs the task asks for; a network is free in those before it."""

    def locations(self) -> npt.NDArray[np.intp]:
        """The memory locations that the heads use, in the order in which to draw them."""
        weightings = [
            self.traces[name] for name in (READ_WEIGHTING, WRITE_WEIGHTING) if name in self.traces
        ]
        return locations_in_use(weightings) if weightings else np.arange(0)


def record(session: Session, inputs: Float32) -> Recording:
    """Make the steps of a new session, traced."""
    model = session.model
    result = session.step(inputs, traces=[name for name in TRACES if model.trace(name)])
    return Recording(_title(session, inputs), inputs, result.outputs, result.traces)


def record_copy(session: Session, sequence: CopySequence) -> Recording:
    """Let a new session copy, traced."""
    delimiter = sequence.delimiter_step
    recording = record(session, sequence.inputs)
    return replace(recording, marks={delimiter: "delimiter"}, answer_start=delimiter + 1)


def _title(session: Session, inputs: Float32) -> str:
    places = f"{session.locations} locations" if session.locations else "no memory"
    return f"{session.model.name}: {len(inputs)} steps, {places}"
