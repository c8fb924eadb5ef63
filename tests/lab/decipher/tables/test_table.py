"""A table of counts as a program: run, shown, and printed as Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ntm_lab.decipher.tables.counting import Bits, divergence, tallies
from ntm_lab.decipher.tables.table import CountTable, TableMachine, formula, listing, source
from tests.lab.decipher.tables.counters import counter, recordings

TABLE = CountTable("counter", 2, zeros=0.5, ones=0.5)


def test_a_table_predicts_from_what_followed_the_same_bits() -> None:
    """The probability is (N1 + 1/2) / (N0 + N1 + 1) of the context, and 1/2 before there is one."""
    bits = np.array([0, 1, 1, 0, 1, 0, 1], np.float32)[:, None]
    found = TableMachine(TABLE).run(bits)[:, 0]

    # At the end, 01 was followed by 1 and then by 0.
    assert found == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.5])


def test_counts_can_be_changed_between_steps() -> None:
    """The next prediction is from the new counts."""
    machine = TableMachine(TABLE)
    machine.run(np.array([[0], [1]], np.float32))
    machine.counts[2] = [0, 3]  # of context 10

    assert machine.step(np.zeros(1, np.float32)) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("window", [0, 1, 3])
def test_the_python_that_is_printed_computes_the_same(window: int) -> None:
    """It needs no other module, and gives the machine's probability for each bit."""
    table = CountTable("counter", window, zeros=0.25, ones=1.5)
    defined: dict[str, Any] = {}
    exec(source(table), defined)  # noqa: S102 - it is what is tested
    inputs = np.random.default_rng(0).integers(0, 2, (60, 1)).astype(np.float32)
    own = TableMachine(table).run(inputs)[:, 0]

    assert list(defined["run"](inputs)) == pytest.approx(own, abs=1e-6)
    assert list(defined["run"](inputs.tolist())) == pytest.approx(own, abs=1e-6)


def test_what_is_shown() -> None:
    """The pseudo-code names the number of bits, and the formula has two constants."""
    assert formula(CountTable("x", 5, zeros=0.5, ones=0.75)) == "(N1 + 0.750) / (N0 + N1 + 1.250)"
    assert "    context = the last 2 inputs" in listing(TABLE)
    assert TABLE.contexts == ("00", "01", "10", "11")


def test_tallies_are_the_machines_counts() -> None:
    """At each step of each sequence they have what the table has for the step's context."""
    bits = Bits.of(recordings(counter(TABLE), 3, steps=30))
    found = tallies(bits, 2)
    for row in range(3):
        machine = TableMachine(TABLE)
        for step, bit in enumerate(bits.inputs[row]):
            machine.step(np.array([bit], np.float32))
            expected = [0, 0] if machine.context is None else machine.counts[machine.context]
            assert found[row, step].tolist() == list(expected)


def test_the_divergence_is_in_bits() -> None:
    """A guess of one half costs a bit where the network is certain, else nothing."""
    assert divergence([1.0, 0.5], [0.5, 0.5]) == pytest.approx([1, 0], abs=1e-4)
