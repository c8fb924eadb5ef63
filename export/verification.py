"""
Export proves itself: the file is run beside PyTorch, step for step, before it is written.

Each runtime carries its own state from step to step, as in service, through the longest sequences
of training, and all outputs must agree. Over sequences of 1,000 steps, everything must agree that a
single step computes, both runtimes starting it from the same state. How far the two then lie apart
after so many steps is told, not limited: where a network has lost its way, beyond the lengths that
it can do, it magnifies a rounding until nothing is left of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator

from export.network import Network, State
from export.tasks import TASKS, Float32, Purpose, Size, generator_for
from export.to_onnx import ServedStep, output_names, spec_in
from service.spec import ModelSpec

LARGEST_DIFFERENCE = 1e-5
"""A model that differs by more is not written."""

RUNTIME_VERSION: str = onnxruntime.__version__

STEPS = 1000
"""Each comparison makes at least so many steps in a row."""

BATCHES = (1, 7, 8, 64)
"""Batch sizes compared on onnxruntime: full vectors of the processor, and odd ends."""

REFERENCE_BATCH = 2
"""Batch size compared on onnx's reference evaluator, which is slow."""


class VerificationFailed(ArithmeticError):
    """The exported graph does not compute what the network does."""


class Comparison(NamedTuple):
    """How far one runtime was from PyTorch, at worst."""

    runtime: str
    batch: int
    locations: int
    steps: int
    in_range: bool
    """Whether the sequences are of a size trained on, at the locations that are served."""
    output_difference: float
    """Of all outputs, each runtime carrying its own state through all steps."""
    step_difference: float
    """Of all outputs, states and traces after one step from the same state, for every step.
    Relative where a value is beyond 1, such as an LSTM's cell."""
    state_drift: float
    """Of all states, carried as for the outputs; not limited."""

    @property
    def limited(self) -> float:
        """The difference that decides; the larger of two in range."""
        if not self.in_range:
            return self.step_difference
        # np.maximum keeps a NaN, which max would lose.
        return float(np.maximum(self.output_difference, self.step_difference))


