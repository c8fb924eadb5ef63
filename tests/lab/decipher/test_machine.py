"""What a program does on its machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.tape import Tape
from tests.lab.decipher.programs import COPY, RECALL, REPEAT, SORT, TURNED

VECTORS = [[1, 0, 0], [0, 1, 1], [1, 1, 0]]


def copied(vectors: list[list[int]]) -> Float32:
    """These vectors, a flag, and silence until they have been emitted."""
    silence = [[0, 0, 0, 0]] * (len(vectors) - 1)
    return np.array([*([*v, 0] for v in vectors), [0, 0, 0, 1], *silence], np.float32)


def test_copy_gives_back_what_it_heard() -> None:
    """From the flag's step on; before it, the output is silent."""
    outputs = Machine(COPY, 16).run(copied(VECTORS))

    assert outputs.tolist() == [[0, 0, 0]] * 3 + VECTORS


def test_each_output_shows_the_bit_that_its_channel_names() -> None:
    """Outputs may come in another order than inputs."""
    outputs = Machine(TURNED, 16).run(copied(VECTORS))

    assert outputs[3:].tolist() == [[c, a, b] for a, b, c in VECTORS]


def test_a_ring_overwrites_and_a_tape_does_not() -> None:
    """With two locations the third vector takes the place of the first."""
    assert Machine(COPY, 2).run(copied(VECTORS))[3:].tolist() == [VECTORS[2], *VECTORS[1:]]
    assert Machine(COPY).run(copied(VECTORS))[3:].tolist() == VECTORS


def test_what_was_written_over_is_not_looked_up() -> None:
    """A query that took an item's place on a full ring is found neither as itself nor as it."""
    first, second, query = np.eye(3, dtype=np.float32)
    tape = Tape()
    for location, content in ((0, first), (1, second), (0, query)):
        tape.write(location, content)

    assert tape.matching([second], writes=2) == 1
    assert tape.matching([query], writes=2) is None
    assert tape.matching([first], writes=2) is None


def test_repeat_counts_rounds_and_marks_the_end() -> None:
    """With x = 1 it gives 2 x + 1 rounds, then output 3 alone."""
    inputs = np.zeros((10, 4), np.float32)
    inputs[:2, :3], inputs[2, 3] = VECTORS[:2], 1
    outputs = Machine(REPEAT, 16).run(inputs)

    once = [[1, 0, 0, 0], [0, 1, 1, 0]]
    assert outputs[2:9].tolist() == [*once, *once, *once, [0, 0, 0, 1]]


def test_a_copy_of_what_was_read_is_written() -> None:
    """Step 1 of the second phase writes what was read at its step 0."""
    inputs = np.zeros((4, 4), np.float32)
    inputs[:2, :3], inputs[2, 3] = VECTORS[:2], 1
    machine = Machine(REPEAT, 16)
    machine.run(inputs)

    # The write head is at 2 when the flag comes, and at 3 one step later.
    assert machine.memory[3][:3].tolist() == VECTORS[0]
    assert 2 not in machine.memory


def test_recall_goes_to_what_is_like_the_query() -> None:
    """Two locations after the queried vector the next one is stored."""
    items = [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    query = [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    machine = Machine(RECALL, 16)
    outputs = machine.run(np.array([*items, *query], np.float32))

    assert outputs[-1].tolist() == [0, 1, 0]
    # Written from location 15 downwards: a flag, the item, a flag, the next item.
    assert machine.pointers.read == 12


def test_the_longest_run_alike_decides_a_match() -> None:
    """Of two places with the vector asked for, the one after the other vector asked for is it."""
    heard = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0], [1, 1, 0]]
    steps = [[0, 0, 0, 1, 0], *([*v, 0, 0] for v in heard), [0, 0, 0, 0, 1]]
    steps += [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]

    machine = Machine(RECALL, 16)
    machine.run(np.array(steps, np.float32))
    # The flag is at 15, 1 0 0 at 14, 0 1 0 at 13 and again, later, at 10.
    assert machine.pointers.read == 13 - 2


def test_sort_goes_by_rank() -> None:
    """The vector with the largest value comes first, at step 1."""
    inputs = np.zeros((7, 5), np.float32)
    inputs[:3, :3], inputs[:3, 3], inputs[3, 4] = VECTORS, [0.2, 0.9, -0.5], 1
    outputs = Machine(SORT, 16).run(inputs)

    assert outputs[4:].tolist() == [VECTORS[1], VECTORS[0], VECTORS[2]]


def test_a_head_that_is_moved_reads_elsewhere() -> None:
    """Setting a pointer between two steps has the consequence that it would have."""
    machine, inputs = Machine(COPY, 16), copied(VECTORS)
    machine.run(inputs[:4])
    machine.pointers.read = 1

    assert machine.step(inputs[4]).tolist() == VECTORS[2]


def test_memory_that_is_changed_is_read() -> None:
    """Swapping two locations swaps what is put out."""
    machine, inputs = Machine(COPY, 16), copied(VECTORS)
    machine.run(inputs[:3])
    machine.memory[0], machine.memory[2] = machine.memory[2], machine.memory[0]

    assert machine.run(inputs[3:]).tolist() == VECTORS[::-1]


def test_each_step_tells_its_lines() -> None:
    """The lines of the listing that a step executed are those that say what it did."""
    machine = Machine(COPY, 16)
    lines = listing(COPY)
    machine.step(copied(VECTORS)[0])
    first = [lines[index].text.strip() for index in machine.lines]
    machine.step(copied(VECTORS)[1])
    second = [lines[index].text.strip() for index in machine.lines]

    assert first == [
        "phase 0, until input 3 is set, at each step:",
        "if it is step 0: the write head stays",
        "write the input at the write head",
    ]
    assert second[1] == "else the write head shifts +1"


def test_a_head_stays_if_what_it_would_go_to_is_nowhere() -> None:
    """With nothing stored there is no first by rank."""
    empty = replace(SORT, body=(replace(SORT.body[0], store=None), SORT.body[1]))
    machine = Machine(empty, 16)
    machine.run(np.array([[1, 0, 0, 0.5, 0], [0, 0, 0, 0, 1], [0] * 5], np.float32))

    assert machine.pointers.read == 0
