"""A memory with the heads on it, in a terminal."""

from __future__ import annotations

import numpy as np

from ntm_client.values import Float32, Memory
from ntm_lab.pictures.memory import memory_picture
from ntm_lab.pictures.terminal import Terminal


def memory(values: Float32, read: int, write: int) -> Memory:
    """A memory [N, M] with one head of each kind, each at one location."""
    at = np.eye(len(values), dtype=np.float32)
    return Memory(7, values, at[[read]], at[[write]])


def blank(locations: int) -> Float32:
    """A memory [N, 3] that nothing was written to."""
    return np.full((locations, 3), 1e-6, np.float32)


def lines(memory: Memory, terminal: Terminal) -> list[str]:
    """The picture without what is said of the heads."""
    return memory_picture(memory, terminal).splitlines()[2:]


def test_heads_are_told_before_the_memory() -> None:
    """Each head has a line that says where it is, and how sharply."""
    taken = memory(blank(4), 1, 3)
    taken.read_weightings[0] = [0.1, 0.7, 0.2, 0]

    assert memory_picture(taken, Terminal()).splitlines()[:2] == [
        "read head 1: location 1, focus 0.70",
        "write head 1: location 3, focus 1.00",
    ]


def test_locations_in_use_are_shown_with_their_heads() -> None:
    """A line has the location, each head's letter if it is there, and a shade for each value."""
    values = blank(12)
    values[2] = [1.0, -0.5, 0.0]
    taken = memory(values, 2, 10)

    assert lines(taken, Terminal()) == [" 2 R  │ █-▒  │", "...", "10  W │      │"]
    assert lines(taken, Terminal(unicode=False)) == [" 2 R  | #-:  |", "...", "10  W |      |"]


def test_part_of_a_head_is_a_shade() -> None:
    """A head at several places has its letter at the strongest, and shades elsewhere."""
    taken = memory(blank(6), 0, 0)
    taken.read_weightings[0] = [0.5, 0.3, 0.2, 0, 0, 0]

    assert [line[2:4] for line in lines(taken, Terminal())] == ["RW", "░ ", "░ "]


def test_colours_tell_signs_and_sizes() -> None:
    """Above zero is red, below is blue, nearly zero has no colour, and more is stronger."""
    values = blank(3)
    values[0] = [1.0, -0.3, 0.1]

    assert lines(memory(values, 0, 0), Terminal(colour=True)) == [
        "0 RW │\x1b[48;5;196m  \x1b[0m\x1b[48;5;189m  \x1b[0m  │"
    ]


def test_large_memory_fits() -> None:
    """Of more locations than lines, the nearest to the heads are shown, around the ends too."""
    taken = memory(np.ones((500, 3), np.float32) * np.arange(500, dtype=np.float32)[:, None], 0, 0)

    shown = [line.split()[0] for line in lines(taken, Terminal(rows=5))]

    assert shown == ["0", "1", "2", "...", "498", "499"]
