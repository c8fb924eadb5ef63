"""Modules of somebody's own, from PyTorch to a folder that a server steps."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn

from export import card, to_onnx
from export.comparison import LARGEST_DIFFERENCE, VerificationFailed
from export.modules import ModuleRefused, export_module
from export.verification import OnnxRunner
from service.models.rehearsal import rehearse
from service.spec import Initial
from tests.export import own_modules
from tests.export.own_modules import H, X

T = 20

REFUSED: dict[type[nn.Module], str] = {
    own_modules.KeepsAttribute: "keeps state in self.hidden, which all sessions would share",
    own_modules.KeepsBuffer: "keeps state in self.total, which all sessions would share",
    own_modules.KeepsCount: "keeps state in self.count, which all sessions would share",
    own_modules.KeepsList: "keeps state in self.past, which all sessions would share",
    own_modules.DrawsFromPython: "the same steps give other outputs the second time",
    own_modules.Explodes: "values are infinite or NaN after ",
    own_modules.BranchesOnValues: "depends on values here",
    own_modules.LoopsByValue: "depends on values here",
    own_modules.SizeByValue: "the size of a tensor depends on values",
    own_modules.Grows: "shape [B, 5] before a step and [B, 10] after it",
    own_modules.OneBatch: "a step fails for a batch of 1: RuntimeError: shape '[3, 2, 5]'",
    own_modules.ComparesBatch: "another for other sizes than a batch of 3",
    own_modules.Drops: "dropout behaves as in training; call .eval()",
    own_modules.DropsByLayer: "drop (Dropout) is in train mode; call .eval()",
    own_modules.Normalises: "norm (BatchNorm1d) is in train mode; call .eval()",
    own_modules.AddsNoise: "rand_like draws random numbers",
    own_modules.MeanOfBatch: "the rows of a batch influence each other",
    own_modules.ThroughNumpy: "PyTorch cannot trace a step: .numpy() is not supported",
    own_modules.WithoutOperator: "ONNX has no operator for aten._linalg_svd.default",
    own_modules.Fails: "a step of the example fails: RuntimeError: mat1 and mat2 shapes",
    own_modules.FlatOutput: "the output has shape [3]; it must be [B, Y], here [3, Y]",
    own_modules.OtherNumbers: "the output is int64; return it as float32",
    own_modules.OtherStructure: "goes in as state and comes out as state_0, state_1",
    own_modules.NoState: "forward returns Tensor; it must return (y, state)",
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same in every run."""
    torch.manual_seed(1)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused_with_the_line_to_change(
    kind: type[nn.Module], tmp_path: Path
) -> None:
    """One sentence says what is wrong, and the marked line of the module where; nothing is left."""
    lines, first = inspect.getsourcelines(kind)
    (marked,) = [first + at for at, line in enumerate(lines) if "# change" in line]

    with pytest.raises(ModuleRefused) as refusal:
        export_module(kind(), torch.zeros(3, X), torch.zeros(3, X), models=tmp_path)

    message = str(refusal.value)
    assert REFUSED[kind] in message
    assert "\n" not in message
    assert message.startswith(f"tests/export/own_modules.py:{marked}: ")
    assert list(tmp_path.iterdir()) == []


def test_state_on_a_part_of_the_module_is_named(tmp_path: Path) -> None:
    """The attribute is named as the module reaches it, and the line is that of the part."""
    lines, first = inspect.getsourcelines(own_modules.Trailing)
    (changed,) = [first + at for at, line in enumerate(lines) if "# changed here" in line]

    with pytest.raises(ModuleRefused, match=r"keeps state in self\.part\.last, ") as refusal:
        export_module(
            own_modules.KeepsInside(), torch.zeros(3, X), torch.zeros(3, X), models=tmp_path
        )
    assert refusal.value.place == f"tests/export/own_modules.py:{changed}"


def stepped(folder: Path, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The outputs of a model's folder, stepped by the code of a server."""
    (outputs,) = rehearse(folder.parent, folder.name, inputs).values()
    return outputs


def random_inputs() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).standard_normal((T, X), np.float32)


