"""Small step graphs built by hand, with properties that are easy to check."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.spec import METADATA_KEY, Initial, ModelSpec, StateTensor, TraceTensor, vector

WIDTH = 2
"""Input and output width of the ledger."""

RUN_FAILS = 5000.0
"""As the first value of a step, makes onnxruntime's run of the ledger fail."""

NOT_FINITE = 500.0
"""As the second value of a step, makes the ledger's output not finite."""

LEDGER = ModelSpec(
    task="ledger",
    architecture="test",
    inputs=(vector("x", WIDTH),),
    outputs=(vector("y", WIDTH),),
    # Inputs sorted by name: memory, weighting, z_total. Outputs: a_weighting, b_total, c_memory.
    state=(
        StateTensor("total", "z_total", "b_total", (WIDTH,), Initial("values", (0.0, 0.0))),
        StateTensor("memory", "memory", "c_memory", (WIDTH, "N"), Initial("constant", (0.0,))),
        StateTensor("weighting", "weighting", "a_weighting", (2, "N"), Initial("one_hot")),
    ),
    traces=(
        TraceTensor("read_weighting", "a_weighting", 0, 1, "N"),
        TraceTensor("write_weighting", "a_weighting", 1, 1, "N"),
        TraceTensor("add_vector", "add", 0, 1, WIDTH),
    ),
    read_heads=1,
    write_heads=1,
    default_locations=8,
    fixed_locations=False,
)


def ledger_nodes() -> list[onnx.NodeProto]:
    """
    The ledger: its outputs are the running sums of its inputs.

    It adds each input to the memory at the write head and moves that head by +1; the read head
    stays. So every lost, repeated, misplaced or foreign step shows, exactly, in outputs and memory.
    """
    node = helper.make_node
    return [
        node("Add", ["z_total", "x"], ["b_total"]),
        # Zero, unless an index is out of range: then the run fails.
        node("Slice", ["x", "0", "1", "axis1"], ["first"]),
        node("Cast", ["first"], ["index"], to=TensorProto.INT64),
        node("Gather", ["zeros", "index"], ["zero"]),
        # Zero, unless the exponential overflows: then not a number.
        node("Slice", ["x", "1", "2", "axis1"], ["second"]),
        node("Exp", ["second"], ["large"]),
        node("Mul", ["large", "nought"], ["also_zero"]),
        node("Sum", ["b_total", "zero", "also_zero"], ["y"]),
        node("Unsqueeze", ["x", "2"], ["column"]),
        node("Slice", ["weighting", "1", "2", "axis1"], ["write_row"]),
        node("MatMul", ["column", "write_row"], ["addition"]),
        node("Add", ["memory", "addition"], ["c_memory"]),
        node("Slice", ["write_row", "-1", "end", "2"], ["last"]),
        node("Slice", ["write_row", "0", "-1", "2"], ["others"]),
        node("Concat", ["last", "others"], ["write_next"], axis=2),
        node("Slice", ["weighting", "0", "1", "axis1"], ["read_row"]),
        node("Concat", ["read_row", "write_next"], ["a_weighting"], axis=1),
        node("Unsqueeze", ["x", "axis1"], ["add"]),
    ]


def ledger(
    spec: ModelSpec = LEDGER,
    nodes: list[onnx.NodeProto] | None = None,
    metadata: str | None = None,
) -> bytes:
    """The ledger's ONNX file, or one with another spec, other nodes or other metadata."""
    indices = {str(number): number for number in (-1, 0, 1, 2)} | {"axis1": 1, "end": 2**62}
    constants: dict[str, npt.NDArray[np.generic]] = {
        name: np.array([number], np.int64) for name, number in indices.items()
    }
    constants["zeros"] = np.zeros(1000, np.float32)
    constants["nought"] = np.zeros(1, np.float32)
    outputs: dict[str, tuple[int | str, ...]] = {"y": (WIDTH,), "add": (1, WIDTH)}
    outputs |= {tensor.output: tensor.shape for tensor in spec.state}
    graph = helper.make_graph(
        ledger_nodes() if nodes is None else nodes,
        "step",
        [_info("x", (WIDTH,)), *(_info(tensor.input, tensor.shape) for tensor in spec.state)],
        [_info(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json() if metadata is None else metadata})
    serialized: bytes = model.SerializeToString()
    return serialized


def doubling() -> bytes:
    """Another version of the ledger: its outputs are twice the sums, and its state is the same."""
    nodes = ledger_nodes()
    (sums,) = (node for node in nodes if node.output[0] == "y")
    sums.input.append("b_total")
    return ledger(nodes=nodes)


def not_loadable() -> bytes:
    """A ledger that keeps the contract, and of which onnxruntime can make no network."""
    nodes = ledger_nodes()
    # Whether types agree is not looked at before.
    nodes.append(helper.make_node("MatMul", ["zeros", "axis1"], ["unused"]))
    return ledger(nodes=nodes)


def _info(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape])
