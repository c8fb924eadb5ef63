"""
Verify the graph of a checkpoint beside the repository's equations in double precision.

`export.verification` has the limits and the table. There the rounding is that of PyTorch in single
precision against double; here it is that of our PyTorch network against the equations in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from export import verification
from export.network import Network
from export.pytorch_ntm.checkpoint import Float64
from export.pytorch_ntm.equations import Equations, Sequence
from export.to_onnx import ServedStep, output_names
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
    for inputs, in_range in runs:
        found = _compare(runner, network, equations, inputs, in_range=in_range)
        if not found.agrees:
            raise VerificationFailed(
                f"the graph differs from the equations at batch {found.batch}: outputs of "
                f"{found.steps} steps by {found.output_difference:.3g}, a step by "
                f"{found.step_difference:.3g}; {allowed(found.output_rounding):.1g} and "
                f"{allowed(found.step_rounding):.1g} are allowed"
            )
        yield found


def _compare(
    runner: OnnxRunner,
    network: Network,
    equations: Equations,
    inputs: Float32,
    *,
    in_range: bool,
) -> Comparison:
    spec = runner.spec
    batch, locations = inputs.shape[1], spec.default_locations
    state = initial_state(spec, batch, locations)
    carried, exact = state, [equations.start() for _ in range(batch)]
    output = output_rounding = step = step_rounding = drift = 0.0
    y = spec.output
    for x in inputs:
        found = runner.everything({spec.input: x, **state})
        here = _torch_step(network, spec, x, state)
        same = [
            equations.sequence({name: value[row].astype(float) for name, value in state.items()})
            for row in range(batch)
        ]
        expected, _ = _exact_step(equations, x, same)
        step = largest(step, relative(found, expected))
        step_rounding = largest(step_rounding, relative(here, expected))
        of_torch = _torch_step(network, spec, x, carried)
        exactly, exact = _exact_step(equations, x, exact)
        output = largest(output, [found[y] - exactly[y]])
        output_rounding = largest(output_rounding, [of_torch[y] - exactly[y]])
        drift = largest(drift, [found[each.output] - exactly[each.output] for each in spec.state])
        state = {tensor.input: found[tensor.output] for tensor in spec.state}
        carried = {tensor.input: of_torch[tensor.output] for tensor in spec.state}
    differences = (output, output_rounding, step, step_rounding, drift)
    return Comparison("onnxruntime", batch, locations, len(inputs), in_range, *differences)


def _exact_step(
    equations: Equations, x: Float32, before: list[Sequence]
) -> tuple[dict[str, Float64], list[Sequence]]:
    """Make a step of each sequence by the equations; return the graph's outputs by name."""
    made = [equations.step(row.astype(float), each) for row, each in zip(x, before, strict=True)]
    named = [equations.named(*results) for results in made]
    stacked = {name: np.stack([each[name] for each in named]) for name in named[0]}
    return stacked, [after for _, after, _ in made]


def _torch_step(
    network: Network, spec: ModelSpec, x: Float32, state: Mapping[str, Float32]
) -> dict[str, Values]:
    """Make a step in PyTorch; return the graph's outputs by name."""
    kind = type(network.initial_state(1, spec.default_locations))
    with torch.no_grad():
        tensors = kind._make(torch.from_numpy(value) for value in state.values())
        values = ServedStep(network)(torch.from_numpy(x), tensors)
    return {name: value.numpy() for name, value in zip(output_names(spec), values, strict=True)}
