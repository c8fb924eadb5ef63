"""Graph rewrites: refusals of what breaks the contract, and state paired by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from service.errors import ModelInvalid
from service.models import graph
from service.spec import Float32, Initial, StateTensor
from tests.support.tiny_models import LEDGER, ledger, ledger_nodes


def slab_graph(ticks: int, *, traced: bool = False) -> onnx.ModelProto:
    """The ledger's graph over slabs."""
    proto, spec = graph.parse(ledger())
    return onnx.load_model_from_string(graph.slab_graph(proto, spec, ticks, traced=traced))


def test_state_is_paired_by_name_not_by_order() -> None:
    """Names that sort differently as inputs and outputs still meet in each state's own slab."""
    proto = slab_graph(ticks=1)
    scatters = {
        node.output[0]: (node.input[0], node.input[2])
        for node in proto.graph.node
        if node.op_type == "ScatterND"
    }
    assert sorted(tensor.input for tensor in LEDGER.state) != [
        tensor.input for tensor in sorted(LEDGER.state, key=lambda tensor: tensor.output)
    ]
    assert scatters == {
        "b_total.slab": ("z_total.slab", "0/b_total"),
        "c_memory.slab": ("memory.slab", "0/c_memory"),
        "a_weighting.slab": ("weighting.slab", "0/a_weighting"),
    }


def test_each_tick_has_its_input_and_output_and_the_state_is_written_once() -> None:
    """Traces are outputs if they are wanted; rows of state leave the graph only as slabs."""
    slabs = ["b_total.slab", "c_memory.slab", "a_weighting.slab"]
    plain, traced = slab_graph(ticks=2), slab_graph(ticks=2, traced=True)
    inputs = ["sources", "slots", "z_total.slab", "memory.slab", "weighting.slab", "0/x", "1/x"]
    assert [value.name for value in plain.graph.input] == inputs
    assert [value.name for value in plain.graph.output] == ["0/y", "1/y", *slabs]
    ticks = [f"{tick}/{name}" for tick in (0, 1) for name in ("y", "add", "a_weighting")]
    assert [value.name for value in traced.graph.output] == [*ticks, *slabs]
    scattered = [node.input[2] for node in plain.graph.node if node.op_type == "ScatterND"]
    assert scattered == ["1/b_total", "1/c_memory", "1/a_weighting"]


def test_a_step_is_simplified_without_changing_what_it_computes() -> None:
    """A square becomes a product and a split into one part nothing; other powers stay."""
    nodes = [
        helper.make_node("Split", ["x"], ["whole"], num_outputs=1, axis=0),
        helper.make_node("Pow", ["whole", "two"], ["square"]),
        helper.make_node("Pow", ["square", "three"], ["y"]),
    ]
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    powers = [
        helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [power])
        for name, power in (("two", 2.0), ("three", 3.0))
    ]
    simple = graph.simplified(helper.make_graph(nodes, "powers", [value], [output], powers))
    found = [(node.op_type, list(node.input)) for node in simple.node]
    assert found == [("Mul", ["x", "x"]), ("Pow", ["square", "three"])]
    assert [tensor.name for tensor in simple.initializer] == ["three"]


@pytest.mark.parametrize(("heads", "multiple"), [(2, 2), (3, 4), (4, 2)])
def test_rows_together_fill_whole_packets(heads: int, multiple: int) -> None:
    """An odd number of approximated elements a row takes four rows, an even one two."""
    node = helper.make_node("Softplus", ["x"], ["y"])
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", heads, 1])
        for name in ("x", "y")
    ]
    model = helper.make_model(helper.make_graph([node], "heads", values[:1], values[1:]))
    assert graph.batch_multiple(model) == multiple


def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def step(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, list[int]] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A graph of these nodes; the constants are int64."""
    initializers = [
        numpy_helper.from_array(np.array(values), name)
        for name, values in (constants or {}).items()
    ]
    made = helper.make_graph(nodes, "step", inputs, outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, values: Float32) -> list[Float32]:
    """The outputs of onnxruntime for the only input."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: list[Float32] = session.run(None, {model.graph.input[0].name: values})
    return found


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_no_weight_is_far_below_the_largest(opset: int) -> None:
    """A softmax that makes a state gives at least e ** -40 of the largest; others stay exact."""
    nodes = [helper.make_node("Softmax", ["x"], [name], axis=2) for name in ("next", "y")]
    shape = ("B", 2, "N")
    model = step(
        nodes, [tensor("x", *shape)], [tensor("next", *shape), tensor("y", *shape)], {}, opset
    )
    state = StateTensor("weighting", "x", "next", (2, "N"), Initial("one_hot"))
    served = graph.served(model, replace(LEDGER, state=(state,)))
    logits = np.array([[[0, -30, -90, -300], [-400, -300, -330, -395]]], np.float32)
    weights, others = run(served, logits)
    expected = np.exp(np.array([[0, -30, -40, -40], [-40, 0, -30, -40]], np.float32))
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5)
    assert others[0, 0, 3] == 0 < others[0, 1, 0] < 1e-43


