"""Wrap a file: rewrite it, verify it, and write its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export import card
from export.comparison import LARGEST_DIFFERENCE, VerificationFailed
from export.wrapping.batch_axes import misplaced, told
from export.wrapping.canonical import canonical, next_name
from export.wrapping.description import Description, Shape
from export.wrapping.file import OnnxFile
from export.wrapping.original import Arrays, Original
from export.wrapping.refusal import FileRefused
from export.wrapping.verification import (
    STEPS,
    BatchComparison,
    Comparison,
    Draws,
    Graph,
    can_batch,
    compare,
    compare_batches,
    table,
)
from service.errors import ModelInvalid
from service.models import rehearsal
from service.spec import (
    METADATA_KEY,
    Array,
    Initial,
    ModelSpec,
    StateTensor,
    StepTensor,
    parts,
)

ARCHITECTURE = "wrapped ONNX"

_HALF_DIFFERENCE = 1e-2
"""The largest difference of networks with float16, which has 11 bits."""


def wrap_file(file: OnnxFile, description: Description, folder: Path, *, replace: bool) -> Path:
    """
    Write a file as a model to serve, after comparing the two step by step. Return its folder.

    Args:
        file: The file.
        description: How to step it.
        folder: The model's, whose name is the model's.
        replace: Whether the folder may have held another network until now.

    Raises:
        FileRefused: the file cannot be stepped as the description says.
        FileExistsError: the folder holds another network.
        VerificationFailed: the rewritten graph differs from the file.
        ModelInvalid: a server could not serve it. In all four cases nothing is written.
    """
    original = Original(file, description)
    states = _states(description)
    draws = Draws(description, states)
    outputs, _ = original.step(draws.inputs(0, 1)[0], draws.start(0))
    for name, value in outputs.items():
        if not value.size:
            raise FileRefused(
                f"output {name!r} comes with shape {list(value.shape)}, which has no values; "
                "leave it out"
            )
    shapes = {name: value.shape for name, value in outputs.items()}
    model = canonical(file, description, shapes)
    largest = _largest_difference(description)
    graph = Graph(model.SerializeToString(), description, states)
    comparison = compare(original, graph, draws, largest)
    batches = compare_batches(graph, draws)
    batched = description.batched and can_batch(batches)
    hint = ""
    if description.batched and not batched:
        hint = _hint(file, description, draws)
    print(table(comparison, batches))
    if not batched:
        print(
            "results depend on the other rows of a batch, or only one row can be stepped; each "
            "session is stepped alone"
            if description.batched
            else "each session is stepped alone, as the description says"
        )
    if hint:
        print(hint)
    spec = _spec(description, folder.name, shapes, states, batched=batched)
    model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
    content = model.SerializeToString()
    if not replace:
        card.check_free(folder, content)
    described = _card(file, model, content, spec, comparison, batches, largest)

    def rehearse(models: Path) -> None:
        _rehearse(models, folder.name, spec, graph, draws, largest)

    card.write_files(folder, content, described, rehearse, replace=replace)
    return folder


def _hint(file: OnnxFile, description: Description, draws: Draws) -> str:
    """
    Say of tensors that are said to have no batch with which axes the file would have one.

    Raises:
        FileRefused: tensors are said to have it along axes where the file has not.
    """
    changes = misplaced(file, description, draws)
    if not changes:
        return ""
    if all(each.given is None for each in changes):
        return f"several could be stepped in one run with {told(changes)}"
    raise FileRefused(
        f"{file.path} steps only one session in a run with the axes described, and several with "
        f"{told(changes)}: change that, or say batched = false"
    )


def _states(description: Description) -> tuple[StateTensor, ...]:
    """Return the states of a description, and those that keep the end of the input before."""
    states = [
        StateTensor(
            state.name,
            state.tensor.name,
            state.output.name if state.output else "",
            state.shape,
            _initial(state.initial),
            state.tensor.served_type,
        )
        for state in description.states
    ]
    states += [
        StateTensor(
            each.past_name,
            each.past_name,
            next_name(each.past_name),
            each.past_shape,
            Initial("constant", (0,)),
            each.tensor.served_type,
        )
        for each in description.inputs
        if each.past
    ]
    return tuple(states)


def _initial(value: Array | None) -> Initial:
    if value is None:
        return Initial("given")
    values = value.flatten().tolist()
    if len(set(values)) == 1:
        return Initial("constant", (values[0],))
    return Initial("values", tuple(values))


def _spec(
    description: Description,
    name: str,
    output_shapes: Mapping[str, Shape],
    states: tuple[StateTensor, ...],
    *,
    batched: bool,
) -> ModelSpec:
    spec = ModelSpec(
        task=description.task or name,
        architecture=ARCHITECTURE,
        inputs=tuple(
            StepTensor(each.name, each.tensor.served_type, each.shape)
            for each in description.inputs
        ),
        outputs=tuple(
            StepTensor(each.name, each.tensor.served_type, output_shapes[each.name])
            for each in description.outputs
        ),
        state=states,
        traces=(),
        read_heads=0,
        write_heads=0,
        default_locations=0,
        fixed_locations=False,
        batched=batched,
    )
    try:
        return ModelSpec.from_json(spec.to_json())  # which checks it
    except ModelInvalid as error:
        raise FileRefused(f"the description makes no model that can be served: {error}") from error


def _largest_difference(description: Description) -> float:
    tensors = [each.tensor for each in description.inputs]
    tensors += [each.tensor for each in description.outputs]
    tensors += [state.tensor for state in description.states]
    half = any(tensor.type == "float16" for tensor in tensors)
    return _HALF_DIFFERENCE if half else LARGEST_DIFFERENCE


def _card(
    file: OnnxFile,
    model: onnx.ModelProto,
    content: bytes,
    spec: ModelSpec,
    comparison: Comparison,
    batches: list[BatchComparison],
    largest: float,
) -> dict[str, Any]:
    return {
        "task": spec.task,
        "architecture": spec.architecture,
        "content_hash": card.content_hash(content),
        "parameters": sum(int(np.prod(each.dims)) for each in model.graph.initializer),
        "graph_nodes": len(model.graph.node),
        "wrapped": {
            "file": file.path.name,
            "sha256": hashlib.sha256(file.path.read_bytes()).hexdigest(),
            "opset": file.opset,
        },
        "batched": spec.batched,
        "verification": {
            "against": "the file on onnxruntime",
            "allowed_difference": largest,
            "comparison": comparison._asdict(),
            "batches": [each._asdict() for each in batches],
        },
        **card.made_with(),
    }


def _rehearse(
    models: Path, name: str, spec: ModelSpec, graph: Graph, draws: Draws, largest: float
) -> None:
    """
    Load a model from a folder of models and step it as a server does, beside the graph alone.

    Raises:
        ModelInvalid: the server could not load or step it.
        VerificationFailed: the server's outputs differ from those of the graph.
    """
    start, inputs = draws.start(0), draws.inputs(0, STEPS)
    record = np.zeros(STEPS, spec.input_record)
    for tensor, values in zip(spec.inputs, parts(record, spec.inputs), strict=True):
        values[...] = np.stack([each[tensor.name] for each in inputs])
    given = {each.name: start[each.name] for each in spec.state if each.is_given}
    (found,) = rehearsal.rehearse(models, name, record, given).values()
    states: Arrays = {key: value[None] for key, value in start.items()}
    served = parts(found, spec.outputs)
    for at, x in enumerate(inputs):
        expected, states = graph.step({key: value[None] for key, value in x.items()}, states)
        for tensor, values in zip(spec.outputs, served, strict=True):
            here, there = (
                np.asarray(each, np.float64) for each in (values[at], expected[tensor.name])
            )
            difference = float(np.abs(here - there[0]).max())
            if not difference <= largest * max(1.0, float(np.abs(there).max())):
                raise VerificationFailed(
                    f"a server's output {tensor.name!r} differs from the graph's by "
                    f"{difference:.3g}; {largest:.1g} is allowed"
                )
