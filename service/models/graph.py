"""Rewrites of ONNX graphs: from a portable step graph to the forms that work on slabs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import compose, helper, numpy_helper

from service.errors import ModelInvalid, one_line
from service.spec import LOCATIONS, METADATA_KEY, Dimension, ModelSpec, StateTensor

SLOTS = "slots"
"""Graph input: the slot of each row of the batch, int64 [B]."""

SOURCES = "sources"
"""Graph input of `copy_graph`: the slot that each row is copied from, int64 [B]."""

PACKET = 4
"""The number of elements that onnxruntime's CPU kernels, except those of MLAS, compute at once."""

_APPROXIMATED = {"Celu", "Cos", "Elu", "Exp", "Log", "Mish", "Pow", "Selu", "Sin", "Softplus"}
"""Operators that compute the last elements, which do not fill a packet, by other formulas."""

_OLDEST_OPSET = 13
"""The first opset in which Unsqueeze takes its axes as an input, as the graphs over slabs do."""

_INDICES = "slots.indices"
_AXIS = "slots.axis"


def tick_name(name: str, tick: int) -> str:
    """
    The name in a slab graph, for one of its ticks, of the value that the step graph calls `name`.
    """
    return f"{tick}/{name}"


def slab_name(name: str) -> str:
    """The graph's name of the slab tensor that holds a state tensor for every slot."""
    return f"{name}.slab"


def parse(model: bytes) -> tuple[onnx.ModelProto, ModelSpec]:
    """
    Read a step graph and its spec.

    Raises:
        ModelInvalid: the bytes are not an ONNX model, the model is of an old opset, keeps data in
            other files or has no spec, or its inputs and outputs differ from those in the spec.
    """
    if not model:
        raise ModelInvalid("the file is empty")
    try:
        proto = onnx.load_model_from_string(model)
        # This comes before the checker, which would look for those files.
        if _keeps_data_elsewhere(proto):
            raise ModelInvalid("the model keeps weights in other files; export it as one file")
        _check_opset(proto)
        onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise ModelInvalid(f"not a valid ONNX model: {one_line(error)}") from error
    _check_weights(proto.graph)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        raise ModelInvalid(f"the model has no spec: no {METADATA_KEY!r} in its metadata_props")
    spec = ModelSpec.from_json(metadata[METADATA_KEY])
    _check_names(proto.graph, spec)
    _check_axes(proto.graph, spec)
    _check_dependence(proto.graph, spec)
    return proto, spec


def _keeps_data_elsewhere(message: Message) -> bool:
    """Whether any tensor in a part of a model, at any depth, is kept in another file."""
    if isinstance(message, onnx.TensorProto):
        return message.data_location == onnx.TensorProto.EXTERNAL
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if isinstance(value, Message) else value
            if any(_keeps_data_elsewhere(part) for part in parts):
                return True
    return False


def slab_graph(proto: onnx.ModelProto, spec: ModelSpec, ticks: int, *, traced: bool) -> bytes:
    """
    The step graph over slabs: rows are gathered, stepped `ticks` times, and scattered back.

    Inputs: for each tick the model's input [B, X]; `SLOTS` [B]; each state tensor's slab
    [capacity, ...]. Outputs: for each tick the model's output and, if `traced`, its traces
    [B, ...]; each `StateTensor.output`'s slab. When a slab output is bound to its input's buffer,
    onnxruntime updates the rows in place.
    """
    step = simplified(proto.graph)
    graph = onnx.GraphProto(name="steps over slabs", initializer=[*step.initializer, _axis()])
    graph.input.extend([_slots(), *_slabs(spec)])
    graph.node.extend(_gather_nodes(spec))
    outputs = {spec.output, *(trace.output for trace in spec.traces if traced)}
    state = {tensor.input: tensor.input for tensor in spec.state}
    for tick in range(ticks):
        names = {spec.input: tick_name(spec.input, tick), **state}
        made = compose.add_prefix_graph(
            step,
            tick_name("", tick),
            rename_inputs=False,
            rename_initializers=False,
            name_map=names,
        )
        graph.node.extend(made.node)
        graph.input.extend(each for each in made.input if each.name == names[spec.input])
        kept = {tick_name(name, tick) for name in outputs}
        graph.output.extend(each for each in made.output if each.name in kept)
        state = {tensor.input: tick_name(tensor.output, tick) for tensor in spec.state}
    graph.node.extend(_scatter_nodes(spec, state))
    graph.output.extend(_slabs(spec, output=True))
    return _model(graph, proto)


def batch_multiple(proto: onnx.ModelProto) -> int:
    """
    The number that batch sizes on a CPU must be a multiple of, so that no row depends on others.

    A kernel that computes elements by packets treats the last elements of a tensor differently.
    Which row they belong to depends on the batch. So the rows together must fill whole packets. A
    batch of one is never used: onnxruntime drops axes of length one, and then sums in another
    order.
    """
    graph = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.output]
    }
    for node in proto.graph.node:
        if node.op_type in _APPROXIMATED:
            # 0 stands for the number of locations, which may be odd.
            sizes = [size or 1 for size in shapes.get(node.output[0], [1])[1:]]
            if math.prod(sizes) % 2:
                return PACKET
    return PACKET // 2