@pytest.mark.parametrize(
    "layers",
    [nn.LSTM(X, H, 2), nn.GRU(X, H, 2, batch_first=True), nn.RNN(X, H)],
    ids=lambda layers: type(layers).__name__,
)
def test_pytorchs_layers_are_served_as_they_are(layers: nn.RNNBase, tmp_path: Path) -> None:
    """A server's steps are the outputs of the layers over the sequence."""
    folder = export_module(layers, torch.zeros(3, X), models=tmp_path)
    inputs = random_inputs()
    sequence = torch.from_numpy(inputs)
    with torch.no_grad():
        expected = layers(sequence)[0]

    np.testing.assert_allclose(stepped(folder, inputs), expected, rtol=0, atol=1e-6)
    spec = to_onnx.spec_in(onnx.load(folder / card.MODEL_NAME))
    assert spec.architecture == type(layers).__name__
    names = ["hidden", "cell"] if isinstance(layers, nn.LSTM) else ["hidden"]
    assert [(t.name, t.shape) for t in spec.state] == [(n, (layers.num_layers, H)) for n in names]
    assert all(tensor.initial == Initial("constant", (0.0,)) for tensor in spec.state)


@pytest.mark.parametrize(
    "cell", [nn.LSTMCell(X, H), nn.GRUCell(X, H), nn.RNNCell(X, H)], ids=lambda c: type(c).__name__
)
def test_pytorchs_cells_are_served_as_they_are(cell: nn.RNNCellBase, tmp_path: Path) -> None:
    """A server's steps are the cell's hidden values, from the example's state on."""
    start = torch.linspace(-1, 1, H).repeat(3, 1)
    state = (start, -start) if isinstance(cell, nn.LSTMCell) else start
    folder = export_module(cell, torch.zeros(3, X), state, models=tmp_path)
    inputs = random_inputs()
    carried: Any = (start[:1], -start[:1]) if isinstance(cell, nn.LSTMCell) else start[:1]
    expected = []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            carried = cell(x[None], carried)
            expected.append(carried[0] if isinstance(cell, nn.LSTMCell) else carried)

    np.testing.assert_allclose(stepped(folder, inputs), torch.cat(expected), rtol=0, atol=1e-6)


def own_outputs(module: Any, inputs: np.ndarray[Any, Any], state: Any) -> np.ndarray[Any, Any]:
    """The outputs of a module in PyTorch, for one session."""
    outputs = []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            y, state, *_ = module(x[None], state)
            outputs.append(y)
    return torch.cat(outputs).numpy()


def test_a_state_with_the_batch_on_another_axis_is_served(tmp_path: Path) -> None:
    """The axis is found by the example's batch; the served state has the batch first."""
    tagger = own_modules.Tagger()
    folder = export_module(tagger, torch.zeros(3, X), torch.zeros(2, 3, H), models=tmp_path)
    inputs = random_inputs()

    expected = own_outputs(tagger, inputs, torch.zeros(2, 1, H))
    np.testing.assert_allclose(stepped(folder, inputs), expected, rtol=0, atol=1e-6)
    spec = to_onnx.spec_in(onnx.load(folder / card.MODEL_NAME))
    assert [(tensor.name, tensor.shape) for tensor in spec.state] == [("state", (2, H))]


def test_an_axis_that_the_example_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    """Two axes as long as the batch are refused with both ways out, and both work."""
    tagger = own_modules.Tagger()
    with pytest.raises(ModuleRefused, match=r"^state has .* its axis 0 or its axis 1; .* as 3, or"):
        export_module(tagger, torch.zeros(2, X), torch.zeros(2, 2, H), models=tmp_path)

    wrong = r"a step fails for a batch of 1 along axis 0 of state, as batch_axes says: RuntimeError"
    with pytest.raises(ModuleRefused, match=wrong):
        export_module(
            tagger,
            torch.zeros(2, X),
            torch.zeros(2, 2, H),
            models=tmp_path,
            batch_axes={"state": 0},
        )
    folder = export_module(
        tagger, torch.zeros(2, X), torch.zeros(2, 2, H), models=tmp_path, batch_axes={"state": 1}
    )
    inputs = random_inputs()
    expected = own_outputs(tagger, inputs, torch.zeros(2, 1, H))
    np.testing.assert_allclose(stepped(folder, inputs), expected, rtol=0, atol=1e-6)


