"""
Verify the graph of a checkpoint beside the repository's equations in double precision.

`export.comparison` has the limits. The rounding is that of our PyTorch network against the
equations in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from export import verification
from export.comparison import Comparison, Named, Step, compare
from export.network import Network
from export.pytorch_ntm.checkpoint import Float64
from export.pytorch_ntm.equations import Equations
from export.verification import OnnxRunner
from ntm_tasks import TASKS, Float32
from service.spec import ModelSpec

BATCHES = (1, 7, 8)
"""Batch sizes on onnxruntime: with full vectors of the processor, and with remainders."""

STEPS = 50
"""Steps of a sequence of no known task, whose inputs are random bits."""

LONG_STEPS, LONG_BATCH = 300, 2


def sequences(spec: ModelSpec, batch: int) -> Float32:
    """Return the longest sequences of training [T, B, X] of the spec's task, or random bits."""
    if spec.task not in TASKS:
        return bits(spec, batch, STEPS)
    return verification.sequences(spec.task, batch, 0)


def bits(spec: ModelSpec, batch: int, steps: int) -> Float32:
    """Return random bits [T, B, X], the same for each call."""
    generator = np.random.default_rng((batch, steps))
    return generator.integers(0, 2, (steps, batch, spec.input_width)).astype(np.float32)


def verify(content: bytes, network: Network, equations: Equations) -> Iterator[Comparison]:
    """
    Compare a serialised model with the equations: outputs, states and traces.

    Each comparison is yielded as it is made.

    Each carries its own state through sequences of the task, and all outputs must agree. From the
    same state, all values of every step must agree, also over many steps of random bits.

    Args:
        content: The model, with its spec.
        network: The network in single precision, from which the rounding is known.
        equations: Those of the same checkpoint.

    Raises:
        VerificationFailed: a difference is above its limit.
    """
    runner = OnnxRunner(content)
    runs = [(sequences(runner.spec, batch), True) for batch in BATCHES]
    runs.append((bits(runner.spec, LONG_BATCH, LONG_STEPS), False))
    exact, in_single = _exact_step(equations), verification.torch_step(network, runner.spec)
    for inputs, in_range in runs:
        yield compare(
            runner.spec,
            runner.everything,
            exact,
            in_single,
            inputs,
            _batch([equations.state(equations.start())] * inputs.shape[1]),
            against="the equations",
            in_range=in_range,
        )


def _exact_step(equations: Equations) -> Step:
    """Return how the equations make a step of each sequence."""

    def step(x: Float32, state: Named) -> Named:
        made = []
        for row, values in enumerate(x.astype(float)):
            alone = {name: value[row].astype(float) for name, value in state.items()}
            made.append(equations.named(*equations.step(values, equations.sequence(alone))))
        return _batch(made)

    return step


def _batch(rows: list[dict[str, Float64]]) -> dict[str, Float64]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