def copy_graph(spec: ModelSpec, like: onnx.ModelProto) -> bytes:
    """
    A graph that copies rows of the slabs to other rows of the same slabs.

    From `SOURCES` [B], `SLOTS` [B] and the slabs to the slabs' outputs.
    """
    graph = onnx.GraphProto(name="copy rows", initializer=[_axis()])
    graph.input.extend([_slots(SOURCES), _slots(), *_slabs(spec)])
    graph.node.extend(_gather_nodes(spec, SOURCES))
    graph.node.extend(_scatter_nodes(spec, {t.input: t.input for t in spec.state}))
    graph.output.extend(_slabs(spec, output=True))
    return _model(graph, like)


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
        graph.node.extend(_scatter_nodes(spec, {t.input: t.output for t in spec.state}))
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


def _gather_nodes(spec: ModelSpec, slots: str = SLOTS) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", [slab_name(tensor.input), slots], [tensor.input], axis=0)
        for tensor in spec.state
    ]


def _scatter_nodes(spec: ModelSpec, rows: Mapping[str, str]) -> list[onnx.NodeProto]:
    """Write the rows, named by `StateTensor.input`, into the slabs."""
    scatters = [
        helper.make_node(
            "ScatterND",
            [slab_name(tensor.input), _INDICES, rows[tensor.input]],
            [slab_name(tensor.output)],
        )
        for tensor in spec.state
    ]
    return [helper.make_node("Unsqueeze", [SLOTS, _AXIS], [_INDICES]), *scatters]


def simplified(graph: onnx.GraphProto) -> onnx.GraphProto:
    """
    The same graph with cheaper operators: x * x instead of x ** 2, and no split into a single part.

    PyTorch's exporter writes both, and onnxruntime does not optimise them.
    """
    simple = onnx.GraphProto()
    simple.CopyFrom(graph)
    squares = {
        tensor.name
        for tensor in graph.initializer
        if not tensor.dims and numpy_helper.to_array(tensor) == 2
    }
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}
    del simple.node[:]
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        if node.op_type == "Split" and len(node.output) == 1 and node.output[0] not in outputs:
            same[node.output[0]] = inputs[0]
            continue
        copy = simple.node.add()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        if node.op_type == "Pow" and node.input[1] in squares:
            copy.op_type, copy.input[:] = "Mul", [inputs[0]] * 2
    used = {name for node in simple.node for name in node.input}
    del simple.initializer[:]
    simple.initializer.extend(each for each in graph.initializer if each.name in used)
    return simple


def _axis() -> onnx.TensorProto:
    return helper.make_tensor(_AXIS, onnx.TensorProto.INT64, [1], [1])


def _slots(name: str = SLOTS) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["B"])


def _slabs(spec: ModelSpec, *, output: bool = False) -> list[onnx.ValueInfoProto]:
    def info(tensor: StateTensor) -> onnx.ValueInfoProto:
        name = slab_name(tensor.output if output else tensor.input)
        shape = ["capacity", *tensor.shape]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    return [info(tensor) for tensor in spec.state]


def _check_opset(proto: onnx.ModelProto) -> None:
    """
    Raise ModelInvalid for an opset that is too new, or that the graphs over slabs cannot use.
    """
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not _OLDEST_OPSET <= opset.version <= newest:
            raise ModelInvalid(
                f"the model is of ONNX opset {opset.version}; export it with one from "
                f"{_OLDEST_OPSET} to {newest}"
            )


def _check_weights(graph: onnx.GraphProto) -> None:
    """
    Raise ModelInvalid for weights that are NaN, or whose number of values differs from their shape.
    """
    for tensor in graph.initializer:
        try:
            values = numpy_helper.to_array(tensor)
        except (LookupError, TypeError, ValueError, NotImplementedError) as error:
            raise ModelInvalid(f"weights {tensor.name!r} cannot be read: {error}") from error
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ModelInvalid(f"weights {tensor.name!r} have values that are NaN")


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
            number = value.type.tensor_type.elem_type
            raise ModelInvalid(f"{value.name!r} is not float32, but of ONNX element type {number}")


def _check_axes(graph: onnx.GraphProto, spec: ModelSpec) -> None:
    """Raise ModelInvalid for inputs and next states whose shape differs from that in the spec."""
    fixed = spec.default_locations if spec.fixed_locations else 0
    wanted: dict[str, tuple[Dimension, ...]] = {spec.input: (spec.input_width,)}
    for tensor in spec.state:
        wanted[tensor.input] = wanted[tensor.output] = tensor.shape
    for value in [*graph.input, *graph.output]:
        if value.name not in wanted or not value.type.tensor_type.HasField("shape"):
            continue
        # 0 stands for an axis of any size, which has a name or nothing.
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        expected = [0, *(size if size != LOCATIONS else fixed for size in wanted[value.name])]
        if len(sizes) != len(expected) or any(
            size not in (0, want) for size, want in zip(sizes, expected, strict=True)
        ):
            raise ModelInvalid(
                f"{value.name!r} has shape {[size or 'any' for size in sizes]} in the graph, and "
                f"{[size or 'any' for size in expected]} by the spec; the first axis is the batch"
            )


def _check_dependence(graph: onnx.GraphProto, spec: ModelSpec) -> None:
    """
    Raise ModelInvalid for a state whose next value does not depend on its last value.

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
