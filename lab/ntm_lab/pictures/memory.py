"""A session's memory at one moment in the characters of a terminal, with the heads on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32, Memory
from ntm_lab.pictures.terminal import ASCII_SHADES, SHADES, Terminal
from ntm_lab.recordings.window import VISIBLE_WEIGHT

CHANGED = 0.05
"""A location is in use if its values differ by more than this from what most locations hold."""

STRONG = 1.0
"""Values of this magnitude and above have the darkest shade."""

RED, BLUE = (196, 203, 210, 217, 224), (21, 63, 105, 147, 189)
"""Of a terminal's 256 colours, for values above and below zero, the strongest first."""


def memory_picture(memory: Memory, terminal: Terminal) -> str:
    """
    A line for each location that is in use: a column for each head, then the location's values.

    A head's letter stands at the location of its largest weight, and a shade where it has some
    weight. If there are more locations than lines, those around the heads are shown.
    """
    weightings = np.concatenate([memory.read_weightings, memory.write_weightings])
    letters = "R" * len(memory.read_weightings) + "W" * len(memory.write_weightings)
    bar = "│" if terminal.unicode else "|"
    label = len(str(len(memory.memory) - 1))
    lines = [
        f"{kind} head {head + 1}: location {weighting.argmax()}, focus {weighting.max():.2f}"
        for kind, heads in (("read", memory.read_weightings), ("write", memory.write_weightings))
        for head, weighting in enumerate(heads)
    ]
    last = None
    for location in _in_use(memory.memory, weightings, terminal.rows):
        if last is not None and location != last + 1:
            lines.append(f"{'...':>{label}}")
        heads = "".join(
            letter if weighting.argmax() == location else _shade(weighting[location], terminal)
            for letter, weighting in zip(letters, weightings, strict=True)
        )
        values = "".join(_cell(value, terminal) for value in memory.memory[location])
        lines.append(f"{location:>{label}} {heads} {bar}{values}{bar}")
        last = location
    return "\n".join(lines)


def _in_use(memory: Float32, weightings: Float32, maximum: int) -> npt.NDArray[np.intp]:
    """The locations to show, in order."""
    differs = np.abs(memory - np.median(memory, axis=0)).max(1) > CHANGED
    used = np.flatnonzero(differs | (weightings.max(0) >= VISIBLE_WEIGHT))
    if len(used) <= maximum:
        return used
    heads = weightings.argmax(1)
    apart = np.abs(used[:, None] - heads)
    nearest = np.minimum(apart, len(memory) - apart).min(1)
    return np.sort(used[np.argsort(nearest, kind="stable")[:maximum]])


def _shade(amount: float, terminal: Terminal) -> str:
    """One character, darker for more of 1."""
    shades = SHADES if terminal.unicode else ASCII_SHADES
    return shades[min(len(shades) - 1, int(abs(amount) * len(shades)))]


def _cell(value: float, terminal: Terminal) -> str:
    """One value as two characters."""
    if not terminal.colour:
        sign = "-" if value < 0 and _shade(value / STRONG, terminal) != " " else " "
        return sign + _shade(value / STRONG, terminal)
    strength = int(min(abs(value) / STRONG, 1) * len(RED))
    if not strength:
        return "  "
    return f"\x1b[48;5;{(RED if value > 0 else BLUE)[len(RED) - strength]}m  \x1b[0m"
