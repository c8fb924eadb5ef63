"""
Verify an exported model: run it beside PyTorch, step by step, before it is written.

In the longest sequences of training, each runtime carries its own state from step to step, as when
served, and all outputs must agree. In sequences of 1,000 steps, both runtimes start each step from
the same state, and all values that the step computes must agree. The difference of the carried
states after 1,000 steps is reported but not limited: beyond the lengths that it can do, a network
amplifies roundings until the states are unrelated.

Values agree if they differ by at most `LARGEST_DIFFERENCE`. PyTorch itself is less exact for a
network with very sharp heads. Then the limit is `ROUNDINGS` times the difference between PyTorch in
single and in double precision.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator

from export.network import Network, State
from export.to_onnx import ServedStep, output_names, spec_in
from ntm_tasks import TASKS, Float32, Purpose, Size, generator_for
from service.errors import ModelInvalid
from service.models import rehearsal
from service.spec import ModelSpec

LARGEST_DIFFERENCE = 1e-5
"""The largest difference, unless PyTorch's own rounding is larger."""

ROUNDINGS = 10
"""The largest difference as a multiple of PyTorch's own rounding."""

RUNTIME_VERSION: str = onnxruntime.__version__

STEPS = 1000
"""The least number of consecutive steps in the long comparisons."""

BATCHES = (1, 7, 8, 64)
"""Batch sizes on onnxruntime: with full vectors of the processor, and with remainders."""

LONG_BATCH = 7
"""The batch size of the long comparisons."""

REFERENCE_BATCH = 2
"""The batch size on onnx's reference evaluator, which is slow."""


Values = npt.NDArray[np.floating[Any]]


class VerificationFailed(ArithmeticError):
    """The exported graph does not compute the same as the network."""


class Comparison(NamedTuple):
    """The largest differences of one runtime from PyTorch."""

    runtime: str
    batch: int
    locations: int
    steps: int
    in_range: bool
    """Whether the sequences have a size of training, at the default number of locations."""
    output_difference: float
    """Of all outputs; each runtime carries its own state through all steps."""
    output_rounding: float
    """The same for PyTorch in single precision against double precision."""
    step_difference: float
    """Of all outputs, states and traces after one step from the same state, for every step.
    Relative for values beyond 1, such as an LSTM's cell."""
    step_rounding: float
    """The same for PyTorch in single precision against double precision."""
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


