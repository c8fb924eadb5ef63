"""
Compare a graph with the network that it was made of, step by step, each carrying its own state.

All outputs of the sequence must agree. From the same state, all values that a step computes must
agree too. The difference of the carried states is reported but not limited: beyond the lengths that
it can do, a network amplifies roundings until the states are unrelated.

Values agree if they differ by at most `LARGEST_DIFFERENCE`. PyTorch itself is less exact for a
network with very sharp heads. Then the limit is `ROUNDINGS` times the rounding: the difference
between the network in single and in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ntm_tasks import Float32
from service.spec import ModelSpec

LARGEST_DIFFERENCE = 1e-5
"""The largest difference, unless the rounding is larger."""

ROUNDINGS = 10
"""The largest difference as a multiple of the rounding."""

Values = npt.NDArray[np.floating[Any]]
Named = Mapping[str, Values]

Step = Callable[[Float32, Named], Named]
"""Makes a step of inputs [B, X] and states by graph input; returns the graph's outputs by name."""


class VerificationFailed(ArithmeticError):
    """The exported graph does not compute the same as the network."""


class Comparison(NamedTuple):
    """The largest differences of a graph on one runtime from its network."""

    runtime: str
    batch: int
    locations: int
    steps: int
    in_range: bool
    """Whether the outputs of the sequence have to agree, as at the sizes of training."""
    output_difference: float
    """Of all outputs; each side carries its own state through all steps."""
    output_rounding: float
    """The same for the network in the other precision."""
    step_difference: float
    """Of all outputs, states and traces after one step from the same state, for every step.
    Relative for values beyond 1, such as an LSTM's cell."""
    step_rounding: float
    """The same for the network in the other precision."""
    state_drift: float
    """Of all states, carried through all steps. It has no limit."""

    @property
    def agrees(self) -> bool:
        """Whether the limited differences are within their limits."""
        # A difference that is not a number has to fail.
        a_step = self.step_difference <= allowed(self.step_rounding)
        return a_step and (
            not self.in_range or self.output_difference <= allowed(self.output_rounding)
        )


def compare(
    spec: ModelSpec,
    graph: Step,
    network: Step,
    other: Step | None,
    inputs: Float32,
    start: Named,
    *,
    against: str = "PyTorch",
    runtime: str = "onnxruntime",
    locations: int | None = None,
    in_range: bool = True,
) -> Comparison:
    """
    Step a graph and its network through `inputs` [T, B, X].

    Args:
        spec: The graph's. The graph starts from its initial state.
        graph: Makes a step of the graph.
        network: Makes a step of the network.
        other: The same in the other precision; None if there is none, and the rounding is unknown.
        inputs: Of all steps.
        start: The network's own initial state.
        against: What makes the network's steps, for the error.
        runtime: What runs the graph.
        locations: Memory locations; None for the spec's default.
        in_range: Whether the outputs of the sequence have to agree.

    Raises:
        VerificationFailed: a difference is above its limit.
    """
    steps, batch = inputs.shape[:2]
    locations = spec.default_locations if locations is None else locations
    state: Named = initial_state(spec, batch, locations)
    carried = other_carried = start
    output = output_rounding = step = step_rounding = drift = 0.0
    y = spec.output
    for x in inputs:
        found, here, there = graph(x, state), network(x, state), network(x, carried)
        if other:
            other_here, other_there = other(x, state), other(x, other_carried)
            output_rounding = largest(output_rounding, [other_there[y] - there[y]])
            step_rounding = largest(step_rounding, _relative(other_here, here))
            other_carried = _following(spec, other_there)
        output = largest(output, [found[y] - there[y]])
        step = largest(step, _relative(found, here))
        drift = largest(drift, [found[each.output] - there[each.output] for each in spec.state])
        state, carried = _following(spec, found), _following(spec, there)
    differences = (output, output_rounding, step, step_rounding, drift)
    made = Comparison(runtime, batch, locations, steps, in_range, *differences)
    if not made.agrees:
        at = f" and {locations} locations" if spec.has_memory else ""
        raise VerificationFailed(
            f"the graph on {runtime} differs from {against} at batch {batch}{at}: outputs of "
            f"{steps} steps by {output:.3g}, a step by {step:.3g}; "
            f"{allowed(output_rounding):.1g} and {allowed(step_rounding):.1g} are allowed"
        )
    return made


def initial_state(spec: ModelSpec, batch: int, locations: int) -> dict[str, Float32]:
    """Return the state of `batch` sequences before their first step, by graph input."""
    return {
        tensor.input: np.repeat(tensor.initial_value(locations)[None], batch, 0)
        for tensor in spec.state
    }


def allowed(rounding: float) -> float:
    """Return the limit of a difference, given the rounding."""
    return max(LARGEST_DIFFERENCE, ROUNDINGS * rounding)


def largest(so_far: float, differences: Sequence[Values]) -> float:
    """Return the largest magnitude, or NaN if there is one."""
    return float(np.max([so_far, *(np.abs(difference).max() for difference in differences)]))


def show(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Print comparisons as a table, each as soon as it is made; return them."""
    heads = ("runtime", "batch", "N", "steps", "in range", "outputs", "(PyTorch)", "a step",
             "(PyTorch)", "state drift")  # fmt: skip
    row = "{:>15} {:>5} {:>5} {:>6} {!s:>8} {:>9{f}} {:>9{f}} {:>9{f}} {:>9{f}} {:>11{f}}"
    print(row.format(*heads, f=""), flush=True)
    shown = []
    for comparison in comparisons:
        print(row.format(*comparison, f=".1e"), flush=True)
        shown.append(comparison)
    return shown


def _relative(found: Named, expected: Named) -> list[Values]:
    """Return the differences from the expected values, relative for values beyond 1."""
    return [
        (found[name] - value) / np.maximum(1, np.abs(value)) for name, value in expected.items()
    ]


def _following(spec: ModelSpec, outputs: Named) -> dict[str, Values]:
    return {tensor.input: outputs[tensor.output] for tensor in spec.state}
