"""
Verify the graph of a step beside the step in PyTorch, at several batches and memory sizes.

`export.verification` has the limits and the table, and does the same for networks of a task. Here
the inputs are somebody's, or drawn from a normal distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from export.to_onnx import output_names
from export.verification import (
    Comparison,
    OnnxRunner,
    Values,
    VerificationFailed,
    allowed,
    initial_state,
    largest,
    relative,
)
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
    all values of a step must agree. The limits are those of `export.verification`.

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
    for count, batch in ((count, batch) for count in counts for batch in batches):
        found = _compare(runner, step, spec, inputs(batch), count)
        if not found.agrees:
            at = f" and {found.locations} locations" if spec.has_memory else ""
            raise VerificationFailed(
                f"the graph differs from PyTorch at batch {found.batch}{at}: outputs of "
                f"{found.steps} steps by {found.output_difference:.3g}, a step by "
                f"{found.step_difference:.3g}; {allowed(found.output_rounding):.1g} and "
                f"{allowed(found.step_rounding):.1g} are allowed"
            )
        yield found


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


def _compare(
    runner: OnnxRunner, step: nn.Module, spec: ModelSpec, inputs: Float32, locations: int
) -> Comparison:
    batch = inputs.shape[1]
    state = initial_state(spec, batch, locations)
    carried = {name: torch.from_numpy(value) for name, value in state.items()}
    precise_step: nn.Module | None = deepcopy(step).double()
    precise = {name: value.double() for name, value in carried.items()}
    output = output_rounding = of_step = step_rounding = drift = 0.0
    y = spec.output
    for x in map(torch.from_numpy, inputs):
        same = {name: torch.from_numpy(value) for name, value in state.items()}
        here = _made(step, spec, x, same)
        expected = _made(step, spec, x, carried)
        found = runner.everything({spec.input: x.numpy(), **state})
        if precise_step is not None:
            try:
                doubled = {name: value.double() for name, value in same.items()}
                precise_here = _made(precise_step, spec, x.double(), doubled)
                precise_expected = _made(precise_step, spec, x.double(), precise)
            except RuntimeError:
                # A module that makes float32 tensors itself has no double precision. Its rounding
                # is not known, and the difference has the plain limit.
                precise_step = None
            else:
                output_rounding = largest(output_rounding, [expected[y] - precise_expected[y]])
                step_rounding = largest(step_rounding, relative(here, precise_here))
                precise = _following(spec, precise_expected)
        output = largest(output, [found[y] - expected[y]])
        of_step = largest(of_step, relative(found, here))
        drift = largest(drift, [found[each.output] - expected[each.output] for each in spec.state])
        state = {tensor.input: found[tensor.output] for tensor in spec.state}
        carried = _following(spec, expected)
    differences = (output, output_rounding, of_step, step_rounding, drift)
    return Comparison("onnxruntime", batch, locations, len(inputs), True, *differences)


def _made(
    step: nn.Module, spec: ModelSpec, x: Tensor, state: Mapping[str, Tensor]
) -> dict[str, Values]:
    """Make a step in PyTorch; return the graph's outputs by name."""
    with torch.no_grad():
        # A module may change its state in place.
        values = step(x, *(state[tensor.input].clone() for tensor in spec.state))
    return {name: value.numpy() for name, value in zip(output_names(spec), values, strict=True)}


def _following(spec: ModelSpec, outputs: Mapping[str, Values]) -> dict[str, Tensor]:
    return {tensor.input: torch.from_numpy(outputs[tensor.output]) for tensor in spec.state}
