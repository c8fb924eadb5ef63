"""
A picture of what the heads did, as in figure 6 of the paper.

Time runs to the right. On the left is what goes into the memory: inputs, add vectors and where they
are written; on the right what comes out: outputs, read vectors and where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from client.recording import (
    ADD_VECTOR,
    READ_VECTOR,
    READ_WEIGHTING,
    WRITE_WEIGHTING,
    Recording,
)
from client.records import Float32

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK = "#1f2933"
MARK = "#c2410c"

MOST_COLUMNS, MOST_ROWS = 600, 400
"""Steps and rows that a panel has pixels for; more are averaged, so that none is left out."""


class DrawingUnavailable(RuntimeError):
    """The library that draws is not installed."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of the picture."""

    title: str
    values: Float32
    """[steps, rows]"""
    rows: str
    """What a row is."""
    locations: npt.NDArray[np.intp] | None = None
    """Which location each row is, for a weighting."""
    pale_steps: int = 0
    """How many steps at the beginning do not matter."""


def save(recording: Recording, path: Path) -> None:
    """
    Draw a recording as a PNG file.

    Raises:
        DrawingUnavailable: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DrawingUnavailable(
            "drawing a PNG needs matplotlib: pip install 'matplotlib>=3.10'"
        ) from error
    left, right = panels(recording)
    heights = [_height(pair) for pair in zip(left, right, strict=True)]
    with rc_context({"font.size": 9, "text.color": INK, "axes.edgecolor": "#9aa5b1"}):
        figure = Figure(figsize=(10, sum(heights) + 0.6), dpi=160, layout="constrained")
        grid = figure.subplots(len(heights), 2, sharex=True, height_ratios=heights, squeeze=False)
        figure.suptitle(recording.title, fontsize=12, color=INK)
        for column, column_panels in zip(grid.T, (left, right), strict=True):
            shown = sum(panel is not None for panel in column_panels)
            for row, (axis, panel) in enumerate(zip(column, column_panels, strict=True)):
                if panel is None:
                    axis.set_axis_off()
                    continue
                _draw(figure, axis, panel)
                _mark(axis, recording.marks, named=row == 0)
                if row == shown - 1:
                    axis.set_xlabel("step")
                    axis.tick_params(labelbottom=True)
        figure.savefig(path)


def panels(recording: Recording) -> tuple[list[Panel | None], list[Panel | None]]:
    """The panels of the left and the right column from top to bottom; None fills the shorter."""
    traces = recording.traces
    window = recording.window()
    left: list[Panel | None] = [Panel("inputs", recording.inputs, "channel")]
    right: list[Panel | None] = [
        Panel("outputs", recording.outputs, "channel", pale_steps=_pale_steps(recording))
    ]
    left += _heads(traces, ADD_VECTOR, "add vectors", WRITE_WEIGHTING, "write weighting", window)
    right += _heads(traces, READ_VECTOR, "read vectors", READ_WEIGHTING, "read weighting", window)
    rows = max(len(left), len(right))
    return left + [None] * (rows - len(left)), right + [None] * (rows - len(right))


def _pale_steps(recording: Recording) -> int:
    """How many steps at the beginning the task does not ask about; a network is free in them."""
    return 0 if recording.mask is None else int(recording.mask.argmax())


def _heads(
    traces: Mapping[str, Float32],
    vector: str,
    vector_title: str,
    weighting: str,
    weighting_title: str,
    window: npt.NDArray[np.intp],
) -> list[Panel | None]:
    if weighting not in traces:
        return []
    heads = traces[weighting].shape[1]
    found: list[Panel | None] = []
    for head in range(heads):
        suffix = f", head {head + 1} of {heads}" if heads > 1 else ""
        if vector in traces:
            found.append(Panel(vector_title + suffix, traces[vector][:, head], "element"))
        weights = traces[weighting][:, head, window]
        found.append(Panel(weighting_title + suffix, weights, "location", window))
    return found


def _height(pair: tuple[Panel | None, Panel | None]) -> float:
    """Inches for a pair of panels, by the larger number of rows."""
    rows = max(panel.values.shape[1] for panel in pair if panel)
    return float(np.clip(0.5 + rows * 0.085, 1.1, 3.4))


def _draw(figure: Figure, axis: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = _scale(panel)
    colours = _colours(low)
    steps, rows = panel.values.shape
    fits = steps <= MOST_COLUMNS and rows <= MOST_ROWS
    image = axis.imshow(
        panel.values.T,
        aspect="auto",
        interpolation="nearest" if fits else "auto",
        vmin=low,
        vmax=high,
        cmap=colours,
    )
    axis.set_title(panel.title, loc="left", fontsize=10)
    axis.set_ylabel(panel.rows)
    axis.tick_params(length=2)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_rows(axis, panel)
    if panel.pale_steps:
        axis.axvspan(-0.5, panel.pale_steps - 0.5, color="white", alpha=0.8, linewidth=0)
    bar = figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01, aspect=12)
    bar.ax.yaxis.set_major_locator(MaxNLocator(2))
    bar.ax.tick_params(length=2, labelsize=8)


def _mark(axis: Axes, marks: Mapping[int, str], *, named: bool) -> None:
    for step, text in marks.items():
        axis.axvline(step, color=MARK, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.8)
        if named:
            place = axis.get_xaxis_transform()
            axis.text(step, 1.03, text, color=MARK, fontsize=8, ha="center", transform=place)


def _scale(panel: Panel) -> tuple[float, float]:
    """The values at the ends of the colours; zero is at the low end or in the middle."""
    if panel.locations is not None:
        return 0.0, 1.0
    largest = max(float(np.abs(panel.values).max(initial=0)), 1.0)
    return (-largest if panel.values.min(initial=0) < 0 else 0.0), largest


def _colours(low: float) -> Colormap:
    """White at zero, dark where a value is large; blue below zero and red above if both occur."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if low < 0:
        return colormaps["RdBu_r"]
    return LinearSegmentedColormap.from_list("weight", ["#ffffff", "#7c9cc4", "#1f3a68", "#0b1730"])


def _label_rows(axis: Axes, panel: Panel) -> None:
    rows = panel.values.shape[1]
    every = next(size for size in (1, 2, 5, 10, 20, 50, 100, 1000, rows) if rows / size <= 7)
    names = np.arange(rows) if panel.locations is None else panel.locations
    ticks = [row for row in range(rows) if names[row] % every == 0]
    # Where the memory begins anew, its location 0 may come too soon after the label before it.
    starts = [row for row in ticks if names[row] == 0]
    kept = [
        row
        for row in ticks
        if all(row == start or 2 * abs(row - start) >= every for start in starts)
    ]
    axis.set_yticks(kept, [str(names[row]) for row in kept])
