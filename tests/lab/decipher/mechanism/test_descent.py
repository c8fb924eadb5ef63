"""The fit of a mechanism's layer."""

from __future__ import annotations

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.mechanism.descent import Aim, Examples, fitted_layer
from ntm_lab.decipher.mechanism.model import Layer, with_one


def values(layer: Layer, known: Float32, reads: Float32) -> tuple[Float32, Float32]:
    """What the layer gives for the heads and the output."""
    units = np.tanh(with_one(known) @ layer.units)
    heads: Float32 = with_one(units) @ layer.heads
    output: Float32 = np.concatenate([units, with_one(reads)], 1) @ layer.output
    return heads, output


def test_a_layer_finds_a_function_that_no_affine_map_is() -> None:
    """The parity of two bits goes to a head, and the bit that is read to the output."""
    luck = np.random.default_rng(0)
    known = luck.integers(0, 2, (6000, 3)).astype(np.float32)
    reads = luck.integers(0, 2, (6000, 1)).astype(np.float32)
    parity = 4 * (known[:, :1] != known[:, 1:2]) - 2
    wanted = np.concatenate([parity, np.full_like(parity, 20)], 1).astype(np.float32)
    every = np.ones((6000, 1), np.float32)
    examples = Examples(known, reads, wanted, 2 * reads - 1, every, every[:, 0])

    aim = Aim(np.ones(2, np.float32), np.full(2, 8, np.float32), decay=0.01)
    layer = fitted_layer(examples, aim, seed=0)

    heads, output = values(layer, known[:100], reads[:100])
    assert np.abs(heads[:, 0] - parity[:100, 0]).max() < 0.1
    assert np.abs(output - (2 * reads[:100] - 1)).max() < 0.1
    # Above 8 a logistic function has reached its limit, so that 20 is not aimed at.
    assert heads[:, 1].min() > 7
    assert heads[:, 1].max() < 15
