"""
The panels of a picture of a recording, as in figure 6 of the paper, for any way of drawing.

Time runs to the right. On the left is what goes into the memory: inputs, add and erase vectors and
where they are written; on the right what comes out: outputs, what they should have been, read
vectors and where they are read. A network that keeps a record of what is in use has that too, with
its gates. Below is the memory, before the first step and after the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32, Memory
from ntm_lab.recordings.recording import (
    ADD_VECTOR,
    ALLOCATION,
    ALLOCATION_GATE,
    ERASE_VECTOR,
    FREE_GATE,
    OVER_LOCATIONS,
    READ_MODE,
    READ_VECTOR,
    READ_WEIGHTING,
    USAGE,
    WRITE_GATE,
    WRITE_WEIGHTING,
    Recording,
)

USUAL = 0.98
"""The share of values that lie within the range of the colours."""

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Panel:
    """Images of one kind below each other: one for each head, or a single one."""

    title: str
    images: tuple[Float32, ...]
    """[columns, rows] each, all of the same shape."""
    rows: str
    """The name of what a row stands for, such as "location"."""
    columns: str = "step"
    """The name of what a column stands for."""
    row_names: Indices | None = None
    """The location of each row; None if rows are numbered from 0."""
    column_names: Indices | None = None
    """The location of each column; None if columns are numbered from 0."""
    low: float = 0.0
    high: float = 1.0
    """
    The values at the ends of the colours. Zero is at the low end or in the middle. Values may lie
    beyond the ends.
    """
    pale_steps: int = 0
    """
    The number of steps at the beginning that are drawn pale, because their outputs do not count.
    """
    wrong: npt.NDArray[np.bool_] | None = None
    """[columns, rows]: whether a bit is wrong."""
    heads: Mapping[str, Float32] = field(default_factory=dict)
    """The weightings over the columns, [heads, columns], under the keys `read` and `write`."""

    @property
    def is_weighting(self) -> bool:
        """Whether rows are memory locations, in which a peak must stay visible."""
        return self.row_names is not None


def columns(recording: Recording) -> tuple[list[Panel], list[Panel]]:
    """The panels of the left and of the right column, from top to bottom."""
    left = [_vectors("inputs", [recording.inputs], "channel")]
    left += _of_heads(recording, ADD_VECTOR) + _of_heads(recording, ERASE_VECTOR)
    left += _of_heads(recording, WRITE_WEIGHTING)
    right = _outputs(recording) + _of_heads(recording, READ_VECTOR)
    right += _of_heads(recording, READ_WEIGHTING)
    if ALLOCATION in recording.traces:  # an NTM has another gate by one of these names
        for name in (ALLOCATION, USAGE, ALLOCATION_GATE, WRITE_GATE):
            left += _of_heads(recording, name)
        for name in (READ_MODE, FREE_GATE):
            right += _of_heads(recording, name)
    return left, right


def memories(recording: Recording) -> tuple[Panel, Panel] | None:
    """The memory before and after, on one scale; None for a network without."""
    before, after = recording.before, recording.after
    if before is None or after is None:
        return None
    window = recording.window()
    low, high = _scale([before.memory[window], after.memory[window]])

    def panel(title: str, memory: Memory) -> Panel:
        weightings = {"write": memory.write_weightings, "read": memory.read_weightings}
        heads = {kind: weighting[:, window] for kind, weighting in weightings.items()}
        return Panel(
            title,
            (memory.memory[window],),
            "element",
            "location",
            column_names=window,
            low=low,
            high=high,
            heads=heads,
        )

    return panel("memory before the first step", before), panel("memory after the last step", after)


def _outputs(recording: Recording) -> list[Panel]:
    outputs, target, mask = recording.outputs, recording.target, recording.mask
    if target is None or mask is None:
        return [_vectors("outputs", [outputs], "channel")]
    pale = int(mask.argmax())
    title = ", ".join(filter(None, ["outputs", recording.result()]))
    found = [_vectors(title, [outputs], "channel", pale, recording.wrong())]
    if recording.optimum is not None:
        found.append(_vectors("best possible outputs", [recording.optimum], "channel", pale))
    return [*found, _vectors("targets", [target], "channel", pale)]


def _of_heads(recording: Recording, name: str) -> list[Panel]:
    """The panel of one trace, if the model has it."""
    if name not in recording.traces:
        return []
    trace = recording.traces[name]
    title = name.replace("_", " ") + "s"
    images = [trace[:, head] for head in range(trace.shape[1])]
    if name not in OVER_LOCATIONS:
        return [_vectors(title, images, "mode" if name == READ_MODE else "element")]
    window = recording.window()
    images = [image[:, window] for image in images]
    return [Panel(title, tuple(images), "location", row_names=window)]


def _vectors(
    title: str,
    images: list[Float32],
    rows: str,
    pale_steps: int = 0,
    wrong: npt.NDArray[np.bool_] | None = None,
) -> Panel:
    low, high = _scale(images)
    return Panel(title, tuple(images), rows, low=low, high=high, pale_steps=pale_steps, wrong=wrong)


def _scale(images: list[Float32]) -> tuple[float, float]:
    """
    The ends of the colours: from 0 up, or from as far below 0 if there are negative values.

    The upper end is at least 1, and no smaller than nearly all values. A few larger values are left
    beyond the end; otherwise all others would be pale.
    """
    values = np.concatenate([image.ravel() for image in images])
    largest = max(1.0, float(np.quantile(np.abs(values), USUAL)))
    return (-largest if values.min() < 0 else 0.0), largest
