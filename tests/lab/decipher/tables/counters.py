"""Recordings of predictors of bits that are written by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ntm_client.values import Float32, Memory, Model, TraceTensor
from ntm_lab.decipher.tables.table import CountTable, TableMachine
from ntm_lab.recordings.recording import Recording

LOCATIONS, WIDTH = 8, 2

Predictor = Callable[[Float32], Float32]
"""From inputs [T, 1] to probabilities [T, 1]."""


def counter(table: CountTable) -> Predictor:
    """A predictor that counts as a table does."""
    return lambda inputs: TableMachine(table).run(inputs)


def after_two(inputs: Float32) -> Float32:
    """Predicts from the last two bits, and counts nothing."""
    last = np.concatenate([[0], inputs[:-1, 0]])
    found: Float32 = (0.1 + 0.5 * inputs + 0.3 * last[:, None]).astype(np.float32)
    return found


def recordings(predict: Predictor, count: int, steps: int = 120, seed: int = 0) -> list[Recording]:
    """What a network with a memory that nothing uses would do with random sequences."""
    luck = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        # Of a source with a law of its own, so that counting is worth while.
        table = luck.beta(0.5, 0.5, 8)
        bits = list(luck.integers(0, 2, 3))
        while len(bits) < steps:
            bits.append(int(luck.random() < table[4 * bits[-3] + 2 * bits[-2] + bits[-1]]))
        inputs = np.array(bits, np.float32)[:, None]
        found.append(_recorded(inputs, predict(inputs)))
    return found


def _recorded(inputs: Float32, outputs: Float32) -> Recording:
    steps = len(inputs)
    weighting = np.zeros((steps, 1, LOCATIONS), np.float32)
    weighting[:, :, 0] = 1
    vector = np.zeros((steps, 1, WIDTH), np.float32)
    traces = {
        "read_weighting": weighting,
        "write_weighting": weighting,
        "read_vector": vector,
        "erase_vector": vector,
        "add_vector": vector,
    }
    memory = np.zeros((LOCATIONS, WIDTH), np.float32)
    before = Memory(0, memory, weighting[0], weighting[0])
    return Recording(_model(traces), LOCATIONS, inputs, outputs, traces, before, before)


def _model(traces: dict[str, Float32]) -> Model:
    named = tuple(
        TraceTensor(name, 1, -1 if "weighting" in name else WIDTH) for name in sorted(traces)
    )
    return Model(
        name="counter",
        content_hash="0" * 64,
        task="",
        architecture="by hand",
        input_width=1,
        output_width=1,
        state=(),
        traces=named,
        read_heads=1,
        write_heads=1,
        default_locations=LOCATIONS,
        fixed_locations=False,
        provider="none",
    )
