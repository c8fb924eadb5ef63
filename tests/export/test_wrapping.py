"""Somebody's ONNX files, from a proposal of how to step them to a folder that a server steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import __main__ as command_line
from export import card
from export.comparison import VerificationFailed
from export.wrapping import canonical, description, file, folder
from export.wrapping.file import Tensor
from export.wrapping.proposal import pairs, proposal
from export.wrapping.refusal import FileRefused
from service.models.rehearsal import rehearse
from service.spec import Array, ModelSpec
from tests.export import somebodys_files as files
from tests.export.somebodys_files import write

SUMS_TOML = """
[[input]]
name = "x"
[[output]]
name = "y"
[[state]]
input = "h"
output = "h_next"
batch_axis = 1
"""


def wrapped(path: Path, toml: str, name: str = "model") -> tuple[ModelSpec, onnx.ModelProto]:
    """Wrap a file by a description beside it; return the spec and the model."""
    spec = path.with_suffix(".toml")
    spec.write_text(toml)
    read = file.read(path)
    made = folder.wrap_file(
        read, description.read(spec, read), path.parent / "models" / name, replace=False
    )
    model = onnx.load(made / card.MODEL_NAME)
    (text,) = (entry.value for entry in model.metadata_props)
    return ModelSpec.from_json(text), model


def stepped(tmp_path: Path, inputs: Array, name: str = "model", **given: Array) -> Array:
    """Step a wrapped model as a server does."""
    (found,) = rehearse(tmp_path / "models", name, inputs, given).values()
    return found


def refusal(path: Path, toml: str) -> str:
    """What is said of a file or a description that is wrong, after nothing was written."""
    with pytest.raises(FileRefused) as caught:
        wrapped(path, toml)
    assert not (path.parent / "models" / "model").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("h", "h_next"),
        ("h", "next_h"),
        ("h", "hn"),
        ("h0", "hN"),
        ("state", "stateN"),
        ("state", "new_state"),
        ("lstm_state", "lstm_state_out"),
        ("state_in", "state_out"),
        ("hiddenIn", "hiddenOut"),
        ("past_conv", "present_conv"),
        ("prev_cache", "cache"),
        ("cached_len_1", "new_cached_len_1"),
        ("encoder.state.0", "encoder.new_state.0"),
    ],
)
def test_states_are_paired_by_how_others_name_them(before: str, after: str) -> None:
    """Beside inputs and outputs of equal shape, the names of a state's two ends find each other."""
    inputs = [Tensor(name, "float32", ("batch", 8)) for name in ("x", before)]
    outputs = [Tensor(name, "float32", ("batch", 8)) for name in ("y", after, "features")]

    (found,) = pairs(inputs, outputs)
    assert (found.input.name, found.output.name, found.by_name) == (before, after, True)


def test_states_with_numbers_keep_their_own() -> None:
    """Of many states with names alike, each gets the output of its number."""
    inputs = [Tensor(f"cache_{n}", "float32", ("B", 4)) for n in range(12)]
    outputs = [Tensor(f"new_cache_{n}", "float32", ("B", 4)) for n in reversed(range(12))]

    found = [(pair.input.name, pair.output.name) for pair in pairs(inputs, outputs)]
    assert found == [(f"cache_{n}", f"new_cache_{n}") for n in range(12)]


def test_a_shape_alone_suggests_a_state_but_not_another_type() -> None:
    """Where names tell nothing, one input and one output that are alike are proposed."""
    inputs = [Tensor("frames", "float32", ("B", 80)), Tensor("memory", "float32", (2, "B", 64))]
    outputs = [Tensor("scores", "float32", ("B", 5)), Tensor("result", "float32", (2, "B", 64))]
    (found,) = pairs(inputs, outputs)
    assert (found.input.name, found.output.name, found.by_name) == ("memory", "result", False)

    others = [outputs[0], Tensor("result", "int64", (2, "B", 64))]
    assert pairs(inputs, others) == []


