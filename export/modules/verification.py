"""
Verify the graph of a step beside the step in PyTorch, at several batches and memory sizes.

`export.comparison` has the limits. `export.verification` does the same for networks of a task. Here
the inputs are somebody's, or drawn from a normal distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from export.comparison import Comparison, Named, Step, compare, initial_state
from export.to_onnx import output_names
from export.verification import OnnxRunner
from ntm_tasks import Float32
from service.spec import ModelSpec

STEPS = 100
"""Steps of each comparison, where no inputs are given."""

BATCHES = (1, 2, 7)

PACKED_BATCHES = (4, 8)
"""Batches in which a row is compared with itself to the bit, as the server fills them."""


def drawn(width: int, batch: int, steps: int = STEPS) -> Float32:
    """Draw inputs [T, B, X] from a normal distribution, the same for each call."""
    generator = np.random.default_rng((width, batch))
    return generator.standard_normal((steps, batch, width), np.float32)


def spread(inputs: Float32, batch: int) -> Float32:
    """Give each row of a batch the inputs [T, X] from another step on: [T, B, X]."""
    return np.stack([np.roll(inputs, -row, axis=0) for row in range(batch)], axis=1)


def verify_step(
    content: bytes,
    step: nn.Module,
    inputs: Callable[[int], Float32],
    batches: Sequence[int] = BATCHES,
) -> Iterator[Comparison]:
    """
    Compare a serialised model with its step in PyTorch, at every batch and memory size.

    Each comparison is yielded as it is made.

    Each carries its own state from step to step, and all outputs must agree. From the same state,
    all values of a step must agree. The limits are those of `export.comparison`.

    Args:
        content: The model, with its spec.
        step: `(x, *state)` -> the graph's outputs, in the order of `to_onnx.output_names`.
        inputs: Returns inputs [T, B, X] for a batch.
        batches: Sizes of batches.

    Raises:
        VerificationFailed: a difference is above its limit.
        ModelInvalid: onnxruntime cannot load or run the model.
    """
    runner = OnnxRunner(content)
    spec = runner.spec
    counts = [spec.default_locations]
    if spec.has_memory and not spec.fixed_locations:
        counts += [spec.default_locations + 1, 2 * spec.default_locations]
    single = _step(step, spec, torch.float32)
    double = _precise(step, spec, inputs(1)[0])
    for count, batch in ((count, batch) for count in counts for batch in batches):
        start = initial_state(spec, batch, count)
        yield compare(
            spec, runner.everything, single, double, inputs(batch), start, locations=count
        )


def same_bits(content: bytes, inputs: Callable[[int], Float32]) -> bool:
    """
    Whether a row's outputs and state have the same bits among other rows as among its copies.

    onnxruntime runs the batches that a server makes of several sessions.
    """
    runner = OnnxRunner(content)
    spec = runner.spec
    for batch in PACKED_BATCHES:
        x = inputs(batch)
        states = [initial_state(spec, batch, spec.default_locations) for _ in range(2)]
        for mixed in x:
            pair = (mixed, np.repeat(mixed[:1], batch, axis=0))
            results = [runner.step(x, state) for x, state in zip(pair, states, strict=True)]
            states = [state for _, state in results]
            first, second = ([y, *state.values()] for y, state in results)
            if any(a[0].tobytes() != b[0].tobytes() for a, b in zip(first, second, strict=True)):
                return False
    return True


def _step(step: nn.Module, spec: ModelSpec, precision: torch.dtype) -> Step:
    """Return how a module makes its step in PyTorch."""

    def made(x: Float32, state: Named) -> Named:
        # A module may change its state in place.
        tensors = [torch.from_numpy(value).to(precision, copy=True) for value in state.values()]
        with torch.no_grad():
            values = step(torch.from_numpy(x).to(precision), *tensors)
        return {name: value.numpy() for name, value in zip(output_names(spec), values, strict=True)}

    return made


def _precise(step: nn.Module, spec: ModelSpec, x: Float32) -> Step | None:
    """
    Return how a module makes its step in double precision, if it has one.

    A module that makes float32 tensors itself has none. Its rounding is not known, and the
    difference has the plain limit.
    """
    made = _step(deepcopy(step).double(), spec, torch.float64)
    try:
        made(x, initial_state(spec, len(x), spec.default_locations))
    except RuntimeError:
        return None
    return made
