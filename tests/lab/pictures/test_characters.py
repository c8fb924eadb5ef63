"""Pictures of recordings in a terminal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntm_lab.pictures.characters import recording_picture
from ntm_lab.pictures.terminal import Terminal
from tests.support.recorded import recording


def test_all_heads_and_the_memory_are_drawn() -> None:
    """Each head of a network with several has its own picture; then memory before and after."""
    picture = recording_picture(recording(heads=2), Terminal())

    assert [line for line in picture.splitlines() if "(" in line] == [
        "write weighting, head 1 of 2 (down: locations, across: steps)",
        "write weighting, head 2 of 2 (down: locations, across: steps)",
        "read weighting (down: locations, across: steps)",
        "memory before the first step (down: locations in use, across: elements)",
        "memory after the last step (down: locations in use, across: elements)",
    ]
    assert picture.count("write head 2: location 0, focus 1.00") == 1
    assert picture.count("write head 2: location 11, focus 1.00") == 1


def test_no_head_is_a_sentence() -> None:
    """A network without heads has nothing to draw, and the picture says so."""
    picture = recording_picture(recording(heads=0), Terminal())

    assert picture == "The network has no heads to draw."


def test_how_much_a_head_erases_and_adds() -> None:
    """Below a write weighting, the mean sizes of its own vectors; below a read weighting, none."""
    made = recording(heads=2, steps=3)
    erase = np.zeros((3, 2, 5), np.float32)
    erase[1, 0] = 1
    add = np.zeros((3, 2, 5), np.float32)
    add[2, 1] = -1
    made = replace(made, traces={**made.traces, "erase_vector": erase, "add_vector": add})
    lines = recording_picture(made, Terminal()).splitlines()

    assert [line for line in lines if "erase" in line] == [" erase │ █ │", " erase │   │"]
    assert [line for line in lines if "add" in line] == ["   add │   │", "   add │  █│"]


@pytest.mark.parametrize("heads", [1, 4])
def test_it_stays_short(heads: int) -> None:
    """Long sequences, large memories and many heads share the room that there is."""
    made = recording(heads=heads, steps=500, locations=512)
    lines = recording_picture(made, Terminal()).splitlines()

    assert len(lines) < 110
    assert max(map(len, lines)) <= 100


def test_without_unicode_or_colour() -> None:
    """Every character can be shown, and none is an escape."""
    plain = recording_picture(recording(heads=2), Terminal(unicode=False))

    assert plain.isascii()
    assert "\x1b" not in plain
    assert "\x1b" in recording_picture(recording(heads=2), Terminal(colour=True))
