"""Models as Triton's: the files are Triton's, and a sequence computes what a session does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export import __main__ as command_line
from ntm_client import Client
from service.spec import (
    METADATA_KEY,
    TYPES,
    Float32,
    Initial,
    ModelSpec,
    StateTensor,
    StepTensor,
    Type,
)
from tests.support import rich_models, tiny_models
from tests.support.served import MODELS, ROOT

STEPS = 20

needs_tritonclient = pytest.mark.skipif(
    find_spec("tritonclient") is None, reason="tritonclient is not installed; `make test` does"
)


def exported(model: Path, into: Path, *options: str) -> Path:
    """The folder that the command writes."""
    assert command_line.main(["triton", str(model), "--into", str(into), *options]) == 0
    (folder,) = into.iterdir()
    return folder


def model_of(content: bytes, folder: Path) -> Path:
    """A model's folder with this file."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)
    return folder


def as_triton(folder: Path, inputs: Float32, scratch: Path) -> tuple[Float32, dict[str, Any]]:
    """The outputs [T, B, Y] of a program that steps the folder as Triton does, and what it says."""
    np.save(scratch / "inputs.npy", inputs)
    program = Path(__file__).with_name("triton_sequence.py")
    files = [folder, scratch / "inputs.npy", scratch / "outputs.npy"]
    ended = subprocess.run(
        [sys.executable, program, *files], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ended.returncode == 0, ended.stderr
    outputs: Float32 = np.load(scratch / "outputs.npy")
    return outputs, json.loads(ended.stdout)


def bits(sequences: int, width: int) -> Float32:
    """Steps [T, B, X] of bits."""
    drawn = np.random.default_rng(1).integers(0, 2, (STEPS, sequences, width))
    return drawn.astype(np.float32)


@needs_tritonclient
@pytest.mark.parametrize(
    ("model", "options", "locations"),
    [
        ("copy-ntm-lstm", [], None),
        ("copy-ntm-lstm", ["--locations", "40", "--name", "copy-40"], 40),
        ("repeat-copy-ntm-ff", ["--locations", "12"], 12),
        ("copy-lstm", [], None),
    ],
)
def test_a_sequence_of_triton_has_the_outputs_of_a_session(
    model: str, options: list[str], locations: int | None, tmp_path: Path, shipped: Client
) -> None:
    """What is written starts from its files and makes the steps that the server makes."""
    folder = exported(MODELS / model, tmp_path / "repository", *options)
    inputs = bits(3, shipped.model(model).input_width)
    found, described = as_triton(folder, inputs, tmp_path)

    for row in range(3):
        with shipped.create_session(model, locations) as session:
            assert np.abs(session.step(inputs[:, row]).array - found[:, row]).max() < 1e-5
    assert described["name"] == folder.name == (options[3] if options[2:] else model)
    assert (described["backend"], described["max_batch_size"]) == ("onnxruntime", 64)
    assert described["idle"] == 300_000_000
    assert sum(name == "y" for name in described["graph"]) == 1
    assert [name for name in described["graph"] if "next" not in name] == ["y"]  # no traces


@needs_tritonclient
def test_states_whose_orders_differ_are_not_exchanged(tmp_path: Path) -> None:
    """The ledger's inputs and outputs sort differently; its sums are right by Triton's pairs."""
    spec = tiny_models.LEDGER
    assert [each.name for each in sorted(spec.state, key=lambda each: each.input)] != [
        each.name for each in sorted(spec.state, key=lambda each: each.output)
    ]
    folder = exported(model_of(tiny_models.ledger(), tmp_path / "ledger"), tmp_path / "repository")
    inputs = bits(2, tiny_models.WIDTH)

    found, _ = as_triton(folder, inputs, tmp_path)
    assert np.array_equal(found, inputs.cumsum(axis=0))


def counter(
    kind: Type, shape: tuple[int, ...], *, batched: bool = True, initial: float = 0, **fields: Any
) -> bytes:
    """The file of a network whose state, of this type and shape, is the sum of a step's inputs."""
    spec = ModelSpec(
        task="count",
        architecture="test",
        inputs=(StepTensor("x", kind, shape),),
        outputs=(StepTensor("y", kind, shape),),
        state=(
            StateTensor("sum", "sum", "sum_next", shape, Initial("constant", (initial,)), kind),
        ),
        traces=(),
        read_heads=0,
        write_heads=0,
        default_locations=0,
        fixed_locations=False,
        batched=batched,
    )
    lead: list[str | int | None] = ["B" if batched else 1]
    element = helper.np_dtype_to_tensor_dtype(TYPES[kind])
    graph = helper.make_graph(
        fields.pop(
            "nodes",
            [
                helper.make_node("Add", ["sum", "x"], ["sum_next"]),
                helper.make_node("Identity", ["sum_next"], ["y"]),
            ],
        ),
        "count",
        [helper.make_tensor_value_info(name, element, [*lead, *shape]) for name in ("x", "sum")],
        [helper.make_tensor_value_info(n, element, [*lead, *shape]) for n in ("y", "sum_next")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    text = replace(spec, **fields).to_json()
    helper.set_model_props(model, {METADATA_KEY: text})
    content: bytes = model.SerializeToString()
    return content


@needs_tritonclient
@pytest.mark.parametrize(
    ("kind", "shape", "batched", "expected"),
    [
        ("int64", (), True, ("TYPE_INT64", "[ 1 ]", 64)),
        ("int32", (3,), False, ("TYPE_INT32", "[ 1, 3 ]", 0)),
        ("float16", (2, 2), True, ("TYPE_FP16", "[ 2, 2 ]", 64)),
        ("int32", (), False, ("TYPE_INT32", "[ 1 ]", 0)),
    ],
)
def test_other_types_scalars_and_graphs_of_one_row(
    kind: Type, shape: tuple[int, ...], batched: bool, expected: Any, tmp_path: Path
) -> None:
    """A scalar has an axis in Triton. A graph of one row has its row in the shape, and no batch."""
    content = counter(kind, shape, batched=batched, initial=5)
    folder = exported(model_of(content, tmp_path / "count"), tmp_path / "repository")
    lines = re.findall(r"^(?:input|output) .*$", (folder / "config.pbtxt").read_text(), re.M)
    rows = 2 if batched else 1
    inputs = bits(rows, 4).astype(TYPES[kind])[..., : int(np.prod(shape))]
    shaped = inputs.reshape(STEPS, rows, *(shape or ((1,) if batched else ())))

    found, described = as_triton(folder, shaped, tmp_path)
    assert all(f"data_type: {expected[0]} dims: {expected[1]}" in line for line in lines)
    assert described["max_batch_size"] == expected[2]
    assert found.dtype == TYPES[kind]
    assert np.array_equal(found, 5 + shaped.cumsum(axis=0, dtype=TYPES[kind]))


@needs_tritonclient
def test_a_constant_of_a_session_is_handed_on(tmp_path: Path) -> None:
    """A state that the graph only reads keeps its value through all steps."""
    state = (StateTensor("sum", "sum", "", (2,), Initial("constant", (7,))),)
    nodes = [helper.make_node("Add", ["sum", "x"], ["y"])]
    proto = onnx.load_model_from_string(counter("float32", (2,), nodes=nodes, state=state))
    del proto.graph.output[1]
    folder = exported(model_of(proto.SerializeToString(), tmp_path / "m"), tmp_path / "repository")
    inputs = bits(2, 2)

    found, _ = as_triton(folder, inputs, tmp_path)
    assert np.array_equal(found, inputs + 7)


def refused(model: Path, into: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The sentence of a command that fails and writes nothing."""
    assert command_line.main(["triton", str(model), "--into", str(into), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert not into.exists() or not list(into.iterdir())
    return error


def test_a_state_that_grows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Triton would take the longer state for one of the first shape."""
    nodes = [
        helper.make_node("Concat", ["sum", "x"], ["sum_next"], axis=1),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    model = model_of(counter("float32", (2,), nodes=nodes), tmp_path / "grows")

    error = refused(model, tmp_path / "r", capsys)
    assert "the state 'sum' goes into a step as float32 [3, 2] and comes out as" in error
    assert "float32 [3, 4]" in error


def test_a_state_of_another_type_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Triton's backend compares no types of states, and would read the bytes of another."""
    nodes = [
        helper.make_node("Cast", ["x"], ["sum_next"], to=TensorProto.INT32),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    proto = onnx.load_model_from_string(counter("float32", (2,), nodes=nodes))
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT32
    model = model_of(proto.SerializeToString(), tmp_path / "cast")

    error = refused(model, tmp_path / "r", capsys)
    assert "'sum'" in error or "sum_next" in error


def test_a_network_whose_rows_are_not_apart_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Triton would step sequences together, and each would change the outputs of the others."""
    model = model_of(rich_models.of_the_batch(), tmp_path / "mates")

    error = refused(model, tmp_path / "r", capsys)
    assert "of a row depends on the other rows of its batch" in error


def test_a_given_state_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No client of Triton can give a state when a sequence starts."""
    state = (StateTensor("voice", "sum", "sum_next", (2,), Initial("given")),)
    model = model_of(counter("float32", (2,), state=state), tmp_path / "given")

    error = refused(model, tmp_path / "r", capsys)
    assert "clients give the state 'voice' when they open a session" in error


@pytest.mark.parametrize(
    ("model", "locations", "message"),
    [
        ("copy-lstm", "8", "--locations is 8, but this model has no memory; leave it out"),
        ("copy-ntm-lstm", "2", "--locations is 2; it must be at least 3"),
        ("copy-ntm-lstm", "0", "Invalid value"),
    ],
)
def test_locations_that_the_model_does_not_have_are_refused(
    model: str, locations: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the server refuses a session with them."""
    into = tmp_path / "r"
    assert message in refused(MODELS / model, into, capsys, "--locations", locations)


def test_what_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a file, bytes that are no graph, and a graph without a spec."""
    (tmp_path / "empty").mkdir()
    assert "has no model.onnx" in refused(tmp_path / "empty", tmp_path / "r", capsys)
    text = model_of(b"not a graph", tmp_path / "text")
    assert "text/model.onnx is not an ONNX file" in refused(text, tmp_path / "r", capsys)
    plain = onnx.load_model_from_string(tiny_models.ledger())
    del plain.metadata_props[:]
    other = model_of(plain.SerializeToString(), tmp_path / "other")
    assert "other/model.onnx has no spec" in refused(other, tmp_path / "r", capsys)


def test_a_model_is_replaced_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The repository may have a model of that name, which somebody serves."""
    into = tmp_path / "repository"
    folder = exported(MODELS / "copy-lstm", into, "--name", "m")
    before = (folder / "config.pbtxt").read_bytes()
    again = ["triton", str(MODELS / "copy-ntm-ff"), "--into", str(into), "--name", "m"]
    assert command_line.main(again) == command_line.FAILED
    assert "m is there already; give this one another name" in capsys.readouterr().err
    assert (folder / "config.pbtxt").read_bytes() == before

    assert command_line.main([*again, "--replace"]) == 0
    assert [each.name for each in into.iterdir()] == ["m"]
    assert len(list((folder / "initial_state").iterdir())) == 3


def test_the_page_says_what_is_lost(tmp_path: Path) -> None:
    """It is written for the model: its name, its memory, its files, and only its own losses."""
    memory = exported(
        MODELS / "copy-ntm-lstm", tmp_path / "a", "--locations", "40", "--name", "copy-40"
    )
    plain = exported(MODELS / "copy-lstm", tmp_path / "b")
    with_memory, without = ((each / "README.md").read_text() for each in (memory, plain))

    assert with_memory.startswith("# copy-40 for Triton\n")
    for loss in ("survive", "Forks", "Retries", "Chunks", "Every sequence has 40", "Traces"):
        assert loss in with_memory
    for file in (memory / "initial_state").iterdir():
        assert f"`{file.name}`" in with_memory
    assert "locations" not in without
    assert "Traces" not in without


def test_the_graph_has_no_work_for_traces(tmp_path: Path) -> None:
    """onnxruntime runs every node of a graph, so nodes that only traces need are left out."""
    content = tiny_models.ledger()
    folder = exported(model_of(content, tmp_path / "ledger"), tmp_path / "repository")
    before = onnx.load_model_from_string(content).graph
    after = onnx.load(folder / "1" / "model.onnx").graph

    made = {name for node in after.node for name in node.output}
    assert {name for node in before.node for name in node.output} - made == {"add"}
    assert "add" not in {output.name for output in after.output}


def test_the_graph_says_the_number_of_locations(tmp_path: Path) -> None:
    """Triton takes a size that a state does not say for 1. No metadata speak of another server."""
    folder = exported(MODELS / "copy-ntm-lstm", tmp_path / "repository", "--locations", "40")
    graph = folder / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(graph)

    assert {each.name: each.shape for each in session.get_inputs()}["memory"] == ["B", 20, 40]
    assert not onnx.load(graph).metadata_props