def test_a_state_that_is_replaced_is_served(tmp_path: Path) -> None:
    """The last inputs as state: no next value of `last` is computed from its last."""
    window = own_modules.Window()
    state = {"last": torch.full((3, X), 0.5), "before": torch.arange(5.0).repeat(3, 1)}
    folder = export_module(window, torch.zeros(3, X), state, models=tmp_path)
    inputs = random_inputs()

    expected = own_outputs(window, inputs, {name: each[:1] for name, each in state.items()})
    np.testing.assert_allclose(stepped(folder, inputs), expected, rtol=0, atol=1e-6)
    spec = to_onnx.spec_in(onnx.load(folder / card.MODEL_NAME))
    assert {tensor.name: tensor.initial for tensor in spec.state} == {
        "last": Initial("constant", (0.5,)),
        "before": Initial("values", (0.0, 1.0, 2.0, 3.0, 4.0)),
    }


def test_a_module_may_change_its_state_in_place(tmp_path: Path) -> None:
    """The example stays as it was; a number for each session is a state, too."""
    state = {"total": torch.zeros(3, X), "count": torch.zeros(3)}
    folder = export_module(own_modules.Counted(), torch.zeros(3, X), state, models=tmp_path)
    inputs = random_inputs()

    expected = inputs.cumsum(0) / np.arange(1, T + 1)[:, None]
    np.testing.assert_allclose(stepped(folder, inputs), expected, rtol=0, atol=1e-5)
    assert not state["total"].any()
    assert not state["count"].any()


def test_a_nested_state_and_traces_are_served(tmp_path: Path) -> None:
    """Tensors are named by their places; a trace has its heads, and the values of PyTorch."""
    nested = own_modules.Nested()
    zeros = [torch.zeros(3, H) for _ in range(4)]
    state = ((zeros[0], zeros[1]), own_modules.Cells(zeros[2], zeros[3]))
    folder = export_module(nested, torch.zeros(3, X), state, models=tmp_path)
    spec = to_onnx.spec_in(onnx.load(folder / card.MODEL_NAME))

    names = ["state_0_0", "state_0_1", "state_1_hidden", "state_1_cell"]
    assert [tensor.name for tensor in spec.state] == names
    assert [(t.name, t.heads, t.width) for t in spec.traces] == [("open", 1, H), ("cells", 2, H)]
    runner = OnnxRunner((folder / card.MODEL_NAME).read_bytes())
    x = torch.ones(2, X)
    found = runner.everything(x.numpy(), runner.start(2, 0))
    with torch.no_grad():
        two = [torch.zeros(2, H) for _ in range(4)]
        _, _, traces = nested(x, ((two[0], two[1]), own_modules.Cells(two[2], two[3])))
    np.testing.assert_allclose(found["trace/open"], traces["open"][:, None], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["trace/cells"], traces["cells"], rtol=0, atol=1e-6)


def memory_state(locations: int, batch: int = 4) -> dict[str, Tensor]:
    weighting = torch.zeros(batch, locations)
    weighting[:, 0] = 1
    return {"memory": torch.full((batch, locations, 3), 1e-3), "weighting": weighting}


def test_sessions_choose_the_size_of_a_memory(tmp_path: Path) -> None:
    """An axis of locations in the middle is served last, at the example's size and at others."""
    module = own_modules.Memory()
    folder = export_module(
        module,
        torch.zeros(4, X),
        memory_state(8),
        models=tmp_path,
        locations={"memory": 1, "weighting": 1},
    )
    inputs = random_inputs()
    found = rehearse(tmp_path, folder.name, inputs)

    assert sorted(found) == [8, 9]
    for locations, outputs in found.items():
        expected = own_outputs(module, inputs, memory_state(locations, 1))
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)
    spec = to_onnx.spec_in(onnx.load(folder / card.MODEL_NAME))
    assert {t.name: t.shape for t in spec.state} == {"memory": (3, "N"), "weighting": (1, "N")}
    assert {t.name: t.width for t in spec.traces} == {"read_weighting": "N", "key": 3}
    assert (spec.read_heads, spec.write_heads, spec.fixed_locations) == (1, 0, False)
    comparisons = card_of(folder)["verification"]["comparisons"]
    assert [(each["batch"], each["locations"]) for each in comparisons] == [
        (batch, locations) for locations in (8, 9, 16) for batch in (1, 2, 7)
    ]


def card_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / card.CARD_NAME).read_text())
    return found


