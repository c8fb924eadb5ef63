"""Rewrites of ONNX graphs: from a portable step graph to the forms that work on slabs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from service.errors import ModelInvalid
from service.spec import METADATA_KEY, ModelSpec, StateTensor

SLOTS = "slots"
"""Graph input: the slot of each row of the batch, int64 [B]."""

_INDICES = "slots.indices"
_AXIS = "slots.axis"


def slab_name(name: str) -> str:
    """Graph name of the slab tensor that holds a state tensor for every slot."""
    return f"{name}.slab"


def parse(model: bytes) -> tuple[onnx.ModelProto, ModelSpec]:
    """
    Read a step graph and its spec.

    Raises:
        ModelInvalid: the bytes are no ONNX model, it keeps data in other files, it has no spec, or
            its inputs and outputs are not those that the spec names.
    """
    try:
        proto = onnx.load_model_from_string(model)
        onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelInvalid(f"not a valid ONNX model: {error}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ModelInvalid("the model keeps weights in other files; export it as one file")
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        raise ModelInvalid(f"the model has no spec: no {METADATA_KEY!r} in its metadata_props")
    spec = ModelSpec.from_json(metadata[METADATA_KEY])
    _check_names(proto.graph, spec)
    _check_dependence(proto.graph, spec)
    return proto, spec


def slab_graph(proto: onnx.ModelProto, spec: ModelSpec) -> bytes:
    """
    The step graph over slabs: rows are gathered, stepped and scattered back.

    Inputs: the model's input [B, X], `SLOTS` [B], and each state tensor's slab [capacity, ...].
    Outputs: the model's outputs and traces [B, ...], and each `StateTensor.output`'s slab. When a
    slab output is bound to its input's buffer, onnxruntime updates the rows in place.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)
    gather, scatter = _gather_nodes(spec), _scatter_nodes(spec)
    nodes = [*gather, *graph.node, *scatter]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.append(_axis())
    graph.input.extend(value for value in proto.graph.input if value.name == spec.input)
    graph.input.extend([_slots(), *_slabs(spec)])
    states = {tensor.output for tensor in spec.state}
    traces = {trace.output for trace in spec.traces}
    graph.output.extend(value for value in proto.graph.output if value.name not in states - traces)
    graph.output.extend(_slabs(spec, output=True))
    return _model(graph, proto)


def rows_graph(spec: ModelSpec, like: onnx.ModelProto, *, write: bool) -> bytes:
    """
    A graph that reads, or writes, rows of the slabs.

    Reading: from `SLOTS` [B] and the slabs to one [B, ...] for each `StateTensor.input`. Writing:
    from `SLOTS`, the slabs and one [B, ...] for each `StateTensor.output` to the slabs' outputs.
    """
    rows = [
        helper.make_tensor_value_info(
            tensor.output if write else tensor.input,
            onnx.TensorProto.FLOAT,
            ["B", *tensor.shape],
        )
        for tensor in spec.state
    ]
    graph = onnx.GraphProto(name="write rows" if write else "read rows")
    graph.input.extend([_slots(), *_slabs(spec)])
    if write:
        graph.node.extend(_scatter_nodes(spec))
        graph.initializer.append(_axis())
        graph.input.extend(rows)
        graph.output.extend(_slabs(spec, output=True))
    else:
        graph.node.extend(_gather_nodes(spec))
        graph.output.extend(rows)
    return _model(graph, like)


def identity() -> bytes:
    """The smallest graph that a device can run: y = x."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    like = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _model(graph, like)


def _model(graph: onnx.GraphProto, like: onnx.ModelProto) -> bytes:
    model = helper.make_model(graph, opset_imports=like.opset_import)
    model.ir_version = like.ir_version
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def _gather_nodes(spec: ModelSpec) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", [slab_name(tensor.input), SLOTS], [tensor.input], axis=0)
        for tensor in spec.state
    ]


def _scatter_nodes(spec: ModelSpec) -> list[onnx.NodeProto]:
    scatters = [
        helper.make_node(
            "ScatterND",
            [slab_name(tensor.input), _INDICES, tensor.output],
            [slab_name(tensor.output)],
        )
        for tensor in spec.state
    ]
    return [helper.make_node("Unsqueeze", [SLOTS, _AXIS], [_INDICES]), *scatters]


def _axis() -> onnx.TensorProto:
    return helper.make_tensor(_AXIS, onnx.TensorProto.INT64, [1], [1])


def _slots() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(SLOTS, onnx.TensorProto.INT64, ["B"])


def _slabs(spec: ModelSpec, *, output: bool = False) -> list[onnx.ValueInfoProto]:
    def info(tensor: StateTensor) -> onnx.ValueInfoProto:
        name = slab_name(tensor.output if output else tensor.input)
        shape = ["capacity", *tensor.shape]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    return [info(tensor) for tensor in spec.state]


def _check_names(graph: onnx.GraphProto, spec: ModelSpec) -> None:
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    expected = {spec.input, *(tensor.input for tensor in spec.state)}
    found = {value.name for value in inputs}
    if found != expected:
        raise ModelInvalid(f"graph inputs are {sorted(found)}, the spec's {sorted(expected)}")
    needed = {spec.output, *(tensor.output for tensor in spec.state)}
    missing = (needed | {trace.output for trace in spec.traces}) - {v.name for v in graph.output}
    if missing:
        raise ModelInvalid(f"the spec names outputs that the graph lacks: {sorted(missing)}")
    for value in [*inputs, *graph.output]:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ModelInvalid(f"{value.name!r} is not float32")


def _check_dependence(graph: onnx.GraphProto, spec: ModelSpec) -> None:
    """
    Refuse a state whose next value does not depend on its last.

    With an in-place slab nothing else would order the reading of the old rows before the writing of
    the new.
    """
    producers = {name: node.input for node in graph.node for name in node.output}
    for tensor in spec.state:
        if tensor.input not in _ancestors(tensor.output, producers):
            raise ModelInvalid(
                f"state {tensor.name!r}: output {tensor.output!r} does not depend on input "
                f"{tensor.input!r}"
            )


def _ancestors(name: str, producers: Mapping[str, Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(producers.get(current, ()))
    return seen