def test_columns_that_fill_no_packet_are_computed_together() -> None:
    """Two heads with two columns each make one packet, of the values that they make alone."""
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=2),
        helper.make_node("Softplus", ["a"], ["y"]),
        helper.make_node("Sigmoid", ["b"], ["w"]),
        helper.make_node("Softplus", ["c"], ["z"]),
    ]
    outputs = [tensor(name, "B", 2, 1) for name in ("y", "w", "z")]
    model = step(nodes, [tensor("x", "B", 2, 3)], outputs, {"sizes": [1, 1, 1]})
    served = graph.served(model, replace(LEDGER, state=()))
    assert [node.op_type for node in served.graph.node].count("Softplus") == 1
    x = np.random.default_rng(1).normal(size=(3, 2, 3)).astype(np.float32)
    for found, expected in zip(run(served, x), run(model, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert graph.batch_multiple(served) == 2


@pytest.mark.parametrize("width", [3, 5, 6, 7, 17])
def test_a_row_is_summed_alike_wherever_it_stands(width: int) -> None:
    """Rows that begin within a packet get the sum of one that begins with a packet."""
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)]
    model = step(nodes, [tensor("x", "B", 2, width)], [tensor("y", "B", 2, 1)], {"axes": [-1]})
    row = np.random.default_rng(width).normal(size=(1, 2, width)).astype(np.float32)
    served = graph.served(model, replace(LEDGER, state=()))
    (alone,) = run(served, row)
    for rows in (2, 3, 31, 32):
        (among,) = run(served, np.repeat(row, rows, 0))
        assert among.tobytes() == np.repeat(alone, rows, 0).tobytes()
    np.testing.assert_allclose(alone, row.sum(2, keepdims=True), rtol=1e-5, atol=1e-6)


FIXED = replace(LEDGER, state=(), default_locations=0)


def over_the_middle() -> onnx.ModelProto:
    """A sum over the middle axis that keeps no axis of its own."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["y"], keepdims=0),
    ]
    constants = {"shape": [-1, 2, 1], "axes": [1]}
    return step(nodes, [tensor("x", "B", 2)], [tensor("y", "B", 1)], constants)


def half_a_packet() -> onnx.ModelProto:
    """Two approximated elements a row."""
    node = helper.make_node("Softplus", ["x"], ["y"])
    return step([node], [tensor("x", "B", 2)], [tensor("y", "B", 2)])


def unknown() -> onnx.ModelProto:
    """An operator of which nobody has compared the bits."""
    node = helper.make_node("LpNormalization", ["x"], ["y"], axis=1)
    return step([node], [tensor("x", "B", 2)], [tensor("y", "B", 2)])


def well_known() -> onnx.ModelProto:
    """Operators that compute each element, or each row, by itself."""
    nodes = [helper.make_node("Tanh", ["x"], ["t"]), helper.make_node("Softmax", ["t"], ["y"])]
    return step(nodes, [tensor("x", "B", 2)], [tensor("y", "B", 2)])


@pytest.mark.parametrize(
    ("made", "remainders"),
    [(over_the_middle, set()), (half_a_packet, set()), (unknown, set()), (well_known, {0})],
)
def test_a_row_is_a_batch_of_its_own_only_where_its_bits_are_those_of_any_batch(
    made: Callable[[], onnx.ModelProto], remainders: set[int]
) -> None:
    """Sums in another order, parts of packets and unknown operators need another row beside it."""
    assert graph.alone(graph.served(made(), FIXED), FIXED) == remainders


def test_garbage_is_refused() -> None:
    """Bytes that are no model."""
    with pytest.raises(ModelInvalid, match="not a valid ONNX model"):
        graph.parse(b"garbage")


def test_a_model_without_a_spec_is_refused() -> None:
    """Some other ONNX model."""
    proto = onnx.load_model_from_string(ledger())
    del proto.metadata_props[:]
    with pytest.raises(ModelInvalid, match=r"no 'ntm\.spec' in its metadata_props"):
        graph.parse(proto.SerializeToString())


def elsewhere() -> onnx.TensorProto:
    """A tensor whose values are in a file that no model should lead to."""
    tensor = helper.make_tensor("leak", onnx.TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def with_initializer() -> onnx.ModelProto:
    """Among the weights."""
    return changed(lambda graph: graph.initializer.append(elsewhere()))


def with_attribute() -> onnx.ModelProto:
    """In a constant's attribute."""
    node = helper.make_node("Constant", [], ["leak"], value=elsewhere())
    return changed(lambda graph: graph.node.append(node))


