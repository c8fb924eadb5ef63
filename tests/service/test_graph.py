"""Graph rewrites: refusals of what breaks the contract, and state paired by name."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from onnx import helper

from service import graph
from service.errors import ModelInvalid
from tests.tiny_models import LEDGER, ledger, ledger_nodes


def test_state_is_paired_by_name_not_by_order() -> None:
    """Names that sort differently as inputs and outputs still meet in each state's own slab."""
    proto = onnx.load_model_from_string(graph.slab_graph(*graph.parse(ledger())))
    scatters = {
        node.output[0]: (node.input[0], node.input[2])
        for node in proto.graph.node
        if node.op_type == "ScatterND"
    }
    assert sorted(tensor.input for tensor in LEDGER.state) != [
        tensor.input for tensor in sorted(LEDGER.state, key=lambda tensor: tensor.output)
    ]
    assert scatters == {
        "b_total.slab": ("z_total.slab", "b_total"),
        "c_memory.slab": ("memory.slab", "c_memory"),
        "a_weighting.slab": ("weighting.slab", "a_weighting"),
    }


def test_state_that_is_not_traced_is_no_output_of_its_own() -> None:
    """Rows of state leave the graph only as slabs, unless a trace wants them."""
    proto = onnx.load_model_from_string(graph.slab_graph(*graph.parse(ledger())))
    names = [value.name for value in proto.graph.output]
    assert names == ["y", "add", "a_weighting", "b_total.slab", "c_memory.slab", "a_weighting.slab"]


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


def test_weights_in_other_files_are_refused() -> None:
    """A model could otherwise make the server open any path."""
    proto = onnx.load_model_from_string(ledger())
    weights = proto.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(ModelInvalid, match=r"weights in other files|not a valid ONNX model"):
        graph.parse(proto.SerializeToString())


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


def test_a_state_that_ignores_its_past_is_refused() -> None:
    """Nothing would order reading its old rows before writing its new ones in place."""
    nodes = ledger_nodes()
    nodes[0] = helper.make_node("Add", ["x", "x"], ["b_total"])
    with pytest.raises(ModelInvalid, match="'b_total' does not depend on input 'z_total'"):
        graph.parse(ledger(nodes=nodes))


def test_a_tensor_that_is_not_float32_is_refused() -> None:
    """State and steps are float32."""
    proto = onnx.load_model_from_string(ledger())
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(ModelInvalid, match="'y' is not float32"):
        graph.parse(proto.SerializeToString())
