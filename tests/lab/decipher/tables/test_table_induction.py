"""Tables of counts are found where there are some, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.tables.induction import induce_table
from ntm_lab.decipher.tables.report import find_table
from ntm_lab.decipher.tables.table import CountTable
from tests.lab.decipher.tables.counters import after_two, counter, recordings


def test_window_and_constants_are_found_from_predictions() -> None:
    """Nothing else says that the counter looks at three bits, and starts from 0.4 and 0.9."""
    real = CountTable("counter", 3, zeros=0.4, ones=0.9)
    found = induce_table(recordings(counter(real), 40))

    assert found.table is not None
    assert found.table.window == 3
    assert abs(found.table.zeros - 0.4) < 0.01
    assert abs(found.table.ones - 0.9) < 0.01
    assert found.divergence is not None
    assert found.divergence.table < 0.001
    assert min(found.by_window) == found.by_window[3]


def test_a_predictor_that_counts_nothing_has_no_table() -> None:
    """It depends on the last two bits alone, which constants explain."""
    found = induce_table(recordings(after_two, 40))

    assert found.table is None
    assert found.divergence is not None
    assert found.divergence.share > 0.5


def test_random_predictions_have_no_table() -> None:
    """There is nothing to count that would explain them."""
    luck = np.random.default_rng(1)

    def random(inputs: Float32) -> Float32:
        return luck.uniform(0.05, 0.95, inputs.shape).astype(np.float32)

    found = induce_table(recordings(random, 40))
    assert found.table is None
    assert "10% are allowed" in found.reason


def test_a_table_that_is_not_in_memory_is_not_the_program() -> None:
    """The predictions are those of a table, but nothing is read that says so."""
    found = find_table(recordings(counter(CountTable("counter", 3, 0.5, 0.5)), 40))

    assert found.candidate.table is not None
    assert not found.found
    assert found.table is None
    assert "only 0% of the contexts are in its memory" in found.verdict


def test_other_networks_are_told_why() -> None:
    """A table is of single bits, of a network that has heads."""
    some = recordings(after_two, 4)
    wide = [replace(each, inputs=np.repeat(each.inputs, 2, 1)) for each in some]
    model = replace(some[0].model, read_heads=0, write_heads=0)
    headless = [replace(each, model=model) for each in some]
    graded = [replace(each, inputs=(each.inputs / 3).astype(np.float32)) for each in some]

    reasons = [induce_table(each).reason for each in (wide, headless, graded)]
    assert reasons == [
        "tables are of single bits, and the network has 2 inputs and 1 outputs",
        "the network has no heads and no memory",
        "tables are of bits, and the inputs are other numbers",
    ]
