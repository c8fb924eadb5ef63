"""A picture of a recording as a PNG or SVG file, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ntm_lab.outputs import replacing
from ntm_lab.pictures.panels import Indices, Panel, columns, memories
from ntm_lab.recordings.recording import Recording
from ntm_lab.recordings.window import largest, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

INK, EDGE, MARK = "#1f2933", "#9aa5b1", "#c2410c"
BELOW_ZERO = ["#5c1d04", "#b4480f", "#f2a766"]
ABOVE_ZERO = ["#7c9cc4", "#1f3a68", "#0b1730"]
HEADS = {"write": ("v", 1.07), "read": ("^", -0.07)}
"""The sign of each kind of head, and its height in the picture of the memory."""

VISIBLE_HEAD = 0.1
"""The least weight of a location at which a head is drawn."""

DOTS_PER_INCH = 160
MAX_COLUMNS, MAX_ROWS = 600, 400
"""The largest numbers of columns and rows of an image: it has no more dots."""

# All below in inches.
WIDTH = 10.4
LEFT_EDGES = 0.66, 5.86
IMAGE_WIDTH = 3.85
INCHES_OF_A_ROW, INCHES_OF_A_SINGLE_ROW = 0.08, 0.25
LEAST_INCHES, MAX_INCHES, MAX_INCHES_OF_LOCATIONS = 0.6, 1.8, 3.2
HEADING, TITLE, LABELS, AXIS, BETWEEN_HEADS = 0.42, 0.3, 0.18, 0.55, 0.07
INCHES_OF_A_CHARACTER = 0.075


@dataclass(frozen=True)
class Placed:
    """A panel, and the height of each of its images in inches."""

    panel: Panel
    height: float

    @property
    def total(self) -> float:
        """The height of the images and their title in inches."""
        images = len(self.panel.images)
        return TITLE + images * self.height + (images - 1) * BETWEEN_HEADS


def save(recording: Recording, path: Path, layout: str) -> None:
    """
    Draw a recording into a file; equal recordings give equal files. The file names its network.

    Args:
        recording: What to draw.
        path: The file.
        layout: png or svg.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib import rc_context

    salt = recording.model.content_hash
    source = f"{recording.model.name}, content hash {salt}"
    metadata = {
        "svg": {"Title": recording.title, "Source": source, "Date": None},
        "png": {"Title": recording.title, "Source": source, "Software": None},
    }
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}),
        replacing(path) as file,
    ):
        draw(recording).savefig(file, format=layout, metadata=metadata[layout])


def draw(recording: Recording) -> Figure:
    """The picture of a recording."""
    from matplotlib import rc_context

    with rc_context({"font.size": 9, "text.color": INK, "axes.edgecolor": EDGE}):
        return _figure(recording)


def _figure(recording: Recording) -> Figure:
    from matplotlib.figure import Figure

    over_time = _equally_high([[_placed(panel) for panel in half] for half in columns(recording)])
    memory = [[_placed(panel)] for panel in memories(recording) or ()]
    labels = LABELS if recording.marks else 0
    heights = [labels + _height(over_time) + AXIS]
    heights += [LABELS + _height(memory) + AXIS] if memory else []
    figure = Figure(figsize=(WIDTH, HEADING + sum(heights)), dpi=DOTS_PER_INCH)
    figure.suptitle(recording.title, fontsize=12, y=1 - 0.5 * HEADING / figure.get_figheight())
    for left, stack in zip(LEFT_EDGES, over_time, strict=True):
        for number, axis in enumerate(_stack(figure, stack, left, HEADING, labels)):
            _mark(axis, recording.marks, named=number == 0)
    for left, stack in zip(LEFT_EDGES, memory, strict=False):
        (axis,) = _stack(figure, stack, left, HEADING + heights[0], LABELS)
        _place_heads(axis, stack[0].panel)
    return figure


