"""The exported graph, its contract, and its verification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export import to_onnx, verification
from export.architectures import build
from export.comparison import Comparison, VerificationFailed, initial_state, show
from export.configuration import Trial
from export.evaluation import TorchRunner, outputs
from export.verification import OnnxRunner
from ntm_tasks.tasks.copy import copy
from service.spec import ModelSpec
from tests.export.conftest import Exported, tiny


def test_the_metadata_hold_the_spec(exported: Exported) -> None:
    """The server's reader finds the spec in the file, with the network's widths and heads."""
    spec = to_onnx.spec_in(onnx.load_from_string(exported.content))

    assert isinstance(spec, ModelSpec)
    assert (spec.task, spec.architecture) == ("copy", exported.configuration.architecture)
    assert (spec.input, spec.input_width, spec.output, spec.output_width) == ("x", 9, "y", 8)
    configuration = exported.configuration
    heads = (configuration.read_heads, configuration.write_heads, 24)
    expected = heads if configuration.default_locations else (0, 0, 0)
    assert (spec.read_heads, spec.write_heads, spec.default_locations) == expected


@pytest.mark.parametrize("locations", [1, 40])
def test_the_spec_starts_the_state_as_the_network_does(exported: Exported, locations: int) -> None:
    """The rules in the spec give the network's own initial state at any N."""
    state = exported.network.initial_state(2, locations)
    found = initial_state(to_onnx.spec_in(exported.model), 2, locations)

    assert list(state._fields) == list(found)
    for name, value in zip(state._fields, state, strict=True):
        np.testing.assert_array_equal(found[name], value.detach().numpy())


def test_traces_are_rows_of_outputs_with_their_widths(exported: Exported) -> None:
    """Every trace of the spec points at rows and a width that its output has."""
    spec = to_onnx.spec_in(exported.model)
    runner = OnnxRunner(exported.content)
    found = runner.everything(np.ones((3, 9), np.float32), runner.start(3, 10))

    names = {trace.name for trace in spec.traces}
    if spec.architecture == "dnc":
        addressed = ("weighting", "key", "strength", "content")
        expected = {f"{side}_{part}" for side in ("read", "write") for part in addressed}
        expected |= {"free_gate", "allocation_gate", "write_gate", "read_mode"}
        assert expected | {"usage", "allocation", "read_vector", "erase_vector", "add_vector"} == (
            names
        )
    elif spec.has_memory:
        parts = ("weighting", "key", "strength", "gate", "shift", "sharpening")
        expected = {f"{side}_{part}" for side in ("read", "write") for part in parts}
        assert expected | {"read_vector", "erase_vector", "add_vector"} == names
    for trace in spec.traces:
        batch, heads, width = found[trace.output].shape
        assert (3, 10 if trace.width == "N" else trace.width) == (batch, width)
        assert trace.first_head + trace.heads <= heads


def test_sequences_come_out_as_in_pytorch(exported: Exported) -> None:
    """Whole sequences give the same outputs on onnxruntime, at other batch and memory sizes."""
    batch = copy(np.random.default_rng(1), 5, (12,))
    locations = 17 if exported.configuration.default_locations else 0
    expected = outputs(TorchRunner(exported.network), batch, locations)

    np.testing.assert_allclose(
        outputs(OnnxRunner(exported.content), batch, locations), expected, rtol=0, atol=1e-5
    )


def test_verification_compares_every_runtime(exported: Exported) -> None:
    """Each runtime is compared in range, and over many steps at each memory size."""
    has_memory = exported.configuration.default_locations > 0
    sizes = (16, 21) if has_memory else (0,)
    verified = verification.verify(exported.content, exported.network, sizes, (1, 7), steps=30)
    found = list(verified)

    # The longest copy of training has 20 vectors, so 41 steps; 31 are the fewest from 30 on.
    chains = [(24 if has_memory else 0, 41, True), *((size, 31, False) for size in sizes)]
    expected = [
        (runtime, batch, *chain)
        for chain in chains
        for runtime, batch in (("onnxruntime", 1), ("onnxruntime", 7), ("onnx reference", 2))
        if batch > 1 or chain[2]
    ]
    assert expected == [each[:5] for each in found]
    assert all(each.agrees and each.step_difference <= 1e-5 for each in found)
    assert all(0 < each.step_rounding < 1e-5 for each in found)


