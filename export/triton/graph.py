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
    shape: tuple[int, ...]
    """The graph's, without the batch axis, if Triton batches."""

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape in Triton, whose tensors have an axis at least besides that of the batch."""
        return self.shape or (1,)


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
    taken = [graph.state_input(each, each.shape_at(locations)) for each in spec.state]
    names = _state_outputs(taken, spec.state)
    state = []
    for place, (tensor, port, output) in enumerate(zip(spec.state, taken, names, strict=True)):
        graph.state_output(tensor, output, port)
        initial = tensor.initial_value(locations).reshape(port.shape)
        state.append(Carried(place, tensor.name, port, output, initial))
    return TritonModel(spec, locations, graph.made(), inputs, outputs, tuple(state))


def _state_outputs(taken: Sequence[Port], state: Sequence[StateTensor]) -> list[str]:
    """Names of the states' outputs, which sort as those of the inputs do."""
    by_input = sorted(range(len(taken)), key=lambda place: taken[place].name)
    own = [state[place].output for place in by_input]
    unchanged = all(port.name == tensor.input for port, tensor in zip(taken, state, strict=True))
    if all(own) and unchanged and own == sorted(own):
        return [tensor.output for tensor in state]
    return [f"state_{by_input.index(place):06}_next" for place in range(len(taken))]


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
        port = Port(name, kind, shape if self._batched else (1, *shape))
        self._made.graph.input.append(self._declared(port))
        return port

    def output(self, name: str, kind: Type, shape: tuple[int, ...]) -> Port:
        """Declare an output of this shape for one row."""
        port = Port(name, kind, shape if self._batched else (1, *shape))
        self._made.graph.output.append(self._declared(port))
        return port

    def state_input(self, tensor: StateTensor, shape: tuple[int, ...]) -> Port:
        """Declare the input of a state of this shape; a scalar gets an axis."""
        if shape or not self._batched:
            return self.input(tensor.input, tensor.type, shape)
        name = f"{tensor.input}.row"
        self._before.append(helper.make_node("Squeeze", [name, _AXIS], [tensor.input]))
        return self.input(name, tensor.type, (1,))

    def state_output(self, tensor: StateTensor, name: str, read: Port) -> None:
        """Declare the output of a state, which is of this name in Triton, and is read there."""
        own = tensor.output or tensor.input  # the graph only reads a constant: it is handed on
        if read.name != tensor.input:
            self._after.append(helper.make_node("Unsqueeze", [own, _AXIS], [name]))
        elif name != own:
            self._after.append(helper.make_node("Identity", [own], [name]))
        self._made.graph.output.append(self._declared(Port(name, read.type, read.shape)))

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

    def _declared(self, port: Port) -> onnx.ValueInfoProto:
        shape: list[str | int | None] = [BATCH] if self._batched else []
        return helper.make_tensor_value_info(port.name, _ELEMENTS[port.type], [*shape, *port.shape])


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node, or a graph within it, reads."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _read_by(inner)