class OnnxRunner:
    """Runs a model on onnxruntime. The state is a mapping by tensor name."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        """
        Load a serialised model; `threads` is for onnxruntime.

        Raises:
            ModelInvalid: the bytes are not a model that onnxruntime can load, or have no spec.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # its errors are raised too
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelInvalid(f"onnxruntime cannot load the model: {error}") from error
        self.spec = spec_in(onnx.load_from_string(model))
        self._outputs = [self.spec.output, *(tensor.output for tensor in self.spec.state)]

    def start(self, batch: int, locations: int) -> dict[str, Float32]:
        """Return the initial state of the spec."""
        return initial_state(self.spec, batch, locations)

    def step(self, x: Float32, state: Mapping[str, Float32]) -> tuple[Float32, dict[str, Float32]]:
        """Make one step without traces. Raises ModelInvalid if the graph cannot make it."""
        try:
            y, *after = self._session.run(self._outputs, {self.spec.input: x, **state})
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelInvalid(f"onnxruntime cannot run the model: {error}") from error
        return y, dict(zip((tensor.input for tensor in self.spec.state), after, strict=True))

    def everything(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        """Make one step; return all outputs of the graph by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


class _Reference:
    """Runs a model on onnx's reference evaluator, operator by operator in numpy."""

    def __init__(self, model: bytes) -> None:
        self._evaluator = ReferenceEvaluator(onnx.load_from_string(model))

    def everything(self, feeds: Mapping[str, Float32]) -> dict[str, Float32]:
        # Its sigmoid computes two formulas, of which one can overflow, and takes the other.
        with np.errstate(over="ignore", invalid="ignore"):
            values: Any = self._evaluator.run(None, dict(feeds))
        return dict(zip(self._evaluator.output_names, values, strict=True))


def verify(
    model: bytes,
    network: Network,
    locations: Sequence[int],
    batches: Sequence[int] = BATCHES,
    steps: int = STEPS,
) -> Iterator[Comparison]:
    """
    Compare a serialised model with its network; yield each comparison as it is made.

    First in range, at the default number of locations and every batch size; then over `steps` steps
    at each of `locations`.

    Raises:
        VerificationFailed: a difference is above its limit, or the graph does not match its spec.
    """
    check_graph(onnx.load_from_string(model))
    runs: list[tuple[str, OnnxRunner | _Reference, int]] = [
        ("onnxruntime", OnnxRunner(model), batch) for batch in batches
    ]
    runs.append(("onnx reference", _Reference(model), REFERENCE_BATCH))
    spec = spec_in(onnx.load_from_string(model))
    chains = [(spec.default_locations, 0), *((count, steps) for count in locations)]
    chosen = (
        (name, runner, network, spec, batch, count, least)
        for count, least in chains
        for name, runner, batch in runs
        if not least or batch in (LONG_BATCH, REFERENCE_BATCH)
    )
    for each in chosen:
        comparison = _compare(*each)
        if not comparison.agrees:
            raise VerificationFailed(
                f"{comparison.runtime} differs from PyTorch at batch {comparison.batch} and "
                f"{comparison.locations} locations: outputs by {comparison.output_difference:.3g}, "
                f"a step by {comparison.step_difference:.3g}; "
                f"{allowed(comparison.output_rounding):.1g} and "
                f"{allowed(comparison.step_rounding):.1g} are allowed"
            )
        yield comparison


def rehearse(folder: Path, name: str, content: bytes, inputs: Float32, rounding: float) -> None:
    """
    Load a model from a folder of models and make the steps of `inputs` [T, 1, X], as the server
    does.

    `rounding` is PyTorch's own, of outputs.

    Raises:
        ModelInvalid: the server could not load or step it.
        VerificationFailed: the server's outputs differ from those of the model alone.
    """
    runner = OnnxRunner(content)
    for locations, found in rehearsal.rehearse(folder, name, inputs[:, 0]).items():
        state = runner.start(1, locations)
        difference = 0.0
        for x, y in zip(inputs, found, strict=True):
            expected, state = runner.step(x, state)
            difference = largest(difference, [y - expected[0]])
        if not difference <= allowed(rounding):
            raise VerificationFailed(
                f"a server's outputs differ from the model's by {difference:.3g} at {locations} "
                f"locations; {allowed(rounding):.1g} is allowed"
            )


def allowed(rounding: float) -> float:
    """Return the limit of a difference, given PyTorch's own rounding."""
    return max(LARGEST_DIFFERENCE, ROUNDINGS * rounding)


def _compare(
    name: str,
    runner: OnnxRunner | _Reference,
    network: Network,
    spec: ModelSpec,
    batch: int,
    locations: int,
    steps: int,
) -> Comparison:
    precise = deepcopy(network).double()
    with torch.no_grad():
        torch_state = network.initial_state(batch, locations)
        precise_state = type(torch_state)._make(value.double() for value in torch_state)
    state = initial_state(spec, batch, locations)
    inputs = sequences(spec.task, batch, steps)
    output = output_rounding = step = step_rounding = drift = 0.0
    for x in inputs:
        same_start = type(torch_state)._make(torch.from_numpy(state[name]) for name in state)
        same_precise = type(torch_state)._make(value.double() for value in same_start)
        here, _ = _torch_step(network, spec, x, same_start)
        precise_here, _ = _torch_step(precise, spec, x, same_precise)
        expected, torch_state = _torch_step(network, spec, x, torch_state)
        precise_expected, precise_state = _torch_step(precise, spec, x, precise_state)
        found = runner.everything({spec.input: x, **state})
        state = {tensor.input: found[tensor.output] for tensor in spec.state}
        y = spec.output
        output = largest(output, [found[y] - expected[y]])
        output_rounding = largest(output_rounding, [expected[y] - precise_expected[y]])
        drift = largest(drift, [found[each.output] - expected[each.output] for each in spec.state])
        step = largest(step, relative(found, here))
        step_rounding = largest(step_rounding, relative(here, precise_here))
    differences = (output, output_rounding, step, step_rounding, drift)
    return Comparison(name, batch, locations, len(inputs), not steps, *differences)


def relative(found: Mapping[str, Values], expected: Mapping[str, Values]) -> list[Values]:
    """Return the differences from the expected values, relative for values beyond 1."""
    return [
        (found[name] - value) / np.maximum(1, np.abs(value)) for name, value in expected.items()
    ]


def _torch_step(
    network: Network, spec: ModelSpec, x: Float32, state: State
) -> tuple[dict[str, Values], State]:
    """Make one step in PyTorch; return the graph's outputs by name, and the next state."""
    with torch.no_grad():
        values = ServedStep(network)(torch.from_numpy(x).to(state[0]), state)
    named = {name: value.numpy() for name, value in zip(output_names(spec), values, strict=True)}
    return named, type(state)._make(values[1 : 1 + len(state)])


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


def initial_state(spec: ModelSpec, batch: int, locations: int) -> dict[str, Float32]:
    """Return the state of `batch` sequences before their first step, by graph input."""
    return {
        tensor.input: np.repeat(tensor.initial_value(locations)[None], batch, 0)
        for tensor in spec.state
    }


def check_graph(model: onnx.ModelProto) -> None:
    """
    Check the graph against its spec.

    Raises:
        VerificationFailed: the names of the graph differ from the spec's, or the next value of a
            state does not depend on its last value. The server updates states in place, so it
            needs this dependence.
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
    for at in unread(model, spec):
        tensor = spec.state[at]
        raise VerificationFailed(f"{tensor.output} does not depend on {tensor.input}")


def unread(model: onnx.ModelProto, spec: ModelSpec) -> list[int]:
    """Return the positions of the states whose next value does not depend on the last."""
    sources = {value: node for node in model.graph.node for value in node.output}
    return [
        at
        for at, tensor in enumerate(spec.state)
        if tensor.input not in _ancestors(tensor.output, sources)
    ]


def _ancestors(value: str, sources: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Return the names of all values that a value is computed from."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        node = sources.get(waiting.pop())
        for name in node.input if node else ():
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def sequences(task: str, batch: int, steps: int) -> Float32:
    """Return sequences [T, B, X] with at least `steps` steps; for 0, the longest of training."""
    generator = generator_for(Purpose.VERIFICATION, 0, batch)
    chosen = TASKS[task]
    if not steps:
        return chosen.generate(generator, batch, chosen.largest).inputs
    if chosen.source:  # which need not have sequences as long as that
        parts = [chosen.generate(generator, batch, chosen.largest).inputs]
        while sum(map(len, parts)) < steps:
            parts.append(chosen.generate(generator, batch, chosen.largest).inputs)
        return np.concatenate(parts)

    def size(length: int) -> Size:
        # Only the first number of a size grows; the others stay at their largest.
        return (length, *chosen.largest[1:])

    shortest = bisect_left(
        range(steps + 1),
        steps,
        lo=chosen.easiest[0],
        key=lambda length: len(chosen.generate(generator, 1, size(length)).inputs),
    )
    return chosen.generate(generator, batch, size(shortest)).inputs