def test_each_comparison_is_shown_before_the_next_begins(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A verification takes a while, so the table grows while it is made."""
    comparison = Comparison("onnxruntime", 1, 8, 30, True, 1e-6, 1e-7, 1e-6, 1e-7, 0.5)
    shown = []

    def made() -> Iterator[Comparison]:
        for batch in (1, 7):
            shown.append(capsys.readouterr().out.split()[:2])
            yield comparison._replace(batch=batch)

    assert [each.batch for each in show(made())] == [1, 7]
    assert shown == [["runtime", "batch"], ["onnxruntime", "1"]]


@pytest.mark.parametrize(
    ("changes", "agrees"),
    [
        ({}, True),
        ({"output_difference": 2e-5}, False),
        ({"output_difference": 2e-5, "in_range": False}, True),
        ({"output_difference": 2e-5, "output_rounding": 3e-6}, True),
        ({"output_difference": 2e-5, "step_rounding": 3e-6}, False),
        ({"step_difference": 2e-5, "in_range": False}, False),
        ({"step_difference": 2e-5, "step_rounding": 3e-6}, True),
        ({"step_difference": float("nan")}, False),
        ({"output_difference": float("nan"), "output_rounding": float("nan")}, False),
    ],
)
def test_verification_allows_what_rounding_explains(changes: dict[str, Any], agrees: bool) -> None:
    """The limit is 1e-5 or ten times PyTorch's rounding; carried outputs have it in range only."""
    comparison = Comparison("onnxruntime", 1, 8, 30, True, 1e-6, 1e-7, 1e-6, 1e-7, 0.5)

    assert comparison._replace(**changes).agrees == agrees


@pytest.mark.parametrize("change", [1e-2, float("nan")])
def test_verification_refuses_another_network(exported: Exported, change: float) -> None:
    """A graph whose weights are not the network's is refused, with the difference."""
    model = onnx.load_from_string(exported.content)
    for initializer in model.graph.initializer:
        if initializer.name == "output.weight":
            values = onnx.numpy_helper.to_array(initializer) * np.float32(1 + change)
            initializer.CopyFrom(onnx.numpy_helper.from_array(values, "output.weight"))

    with pytest.raises(
        VerificationFailed,
        match=r"onnxruntime differs from PyTorch at batch 1( and 24 locations)?: outputs of",
    ):
        list(verification.verify(model.SerializeToString(), exported.network, (8,), (1,), steps=9))


def test_a_state_that_forgets_itself_is_refused(exported: Exported) -> None:
    """A next state not computed from the last one breaks the server's in-place update."""
    model = onnx.load_from_string(exported.content)
    tensor = to_onnx.spec_in(model).state[0]
    for node in model.graph.node:
        node.input[:] = ["x" if name == tensor.input else name for name in node.input]

    with pytest.raises(VerificationFailed, match=f"{tensor.output} does not depend on"):
        verification.check_graph(model)


def test_a_name_of_the_spec_that_the_graph_lacks_is_refused(exported: Exported) -> None:
    """Inputs are checked by name against the spec."""
    model = onnx.load_from_string(exported.content)
    model.graph.input[0].name = "other"

    with pytest.raises(VerificationFailed, match=r"\['other', 'x'\]"):
        verification.check_graph(model)


def test_a_network_comes_back_from_its_file(exported: Exported) -> None:
    """Loading rebuilds every parameter, bit for bit, from the model alone."""
    loaded = to_onnx.load(onnx.load_from_string(exported.content), exported.configuration)

    expected = exported.network.state_dict()
    assert list(expected) == list(loaded.state_dict())
    for name, value in loaded.state_dict().items():
        assert torch.equal(expected[name], value), name


def test_parameters_of_another_configuration_are_refused(exported: Exported) -> None:
    """A model is not loaded into a network of other sizes."""
    other = exported.configuration.with_settings({"controller_size": "13"})

    with pytest.raises(ValueError, match="no parameter"):
        to_onnx.load(exported.model, other)


def test_the_graph_is_small_and_standard(exported: Exported) -> None:
    """Only operators of the standard set, no needless casts, and a version old runtimes read."""
    kinds = {node.op_type for node in exported.model.graph.node}

    assert {"", "ai.onnx"} >= {node.domain for node in exported.model.graph.node}
    # Only the DNC numbers and counts its locations, from the size of their axis.
    numbers = {"Cast", "Expand", "Shape"} if "Range" in kinds else set()
    needless = {"Cast", "Expand", "Shape", "Where", "Identity", "ConstantOfShape"} - numbers
    assert not kinds & needless
    assert (exported.model.opset_import[0].version, exported.model.ir_version) == (18, 10)
    most = 140 if numbers else 80
    assert len(exported.model.graph.node) < most + 10 * exported.configuration.layers


@pytest.mark.parametrize(
    ("initial_memory", "architecture"), [("positional", "ntm-ff"), ("learned", "ntm-lstm")]
)
def test_a_memory_that_starts_otherwise_survives_the_export(
    initial_memory: str, architecture: str
) -> None:
    """Spec, file and PyTorch agree on it; a learned one fixes the locations."""
    trials = (Trial((3,), 24, 2),)
    configuration = replace(tiny(architecture), validation=trials, evaluation=trials)
    configuration = replace(configuration, initial_memory=initial_memory, memory_width=12)
    network = build(architecture, configuration.sizes, seed=5)
    spec = to_onnx.spec_of(network, configuration)
    content = to_onnx.convert(network, spec).SerializeToString()
    locations = 24 if initial_memory == "learned" else 31

    assert spec.fixed_locations == (initial_memory == "learned")
    list(verification.verify(content, network, (locations,), (1, 7), steps=30))
    loaded = to_onnx.load(onnx.load_from_string(content), configuration)
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
