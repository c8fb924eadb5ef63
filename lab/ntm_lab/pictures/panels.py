"""
What a picture of a recording shows, as in figure 6 of the paper, whatever draws it.

Time runs to the right. On the left is what goes into the memory: inputs, add and erase vectors and
where they are written; on the right what comes out: outputs, what they should have been, read
vectors and where they are read. Below is the memory, before the first step and after the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32, Memory
from ntm_lab.recordings.recording import (
    ADD_VECTOR,
    ERASE_VECTOR,
    READ_VECTOR,
    READ_WEIGHTING,
    WRITE_WEIGHTING,
    Recording,
)

USUAL = 0.98
"""The share of values that colours tell apart."""

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Panel:
    """Images of one kind, one below the other: one of each head, or a single one."""

    title: str
    images: tuple[Float32, ...]
    """[columns, rows] each, all of the same shape."""
    rows: str
    """What a row is."""
    columns: str = "step"
    """What a column is."""
    row_names: Indices | None = None
    """Which location each row is; without, row 0 is the first."""
    column_names: Indices | None = None
    """Which location each column is; without, column 0 is the first."""
    low: float = 0.0
    high: float = 1.0
    """
    The values at the ends of the colours, some may lie beyond; zero is at the low end or in the
    middle.
    """
    pale_steps: int = 0
    """How many steps at the beginning do not matter."""
    wrong: npt.NDArray[np.bool_] | None = None
    """[columns, rows]: the bits that are not what they should be."""
    heads: Mapping[str, Float32] = field(default_factory=dict)
    """By `read` and `write`, the weightings over the columns, [heads, columns]."""

    @property
    def is_weighting(self) -> bool:
        """Whether rows are locations, of which those that are left out must not be missed."""
        return self.row_names is not None


def columns(recording: Recording) -> tuple[list[Panel], list[Panel]]:
    """The panels of the left and of the right column, from top to bottom."""
    left = [_vectors("inputs", [recording.inputs], "channel")]
    left += _of_heads(recording, ADD_VECTOR) + _of_heads(recording, ERASE_VECTOR)
    left += _of_heads(recording, WRITE_WEIGHTING)
    right = _outputs(recording) + _of_heads(recording, READ_VECTOR)
    right += _of_heads(recording, READ_WEIGHTING)
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
    if name not in (READ_WEIGHTING, WRITE_WEIGHTING):
        return [_vectors(title, images, "element")]
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
    The ends of the colours: from 0 up, or as far below 0, where there are values below.

    They are as large as nearly all values, at least 1. A few larger ones, as where a network keeps
    adding to one place, would leave all others without colour.
    """
    values = np.concatenate([image.ravel() for image in images])
    largest = max(1.0, float(np.quantile(np.abs(values), USUAL)))
    return (-largest if values.min() < 0 else 0.0), largest
