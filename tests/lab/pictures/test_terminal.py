"""Pictures of bits and weightings in a terminal, and what of a memory pictures show."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ntm_client.values import Float32
from ntm_lab.pictures.terminal import Terminal, bits_picture, weighting_picture
from ntm_lab.recordings.window import largest, locations_in_use, mean
from tests.support.recorded import moving


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


def test_strengths_stand_below_a_weighting() -> None:
    """Each has a line of shades below the steps, and every label the same width."""
    weighting = np.array([[1, 0], [0.2, 0.6]], np.float32)
    strengths = {"erase": np.array([0.2, 1], np.float32)}

    assert weighting_picture(weighting, np.arange(2), Terminal(), strengths).splitlines() == [
        "     0 │█░│",
        "     1 │ ▒│",
        " erase │░█│",
    ]
    assert weighting_picture(weighting, np.arange(2), Terminal(), label=3) == (
        "   0 │█░│\n   1 │ ▒│"
    )


def test_rows_that_share_a_place() -> None:
    """Where there is no room for each, rows are drawn as the largest of some, or as their mean."""
    rows = np.array([[0, 4], [2, 0], [1, 1], [1, 3], [9, 5]], np.float32)

    for pooled, size in (largest(rows, 5), mean(rows, 7)):
        assert (pooled.tolist(), size) == (rows.tolist(), 1)
    pooled, size = largest(rows, 3)
    assert (pooled.tolist(), size) == ([[2, 4], [1, 3], [9, 5]], 2)
    pooled, size = mean(rows, 3)
    assert (pooled.tolist(), size) == ([[1, 2], [1, 2], [9, 5]], 2)
