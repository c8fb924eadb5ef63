"""The step graph as Triton's ONNX backend needs it, and the tensors that its sequences carry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from service.spec import Array, ModelSpec, StateTensor, Type

BATCH = "B"
"""Stands in the written graph for the number of rows."""

_ELEMENTS = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "bool": onnx.TensorProto.BOOL,
}

_AXIS = "triton.axis"


class TritonRefuses(ValueError):
    """Triton could not carry the model's state, or would carry it wrongly; the message says why."""


@dataclass(frozen=True)
class Port:
    """A tensor that goes into Triton's graph or comes out of it."""

    name: str
    type: Type
    dims: tuple[int, ...]
    """As Triton's configuration has it: without the batch axis, unless the graph has one row."""


@dataclass(frozen=True)
class Carried:
    """A tensor of a sequence's state, which Triton carries from one step to the next."""

    place: int
    """Among the tensors of the spec."""
    name: str
    input: Port
    output: str
    initial: Array
    """Its value in a new sequence, of shape `input.dims`."""

    @property
    def file(self) -> str:
        """The name of the file with its initial value."""
        return f"{self.place}-{re.sub('[^A-Za-z0-9_]', '_', self.name)[:80]}.bin"


@dataclass(frozen=True)
class TritonModel:
    """A network at one number of locations, without traces."""

    spec: ModelSpec
    locations: int
    proto: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    state: tuple[Carried, ...]

    @property
    def batched(self) -> bool:
        """Whether Triton may step several sequences in one run."""
        return self.spec.batched


def triton_model(proto: onnx.ModelProto, spec: ModelSpec, locations: int) -> TritonModel:
    """
    Fix the number of locations, leave out the traces, and name the state as Triton needs it.

    Triton pairs the inputs and outputs of states by their places in two lists that it sorts by
    name. Where these orders differ, the outputs get names in the order of the inputs.

    Args:
        proto: The step graph.
        spec: The graph's own.
        locations: Of every sequence; 0 for a network without memory.

    Raises:
        TritonRefuses: the state is one that Triton cannot carry.
    """
    for tensor in spec.state:
        if tensor.is_given:
            raise TritonRefuses(
                f"clients give the state {tensor.name!r} when they open a session, and a sequence "
                "of Triton's starts from values in files"
            )
    graph = _Graph(proto, spec.batched)
    inputs = tuple(graph.input(each.name, each.type, each.shape) for each in spec.inputs)
    outputs = tuple(graph.output(each.name, each.type, each.shape) for each in spec.outputs)
    state = []
    names = _state_outputs(spec.state)
    for place, (tensor, output) in enumerate(zip(spec.state, names, strict=True)):
        shape = tensor.shape_at(locations)
        taken = graph.input(tensor.input, tensor.type, shape)
        # The graph only reads a constant: each step hands it on.
        graph.output(tensor.output or tensor.input, tensor.type, shape, output)
        initial = tensor.initial_value(locations).reshape(taken.dims)
        state.append(Carried(place, tensor.name, taken, output, initial))
    return TritonModel(spec, locations, graph.made(), inputs, outputs, tuple(state))


def _state_outputs(state: Sequence[StateTensor]) -> list[str]:
    """Names of the states' outputs, which sort as those of the inputs do."""
    own = [tensor.output for tensor in state]
    by_input = sorted(state, key=lambda tensor: tensor.input)
    if all(own) and [tensor.output for tensor in by_input] == sorted(own):
        return own
    return [f"state_{by_input.index(tensor):06}_next" for tensor in state]


class _Graph:
    """A copy of a step graph, whose inputs and outputs are declared one by one."""

    def __init__(self, proto: onnx.ModelProto, batched: bool) -> None:
        self._made = onnx.ModelProto()
        self._made.CopyFrom(proto)
        # The metadata describe the graph to another server, which steps it otherwise.
        del self._made.metadata_props[:]
        for declared in ("input", "output", "value_info"):  # of any number of locations
            self._made.graph.ClearField(declared)
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []
        self._batched = batched

    def input(self, name: str, kind: Type, shape: tuple[int, ...]) -> Port:
        """Declare an input of this shape for one row."""
        port = self._port(name, kind, shape)
        if port.dims != shape and self._batched:
            port = Port(f"{name}.row", kind, port.dims)
            self._before.append(helper.make_node("Squeeze", [port.name, _AXIS], [name]))
        self._made.graph.input.append(self._declared(port))
        return port

    def output(self, name: str, kind: Type, shape: tuple[int, ...], shown: str = "") -> Port:
        """Declare an output, which Triton sees by the name `shown`, or else by its own."""
        port = self._port(shown or name, kind, shape)
        if port.dims != shape and self._batched:
            port = Port(shown or f"{name}.row", kind, port.dims)
            self._after.append(helper.make_node("Unsqueeze", [name, _AXIS], [port.name]))
        elif port.name != name:
            self._after.append(helper.make_node("Identity", [name], [port.name]))
        self._made.graph.output.append(self._declared(port))
        return port

    def made(self) -> onnx.ModelProto:
        """The graph of what was declared, without the nodes that no output needs."""
        graph = self._made.graph
        nodes = [*self._before, *graph.node, *self._after]
        needed = {output.name for output in graph.output}
        kept = []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_read_by(node))
        graph.ClearField("node")
        graph.node.extend(reversed(kept))
        weights = [tensor for tensor in graph.initializer if tensor.name in needed]
        if _AXIS in needed:
            weights.append(helper.make_tensor(_AXIS, onnx.TensorProto.INT64, [1], [1]))
        graph.ClearField("initializer")
        graph.initializer.extend(weights)
        return self._made

    def _port(self, name: str, kind: Type, shape: tuple[int, ...]) -> Port:
        # Triton's tensors have an axis at least, besides that of the batch.
        return Port(name, kind, (shape or (1,)) if self._batched else (1, *shape))

    def _declared(self, port: Port) -> onnx.ValueInfoProto:
        shape = (BATCH, *port.dims) if self._batched else port.dims
        return helper.make_tensor_value_info(port.name, _ELEMENTS[port.type], shape)


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node, or a graph within it, reads."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _read_by(inner)
