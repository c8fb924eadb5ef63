"""Pictures of bits and of weightings in the characters of a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TextIO

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32
from ntm_lab.recordings.window import largest

HALF_BLOCKS = " ▀▄█"
"""The characters for no half set, the upper, the lower, and both."""

SHADES = " ░▒▓█"
ASCII_SHADES = " .:*#"
WEIGHT_OF_FIRST_SHADE = 0.1

WHITE, BLACK = 255, 232
"""The ends of the scale of grays among a terminal's 256 colours."""


@dataclass(frozen=True)
class Terminal:
    """The abilities of the stream that a picture is printed to."""

    columns: int = 100
    rows: int = 28
    """The number of lines for one head."""
    colour: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        """
        Find the abilities of a stream. A file, and any stream under NO_COLOR, gets no escape codes.
        """
        colour = stream.isatty() and not os.environ.get("NO_COLOR")
        try:
            (SHADES + HALF_BLOCKS + "│").encode(stream.encoding or "ascii")
        except UnicodeEncodeError:
            return cls(colour=colour, unicode=False)
        return cls(colour=colour)


def bits_picture(bits: Float32, terminal: Terminal) -> str:
    """Bits [steps, channels] with time to the right, the first channel on top, and a frame."""
    pieces = np.split(bits, range(terminal.columns - 4, len(bits), terminal.columns - 4))
    return "\n".join(_bits_piece(piece, terminal) for piece in pieces)


def weighting_picture(
    weighting: Float32,
    locations: npt.NDArray[np.intp],
    terminal: Terminal,
    strengths: Mapping[str, Float32] = MappingProxyType({}),
    label: int = 0,
) -> str:
    """
    One head's weighting [steps, N] with time to the right and the given locations downwards.

    If there is no room for all, a line stands for several locations and a column for several steps;
    it shows their largest weight. Below is a line for each of the named strengths [steps], such as
    how much is erased. The labels of lines have at least `label` characters, so that pictures below
    each other are aligned.
    """
    label = max(label, len(str(locations.max())), *map(len, strengths))
    halves = 2 if terminal.colour and terminal.unicode else 1
    cells = weighting[:, locations].T
    cells, together = largest(cells, terminal.rows * halves)
    across = terminal.columns - label - 5
    cells = largest(cells.T, across)[0].T
    if len(cells) % halves:
        cells = np.vstack([cells, np.zeros_like(cells[:1])])
    bar = "│" if terminal.unicode else "|"
    lines = []
    for row in range(0, len(cells), halves):
        line = (
            _colour_line(cells[row : row + 2]) if halves == 2 else _shade_line(cells[row], terminal)
        )
        lines.append(f"{locations[row * together]:>{label + 1}} {bar}{line}{bar}")
    for name, strength in strengths.items():
        line = _shade_line(largest(strength[:, None], across)[0][:, 0], terminal)
        lines.append(f"{name:>{label + 1}} {bar}{line}{bar}")
    return "\n".join(lines)


def _bits_piece(bits: Float32, terminal: Terminal) -> str:
    channels = bits.T > 0.5
    if not terminal.unicode:
        return "\n".join("".join(" #"[bit] for bit in channel) for channel in channels.astype(int))
    if len(channels) % 2:
        channels = np.vstack([channels, np.zeros_like(channels[:1])])
    halves = channels[0::2] + 2 * channels[1::2]
    return "\n".join("│" + "".join(HALF_BLOCKS[half] for half in line) + "│" for line in halves)


def _shade_line(weights: Float32, terminal: Terminal) -> str:
    shades = SHADES if terminal.unicode else ASCII_SHADES
    levels = np.digitize(weights, np.linspace(WEIGHT_OF_FIRST_SHADE, 0.9, len(shades) - 1))
    return "".join(shades[level] for level in levels)


def _colour_line(pair: Float32) -> str:
    grays = np.rint(WHITE - pair.clip(0, 1) * (WHITE - BLACK)).astype(int)
    runs = groupby((int(upper), int(lower)) for upper, lower in grays.T)
    cells = (f"\x1b[38;5;{up};48;5;{low}m{'▀' * len(list(run))}" for (up, low), run in runs)
    return "".join(cells) + "\x1b[0m"
