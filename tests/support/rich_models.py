"""Step graphs with several inputs and outputs, of every type, whose results are easy to check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.spec import (
    METADATA_KEY,
    TYPES,
    Array,
    Initial,
    ModelSpec,
    StateTensor,
    StepTensor,
    Type,
    vector,
)

RICH = ModelSpec(
    task="speech",
    architecture="test",
    inputs=(StepTensor("audio", "float32", (3,)), StepTensor("token", "int64", ())),
    outputs=(
        StepTensor("score", "float32", (3, 1)),
        StepTensor("flag", "bool", (1,)),
        StepTensor("counted", "int64", (2,)),
        StepTensor("loud", "float16", (2,)),
    ),
    state=(
        StateTensor("count", "count", "count_next", (2,), Initial("values", (5, -7)), "int64"),
        StateTensor("on", "on", "on_next", (1,), Initial("constant", (False,)), "bool"),
        StateTensor("level", "level", "level_next", (2,), Initial("constant", (0.5,)), "float16"),
        StateTensor("speaker", "speaker", "", (3,), Initial("given")),
    ),
    traces=(),
    read_heads=0,
    write_heads=0,
    default_locations=0,
    fixed_locations=False,
)

TABLE = np.arange(30, dtype=np.float32).reshape(10, 3)
"""A row for each token; a run with another token fails."""


def rich(spec: ModelSpec = RICH) -> bytes:
    """
    A model of four outputs: score = audio * speaker + TABLE[token], as a column; flag says whether
    the number of steps is odd; counted = count + the tokens so far; loud = 0.5 + the sum of audio.
    """
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "token"], ["row"]),
        node("Mul", ["audio", "speaker"], ["scaled"]),
        node("Add", ["scaled", "row"], ["sums"]),
        node("Unsqueeze", ["sums", "last"], ["score"]),
        node("Unsqueeze", ["token", "last_of_one"], ["column"]),
        node("Add", ["count", "column"], ["count_next"]),
        node("Identity", ["count_next"], ["counted"]),
        node("Not", ["on"], ["on_next"]),
        node("Identity", ["on_next"], ["flag"]),
        node("Slice", ["audio", "0", "2", "1"], ["two"]),
        node("Cast", ["two"], ["half"], to=TensorProto.FLOAT16),
        node("Add", ["level", "half"], ["level_next"]),
        node("Identity", ["level_next"], ["loud"]),
    ]
    constants = {
        "table": TABLE,
        "last": np.array([2]),
        "last_of_one": np.array([1]),
        "0": np.array([0]),
        "1": np.array([1]),
        "2": np.array([2]),
    }
    return _model(spec, nodes, constants)


PLAIN = replace(
    RICH,
    inputs=(vector("x", 2),),
    outputs=(vector("y", 2),),
    state=(StateTensor("h", "h", "h_next", (2,), Initial("constant", (0.0,))),),
)
"""One vector each way, which format 1 can hold."""


def of_type(type_: Type) -> bytes:
    """Running sums of three values of one type, from 1 on; of bool, whether their number is odd."""
    spec = replace(
        RICH,
        inputs=(StepTensor("x", type_, (3,)),),
        outputs=(StepTensor("y", type_, (3,)),),
        state=(StateTensor("h", "h", "h_next", (3,), Initial("constant", (1,)), type_),),
    )
    nodes = [
        helper.make_node("Xor" if type_ == "bool" else "Add", ["h", "x"], ["h_next"]),
        helper.make_node("Identity", ["h_next"], ["y"]),
    ]
    return _model(spec, nodes, {})


def of_the_sign() -> bytes:
    """A model that says of running products whether they are positive, which NaN is not."""
    spec = replace(
        PLAIN,
        outputs=(StepTensor("y", "bool", (2,)),),
        state=(StateTensor("h", "h", "h_next", (2,), Initial("constant", (1.0,))),),
    )
    nodes = [
        helper.make_node("Mul", ["h", "x"], ["h_next"]),
        helper.make_node("Greater", ["h_next", "zero"], ["y"]),
    ]
    return _model(spec, nodes, {"zero": np.array(0, np.float32)})


def of_the_batch() -> bytes:
    """A model whose sums have, beside a session's own, the mean of all inputs of the batch."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["h", "x"], ["h_next"]),
        helper.make_node("Add", ["h_next", "mean"], ["y"]),
    ]
    return _model(PLAIN, nodes, {})


