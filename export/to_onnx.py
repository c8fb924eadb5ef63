"""
Convert a network to ONNX, one step as a graph with its spec in the metadata, and back.

The graph has the input `x` [B, X] and every state tensor by its name. It has the output `y` [B, Y]
(probabilities), the next value of every state tensor as NAME_next, and what the heads did. B and N
are dynamic. The initialisers have the names and values of the network's parameters, so `load` needs
only the model's file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

import onnx
import onnxscript
import torch
from onnx import numpy_helper
from onnxscript import FLOAT
from onnxscript import opset18 as op
from torch import Tensor, nn

from export.architectures import ARCHITECTURES, build
from export.configuration import Configuration
from export.network import Architecture, Network, State, next_name
from service.errors import ModelInvalid
from service.spec import (
    LOCATIONS,
    METADATA_KEY,
    Dimension,
    Initial,
    ModelSpec,
    StateTensor,
    vector,
)

OPSET = 18

_PREFIX = "network."


class ServedStep(nn.Module):
    """The step with a flat signature, as the graph has it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, ...]:
        """Return output probabilities, the next state, and the trace if there is one."""
        logits, state, trace = self.network(x, state)
        return (torch.sigmoid(logits), *state, *(trace or ()))


def convert(network: Network, spec: ModelSpec) -> onnx.ModelProto:
    """Convert one step to a graph, with the spec in its metadata."""
    # Sizes that nothing else has, so that the exporter does not confuse dimensions.
    state = [torch.zeros(3, *tensor.shape_at(11)) for tensor in spec.state]
    kind = type(network.initial_state(1, spec.default_locations))
    batch, locations = torch.export.Dim("B"), torch.export.Dim("N")
    named = {LOCATIONS: locations}
    axes = [
        {0: batch, **{at: named[size] for at, size in enumerate(tensor.shape, 1) if size in named}}
        for tensor in spec.state
    ]
    with warnings.catch_warnings(), quietly():
        # The exporter warns about its internals and its names of axes, and logs that torchvision,
        # which nothing here uses, is not installed.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ServedStep(network).eval(),
            (torch.zeros(3, spec.input_width), kind._make(state)),
            dynamo=True,
            dynamic_shapes=({0: batch}, kind._make(axes)),
            input_names=[spec.input, *(tensor.input for tensor in spec.state)],
            output_names=output_names(spec),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.softplus.default: _softplus},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    tidy(model)
    model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
    onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def quietly() -> Iterator[None]:
    """Keep out of the log and of standard error what PyTorch says of its internals."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with redirect_stderr(StringIO()):  # it prints the graph where a step depends on values
            yield
    finally:
        logging.disable(before)


def output_names(spec: ModelSpec) -> list[str]:
    """Return the names of the graph's outputs in the order of `ServedStep`."""
    state = [tensor.output for tensor in spec.state]
    # Each once, in the order of the spec; a dict keeps it.
    traces = dict.fromkeys(trace.output for trace in spec.traces)
    return [spec.output, *state, *(name for name in traces if name not in state)]


def spec_of(network: Network, configuration: Configuration) -> ModelSpec:
    """Return the spec of a network's graph."""
    architecture = ARCHITECTURES[configuration.architecture]
    memory = architecture.has_memory
    return ModelSpec(
        task=configuration.task,
        architecture=configuration.architecture,
        inputs=(vector("x", configuration.sizes.input_width),),
        outputs=(vector("y", configuration.sizes.output_width),),
        state=tuple(_state_tensors(network, architecture, configuration.default_locations)),
        traces=tuple(architecture.traces(configuration.sizes)),
        read_heads=configuration.read_heads if memory else 0,
        write_heads=configuration.write_heads if memory else 0,
        default_locations=configuration.default_locations if memory else 0,
        fixed_locations=configuration.has_learned_memory,
    )


def spec_in(model: onnx.ModelProto) -> ModelSpec:
    """
    Read the spec in the metadata of a model.

    Raises:
        ModelInvalid: there is none, or it contradicts itself.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not texts:
        raise ModelInvalid(f"the model's metadata have no {METADATA_KEY}")
    return ModelSpec.from_json(texts[0])


def load(model: onnx.ModelProto, configuration: Configuration) -> Network:
    """
    Rebuild the network of a model, parameter for parameter.

    Raises:
        ValueError: the model's parameters do not fit the configuration.
    """
    network = build(configuration.architecture, configuration.sizes, seed=0)
    values = _parameters_in(model, network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # The exporter drops a bias of zeros. Everything else has to be there.
            value = values.pop(name, None)
            if value is None and name.endswith("bias"):
                value = torch.zeros_like(parameter)
            if value is None or value.shape != parameter.shape:
                raise ValueError(f"the model has no parameter {name} of the configuration's shape")
            parameter.copy_(value)
    if values:
        raise ValueError(
            f"the model has parameters of another network: {', '.join(sorted(values))}"
        )
    return network


def _parameters_in(model: onnx.ModelProto, network: Network) -> dict[str, Tensor]:
    """Return the parameters by name: initialisers, and learned initial values of the state."""
    names = {name for name, _ in network.named_parameters()}
    found = {
        initializer.name: torch.from_numpy(numpy_helper.to_array(initializer).copy())
        for initializer in model.graph.initializer
        if initializer.name in names or initializer.name.endswith((".weight", ".bias"))
    }
    model_spec = spec_in(model)
    starts = network.starts()
    for tensor in model_spec.state:
        start = starts.get(tensor.name)
        if isinstance(start, str):
            value = tensor.initial_value(model_spec.default_locations)
            found[start] = torch.from_numpy(value)
    return found


def _state_tensors(
    network: Network, architecture: Architecture, locations: int
) -> Iterator[StateTensor]:
    starts = network.starts()
    with torch.no_grad():
        state = network.initial_state(1, locations)
    for name, value in zip(state._fields, state, strict=True):
        shape: tuple[Dimension, ...] = tuple(value.shape[1:])
        count = architecture.over_locations.get(name, 0)
        over: list[Dimension] = ["N"] * count
        shape = (*shape[: len(shape) - count], *over)
        initial = starts.get(name)
        if not isinstance(initial, Initial):
            initial = Initial("values", tuple(value.flatten().tolist()))
        yield StateTensor(name, name, next_name(name), shape, initial)


@onnxscript.script()
def _softplus(x: FLOAT, beta: float = 1.0, threshold: float = 20.0) -> FLOAT:
    """Convert to plain Softplus. PyTorch's threshold is not needed after the clamp."""
    return op.Softplus(x)


def tidy(model: onnx.ModelProto) -> None:
    """Give parameters the names of the network, and remove the exporter's own metadata."""
    for initializer in model.graph.initializer:
        initializer.name = initializer.name.removeprefix(_PREFIX)
    for node in model.graph.node:
        node.input[:] = [name.removeprefix(_PREFIX) for name in node.input]
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "ntm-export", ""
