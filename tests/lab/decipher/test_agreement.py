"""Program against network, bit by bit: a program that is right, and others that are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ntm_client import Client
from ntm_lab.decipher.agreement import agree
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range, of_size
from tests.lab.decipher.copy_program import copy_program


def test_the_program_of_copy_agrees_in_every_bit(shipped: Client) -> None:
    """The program of copy agrees with the network in range and at five times the length."""
    network = ServedNetwork(shipped, "copy-ntm-lstm")
    sequences = in_range("copy", 30, 0, Stage.AGREEMENT)
    found = agree(copy_program(), network, sequences, "in range")
    longer = agree(copy_program(), network, of_size("copy", (100,), 4, 0), "100")

    assert (found.sizes, found.locations, found.sequences) == ("in range", 128, 30)
    assert found.bits == 8 * sum(sequence.size[0] for sequence in sequences)
    assert (found.differing, found.agreeing, found.share, found.bit_share) == (0, 30, 1, 1)
    assert (found.network_wrong, found.network_exact, found.program_wrong) == (0, 30, 0)
    assert (longer.bits, longer.differing, longer.agreeing) == (3200, 0, 4)


def test_a_wrong_program_is_seen(shipped: Client) -> None:
    """A program with outputs one step too early disagrees in nearly every sequence."""
    network = ServedNetwork(shipped, "copy-ntm-lstm")
    sequences = of_size("copy", (10,), 20, 0)
    found = agree(replace(copy_program(), delay=0), network, sequences, "10")

    assert found.differing is not None
    # One vector for another: half of the bits, by chance.
    assert found.differing == found.program_wrong
    assert found.differing / found.bits == pytest.approx(0.5, abs=0.07)
    assert (found.agreeing, found.network_wrong, found.constant_agreeing) == (0, 0, 0)


def test_the_memory_of_the_sessions_is_the_programs(shipped: Client) -> None:
    """Beyond the memory's size, program and network wrap around alike, and both miss the target."""
    network = ServedNetwork(shipped, "copy-ntm-lstm", 16)
    (within, beyond) = (of_size("copy", (length,), 3, 0) for length in (16, 17))

    assert agree(copy_program(), network, within, "16").differing == 0
    found = agree(copy_program(), network, beyond, "17")
    assert (found.locations, found.network_exact) == (16, 0)
    assert found.program_wrong is not None
    # The last vector has taken the place of the first.
    assert 0 < found.program_wrong <= 3 * 8
    # The network has lost more, and it is the network that the program is held to.
    assert found.differing is not None
    assert found.differing > 3 * 8


def test_without_a_program_the_network_is_still_judged(shipped: Client) -> None:
    """
    Without a program, the network is compared with the target and the program's numbers are None.
    """
    network = ServedNetwork(shipped, "copy-lstm")
    sequences = in_range("copy", 20, 0, Stage.AGREEMENT)
    found = agree(None, network, sequences, "in range")

    assert (found.program_wrong, found.differing, found.agreeing) == (None, None, None)
    assert (found.share, found.bit_share) == (0, 0)
    assert 0 < found.network_exact < 20
    assert found.network_wrong > 0
    assert (found.locations, found.constant_agreeing) == (0, 0)


def test_the_constant_is_what_the_network_gives_most(shipped: Client) -> None:
    """Of one sequence of ones and three of zeros it gives three."""
    (drawn,) = of_size("copy", (3,), 1, 0)
    inputs = drawn.inputs.copy()
    inputs[:3] = 0
    zeros, ones = replace(drawn, inputs=inputs), replace(drawn, inputs=inputs.copy())
    ones.inputs[:3, :8] = 1
    found = agree(None, ServedNetwork(shipped, "copy-ntm-ff"), [ones, zeros, zeros, zeros], "3")

    assert found.constant_agreeing == 3


def test_sequences_of_a_purpose_are_its_own() -> None:
    """A program is judged by other sequences than it was found in, the same ones each time."""
    one, again, other = (
        [sequence.inputs.tobytes() for sequence in in_range("copy", 50, 7, purpose)]
        for purpose in (Stage.INDUCTION, Stage.INDUCTION, Stage.AGREEMENT)
    )
    sizes = {sequence.size for sequence in in_range("repeat-copy", 300, 0, Stage.AGREEMENT)}

    assert one == again
    # Only sequences of a vector or two can be the same by chance.
    assert len(set(one) & set(other)) < 5
    assert {length for length, _ in sizes} == {repeats for _, repeats in sizes} == set(range(1, 11))