ONE_ROW = replace(PLAIN, batched=False)


def of_one_row(spec: ModelSpec = ONE_ROW) -> bytes:
    """A model of running sums whose graph takes a batch of one row alone."""
    nodes = [
        helper.make_node("Add", ["h", "x"], ["sums"]),
        helper.make_node("Reshape", ["sums", "one"], ["h_next"]),
        helper.make_node("Identity", ["h_next"], ["y"]),
    ]
    return _model(spec, nodes, {"one": np.array([1, 2])}, batch=1)


def of_the_second_axis() -> bytes:
    """A model of running sums whose graph has the batch of its state as the second axis."""
    spec = replace(PLAIN, state=(replace(PLAIN.state[0], shape=(1, 2)),))
    nodes = [
        helper.make_node("Squeeze", ["h", "first"], ["sums"]),
        helper.make_node("Add", ["sums", "x"], ["y"]),
        helper.make_node("Unsqueeze", ["y", "first"], ["h_next"]),
    ]
    proto = onnx.load_model_from_string(_model(spec, nodes, {"first": np.array([0])}))
    for value in (proto.graph.input[1], proto.graph.output[1]):
        value.type.tensor_type.shape.dim[1].dim_param = "rows"  # which leaves its size open
    serialized: bytes = proto.SerializeToString()
    return serialized


def of_the_last_step() -> bytes:
    """A model that gives the input of the step before: its next state ignores its last."""
    nodes = [
        helper.make_node("Identity", ["h"], ["y"]),
        helper.make_node("Identity", ["x"], ["h_next"]),
    ]
    return _model(PLAIN, nodes, {})


def with_branches() -> bytes:
    """
    A model of one row a run that adds to its sums or takes from them, as its second input says.
    The branches read values and constants of the graph around them.
    """
    spec = replace(ONE_ROW, inputs=(vector("x", 2), StepTensor("adds", "bool", ())))
    branches: dict[str, Any] = {  # onnx's types know no graph as an attribute
        f"{name}_branch": helper.make_graph(
            [
                helper.make_node("Mul", ["whole", "ten"], [f"{name}_scaled"]),
                helper.make_node(operator, ["h", f"{name}_scaled"], [f"{name}_sums"]),
            ],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_sums", TensorProto.FLOAT, [1, 2])],
        )
        for name, operator in (("then", "Add"), ("else", "Sub"))
    }
    nodes = [
        helper.make_node("Split", ["x"], ["whole"], axis=1),
        helper.make_node("Squeeze", ["adds"], ["whether"]),
        helper.make_node("If", ["whether"], ["sums"], **branches),
        helper.make_node("Identity", ["sums"], ["y"]),
        helper.make_node("Identity", ["sums"], ["h_next"]),
    ]
    return _model(spec, nodes, {"ten": np.array([10], np.float32)}, batch=1)


def simple_sequence() -> bytes:
    """The network of Triton's own examples: INPUT, and 1 more in the first step of a sequence."""
    spec = replace(
        RICH,
        inputs=(StepTensor("INPUT", "int32", (1,)),),
        outputs=(StepTensor("OUTPUT", "int32", (1,)),),
        state=(StateTensor("first", "first", "later", (1,), Initial("constant", (1,)), "int32"),),
    )
    nodes = [
        helper.make_node("Add", ["INPUT", "first"], ["OUTPUT"]),
        helper.make_node("Sub", ["first", "first"], ["later"]),
    ]
    return _model(spec, nodes, {})


def _model(
    spec: ModelSpec,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    batch: int | str = "B",
) -> bytes:
    def info(name: str, type_: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
        element = helper.np_dtype_to_tensor_dtype(TYPES[type_])
        return helper.make_tensor_value_info(name, element, [batch, *shape])

    graph = helper.make_graph(
        nodes,
        "step",
        [
            *(info(each.name, each.type, each.shape) for each in spec.inputs),
            *(info(each.input, each.type, each.shape) for each in spec.state),
        ],
        [
            *(info(each.name, each.type, each.shape) for each in spec.outputs),
            *(info(each.output, each.type, each.shape) for each in spec.state if each.output),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    serialized: bytes = model.SerializeToString()
    return serialized