def with_subgraph() -> onnx.ModelProto:
    """Among the weights of a branch, inside a branch."""
    output = helper.make_tensor_value_info("leak", onnx.TensorProto.FLOAT, [1])
    inner = helper.make_graph([], "inner", [], [output], [elsewhere()])
    branch = helper.make_node("If", ["x"], ["leak"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([branch], "outer", [], [output])
    node = helper.make_node("If", ["x"], ["leak"], then_branch=outer, else_branch=outer)
    return changed(lambda graph: graph.node.append(node))


def with_sparse() -> onnx.ModelProto:
    """As the values of a sparse tensor."""
    indices = helper.make_tensor("indices", onnx.TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(elsewhere(), indices, [4])
    return changed(lambda graph: graph.sparse_initializer.append(sparse))


def with_function() -> onnx.ModelProto:
    """In a function of the model's own."""
    node = helper.make_node("Constant", [], ["leak"], value=elsewhere())
    opset = [helper.make_opsetid("", 17)]
    proto = changed(lambda _: None)
    proto.functions.append(helper.make_function("own", "f", [], ["leak"], [node], opset))
    return proto


def changed(change: Callable[[onnx.GraphProto], object]) -> onnx.ModelProto:
    """The ledger, changed."""
    proto = onnx.load_model_from_string(ledger())
    change(proto.graph)
    return proto


@pytest.mark.parametrize(
    "made", [with_initializer, with_attribute, with_subgraph, with_sparse, with_function]
)
def test_weights_in_other_files_are_refused(made: Callable[[], onnx.ModelProto]) -> None:
    """A model could otherwise make the server open any path; so before anything looks for it."""
    with pytest.raises(ModelInvalid, match="weights in other files"):
        graph.parse(made().SerializeToString())


def test_weights_that_do_not_fill_their_shape_are_refused() -> None:
    """The checker of ONNX lets them pass where the shape has no axes."""
    proto = onnx.load_model_from_string(ledger())
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].raw_data = b"\0" * 80
    with pytest.raises(ModelInvalid, match="weights '-1' cannot be read"):
        graph.parse(proto.SerializeToString())


def test_weights_of_an_unknown_type_are_refused() -> None:
    """Whatever the number of the type is."""
    proto = onnx.load_model_from_string(ledger())
    proto.graph.initializer[0].data_type = 1_103_217_089
    with pytest.raises(ModelInvalid, match="weights '-1' cannot be read"):
        graph.parse(proto.SerializeToString())


def test_names_that_are_no_text_are_refused() -> None:
    """The checker of ONNX fails where it wants to tell them."""
    model = ledger().replace(b"MatMul", b"M\xff\xffMul")
    with pytest.raises(ModelInvalid, match="not a valid ONNX model"):
        graph.parse(model)


def test_an_input_that_the_spec_does_not_know_is_refused() -> None:
    """A state tensor missing from the spec would never be kept."""
    model = ledger(metadata=replace(LEDGER, state=LEDGER.state[1:]).to_json())
    with pytest.raises(ModelInvalid, match=r"graph inputs are .*z_total.*, the spec's"):
        graph.parse(model)


def test_an_output_that_the_graph_lacks_is_refused() -> None:
    """A trace of nothing."""
    trace = replace(LEDGER.traces[0], output="nothing")
    model = ledger(metadata=replace(LEDGER, traces=(trace,)).to_json())
    with pytest.raises(ModelInvalid, match=r"outputs that the graph lacks: \['nothing'\]"):
        graph.parse(model)


def test_a_state_that_ignores_its_past_is_written_after_the_run() -> None:
    """Nothing would order reading its old rows before writing its new ones in place."""
    nodes = ledger_nodes()
    nodes[0] = helper.make_node("Add", ["x", "x"], ["b_total"])
    proto, spec = graph.parse(ledger(nodes=nodes))
    stepping = onnx.load_model_from_string(graph.slab_graph(proto, spec, 1, traced=False))

    assert not graph.is_written_apart(*graph.parse(ledger()))
    assert graph.is_written_apart(proto, spec)
    assert {node.op_type for node in stepping.graph.node} & {"ScatterND"} == set()
    assert {value.name for value in stepping.graph.output} >= {t.output for t in spec.state}


def test_a_tensor_that_is_not_float32_is_refused() -> None:
    """State and steps are float32."""
    proto = onnx.load_model_from_string(ledger())
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(ModelInvalid, match="'y' is not float32"):
        graph.parse(proto.SerializeToString())