class OnnxRunner:
    """Runs a model on onnxruntime: the state by tensor name."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        """Load a serialised model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.spec = spec_in(onnx.load_from_string(model))
        self._outputs = [self.spec.output, *(tensor.output for tensor in self.spec.state)]

    def start(self, batch: int, locations: int) -> dict[str, Float32]:
        """The state that the spec describes."""
        return initial_state(self.spec, batch, locations)

    def step(self, x: Float32, state: Mapping[str, Float32]) -> tuple[Float32, dict[str, Float32]]:
        """One step, without traces."""
        y, *after = self._session.run(self._outputs, {self.spec.input: x, **state})
        return y, dict(zip((tensor.input for tensor in self.spec.state), after, strict=True))

    def everything(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        """All outputs of the graph by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


class _Reference:
    """Runs a model on onnx's own evaluator, operator by operator in numpy."""

    def __init__(self, model: bytes) -> None:
        self._evaluator = ReferenceEvaluator(onnx.load_from_string(model))

    def everything(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        values: Any = self._evaluator.run(None, dict(feeds))
        return dict(zip(self._evaluator.output_names, values, strict=True))


def verify(
    model: bytes,
    network: Network,
    locations: Sequence[int],
    batches: Sequence[int] = BATCHES,
    steps: int = STEPS,
) -> list[Comparison]:
    """
    Compare a serialised model with the network that it was made from.

    In range at the model's own memory size, then over `steps` steps at every one of `locations`.

    Raises:
        VerificationFailed: they differ by more than `LARGEST_DIFFERENCE`, or the graph does not
            keep to its spec.
    """
    check_graph(onnx.load_from_string(model))
    runs: list[tuple[str, OnnxRunner | _Reference, int]] = [
        ("onnxruntime", OnnxRunner(model), batch) for batch in batches
    ]
    runs.append(("onnx reference", _Reference(model), REFERENCE_BATCH))
    spec = spec_in(onnx.load_from_string(model))
    chains = [(spec.default_locations, 0), *((count, steps) for count in locations)]
    comparisons = [
        _compare(name, runner, network, spec, batch, count, least)
        for count, least in chains
        for name, runner, batch in runs
    ]
    for comparison in comparisons:
        # Written so that a difference which is not a number fails.
        if not comparison.limited <= LARGEST_DIFFERENCE:
            raise VerificationFailed(
                f"{comparison.runtime} differs from PyTorch by {comparison.limited:.3g} at batch "
                f"{comparison.batch} and {comparison.locations} locations; "
                f"{LARGEST_DIFFERENCE:.0e} is allowed"
            )
    return comparisons


def _compare(
    name: str,
    runner: OnnxRunner | _Reference,
    network: Network,
    spec: ModelSpec,
    batch: int,
    locations: int,
    steps: int,
) -> Comparison:
    with torch.no_grad():
        torch_state = network.initial_state(batch, locations)
    state = initial_state(spec, batch, locations)
    inputs = _sequences(spec.task, batch, steps)
    in_range = not steps
    output = step = drift = 0.0
    for x in inputs:
        same_start = type(torch_state)(*(torch.from_numpy(state[name]) for name in state))
        expected, torch_state = _torch_step(network, spec, x, torch_state)
        expected_here, _ = _torch_step(network, spec, x, same_start)
        found = runner.everything({spec.input: x, **state})
        state = {tensor.input: found[tensor.output] for tensor in spec.state}
        output = _largest(output, [found[spec.output] - expected[spec.output]])
        drift = _largest(drift, [found[each.output] - expected[each.output] for each in spec.state])
        step = _largest(
            step,
            [(found[name] - value) / np.maximum(np.float32(1), np.abs(value))
             for name, value in expected_here.items()],
        )  # fmt: skip
    return Comparison(name, batch, locations, len(inputs), in_range, output, step, drift)


def _torch_step(
    network: Network, spec: ModelSpec, x: Float32, state: State
) -> tuple[dict[str, Float32], State]:
    """One step in PyTorch: everything that the graph outputs, by name, and the next state."""
    with torch.no_grad():
        values = ServedStep(network)(torch.from_numpy(x), state)
    named = {name: value.numpy() for name, value in zip(output_names(spec), values, strict=True)}
    return named, type(state)._make(values[1 : 1 + len(state)])


def _largest(so_far: float, differences: Sequence[npt.NDArray[np.floating[Any]]]) -> float:
    """The largest magnitude; NaN if there is one."""
    return float(np.max([so_far, *(np.abs(difference).max() for difference in differences)]))


def table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a text table."""
    heads = ("runtime", "batch", "N", "steps", "in range", "outputs", "a step", "state drift")
    lines = ["{:>15} {:>5} {:>5} {:>6} {:>8} {:>9} {:>9} {:>11}".format(*heads)]
    lines += [
        "{:>15} {:>5} {:>5} {:>6} {!s:>8} {:>9.1e} {:>9.1e} {:>11.1e}".format(*comparison)
        for comparison in comparisons
    ]
    return "\n".join(lines)


def initial_state(spec: ModelSpec, batch: int, locations: int) -> dict[str, Float32]:
    """The state of `batch` sequences before their first step, by graph input."""
    return {
        tensor.input: np.repeat(tensor.initial_value(locations)[None], batch, 0)
        for tensor in spec.state
    }


def check_graph(model: onnx.ModelProto) -> None:
    """
    Check the graph against its spec.

    Raises:
        VerificationFailed: a name of the spec is not in the graph, or a state's next value does
            not come from its last one, which a server that updates in place relies on.
    """
    spec = spec_in(model)
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    expected_inputs = {spec.input, *(tensor.input for tensor in spec.state)}
    expected_outputs = {*output_names(spec), *(trace.output for trace in spec.traces)}
    if (inputs, outputs) != (expected_inputs, expected_outputs):
        raise VerificationFailed(
            f"the graph's names differ from the spec's in "
            f"{sorted(inputs ^ expected_inputs)} and {sorted(outputs ^ expected_outputs)}"
        )
    sources = {value: node for node in model.graph.node for value in node.output}
    for tensor in spec.state:
        if tensor.input not in _ancestors(tensor.output, sources):
            raise VerificationFailed(f"{tensor.output} does not depend on {tensor.input}")


def _ancestors(value: str, sources: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Everything that a value is computed from."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        node = sources.get(waiting.pop())
        for name in node.input if node else ():
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _sequences(task: str, batch: int, steps: int) -> Float32:
    """The shortest sequences [T, B, X] of so many steps or more; for 0 the longest of training."""
    generator = generator_for(Purpose.VERIFICATION, 0, batch)
    chosen = TASKS[task]
    if not steps:
        return chosen.generate(generator, batch, chosen.largest).inputs

    def size(length: int) -> Size:
        # Only the first number of a size grows; what else there is stays at its largest.
        return (length, *chosen.largest[1:])

    shortest = bisect_left(
        range(steps + 1),
        steps,
        lo=chosen.easiest[0],
        key=lambda length: len(chosen.generate(generator, 1, size(length)).inputs),
    )
    return chosen.generate(generator, batch, size(shortest)).inputs
