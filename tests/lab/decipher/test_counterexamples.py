"""The search for inputs on which a program and a network disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntm_client import Client, Session
from ntm_lab.decipher.counterexamples import contents, search
from ntm_lab.decipher.program import Move, Rule
from ntm_lab.decipher.samples import ServedNetwork, of_size
from ntm_tasks import TASKS
from tests.lab.decipher.copy_program import FIRST, copy_program


def test_the_end_of_the_memory_is_found_without_being_told(shipped: Client) -> None:
    """The search finds the smallest size that disagrees, and that the memory wraps around there."""
    found = search(copy_program(), ServedNetwork(shipped, "copy-ntm-lstm", 24))

    (example,) = found.found
    assert (example.size, example.agreeing_size) == ((25,), (24,))
    assert example.bits == 8 * 25
    assert example.differing > 0
    assert 26 <= example.first_step < 51
    assert example.wraps_around
    assert [(ring.locations, ring.size) for ring in example.rings] == [(24, (25,)), (6, (7,))]
    # 1, 2, 4, 8, 16, 32, then 24, 28, 26, 25.
    assert found.sizes == 10
    assert found.sequences > 11 * found.sizes


class Smaller(ServedNetwork):
    """A network whose small memories are smaller than they are said to be."""

    def session(self) -> Session:
        """With a location less than were asked for, where these are few."""
        assert self.locations is not None
        fewer = self.locations - 1 if self.locations < 10 else self.locations
        return self.client.create_session(self.name, fewer)


def test_a_memory_that_ends_elsewhere_than_the_program_says_explains_nothing(
    shipped: Client,
) -> None:
    """At the network's own size it does; at the smaller one the network left the tape before."""
    found = search(copy_program(), Smaller(shipped, "copy-ntm-lstm", 24))

    (example,) = found.found
    assert [ring.network_too for ring in example.rings] == [True, False]
    assert not example.wraps_around


def test_a_wrong_program_is_not_blamed_on_the_memory(shipped: Client) -> None:
    """A wrong program disagrees at the smallest size, and the memory is not given as the reason."""
    reading = (Rule((FIRST,), Move("hold")), Rule((), Move("shift", 2)))
    program = copy_program()
    wrong = replace(program, body=(program.body[0], replace(program.body[1], read=reading)))
    found = search(wrong, ServedNetwork(shipped, "copy-ntm-lstm", 24))

    (example,) = found.found
    # The first vector is read where it should be, the second is not.
    assert (example.size, example.agreeing_size) == ((2,), (1,))
    assert example.first_step == 2 + 1 + 1
    assert not example.wraps_around


def test_a_wrong_content_is_found(shipped: Client) -> None:
    """A program that is wrong about one bit only is caught by a vector that has it."""
    program = copy_program()
    found = search(
        replace(program, channels=program.channels[:-1]), ServedNetwork(shipped, "copy-ntm-ff")
    )

    (example,) = found.found
    assert (example.size, example.agreeing_size) == ((1,), None)
    assert example.inputs[0, 7] == 1
    assert (example.differing, example.bits, example.first_step) == (1, 8, 2)


@pytest.mark.parametrize("task", TASKS)
def test_contents_are_sequences_of_the_task(task: str) -> None:
    """Only vectors are replaced: flags, priorities and silence stay; no input is there twice."""
    small = (4,) * len(TASKS[task].size_names)
    size = {"ngrams": (40, 5), "repeat-copy": (9, 2)}.get(task, small)
    (plain,) = of_size(task, size, 1, seed=0)
    found = dict(contents(task, size, seed=0))

    answers = np.flatnonzero(plain.mask)
    for name, inputs in found.items():
        assert inputs.shape == plain.inputs.shape
        if not name.startswith("random"):
            kept = [*plain.marks, *answers]
            assert np.array_equal(inputs[kept], plain.inputs[kept])
            bits = TASKS[task].vector_bits
            assert np.array_equal(inputs[:, bits:], plain.inputs[:, bits:])
            assert set(inputs[:, :bits].ravel()) <= {0, 1}
    assert len({inputs.tobytes() for inputs in found.values()}) == len(found)
    assert (len(found) > 4) == (TASKS[task].vector_bits > 0)


def test_odd_contents() -> None:
    """All zeros, all ones, repeats, neighbours and blanks are among them; at one vector, all."""
    found = dict(contents("copy", (6,), seed=0))
    smallest = [inputs[0, :8].tolist() for _, inputs in contents("copy", (1,), seed=0)]

    assert not found["all zeros"][:6].any()
    assert found["all ones"][:6, :8].all()
    assert len(np.unique(found["one vector again and again"][:6], axis=0)) == 1
    flipped = found["one vector with a bit flipped"][:6, :8] != found["random 1"][0, :8]
    assert flipped.sum(1).tolist() == [1] * 6
    assert found["single bits"][:6, :8].sum(1).tolist() == [1] * 6
    assert len({tuple(vector) for vector in smallest}) == 256


def test_a_query_stays_one(shipped: Client) -> None:
    """The queried item is shown once among the items, whatever its vectors have become."""
    for seed in range(5):
        for name, inputs in contents("associative-recall", (5,), seed):
            vectors = inputs[:24, :6].reshape(6, 4, 6)[:, 1:].reshape(6, -1)
            equal = (vectors[:4] == vectors[5]).all(1)
            assert equal.sum() == 1, name