def _placed(panel: Panel) -> Placed:
    """A panel with the height that its rows need; each of several heads gets less."""
    share = len(panel.images) ** -0.5
    rows = panel.images[0].shape[1]
    maximum = MAX_INCHES_OF_LOCATIONS if panel.is_weighting else MAX_INCHES
    least = LEAST_INCHES if rows > 1 else INCHES_OF_A_SINGLE_ROW
    return Placed(panel, max(least, min(INCHES_OF_A_ROW * rows, maximum) * share))


def _height(stacks: Sequence[Sequence[Placed]]) -> float:
    return max(sum(placed.total for placed in stack) for stack in stacks)


def _equally_high(stacks: Sequence[Sequence[Placed]]) -> list[list[Placed]]:
    """Make both stacks equally high: the panels of the shorter one grow, except weightings."""
    found = []
    for stack in stacks:
        room = _height(stacks) - sum(placed.total for placed in stack)
        growing = [placed for placed in stack if not placed.panel.is_weighting]
        growth = 1 + room / sum(len(placed.panel.images) * placed.height for placed in growing)
        heights = [placed.height * (growth if placed in growing else 1) for placed in stack]
        found.append([replace(p, height=height) for p, height in zip(stack, heights, strict=True)])
    return found


def _stack(
    figure: Figure, stack: Sequence[Placed], left: float, top: float, labels: float
) -> list[Axes]:
    """
    Draw panels below each other, and return the axes of all images.

    Args:
        figure: What to draw in.
        stack: The panels from top to bottom.
        left: Inches from the figure's left edge.
        top: Inches from its upper edge.
        labels: Inches between the first panel's title and its image.
    """

    def axes(x: float, y: float, width: float, height: float) -> Axes:
        inches = figure.get_figheight()
        return figure.add_axes(
            (x / WIDTH, 1 - (y + height) / inches, width / WIDTH, height / inches)
        )

    found: list[Axes] = []
    for placed in stack:
        panel, height = placed.panel, placed.height
        between = 0 if found else labels
        start = top + TITLE + between
        for number in range(len(panel.images)):
            y = start + number * (height + BETWEEN_HEADS)
            found.append(axes(left, y, IMAGE_WIDTH, height))
            image = _draw(found[-1], panel, number, height)
        several = f" of each head, by {panel.rows}" if len(panel.images) > 1 else ""
        first = found[-len(panel.images)]
        first.set_title(panel.title + several, loc="left", fontsize=10, pad=4 + 72 * between)
        bar = axes(left + IMAGE_WIDTH + 0.08, start + 0.06, 0.09, min(height - 0.06, 0.9))
        values = {panel.low, panel.high} | ({0.0} if height > 0.4 else set())
        ends = figure.colorbar(image, cax=bar, ticks=sorted(values), extend=_extend(panel))
        ends.set_ticklabels([_short(value) for value in sorted(values)])
        bar.tick_params(length=2, labelsize=8)
        top += between + placed.total
    found[-1].tick_params(labelbottom=True)
    found[-1].set_xlabel(stack[-1].panel.columns)
    return found


def _draw(axis: Axes, panel: Panel, number: int, height: float) -> AxesImage:
    columns, rows = panel.images[number].shape
    pool = largest if panel.is_weighting else mean
    values, across = pool(panel.images[number], MAX_COLUMNS)
    values, down = pool(values.T, MAX_ROWS)
    image = axis.imshow(
        values,
        aspect="auto",
        interpolation="none",
        vmin=panel.low,
        vmax=panel.high,
        cmap=_colours(panel.low),
        extent=(-0.5, values.shape[1] * across - 0.5, values.shape[0] * down - 0.5, -0.5),
    )
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axis.tick_params(length=2, labelbottom=False)
    axis.set_xticks(*_ticks(columns, panel.column_names, 9))
    axis.set_yticks([])
    if rows > 1:
        axis.set_ylabel(f"head {number + 1}" if len(panel.images) > 1 else panel.rows)
        axis.set_yticks(*_ticks(rows, panel.row_names, max(1, int(height / 0.18))))
    if panel.pale_steps:
        axis.axvspan(-0.5, panel.pale_steps - 0.5, color="white", alpha=0.8, linewidth=0)
    if panel.wrong is not None and columns <= MAX_COLUMNS:
        size = 72 * min(height / rows, IMAGE_WIDTH / columns)
        steps, bits = np.nonzero(panel.wrong)
        axis.scatter(steps, bits, s=np.clip(size, 1, 4) ** 2, c=MARK, marker="x", linewidths=0.8)
    return image


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.1e}".replace("e+0", "e")