def test_a_memory_that_starts_from_values_has_one_size(tmp_path: Path) -> None:
    """Values that no rule gives cannot be had for another number of locations."""
    state = memory_state(8)
    state["memory"] = torch.randn(8, 3).repeat(4, 1, 1)
    folder = export_module(
        own_modules.Memory(),
        torch.zeros(4, X),
        state,
        models=tmp_path,
        locations={"memory": 1, "weighting": 1},
    )

    spec = to_onnx.spec_in(onnx.load(folder / card.MODEL_NAME))
    assert (spec.fixed_locations, spec.default_locations) == (True, 8)
    assert list(rehearse(tmp_path, folder.name, random_inputs())) == [8]


def test_the_card_says_what_was_verified(tmp_path: Path) -> None:
    """It has the file's hash, the largest differences, and whether rows keep their bits."""
    folder = export_module(nn.GRUCell(X, H), torch.zeros(3, X), models=tmp_path, name="mine")
    described = card_of(folder)

    content = (folder / card.MODEL_NAME).read_bytes()
    assert described["content_hash"] == card.content_hash(content)
    assert (described["task"], described["architecture"]) == ("mine", "GRUCell")
    assert described["module"] == "torch.nn.modules.rnn.GRUCell"
    assert described["parameters"] == 3 * H * (X + H + 2)
    checked = described["verification"]
    assert checked["same_bits_in_batches"] is True
    assert [each["batch"] for each in checked["comparisons"]] == [1, 2, 7]
    assert all(0 < each["step_difference"] <= 1e-5 for each in checked["comparisons"])


def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are off by a thousandth are noticed, and no folder is left."""
    convert = torch.onnx.export

    def otherwise(*arguments: Any, **options: Any) -> Any:
        program = convert(*arguments, **options)
        assert program is not None
        weights = program.model.graph.initializers["module.cell.weight_hh"]
        assert weights.const_value is not None
        weights.const_value = onnx_ir.tensor(weights.const_value.numpy() + np.float32(1e-3))
        return program

    monkeypatch.setattr(torch.onnx, "export", otherwise)
    with pytest.raises(VerificationFailed, match="differs from PyTorch at batch 1: outputs"):
        export_module(nn.GRUCell(X, H), torch.zeros(3, X), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_network_is_not_written_over(tmp_path: Path) -> None:
    """The same module may be written again; another needs replace."""
    first, second = nn.GRUCell(X, H), nn.GRUCell(X, H)
    folder = export_module(first, torch.zeros(3, X), models=tmp_path)
    before = (folder / card.MODEL_NAME).read_bytes()
    export_module(first, torch.zeros(3, X), models=tmp_path)

    with pytest.raises(FileExistsError, match="holds another network"):
        export_module(second, torch.zeros(3, X), models=tmp_path)
    assert (folder / card.MODEL_NAME).read_bytes() == before
    export_module(second, torch.zeros(3, X), models=tmp_path, replace=True)
    assert (folder / card.MODEL_NAME).read_bytes() != before


def test_the_module_stays_as_it_was(tmp_path: Path) -> None:
    """Its attributes, its mode and its gradients' flags are those of before."""
    nested = own_modules.Nested()
    zeros = [torch.zeros(3, H) for _ in range(4)]
    state = ((zeros[0], zeros[1]), own_modules.Cells(zeros[2], zeros[3]))
    export_module(nested, torch.zeros(3, X), state, models=tmp_path)

    assert nested.seen is None
    assert nested.training
    assert all(parameter.requires_grad for parameter in nested.parameters())


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    """NaN in a module's own weights is not taken for a fault of the inputs."""
    module = own_modules.Sums()
    module.layer.bias.data[1] = torch.nan

    with pytest.raises(ModuleRefused, match=r"^layer\.bias of the module has values that are infi"):
        export_module(module, torch.zeros(3, X), torch.zeros(3, X), models=tmp_path)


def test_what_training_left_on_the_module_is_named(tmp_path: Path) -> None:
    """A tensor of the last step of training, which nothing can copy, is refused by its name."""
    nested = own_modules.Nested()
    zeros = [torch.zeros(3, H) for _ in range(4)]
    state = ((zeros[0], zeros[1]), own_modules.Cells(zeros[2], zeros[3]))
    nested(torch.zeros(3, X), state)

    with pytest.raises(ModuleRefused, match=r"own_modules.py:\d+: self.seen is a tensor that a st"):
        export_module(nested, torch.zeros(3, X), state, models=tmp_path)
    nested.seen = None
    export_module(nested, torch.zeros(3, X), state, models=tmp_path)


