"""
Verify an exported model: run it beside PyTorch, step by step, before it is written.

The longest sequences of training run on all batch sizes, each runtime carrying its own state from
step to step, as when served. Sequences of 1,000 steps run at every number of locations: there only
the steps from the same state have a limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator

from export.comparison import (
    Comparison,
    Named,
    Step,
    VerificationFailed,
    allowed,
    compare,
    initial_state,
    largest,
)
from export.network import Network
from export.plain_session import plain_session
from export.to_onnx import ServedStep, output_names, spec_in
from ntm_tasks import TASKS, Float32, Purpose, Size, generator_for
from service.errors import ModelInvalid
from service.models import rehearsal
from service.spec import ModelSpec

RUNTIME_VERSION: str = onnxruntime.__version__

STEPS = 1000
"""The least number of consecutive steps in the long comparisons."""

BATCHES = (1, 7, 8, 64)
"""Batch sizes on onnxruntime: with full vectors of the processor, and with remainders."""

LONG_BATCH = 7
"""The batch size of the long comparisons."""

REFERENCE_BATCH = 2
"""The batch size on onnx's reference evaluator, which is slow."""


class OnnxRunner:
    """Runs a model on onnxruntime. The state is a mapping by tensor name."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        """
        Load a serialised model; `threads` is for onnxruntime.

        Raises:
            ModelInvalid: the bytes are not a model that onnxruntime can load, or have no spec.
        """
        try:
            self._session = plain_session(model, threads)
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

    def everything(self, x: Float32, state: Named) -> Named:
        """Make one step; return all outputs of the graph by name."""
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {self.spec.input: x, **state})
        return dict(zip(names, values, strict=True))


class _Reference:
    """Runs a model on onnx's reference evaluator, operator by operator in numpy."""

    def __init__(self, model: bytes) -> None:
        loaded = onnx.load_from_string(model)
        self._evaluator = ReferenceEvaluator(loaded)
        self._input = spec_in(loaded).input

    def everything(self, x: Float32, state: Named) -> Named:
        # Its sigmoid computes two formulas, of which one can overflow, and takes the other.
        with np.errstate(over="ignore", invalid="ignore"):
            values: Any = self._evaluator.run(None, {self._input: x, **state})
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
    in_single = torch_step(network, spec)
    in_double = torch_step(deepcopy(network).double(), spec)
    for count, least in chains:
        for name, runner, batch in runs:
            if least and batch not in (LONG_BATCH, REFERENCE_BATCH):
                continue
            with torch.no_grad():
                first = network.initial_state(batch, count)
            yield compare(
                spec,
                runner.everything,
                in_single,
                in_double,
                sequences(spec.task, batch, least),
                {each.input: value.numpy() for each, value in zip(spec.state, first, strict=True)},
                runtime=name,
                locations=count,
                in_range=not least,
            )


def torch_step(network: Network, spec: ModelSpec) -> Step:
    """Return how a network makes its step in PyTorch, in the precision of its parameters."""
    served = ServedStep(network)
    first = network.initial_state(1, spec.default_locations)
    precision = next(network.parameters()).dtype

    def step(x: Float32, state: Named) -> Named:
        tensors = [torch.from_numpy(value).to(precision) for value in (x, *state.values())]
        with torch.no_grad():
            values = served(tensors[0], type(first)._make(tensors[1:]))
        return {name: made.numpy() for name, made in zip(output_names(spec), values, strict=True)}

    return step


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
