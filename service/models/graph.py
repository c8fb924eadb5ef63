"""Rewrites of ONNX graphs: from a portable step graph to the forms that work on slabs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import compose, helper, numpy_helper

from service.errors import ModelInvalid, one_line
from service.spec import (
    LOCATIONS,
    METADATA_KEY,
    TYPES,
    Dimension,
    ModelSpec,
    StateTensor,
)

SOURCES = "sources"
"""Graph input: the slot that each row of the batch is read from, int64 [B]."""

SLOTS = "slots"
"""Graph input: the slot that each row of the batch is written to, int64 [B]."""

PACKET = 4
"""The number of elements that onnxruntime's CPU kernels, except those of MLAS, compute at once."""

_APPROXIMATED = {"Celu", "Cos", "Elu", "Exp", "Log", "Mish", "Pow", "Selu", "Sin", "Softplus"}
"""Operators that compute the last elements, which do not fill a packet, by other formulas."""

_DEPTH = 40.0
"""
How far below the largest logit of a weighting the others can be. e ** -40 is 4e-18.

The files themselves have no such bound. `export.addressing` adds 1e-12 to a weighting before its
logarithm, which PyTorch's exporter leaves out as too little. So the logarithm of 0 is -inf there,
which this bound makes finite too.
"""

_ALIKE = {
    *("Add", "Clip", "Concat", "Div", "Gemm", "Log", "MatMul", "Mul", "Reshape", "Sigmoid"),
    *("Slice", "Softmax", "Softplus", "Split", "Sqrt", "Sub", "Tanh", "Transpose"),
}
"""
Operators that compute the only row of a batch as they compute a row among others, as long as rows
fill whole packets. `tests/e2e/test_invariance.py` compares the bits.
"""

_OLDEST_OPSET = 13
"""The first opset in which Unsqueeze takes its axes as an input, as the graphs over slabs do."""

_ELEMENT_TYPES = {name: helper.np_dtype_to_tensor_dtype(dtype) for name, dtype in TYPES.items()}

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


def next_name(tensor: StateTensor) -> str:
    """The graph's name of the rows that are written to a tensor's slab, also of a constant's."""
    return tensor.output or f"{tensor.input}.given"


def changing(spec: ModelSpec) -> list[StateTensor]:
    """The state tensors that a step writes: all but the constants."""
    return [tensor for tensor in spec.state if tensor.output]


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
    return proto, spec


def is_written_apart(proto: onnx.ModelProto, spec: ModelSpec) -> bool:
    """
    Whether a run has to leave the slab as it is, so that the next states are written after it.

    Values of integers can make a run fail, such as an index that is out of range; a run that
    writes into the slab would then have written some of its rows. And where a next state does not
    depend on the last one, nothing else orders the reading of the old row before the writing.
    """
    return any(not tensor.is_floating for tensor in spec.inputs) or not all(
        _depends_on_itself(proto.graph, tensor) for tensor in changing(spec)
    )


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