def _extend(panel: Panel) -> Literal["neither", "both", "min", "max"]:
    """The ends of the colours beyond which there are values, in matplotlib's words."""
    above = max(float(image.max()) for image in panel.images) > 1.01 * panel.high
    below = min(float(image.min()) for image in panel.images) < 1.01 * panel.low
    if above and below:
        return "both"
    return "max" if above else "min" if below else "neither"


def _ticks(count: int, names: Indices | None, maximum: int) -> tuple[list[int], list[str]]:
    """The positions and texts of labels: every second, fifth or tenth row or column, and so on."""
    shown = np.arange(count) if names is None else names
    sizes = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    every = next(size for size in sizes if count <= size * maximum)
    places = [place for place in range(count) if shown[place] % every == 0]
    # Where the memory begins anew, its location 0 may come too soon after the label before it.
    starts = [place for place in places if shown[place] == 0]
    kept = [
        place
        for place in places
        if all(place == start or 2 * abs(place - start) >= every for start in starts)
    ]
    return kept, [str(shown[place]) for place in kept]


def _mark(axis: Axes, marks: Mapping[int, str], *, named: bool) -> None:
    """
    Draw a line where each marked step begins. Of several marks with one name, the first is
    labelled.
    """
    steps = sorted(marks)
    for step in steps:
        weight = 0.8 if list(marks.values()).count(marks[step]) == 1 else 0.4
        axis.axvline(step - 0.5, color=MARK, linewidth=weight, linestyle=(0, (3, 2)), alpha=weight)
    if not named:
        return
    firsts = [step for step in steps if marks[step] not in {marks[s] for s in steps if s < step}]
    inches = IMAGE_WIDTH / (axis.get_xlim()[1] + 0.5)
    for index, step in enumerate(firsts):
        # Two labels that would meet turn away from each other.
        align = "center"
        for other in firsts[max(0, index - 1) : index + 2]:
            needed = INCHES_OF_A_CHARACTER * (len(marks[step]) + len(marks[other])) / 2
            if other != step and abs(other - step) * inches < needed:
                align = "left" if other < step else "right"
        axis.annotate(
            marks[step],
            (step - 0.5, 1),
            (0, 3),
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            color=MARK,
            fontsize=8,
            ha=align,
        )


def _place_heads(axis: Axes, panel: Panel) -> None:
    """Draw the heads at the edges of the memory, larger where they have more weight."""
    axis.set_title("write heads ▼   read heads ▲", loc="right", fontsize=8, color=MARK, pad=18)
    axis.tick_params(axis="x", pad=11)
    for kind, (sign, height) in HEADS.items():
        weights = panel.heads[kind].max(0)
        places = np.flatnonzero(weights >= VISIBLE_HEAD)
        axis.scatter(
            places,
            np.full(len(places), height),
            s=30 * weights[places],
            c=MARK,
            marker=sign,
            transform=axis.get_xaxis_transform(),
            clip_on=False,
        )


def _colours(low: float) -> Colormap:
    """The colours: white at zero, dark blue for large values, brown for values far below zero."""
    from matplotlib.colors import LinearSegmentedColormap

    below = BELOW_ZERO if low < 0 else []
    # An odd number, so that zero is white.
    return LinearSegmentedColormap.from_list("values", [*below, "#ffffff", *ABOVE_ZERO], 257)
