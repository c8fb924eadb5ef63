"""Pictures of bits and weightings in a terminal, and of a whole recording as PNG."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from client.figure import DrawingUnavailable, panels, save
from client.records import Float32
from client.terminal import Terminal, bits_picture, recording_picture, weighting_picture
from client.window import locations_in_use
from tests.client.recorded import moving, recording


def test_a_weighting_in_shades() -> None:
    """Time runs to the right, locations downwards, and more weight is darker."""
    weighting = np.array([[1, 0, 0], [0.2, 0.6, 0], [0, 0.05, 0.95]], np.float32)

    assert weighting_picture(weighting, np.arange(3), Terminal()) == " 0 │█░ │\n 1 │ ▒ │\n 2 │  █│"


def test_a_weighting_without_unicode() -> None:
    """Where blocks cannot be encoded there are letters."""
    weighting = np.array([[1, 0], [0.2, 0.6]], np.float32)

    assert weighting_picture(weighting, np.arange(2), Terminal(unicode=False)) == (
        " 0 |#.|\n 1 | :|"
    )


def test_a_weighting_in_colour() -> None:
    """Two locations share a line, the upper one as foreground; white is 0 and black is 1."""
    weighting = np.array([[1, 0], [0, 0], [0, 0]], np.float32)
    picture = weighting_picture(weighting, np.arange(2), Terminal(colour=True))

    assert picture == " 0 │\x1b[38;5;232;48;5;255m▀\x1b[38;5;255;48;5;255m▀▀\x1b[0m│"


@pytest.mark.parametrize("colour", [False, True])
def test_a_large_weighting_fits(colour: bool) -> None:
    """However many steps and locations, the picture has the terminal's size and loses no peak."""
    weighting = moving(1000, 999, 1)[:, 0]
    picture = weighting_picture(weighting, np.arange(999), Terminal(colour=colour))
    plain = weighting_picture(weighting, np.arange(999), Terminal()).splitlines()

    assert len(picture.splitlines()) <= 28
    assert max(len(line) for line in plain) <= 100
    assert all("█" in line for line in plain)


def test_bits() -> None:
    """Two channels share a line of half blocks."""
    bits = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]], np.float32)

    assert bits_picture(bits, Terminal()) == "│ ▀▄█│\n│▀  ▀│"
    assert bits_picture(bits, Terminal(unicode=False)) == " # #\n  ##\n#  #"


def test_many_bits_are_broken_into_pieces() -> None:
    """A sequence wider than the terminal continues below."""
    picture = bits_picture(np.ones((150, 2), np.float32), Terminal())

    assert [len(line) for line in picture.splitlines()] == [98, 56]


def test_terminal_of_a_file() -> None:
    """A file gets no colour, and no character that it cannot encode."""
    utf8 = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    latin = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")

    assert (Terminal(), Terminal(unicode=False)) == (Terminal.of(utf8), Terminal.of(latin))


def test_terminal_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colour unless its user asked for none."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Terminal.of(stream).colour

    monkeypatch.setenv("NO_COLOR", "1")
    assert not Terminal.of(stream).colour


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        (moving(4, 64, 1), [63, 0, 1, 2, 3, 4]),
        (moving(4, 64, -1), [60, 61, 62, 63, 0, 1]),
        (moving(64, 64, 1), list(range(64))),
        (moving(7, 8, 1), list(range(7))),
        (np.zeros((4, 1, 5), np.float32), list(range(5))),
        (np.ones((4, 1, 1), np.float32), [0]),
    ],
)
def test_locations_in_use(weighting: Float32, expected: list[int]) -> None:
    """What the heads use stays whole, also across the end of the memory, with a margin."""
    assert locations_in_use([weighting]).tolist() == expected


def test_all_heads_are_drawn() -> None:
    """Each head of a network with several has its own picture; no head, a sentence."""
    picture = recording_picture(recording(heads=2), Terminal())

    assert [line for line in picture.splitlines() if "weighting" in line] == [
        "write weighting, head 1 of 2 (down: locations, across: steps)",
        "write weighting, head 2 of 2 (down: locations, across: steps)",
        "read weighting (down: locations, across: steps)",
    ]
    assert recording_picture(recording(heads=0), Terminal()) == "The network has no heads to draw."


def test_panels_are_those_of_figure_6() -> None:
    """What is written stands left, what is read right, and the shorter column is filled up."""
    left, right = panels(recording(heads=2))

    assert [panel.title if panel else None for panel in left] == [
        "inputs",
        "add vectors, head 1 of 2",
        "write weighting, head 1 of 2",
        "add vectors, head 2 of 2",
        "write weighting, head 2 of 2",
    ]
    assert [panel.title if panel else None for panel in right] == [
        "outputs",
        "read vectors",
        "read weighting",
        None,
        None,
    ]


@pytest.mark.parametrize("heads", [1, 2])
def test_a_png_is_drawn(tmp_path: Path, heads: int) -> None:
    """The file is an image with dark and light places."""
    save(recording(heads), tmp_path / "heads.png")
    image = imread(tmp_path / "heads.png")

    assert image.shape[1] == 1600
    assert image[..., 0].min() < 0.2
    assert image[..., 0].max() == 1


def test_a_network_without_heads_is_drawn(tmp_path: Path) -> None:
    """Its picture has inputs and outputs."""
    save(recording(heads=0), tmp_path / "lstm.png")

    assert (tmp_path / "lstm.png").stat().st_size > 1000


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(DrawingUnavailable, match="pip install"):
        save(recording(), tmp_path / "heads.png")