def served(proto: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """
    The step graph as it is served: the same step for less time, and without denormal numbers.

    Its outputs differ from those of `proto` by roundings. Its state has the same meaning.
    """
    step = onnx.ModelProto()
    step.CopyFrom(proto)
    step.graph.CopyFrom(simplified(proto.graph))
    values = _values(step)
    shapes = _shapes_of(values)
    _sum_by_products(step.graph, shapes, _of_float32(values))
    _fill_packets(step.graph, shapes)
    _floor_weightings(step, spec)
    return step


def slab_graph(proto: onnx.ModelProto, spec: ModelSpec, ticks: int, *, traced: bool) -> bytes:
    """
    A step graph over slabs: rows are gathered, stepped `ticks` times, and scattered back.

    Inputs: for each tick the model's inputs [B, ...]; `SOURCES` and `SLOTS` [B]; each state
    tensor's slab [capacity, ...]. Outputs: for each tick the model's outputs and, if `traced`, its
    traces [B, ...]; each `StateTensor.output`'s slab. When a slab output is bound to its input's
    buffer, onnxruntime updates the rows in place. If the state `is_written_apart`, the last outputs
    are instead its rows [B, ...], by `StateTensor.output`, and `SLOTS` is not an input.
    """
    step = proto.graph
    apart = is_written_apart(proto, spec)
    graph = onnx.GraphProto(name="steps over slabs", initializer=step.initializer)
    graph.input.extend([_slots(SOURCES), *([] if apart else [_slots()]), *_slabs(spec.state)])
    graph.node.extend(_gather_nodes(spec))
    inputs = [tensor.name for tensor in spec.inputs]
    outputs = {tensor.name for tensor in spec.outputs}
    outputs |= {trace.output for trace in spec.traces if traced}
    state = {tensor.input: tensor.input for tensor in spec.state}
    for tick in range(ticks):
        taken = {name: tick_name(name, tick) for name in inputs}
        names = {**taken, **state}
        made = compose.add_prefix_graph(
            step,
            tick_name("", tick),
            rename_inputs=False,
            rename_initializers=False,
            name_map=names,
        )
        graph.node.extend(made.node)
        graph.input.extend(each for each in made.input if each.name in taken.values())
        kept = {tick_name(name, tick) for name in outputs}
        graph.output.extend(each for each in made.output if each.name in kept)
        state |= {tensor.input: tick_name(tensor.output, tick) for tensor in changing(spec)}
    if apart:
        graph.node.extend(
            helper.make_node("Identity", [state[tensor.input]], [tensor.output])
            for tensor in changing(spec)
        )
        graph.output.extend(_rows(tensor, tensor.output) for tensor in changing(spec))
    else:
        graph.initializer.append(_axis())
        graph.node.extend(_scatter_nodes(changing(spec), state))
        graph.output.extend(_slabs(changing(spec), output=True))
    return _model(graph, proto)


def batch_multiple(proto: onnx.ModelProto) -> int:
    """
    The number that sizes of batches of several rows on a CPU must be a multiple of, so that no row
    depends on others.

    A kernel that computes elements by packets treats the last elements of a tensor differently.
    Which row they belong to depends on the batch. So the rows together must fill whole packets.
    """
    shapes = _shapes(proto)
    for node in proto.graph.node:
        # 0 stands for the number of locations, which may be odd.
        sizes = [size or 1 for size in shapes.get(node.output[0], [1])[1:]]
        if node.op_type in _APPROXIMATED and math.prod(sizes) % 2:
            return PACKET
    return PACKET // 2


def alone(proto: onnx.ModelProto, spec: ModelSpec) -> frozenset[int]:
    """
    The remainders modulo `PACKET` of the numbers of locations at which a row on a CPU may be a
    batch of its own, since it gets the bits that it gets among others.

    It has to fill whole packets by itself. And no operator may treat an axis of length one in
    another way: sums over any axis but the last are made in another order there.
    """
    shapes = _shapes(proto)
    axes = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("ReduceMax", "ReduceSum"):
            over = axes.get(node.input[1]) if len(node.input) == 2 else None
            last = (-1, len(shapes.get(node.input[0], ())) - 1)
            if over is None or over.size != 1 or int(over[0]) not in last:
                return frozenset()
        elif node.op_type not in _ALIKE:
            return frozenset()
    counts = [spec.default_locations]
    if spec.has_memory and not spec.fixed_locations:
        counts = list(range(PACKET, 2 * PACKET))
    return frozenset(count % PACKET for count in counts if _fills_packets(proto, spec, count))


def _fills_packets(proto: onnx.ModelProto, spec: ModelSpec, locations: int) -> bool:
    """Whether one row with so many locations fills whole packets in each approximated operator."""
    single = onnx.ModelProto()
    single.CopyFrom(proto)
    del single.graph.input[:], single.graph.value_info[:]
    single.graph.input.extend(
        [
            *(_info(each.name, each.type, [1, *each.shape]) for each in spec.inputs),
            *(_info(each.input, each.type, [1, *each.shape_at(locations)]) for each in spec.state),
        ]
    )
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    shapes = _shapes(single)
    # A size that is not known is 0, and fills no packet.
    return all(
        math.prod(shapes.get(node.output[0], [0])) % PACKET == 0
        and 0 not in shapes.get(node.output[0], [0])
        for node in proto.graph.node
        if node.op_type in _APPROXIMATED
    )


def _values(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The graph's values, as far as they can be inferred."""
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    return [*graph.input, *graph.value_info, *graph.output]


def _of_float32(values: Iterable[onnx.ValueInfoProto]) -> set[str]:
    """The names of those values that are known to be float32."""
    return {
        value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def _shapes_of(values: Iterable[onnx.ValueInfoProto]) -> dict[str, list[int]]:
    """The shapes of values by name; 0 stands for a size that is not fixed."""
    return {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _shapes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of the graph's values by name; 0 stands for a size that is not fixed."""
    return _shapes_of(_values(proto))


def copy_graph(spec: ModelSpec, like: onnx.ModelProto) -> bytes:
    """
    A graph that copies rows of the slabs to other rows of the same slabs.

    From `SOURCES` [B], `SLOTS` [B] and the slabs to the slabs' outputs.
    """
    graph = onnx.GraphProto(name="copy rows", initializer=[_axis()])
    graph.input.extend([_slots(SOURCES), _slots(), *_slabs(spec.state)])
    graph.node.extend(_gather_nodes(spec))
    graph.node.extend(_scatter_nodes(spec.state, {t.input: t.input for t in spec.state}))
    graph.output.extend(_slabs(spec.state, output=True))
    return _model(graph, like)


def read_graph(spec: ModelSpec, like: onnx.ModelProto) -> bytes:
    """
    A graph that reads rows: from `SOURCES` [B] and the slabs to one [B, ...] for each
    `StateTensor.input`.
    """
    graph = onnx.GraphProto(name="read rows")
    graph.input.extend([_slots(SOURCES), *_slabs(spec.state)])
    graph.node.extend(_gather_nodes(spec))
    graph.output.extend(_rows(tensor, tensor.input) for tensor in spec.state)
    return _model(graph, like)


def write_graph(tensors: Sequence[StateTensor], like: onnx.ModelProto) -> bytes:
    """
    A graph that writes rows of some tensors: from `SLOTS` [B], the slabs and one [B, ...] for each
    `next_name` to the slabs' outputs.
    """
    graph = onnx.GraphProto(name="write rows", initializer=[_axis()])
    graph.input.extend([_slots(), *_slabs(tensors)])
    graph.input.extend(_rows(tensor, next_name(tensor)) for tensor in tensors)
    graph.node.extend(_scatter_nodes(tensors, {t.input: next_name(t) for t in tensors}))
    graph.output.extend(_slabs(tensors, output=True))
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
        helper.make_node("Gather", [slab_name(tensor.input), SOURCES], [tensor.input], axis=0)
        for tensor in spec.state
    ]


def _scatter_nodes(tensors: Sequence[StateTensor], rows: Mapping[str, str]) -> list[onnx.NodeProto]:
    """Write the rows, named by `StateTensor.input`, into the slabs."""
    scatters = [
        helper.make_node(
            "ScatterND",
            [slab_name(tensor.input), _INDICES, rows[tensor.input]],
            [slab_name(next_name(tensor))],
        )
        for tensor in tensors
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
    kept = {value.name for value in graph.output}
    for node in graph.node:
        kept |= set(_read_by(node)[len(node.input) :])  # inside its branches
    same: dict[str, str] = {}
    del simple.node[:]
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        if node.op_type == "Split" and len(node.output) == 1 and node.output[0] not in kept:
            same[node.output[0]] = inputs[0]
            continue
        copy = simple.node.add()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        if node.op_type == "Pow" and node.input[1] in squares:
            copy.op_type, copy.input[:] = "Mul", [inputs[0]] * 2
    used = {name for node in simple.node for name in _read_by(node)}
    del simple.initializer[:]
    simple.initializer.extend(each for each in graph.initializer if each.name in used)
    return simple


def _sum_by_products(
    graph: onnx.GraphProto, shapes: Mapping[str, list[int]], float32: set[str]
) -> None:
    """
    Make products with ones of two sums, such as those of a norm's squares.

    A sum over the middle one of three axes would be made in another order for a batch of one row.
    One over a last axis that fills no whole packets would be made in another order for rows that
    begin within a packet.
    """
    axes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceSum" or len(node.input) != 2 or node.input[1] not in axes:
            continue
        if node.input[0] not in float32:
            continue
        shape, over = shapes.get(node.input[0], []), axes[node.input[1]].tolist()
        keeps = all(each.i for each in node.attribute if each.name == "keepdims")
        if len(shape) == 3 and shape[1] and over == [1] and keeps:
            ones = np.ones((1, shape[1]), np.float32)
            graph.initializer.append(numpy_helper.from_array(ones, f"{node.output[0]}.ones"))
            node.op_type, node.input[:] = "MatMul", [f"{node.output[0]}.ones", node.input[0]]
            del node.attribute[:]
        elif shape and over in ([-1], [len(shape) - 1]) and shape[-1] % PACKET and keeps:
            ones = np.ones((shape[-1], 1), np.float32)
            graph.initializer.append(numpy_helper.from_array(ones, f"{node.output[0]}.ones"))
            node.op_type, node.input[:] = "MatMul", [node.input[0], f"{node.output[0]}.ones"]
            del node.attribute[:]


def _fill_packets(graph: onnx.GraphProto, shapes: Mapping[str, list[int]]) -> None:
    """
    Compute two approximated columns of one split together, where one alone fills no whole packets.

    Strengths and sharpenings of two heads fill a packet together.
    """
    splits = {name: node for node in graph.node if node.op_type == "Split" for name in node.output}
    pairs: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type not in _APPROXIMATED or len(node.input) != 1 or node.attribute:
            continue
        split, shape = splits.get(node.input[0]), shapes.get(node.output[0], [])
        if split is not None and len(shape) == 3 and shape[2] == 1 and shape[1] % PACKET:
            pairs.setdefault((node.op_type, split.output[0]), []).append(node)
    for first, second, *_ in (nodes for nodes in pairs.values() if len(nodes) > 1):
        together, computed = f"{first.output[0]}.pair", f"{first.output[0]}.computed"
        sizes = f"{first.output[0]}.sizes"
        graph.initializer.append(numpy_helper.from_array(np.array([1, 1]), sizes))
        nodes = list(graph.node)
        at = nodes.index(first)
        nodes.remove(second)
        nodes[at : at + 1] = [
            helper.make_node("Concat", [first.input[0], second.input[0]], [together], axis=2),
            helper.make_node(first.op_type, [together], [computed]),
            helper.make_node(
                "Split", [computed, sizes], [first.output[0], second.output[0]], axis=2
            ),
        ]
        del graph.node[:]
        graph.node.extend(nodes)


def _floor_weightings(step: onnx.ModelProto, spec: ModelSpec) -> None:
    """
    Let no element of a state that a softmax makes be less than e ** -`_DEPTH` of the largest.

    A sharp head would leave denormal numbers where it does not look: in its weighting, in what is
    computed from it, and within the softmax. Some processors take over a hundred cycles for each.
    """
    ranks = {each.output: len(each.shape) for each in spec.state if each.type == "float32"}
    nodes = list(step.graph.node)
    del step.graph.node[:]
    for node in nodes:
        name = node.output[0]
        axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
        if node.op_type == "Softmax" and name in ranks and axis in (-1, ranks[name]):
            logits, largest, below = node.input[0], f"{name}.largest", f"{name}.below"
            floor = numpy_helper.from_array(np.array(-_DEPTH, np.float32), f"{name}.floor")
            step.graph.initializer.append(floor)
            node.input[0] = f"{name}.floored"
            step.graph.node.extend(
                [
                    _maximum(step, logits, largest),
                    helper.make_node("Sub", [logits, largest], [below]),
                    helper.make_node("Clip", [below, floor.name], [node.input[0]]),
                ]
            )
        step.graph.node.append(node)


def _maximum(step: onnx.ModelProto, values: str, name: str) -> onnx.NodeProto:
    """The node that computes the maxima along the last axis, which it keeps."""
    opset = max(each.version for each in step.opset_import if each.domain in ("", "ai.onnx"))
    if opset < 18:
        return helper.make_node("ReduceMax", [values], [name], axes=[-1])
    axis = numpy_helper.from_array(np.array([-1]), f"{name}.axis")
    step.graph.initializer.append(axis)
    return helper.make_node("ReduceMax", [values, axis.name], [name])


def _axis() -> onnx.TensorProto:
    return helper.make_tensor(_AXIS, onnx.TensorProto.INT64, [1], [1])


def _info(name: str, type_: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _ELEMENT_TYPES[type_], shape)


def _slots(name: str = SLOTS) -> onnx.ValueInfoProto:
    return _info(name, "int64", ["B"])


def _rows(tensor: StateTensor, name: str) -> onnx.ValueInfoProto:
    """Rows of a state tensor, under this name."""
    return _info(name, tensor.type, ["B", *tensor.shape])


def _slabs(tensors: Iterable[StateTensor], *, output: bool = False) -> list[onnx.ValueInfoProto]:
    return [
        _info(
            slab_name(next_name(tensor) if output else tensor.input),
            tensor.type,
            ["capacity", *tensor.shape],
        )
        for tensor in tensors
    ]


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
    expected: dict[str, str] = {tensor.name: tensor.type for tensor in spec.inputs}
    expected |= {tensor.input: tensor.type for tensor in spec.state}
    found = {value.name for value in inputs}
    if found != expected.keys():
        raise ModelInvalid(f"graph inputs are {sorted(found)}, the spec's {sorted(expected)}")
    needed: dict[str, str] = {trace.output: "float32" for trace in spec.traces}
    needed |= {tensor.name: tensor.type for tensor in spec.outputs}
    needed |= {tensor.output: tensor.type for tensor in changing(spec)}
    missing = needed.keys() - {value.name for value in graph.output}
    if missing:
        raise ModelInvalid(f"the spec names outputs that the graph lacks: {sorted(missing)}")
    expected |= needed
    for value in [*inputs, *graph.output]:
        type_, number = expected.get(value.name), value.type.tensor_type.elem_type
        if type_ is not None and number != _ELEMENT_TYPES[type_]:
            raise ModelInvalid(f"{value.name!r} is not {type_}, but {_type_name(number)}")


def _type_name(number: int) -> str:
    """An element type of ONNX in words."""
    known = onnx.TensorProto.DataType.items()
    return next((name.lower() for name, each in known if each == number), f"of type {number}")


def _check_axes(graph: onnx.GraphProto, spec: ModelSpec) -> None:
    """Raise ModelInvalid for inputs and next states whose shape differs from that in the spec."""
    fixed = spec.default_locations if spec.fixed_locations else 0
    wanted: dict[str, tuple[Dimension, ...]] = {each.name: each.shape for each in spec.inputs}
    for tensor in spec.state:
        wanted[tensor.input] = wanted[next_name(tensor)] = tensor.shape
    rows = {0} if spec.batched else {0, 1}
    for value in [*graph.input, *graph.output]:
        if value.name not in wanted or not value.type.tensor_type.HasField("shape"):
            continue
        # 0 stands for an axis of any size, which has a name or nothing.
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        expected = [0, *(size if size != LOCATIONS else fixed for size in wanted[value.name])]
        if len(sizes) != len(expected) or not (
            sizes[0] in rows
            and all(size in (0, want) for size, want in zip(sizes[1:], expected[1:], strict=True))
        ):
            raise ModelInvalid(
                f"{value.name!r} has shape {[size or 'any' for size in sizes]} in the graph, and "
                f"{[size or 'any' for size in expected]} by the spec; export it with a batch of "
                "any size as the first axis, and the others as in the spec"
            )


def _depends_on_itself(graph: onnx.GraphProto, tensor: StateTensor) -> bool:
    """Whether the next value of a state tensor is computed from its last."""
    producers = {name: _read_by(node) for node in graph.node for name in node.output}
    return tensor.input in _ancestors(tensor.output, producers)


def _read_by(node: onnx.NodeProto) -> list[str]:
    """The values that a node reads, also inside its branches and loops."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names += _read_by(inner)
            names += [value.name for value in graph.output]
    return names


def _ancestors(name: str, producers: Mapping[str, Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(producers.get(current, ()))
    return seen
