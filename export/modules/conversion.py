"""From a step in PyTorch to its graph, or to the line of the module that has no graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from export import to_onnx
from export.modules.refusal import (
    ModuleRefused,
    place_of_error,
    place_of_node,
    place_of_step,
    what_failed,
)
from export.modules.step import Step
from export.verification import unread
from service.spec import LOCATIONS, METADATA_KEY, ModelSpec

TRACED_BATCH = 3
"""A batch that few other sizes equal, and more than one, for which PyTorch has rules of its own."""

Start = Callable[[int, int], list[Tensor]]
"""The initial state of a batch at a number of locations."""


def program_of(step: Step, spec: ModelSpec, start: Start) -> ExportedProgram:
    """
    Trace a step for any batch and, if sessions choose it, any number of locations.

    Raises:
        ModuleRefused: it depends on values, or works for the traced sizes alone.
    """
    batch, locations = torch.export.Dim("B"), torch.export.Dim("N")
    axes = tuple(
        {0: batch, len(tensor.shape): locations}
        if LOCATIONS in tensor.shape and not spec.fixed_locations
        else {0: batch}
        for tensor in spec.state
    )
    x = torch.zeros(TRACED_BATCH, spec.input_width)
    state = start(TRACED_BATCH, spec.default_locations)
    try:
        with _quiet():
            return torch.export.export(
                deepcopy(step), (x, *state), dynamic_shapes=({0: batch}, axes)
            )
    except ModuleRefused:
        raise
    # It runs somebody's code on values of its own, which can raise anything.
    except Exception as error:
        raise _refusal(error, step, spec) from error


def convert(step: Step, program: ExportedProgram, spec: ModelSpec) -> onnx.ModelProto:
    """
    Convert a traced step to a graph with the spec in its metadata.

    Raises:
        ModuleRefused: ONNX has no operator for something in it.
    """
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[spec.input, *(tensor.input for tensor in spec.state)],
                output_names=to_onnx.output_names(spec),
                opset_version=to_onnx.OPSET,
                verbose=False,
            )
        assert exported is not None
        model = exported.model_proto
        to_onnx.tidy(model)
        model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
        onnx.checker.check_model(model, full_check=True)
    except (
        torch.onnx.OnnxExporterError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise _without_operator(error, program, step) from error
    return model


def graph_of(
    step: Step, spec: ModelSpec, start: Start, check: Callable[[ExportedProgram], None]
) -> onnx.ModelProto:
    """Trace, check and convert a step, so that each next state reads the last one."""
    program = program_of(step, spec, start)
    check(program)
    model = convert(step, program, spec)
    step.replaced = frozenset(unread(model, spec))
    return convert(step, program_of(step, spec, start), spec) if step.replaced else model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what PyTorch says of its internals to itself."""
    with warnings.catch_warnings(), to_onnx.quietly():
        warnings.simplefilter("ignore")
        yield


def _refusal(error: Exception, step: Step, spec: ModelSpec) -> ModuleRefused:
    """Say in one sentence what PyTorch's tracing raised."""
    place = place_of_error(error)
    text = str(error)
    if isinstance(error, GuardOnDataDependentSymNode):
        return ModuleRefused(
            "what a step does depends on values here, and a graph does the same for all values; "
            "compute both and choose with torch.where",
            place,
        )
    if "Constraints violated" in text or "specialized" in text:
        sizes = {"B": f"a batch of {TRACED_BATCH}", "N": f"{spec.default_locations} locations"}
        letter = next((each for each in ("N", "B") if f"marked {each} as dynamic" in text), "B")
        return ModuleRefused(
            f"a step is another for other sizes than {sizes[letter]}; take sizes from the tensors, "
            "such as x.shape[0], and do not compare them with numbers",
            place or place_of_step(step.module),
        )
    return ModuleRefused(f"PyTorch cannot trace a step: {what_failed(error)}", place)


def _without_operator(error: Exception, program: ExportedProgram, step: Step) -> ModuleRefused:
    """Say which operation has no place in ONNX, and where it is."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    # The exporter speaks of operations as they are after PyTorch has taken others apart.
    with _quiet():
        program = program.run_decompositions()
    for node in program.graph.nodes:
        if node.op == "call_function" and any(f"%{node.name} " in text for text in causes):
            return ModuleRefused(
                f"ONNX has no operator for {node.target}; write it with other operations",
                place_of_node(node) or place_of_step(step.module),
            )
    return ModuleRefused(
        f"the step cannot be written as ONNX: {what_failed(causes[-1])}",
        place_of_step(step.module),
    )