def test_a_proposal_that_leaves_nothing_open_makes_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes a description, says how to go on, and takes what it wrote."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, files.SUMS)
    assert command_line.main(["wrap", "net.onnx"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "net.toml describes how to step net.onnx, as its names and shapes suggest",
        "correct it, above all where it says LOOK: (0 times); then run",
        "    ntm-export wrap net.onnx --spec net.toml",
    ]
    assert command_line.main(["wrap", "net.onnx"]) == command_line.FAILED
    assert "net.toml is there; give it with --spec" in capsys.readouterr().err

    assert command_line.main(["wrap", "net.onnx", "--spec", "net.toml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "models/net"
    inputs = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(stepped(tmp_path, inputs, "net"), inputs.cumsum(axis=0))


def test_a_proposal_says_what_it_cannot_know(tmp_path: Path) -> None:
    """Open sizes, values of constants and vectors of a session are marked. It is valid."""
    path = write(tmp_path, files.SPEAKER)
    text = proposal(file.read(path), "command")
    assert 'input = "dvec"  # float32 [batch, 2] in the file\noutput = ""' in text
    assert "LOOK: the file leaves frames open" in text
    spec, _ = wrapped(path, text)
    assert [(each.name, each.output) for each in spec.state] == [("h", "hN"), ("dvec", "")]

    rates = proposal(file.read(write(tmp_path, files.RATES)), "command")
    assert "sr = 16000  # int64 []. LOOK: the value" in rates


def test_the_batch_comes_first_in_what_is_served(tmp_path: Path) -> None:
    """A file whose state has the batch on axis 1 steps as it did, with the batch on axis 0."""
    spec, model = wrapped(write(tmp_path, files.SUMS), SUMS_TOML)

    assert [(each.name, each.shape) for each in spec.state] == [("h", (2, 3))]
    assert spec.batched
    dims = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    assert [axis.dim_param or axis.dim_value for axis in dims["h"]] == ["B", 2, 3]
    inputs = np.random.default_rng(0).standard_normal((9, 3), np.float32)
    np.testing.assert_array_equal(stepped(tmp_path, inputs), np.cumsum(inputs, axis=0))


@pytest.mark.parametrize(("rate", "sign"), [(16000, 1), (8000, -1)])
def test_a_constant_decides_the_branch_for_good(tmp_path: Path, rate: int, sign: int) -> None:
    """An input that is fixed is no input any more, and an If on it goes."""
    toml = f"""
    [constants]
    sr = {rate}
    [[input]]
    name = "x"
    shape = [4]
    [[output]]
    name = "y"
    [[state]]
    input = "h"
    output = "hn"
    """
    spec, model = wrapped(write(tmp_path, files.RATES), toml)

    assert {node.op_type for node in model.graph.node} & {"If", "Equal"} == set()
    assert [each.name for each in spec.inputs] == ["x"]
    inputs = np.ones((3, 4), np.float32)
    expected = sign * np.cumsum(inputs, axis=0)
    np.testing.assert_array_equal(stepped(tmp_path, inputs), expected)


def test_the_end_of_the_input_before_is_one_more_state(tmp_path: Path) -> None:
    """A step of three new values makes five of them with the last two; the first have zeros."""
    toml = """
    [[input]]
    name = "x"
    shape = [3]
    past = 2
    [[output]]
    name = "y"
    [[state]]
    input = "h"
    output = "h_next"
    """
    spec, _ = wrapped(write(tmp_path, files.HEARS), toml)

    assert [(each.name, each.shape) for each in spec.state] == [("h", (1,)), ("x_past", (2,))]
    found = stepped(tmp_path, np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    assert found.tolist() == [[6, 6, 7, 8, 9], [28, 29, 30, 31, 32]]


def test_a_past_longer_than_a_step_is_kept_too(tmp_path: Path) -> None:
    """One new value a step, and four of the past: they move up by one."""
    toml = """
    [[input]]
    name = "x"
    shape = [1]
    past = 4
    [[output]]
    name = "y"
    [[state]]
    input = "h"
    output = "h_next"
    """
    wrapped(write(tmp_path, files.HEARS), toml)

    found = stepped(tmp_path, np.array([[1], [2], [3]], np.float32))
    assert found[2].tolist() == [10, 10, 11, 12, 13]


def test_each_type_is_served_as_it_is(tmp_path: Path) -> None:
    """Inputs, outputs and states of five types, several of each, with the file's names."""
    toml = "".join(
        f"""
        [[input]]
        name = "{name}"
        [[output]]
        name = "{output}"
        [[state]]
        input = "{name}_state"
        output = "{name}_state_out"
        initial = {initial}
        """
        for name, output, initial in (
            ("a", "a_sum", "0.5"),
            ("i", "i_sum", "9007199254740993"),
            ("j", "j_sum", "-7"),
            ("on", "on_any", "[true, false, false]"),
        )
    )
    spec, _ = wrapped(write(tmp_path, files.TYPES), toml)

    assert [(each.name, each.type, each.shape) for each in spec.inputs] == [
        ("a", "float16", (2,)),
        ("i", "int64", ()),
        ("j", "int32", (1,)),
        ("on", "bool", (3,)),
    ]
    steps = np.zeros(2, spec.input_record)
    steps["a"], steps["i"], steps["j"] = 0.25, 1, 2
    steps["on"][1] = (False, False, True)
    found = stepped(tmp_path, steps)
    assert found["a_sum"].tolist() == [[0.75, 0.75], [1, 1]]
    assert found["i_sum"].tolist() == [9007199254740994, 9007199254740995]
    assert found["j_sum"].tolist() == [[-5], [-3]]
    assert found["on_any"].tolist() == [[True, False, False], [True, False, True]]
    described = json.loads((tmp_path / "models" / "model" / card.CARD_NAME).read_text())
    assert described["verification"]["allowed_difference"] == 1e-2


SPEAKER_TOML = """
[[input]]
name = "x"
shape = [2, 2]
[[output]]
name = "y"
[[output]]
name = "loud"
[[state]]
input = "h"
output = "hN"
initial = "start.npy"
[[state]]
name = "speaker"
input = "dvec"
output = ""
initial = "given"
"""


def test_a_constant_of_the_session_is_given_at_its_opening(tmp_path: Path) -> None:
    """A speaker's vector is a state that no step writes; a start comes from a .npy file."""
    np.save(tmp_path / "start.npy", np.array([1, 2], np.float64))
    spec, _ = wrapped(write(tmp_path, files.SPEAKER), SPEAKER_TOML)

    start, speaker = spec.state
    assert (start.initial.values, start.is_given) == ((1.0, 2.0), False)
    assert (speaker.name, speaker.input, speaker.output, speaker.is_given) == (
        *("speaker", "dvec", ""),
        True,
    )
    steps = np.zeros(2, spec.input_record)  # two frames in each step
    steps[0] = [[1, 1], [2, 2]]
    found = stepped(tmp_path, steps, speaker=np.array([10, 100], np.float32))
    assert found["y"].tolist() == [[[14, 105], [24, 205]], [[4, 5], [4, 5]]]
    assert found["loud"].tolist() == [[[119], [229]], [[9], [9]]]


def test_an_output_without_a_table_is_left_out(tmp_path: Path) -> None:
    """What the description does not name is not computed."""
    toml = SPEAKER_TOML.replace('[[output]]\nname = "loud"\n', "").replace('"start.npy"', "0")
    spec, model = wrapped(write(tmp_path, files.SPEAKER), toml)

    assert [each.name for each in spec.outputs] == ["y"]
    assert [value.name for value in model.graph.output] == ["y", "hN"]


FIXED_TOML = SUMS_TOML.replace("batch_axis = 1", "")


def test_a_batch_of_one_is_relaxed_where_that_holds(tmp_path: Path) -> None:
    """A file that was exported for one row serves several at once if rows get the same bits."""
    spec, _ = wrapped(write(tmp_path, files.FIXED), FIXED_TOML)

    assert spec.batched


@pytest.mark.parametrize(
    ("text", "toml"),
    [
        (files.ONE_ROW, FIXED_TOML),
        (files.MATES, FIXED_TOML),
        (
            files.LOOSE,
            SUMS_TOML.replace("= 1", '= "none"').replace('"x"', '"x"\nbatch_axis="none"'),
        ),
        (files.FIXED, f"batched = false\n{FIXED_TOML}"),
    ],
    ids=["a number in the graph", "mates matter", "no batch", "told so"],
)
def test_sessions_are_stepped_alone_where_a_batch_would_change_them(
    text: str, toml: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The check finds it, the spec and the card say it, and a session gets what the file gives."""
    toml = toml.replace(
        'name = "y"', 'name = "y"\nbatch_axis = "none"' if "none" in toml else 'name = "y"'
    )
    spec, _ = wrapped(write(tmp_path, text), toml)

    assert not spec.batched
    out, err = capfd.readouterr()
    assert "stepped alone" in out
    assert "could be" not in out
    assert err == ""
    described = json.loads((tmp_path / "models" / "model" / card.CARD_NAME).read_text())
    assert described["batched"] is False
    inputs = np.ones((3, 3), np.float32)
    found = stepped(tmp_path, inputs)
    expected = np.cumsum(inputs, axis=0)
    powers = {files.FIXED: expected**2, files.MATES: expected * 0}
    np.testing.assert_array_equal(found, powers.get(text, expected))


def layers(x: int | str = 1, y: int | str = 1, h: int | str = 1, shape: str = "[1, 3]") -> str:
    """A description of the file with layers, with the axis of the batch of each tensor."""
    return f"""
    [[input]]
    name = "x"
    shape = {shape}
    batch_axis = {x}
    [[output]]
    name = "y"
    batch_axis = {y}
    [[state]]
    input = "h"
    output = "h_next"
    shape = {shape}
    batch_axis = {h}
    """


@pytest.mark.parametrize(
    ("toml", "change"),
    [
        (layers(0, 0, 0), "for input 'x', output 'y' and state 'h', where it says 0"),
        (layers(x=0), "for input 'x', where it says 0"),
        (layers(y=0), "for output 'y', where it says 0"),
        (layers(h=0), "for state 'h', where it says 0"),
    ],
    ids=["all", "an input", "an output", "a state"],
)
def test_a_wrong_axis_of_the_batch_is_refused_by_its_tensor(
    toml: str, change: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One session alone does not show it; a run of several does, and tells the right axis."""
    said = refusal(write(tmp_path, files.LAYERS), toml)

    assert said == (
        f"{tmp_path / 'net.onnx'} steps only one session in a run with the axes described, and "
        f"several with batch_axis = 1 {change}: change that, or say batched = false"
    )
    assert capfd.readouterr() == ("", "")

    spec, _ = wrapped(tmp_path / "net.onnx", layers())
    assert spec.batched


def test_an_axis_that_changes_the_shape_is_told_with_it(tmp_path: Path) -> None:
    """And with the axis of past values, which is counted without the batch."""
    text = """
    step (float[1, 4, 1] x, float[1, 1, 1] h) => (float[1, 4, 1] y, float[1, 1, 1] h_next)
    {
        one = Constant <value_ints = [1]> ()
        sum = ReduceSum <keepdims = 1> (x, one)
        h_next = Add (h, sum)
        moved = Add (x, h_next)
        zero = Constant <value_int = 0> ()
        y = CumSum (moved, zero)
    }
    """
    path = write(tmp_path, text)
    toml = layers(0, 0, 0, shape="[1, 1]")
    said = refusal(path, toml.replace("shape = [1, 1]", "shape = [2, 1]\npast = 2", 1))

    change = "batch_axis = 2 and shape = [1, 2] and past_axis = 1 for input 'x', where it says 0"
    assert f"several with {change}; and with batch_axis = 2 for output 'y' and state 'h'" in said
    right = layers(2, 2, 2, shape="[1, 1]").replace(
        "shape = [1, 1]", "shape = [1, 2]\npast = 2\npast_axis = 1", 1
    )
    spec, _ = wrapped(path, right)
    assert spec.batched


def test_no_axis_is_taken_at_its_word_with_a_hint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a file that is said to have no batch, the command says where it could be, and goes on."""
    none = '"none"'
    spec, _ = wrapped(write(tmp_path, files.LAYERS), layers(none, none, none, shape="[1, 1, 3]"))

    assert not spec.batched
    assert spec.inputs[0].shape == (1, 1, 3)
    out, err = capfd.readouterr()
    assert (
        "several could be stepped in one run with batch_axis = 1 and shape = [1, 3] for input 'x' "
        "and state 'h', where it says \"none\"; and with batch_axis = 1 for output 'y'"
    ) in out
    assert err == ""


def test_a_proposal_marks_an_axis_that_may_be_another(tmp_path: Path) -> None:
    """Where several axes have size 1, none of them tells that it is the batch."""
    text = proposal(file.read(write(tmp_path, files.LAYERS)), "command")
    assert text.count('"none" if nowhere. LOOK: it may be 0 or 1') == 3

    assert "it may be" not in proposal(file.read(write(tmp_path, files.SUMS)), "command")


def test_a_card_says_of_which_file_a_model_is(tmp_path: Path) -> None:
    """With its hash, what was compared, and that the bits are the file's."""
    path = write(tmp_path, files.SUMS)
    wrapped(path, SUMS_TOML)
    described = card.read(tmp_path / "models" / "model")

    assert described["wrapped"]["sha256"] == card.content_hash(path.read_bytes())
    assert described["wrapped"]["file"] == "net.onnx"
    assert described["verification"]["comparison"]["same_bits"] is True
    assert [each["batch"] for each in described["verification"]["batches"]] == [2, 3, 4, 7, 8, 64]


def test_an_old_opset_is_lifted(tmp_path: Path) -> None:
    """A file of opset 11, in which Squeeze has its axes as an attribute, is served all the same."""
    text = """
    step (float[batch, 1, 3] x, float[batch, 3] h) => (float[batch, 3] y, float[batch, 3] h_next)
    {
        flat = Squeeze <axes = [1]> (x)
        h_next = Add (h, flat)
        y = Identity (h_next)
    }
    """
    spec, model = wrapped(write(tmp_path, text, opset=11), FIXED_TOML)

    assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
    assert spec.inputs[0].shape == (1, 3)
    found = stepped(tmp_path, np.ones((2, 1, 3), np.float32))
    assert found.tolist() == [[1, 1, 1], [2, 2, 2]]


def test_weights_in_other_files_are_taken_in(tmp_path: Path) -> None:
    """A file with external data becomes one file; without the data, the message says what to do."""
    text = """
    step (float[batch, 3] x, float[batch, 3] h) => (float[batch, 3] y, float[batch, 3] h_next)
    <float[3] w = {1, 2, 3}>
    {
        h_next = Add (h, x)
        y = Mul (h_next, w)
    }
    """
    path = tmp_path / "net.onnx"
    model = files.model_of(text)
    weights = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    model.graph.initializer[0].CopyFrom(weights)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    wrapped(path, FIXED_TOML)
    assert stepped(tmp_path, np.ones((1, 3), np.float32)).tolist() == [[1, 2, 3]]

    (tmp_path / "w.bin").unlink()
    with pytest.raises(FileRefused, match="keeps weights in other files, which cannot be loaded"):
        file.read(path)


def test_a_state_that_grows_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A cache that gets longer is no state of a session."""
    toml = """
    [[input]]
    name = "x"
    [[output]]
    name = "y"
    [[state]]
    input = "cache"
    output = "cache_next"
    shape = [4, 3]
    """
    said = refusal(write(tmp_path, files.GROWS), toml)

    assert said == (
        "state 'cache' grows: it goes in with shape [1, 4, 3] and comes out with [1, 5, 3]; a "
        "session's state keeps its shape, so export the network with a state of fixed size that "
        "drops what is oldest"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "net.onnx is empty; give an ONNX file"),
        (b"not a model", "net.onnx is not an ONNX file ("),
        (files.model_of(files.SUMS).SerializeToString()[:60], "net.onnx is not an ONNX file ("),
        (
            files.model_of(files.SUMS, opset=99).SerializeToString(),
            "net.onnx is of ONNX opset 99, and onnx ",
        ),
        (
            files.model_of(files.SUMS.replace("Add", "Adddd")).SerializeToString(),
            "cannot load ",
        ),
        (
            files.model_of(
                files.SUMS.replace("Gather <axis = 0> (h_next, zero)", "Gather (q, zero)")
            ).SerializeToString(),
            "cannot load ",
        ),
    ],
    ids=["empty", "text", "cut", "opset 99", "operator", "edge"],
)
def test_a_file_that_no_library_reads_is_refused_in_one_line(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever onnx and onnxruntime raise becomes one sentence, and nothing is written."""
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert command_line.main(["wrap", str(path), "--name", "it"]) == command_line.FAILED

    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]


def changed(old: str, new: str) -> str:
    """The description of the sums, with a change."""
    assert old in SUMS_TOML
    return SUMS_TOML.replace(old, new)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("x = ", "is not TOML: "),
        (f"colour = 1\n{SUMS_TOML}", "the description has the key 'colour'; keys are "),
        (changed('name = "x"', 'name = "x"\nsize = 3'), "input 'x' has the key 'size'; keys are"),
        (changed('"x"', '"nobody"'), "net.onnx has no input 'nobody'; its inputs are x, h"),
        (changed('"y"', '"nobody"'), "has no output 'nobody'; its outputs are y, h_next"),
        (changed('"h"', '"nobody"'), "has no input 'nobody'"),
        (changed('"h_next"', '"nobody"'), "has no output 'nobody'"),
        (changed('name = "x"', ""), 'an [[input]] has no name; give the file\'s, as name = "..."'),
        (changed('output = "h_next"', ""), "state 'h' has no pair; name the output that has its"),
        (changed('"h_next"', '"y"'), "the next value of state 'h' has shape [2, 3] here"),
        (changed('"y"', '"h_next"'), "the output 'h_next' is named twice; name it once"),
        (
            changed("axis = 1", "axis = 3"),
            "batch_axis of state 'h' is 3, and it is float32 [2, batch,",
        ),
        (changed("axis = 1", "axis = -1"), "batch_axis of state 'h' is -1"),
        (changed("axis = 1", "axis = true"), "batch_axis of state 'h' is True"),
        (
            changed("axis = 1", "axis = 0"),
            "which leaves sizes open; give its shape for one session",
        ),
        (
            changed('"x"', '"x"\nshape = [4]'),
            "input 'x' has shape [4] here, which makes [the batch, 4]",
        ),
        (changed('"x"', '"x"\nshape = [3, 1]'), "makes [the batch, 3, 1] of it, and it is float32"),
        (changed('"x"', '"x"\nshape = ["n"]'), "a size in the shape of input 'x' is 'n'"),
        (changed('"x"', '"x"\nshape = 3'), "shape of input 'x' is 3; give a list, such as [512]"),
        (changed('"x"', '"x"\nshape = [3]\npast = 1'), "which makes [the batch, 4] of it"),
        (
            changed('"x"', '"x"\npast = 3'),
            "past of input 'x' is 3, which leaves nothing for a step",
        ),
        (
            changed('"x"', '"x"\npast = 1\npast_axis = 1'),
            "past_axis of input 'x' is 1, and its shape",
        ),
        (changed('"x"', '"x"\ndraw = [1]'), "draw of input 'x' is [1]; give [LOWEST, HIGHEST]"),
        (
            f"{SUMS_TOML}initial = [1, 2]",
            "initial of state 'h' has 2 values; its shape [2, 3] needs 6",
        ),
        (f'{SUMS_TOML}initial = "no.npy"', "'no.npy' cannot be read as one: "),
        (f"{SUMS_TOML}initial = [[1], [1, 2]]", "initial of state 'h' has to be a number"),
        (f"{SUMS_TOML}initial = nan", "initial of state 'h' has values that are infinite or NaN"),
        (f"batched = 1\n{SUMS_TOML}", "batched is 1; it has to be true or false"),
        (
            f"state = 3\n{SUMS_TOML[: SUMS_TOML.index('[[state')]}",
            "state is 3; write each in a table",
        ),
        (
            SUMS_TOML[: SUMS_TOML.index("[[state")],
            "the file's input 'h', float32 [2, batch, 3], has no part; add it as an [[input]]",
        ),
        (f"{SUMS_TOML}[constants]\nh = 0", "constant 'h' has shape [] here"),
    ],
)
def test_a_wrong_description_gets_one_sentence_that_says_what_to_change(
    toml: str, message: str, tmp_path: Path
) -> None:
    """The file's name, what is wrong, and what it may be."""
    said = refusal(write(tmp_path, files.SUMS), toml)

    assert message in said
    assert said.startswith(str(tmp_path / "net.toml"))
    assert len(said.splitlines()) == 1


def test_shapes_that_no_step_takes_are_refused_as_onnxruntime_says(tmp_path: Path) -> None:
    """What only a run can tell is told in one sentence too."""
    toml = """
    [constants]
    sr = 16000
    [[input]]
    name = "x"
    shape = [5]
    [[output]]
    name = "y"
    [[state]]
    input = "h"
    output = "hn"
    """
    said = refusal(write(tmp_path, files.RATES), toml)

    assert "net.onnx cannot make a step of these shapes (" in said
    assert said.endswith("correct shape, batch_axis or past of the tensor in question")


@pytest.mark.parametrize("value", ["1.5", "[1, 2]", '"x"', "99999999999999999999"])
def test_a_constant_that_the_file_cannot_hold_is_refused(value: str, tmp_path: Path) -> None:
    """A number that is no whole one, several, a text, or one that is too large."""
    toml = f'[constants]\nsr = {value}\n[[input]]\nname = "x"\nshape = [4]\n[[output]]\nname = "y"'
    said = refusal(write(tmp_path, files.RATES), toml)

    assert "constant 'sr' " in said


def test_types_that_are_not_served_are_named(tmp_path: Path) -> None:
    """A file of double precision has to be exported again."""
    path = write(tmp_path, files.SUMS.replace("float[", "double["))

    assert "input 'x' is DOUBLE; tensors of float32, float16, int64" in refusal(path, SUMS_TOML)


def test_values_that_are_not_finite_ask_for_a_range(tmp_path: Path) -> None:
    """A logarithm of what was drawn at random needs positive inputs, and gets them."""
    text = files.SUMS.replace("Add (h, x)", "Add (h, z)").replace(
        "zero =", "z = Log (x)\n    zero ="
    )
    text = text.replace("    h_next = Add (h, z)\n", "").replace(
        "    zero =", "    h_next = Add (h, z)\n    zero ="
    )
    said = refusal(write(tmp_path, text), SUMS_TOML)
    assert "is infinite or NaN after 1 steps of the file itself" in said

    wrapped(tmp_path / "net.onnx", changed('"x"', '"x"\ndraw = [0.5, 2.0]'))


def test_a_graph_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in the rewriting, the comparison with the file finds it."""
    rewritten = canonical.canonical

    def otherwise(*arguments: Any) -> onnx.ModelProto:
        model = rewritten(*arguments)
        for node in model.graph.node:
            if node.op_type == "Add":
                node.op_type = "Sub"
        return model

    monkeypatch.setattr(folder, "canonical", otherwise)
    with pytest.raises(VerificationFailed, match="the rewritten graph differs from its file"):
        wrapped(write(tmp_path, files.SUMS), SUMS_TOML)

    assert not (tmp_path / "models").exists()


def test_another_network_of_that_name_stays(tmp_path: Path) -> None:
    """A folder that holds another network is not written over unless that is said."""
    wrapped(write(tmp_path, files.SUMS), SUMS_TOML)

    with pytest.raises(FileExistsError, match="holds another network"):
        wrapped(write(tmp_path, files.FIXED), FIXED_TOML)