@pytest.mark.parametrize(
    ("x", "state", "options", "message"),
    [
        (
            torch.zeros(X),
            torch.zeros(3, X),
            {},
            r"x is of shape \[5\]; it must be a tensor \[B, X\]",
        ),
        (torch.zeros(3, X).double(), torch.zeros(3, X), {}, "x is float64; models have float32"),
        (torch.zeros(3, X), torch.zeros(3, X).long(), {}, "^the example's state is int64"),
        (torch.zeros(3, X), (), {}, "has no state"),
        (torch.zeros(3, X), {"a": 1}, {}, "has 1 as a; every part of it must be a tensor"),
        (torch.zeros(3, X), {"a b": torch.zeros(3, X)}, {}, "a state is called 'a b'"),
        (torch.zeros(3, X), torch.zeros(2, X), {}, "no axis of the batch of x, 3"),
        (torch.zeros(3, X), torch.eye(3, X), {}, "the rows of the example's state differ"),
        (torch.zeros(3, X), torch.full((3, X), torch.nan), {}, "infinite or NaN"),
        (torch.zeros(3, X), torch.zeros(3, X), {"batch_axes": {"h": 0}}, "batch_axes names 'h'"),
        (torch.zeros(3, X), torch.zeros(3, X), {"batch_axes": {"state": 2}}, "axis 2 of state"),
        (torch.zeros(3, X), torch.zeros(3, X), {"locations": {"state": 1}}, "named in locations"),
        (torch.zeros(3, X), torch.zeros(3, X), {"read_heads": 1}, "read_heads is 1; .* 0 heads"),
        (torch.zeros(3, X), torch.zeros(3, X), {"inputs": torch.zeros(9)}, r"float32 \[T, 5\]"),
        (torch.zeros(3, X), torch.zeros(3, X), {"name": "a\n"}, "printable"),
    ],
)
def test_an_example_that_is_none_is_refused(
    x: Tensor, state: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Each argument that does not fit is named, with what it must be."""
    with pytest.raises(ModuleRefused) as refusal:
        export_module(own_modules.Sums(), x, state, models=tmp_path, **options)
    assert re.search(message, str(refusal.value))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (nn.LSTM(X, H, bidirectional=True), "bidirectional"),
        (nn.LSTM(X, H, proj_size=3), "projection"),
        (
            nn.GRU(X, H, 2, dropout=0.5),
            r"^the module \(GRU\) is in train mode; call \.eval\(\) on the ",
        ),
        (nn.GRU(X, H).double(), "float64; call .float"),
        (nn.Linear(X, H), "^there is no state for Linear, which is none of PyTorch's recurrent"),
    ],
)
def test_layers_that_cannot_be_stepped_are_refused(
    layers: nn.Module, message: str, tmp_path: Path
) -> None:
    """The option of the layer that stands in the way is named."""
    with pytest.raises(ModuleRefused, match=message):
        export_module(layers, torch.zeros(3, X), models=tmp_path)


def test_layers_with_dropout_are_served_in_eval_mode(tmp_path: Path) -> None:
    """Nothing is dropped there, in the layers and in functions."""
    layers = nn.GRU(X, H, 2, dropout=0.5).eval()
    folder = export_module(layers, torch.zeros(3, X), models=tmp_path)
    inputs = random_inputs()
    with torch.no_grad():
        expected = layers(torch.from_numpy(inputs))[0]
    np.testing.assert_allclose(stepped(folder, inputs), expected, rtol=0, atol=1e-6)

    drops = own_modules.Drops().eval()
    assert export_module(drops, torch.zeros(3, X), torch.zeros(3, X), models=tmp_path).is_dir()


def test_given_inputs_are_those_of_the_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where drawn values would mean nothing, as with one-hot letters, real ones are compared."""
    seen = []
    everything = OnnxRunner.everything

    def recorded(runner: OnnxRunner, x: Any, state: Any) -> Any:
        seen.append(x)
        return everything(runner, x, state)

    monkeypatch.setattr(OnnxRunner, "everything", recorded)
    letters = torch.eye(X)
    folder = export_module(nn.GRUCell(X, H), torch.zeros(3, X), models=tmp_path, inputs=letters)
    assert card_of(folder)["verification"]["inputs"] == "given"
    assert seen
    assert all(set(np.unique(x)) == {0.0, 1.0} and (x.sum(1) == 1).all() for x in seen)
    assert LARGEST_DIFFERENCE == 1e-5
