"""The spec: read back unchanged, refused when it contradicts itself."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelInvalid
from service.spec import BLANK, Initial, ModelSpec, StateTensor, StepTensor, parts, record
from tests.support.tiny_models import LEDGER

RICH = ModelSpec(
    task="speech",
    architecture="test",
    inputs=(StepTensor("audio", "float32", (2, 3)), StepTensor("rate", "int64", ())),
    outputs=(StepTensor("speech", "bool", (1,)), StepTensor("level", "float16", (2,))),
    state=(
        StateTensor("seen", "seen", "seen_next", (2,), Initial("constant", (3,)), "int64"),
        StateTensor("on", "on", "on_next", (), Initial("values", (True,)), "bool"),
        StateTensor("speaker", "speaker", "", (4,), Initial("given"), "float16"),
    ),
    traces=(),
    read_heads=0,
    write_heads=0,
    default_locations=0,
    fixed_locations=False,
    batched=False,
)
"""A spec that only format 2 can hold."""

FORMAT_1 = """
{"format": 1, "task": "t", "architecture": "a", "input": "x", "input_width": 5, "output": "y",
"output_width": 4, "state": [{"name": "h", "input": "h", "output": "g", "shape": [3], "initial":
{"rule": "constant", "values": [0.5]}}], "traces": [{"name": "r", "output": "r", "first_head": 0,
"heads": 1, "width": 2}], "read_heads": 1, "write_heads": 0, "default_locations": 0,
"fixed_locations": false}
"""


def test_a_spec_is_read_back_unchanged() -> None:
    """`from_json` undoes `to_json`."""
    assert ModelSpec.from_json(LEDGER.to_json()) == LEDGER


def test_a_spec_of_named_tensors_is_read_back_unchanged() -> None:
    """Types, shapes, constants, given values and `batched` are kept, in format 2."""
    text = RICH.to_json()

    assert json.loads(text)["format"] == 2
    assert ModelSpec.from_json(text) == RICH


def test_a_file_of_format_1_has_one_vector_each_way() -> None:
    """What is not in it has the value that all models of its time had."""
    spec = ModelSpec.from_json(FORMAT_1)

    assert spec.inputs == (StepTensor("x", "float32", (5,)),)
    assert spec.outputs == (StepTensor("y", "float32", (4,)),)
    assert (spec.state[0].type, spec.state[0].is_given, spec.batched) == ("float32", False, True)
    assert (spec.input_width, spec.output_width) == (5, 4)


def test_what_format_1_can_hold_is_written_in_it() -> None:
    """The fields are those of a file of format 1, so that older servers read it."""
    assert json.loads(ModelSpec.from_json(FORMAT_1).to_json()) == json.loads(FORMAT_1)


@pytest.mark.parametrize(
    "fields",
    [
        {"batched": False},
        {"inputs": (StepTensor("x", "float16", (2,)),)},
        {"inputs": (StepTensor("x", "float32", (2, 1)),)},
        {"outputs": (StepTensor("y", "float32", (2,)), StepTensor("z", "float32", (2,)))},
        {"state": (replace(LEDGER.state[0], output=""), *LEDGER.state[1:])},
        {"state": (replace(LEDGER.state[0], type="float16"), *LEDGER.state[1:])},
        {"state": (replace(LEDGER.state[0], initial=Initial("given")), *LEDGER.state[1:])},
    ],
)
def test_what_format_1_cannot_hold_is_written_in_format_2(fields: dict[str, Any]) -> None:
    """And it has widths only if a step takes one vector of float32 and gives one."""
    spec = replace(LEDGER, **fields)

    assert json.loads(spec.to_json())["format"] == 2
    assert ModelSpec.from_json(spec.to_json()) == spec
    widths = (0, 0) if {"inputs", "outputs"} & fields.keys() else (2, 2)
    assert (spec.input_width, spec.output_width) == widths


def test_a_record_has_the_bytes_of_its_tensors_one_after_another() -> None:
    """Little-endian and without padding; each tensor is a view of the steps."""
    steps = np.zeros(2, record(RICH.inputs))
    audio, rate = parts(steps, RICH.inputs)
    audio[1] = [[1, 2, 3], [4, 5, 6]]
    rate[:] = [7, -1]

    assert steps.dtype.itemsize == 2 * 3 * 4 + 8
    expected = np.arange(1, 7, dtype="<f4").tobytes() + b"\xff" * 8
    assert steps[1].tobytes() == expected
    assert audio.shape == (2, 2, 3)


def test_steps_of_one_tensor_are_an_array_of_its_shape() -> None:
    """So a model that takes one vector has steps [steps, X], as it always had."""
    steps = np.zeros(3, record(LEDGER.inputs))

    assert (steps.shape, steps.dtype) == ((3, 2), np.float32)
    assert parts(steps, LEDGER.inputs)[0] is steps


def test_initial_values_have_the_type_of_their_tensor() -> None:
    """A whole number keeps every bit; a given tensor is zero until it is given."""
    large = StateTensor("n", "n", "m", (1,), Initial("values", (2**62 + 1,)), "int64")
    seen, on, speaker = RICH.state

    assert large.initial_value(0).tolist() == [2**62 + 1]
    assert seen.initial_value(0).tolist() == [3, 3]
    assert seen.initial_value(0).dtype == np.int64
    assert on.initial_value(0).item() is True
    assert (speaker.initial_value(0).tolist(), speaker.is_given) == ([0] * 4, True)


def test_state_bytes_are_those_of_the_types() -> None:
    """Two int64, one bool and four float16."""
    assert RICH.state_bytes(0) == 2 * 8 + 1 + 4 * 2


def test_learned_values_keep_every_bit() -> None:
    """A float32 that was learned comes back exactly."""
    values = tuple(float(value) for value in np.array([0.1, 1 / 3, 1e-38], np.float32))
    tensor = StateTensor("h", "h", "h_next", (3,), Initial("values", values))
    spec = ModelSpec.from_json(replace(LEDGER, state=(*LEDGER.state, tensor)).to_json())
    assert spec.state[-1].initial_value(8).tolist() == list(values)


def test_initial_values_follow_their_rules() -> None:
    """A constant fills the tensor, one_hot sets location 0, and the session chooses N."""
    total, memory, weighting = LEDGER.state
    constant = replace(memory, initial=Initial("constant", (0.5,)))
    assert total.initial_value(3).tolist() == [0, 0]
    assert constant.initial_value(3).tolist() == [[0.5] * 3] * 2
    assert weighting.initial_value(3).tolist() == [[1, 0, 0]] * 2


def test_a_positional_memory_marks_each_location() -> None:
    """Two elements are sine and cosine, an eighth of a turn on; the others are BLANK."""
    memory = replace(LEDGER.state[1], shape=(5, "N"), initial=Initial("positional", (4.0, 16.0)))
    value = memory.initial_value(20)
    half = np.sqrt(0.5)

    assert value.shape == (5, 20)
    turn = [[half, half], [half, -half], [-half, -half], [-half, half], [half, half]]
    np.testing.assert_allclose(value[:2, :5].T, turn, atol=1e-6)
    assert value[2, 14] == pytest.approx(np.sin(2 * np.pi * 14 / 16 + np.pi / 4), abs=1e-6)
    assert value[3, 14] == pytest.approx(np.cos(2 * np.pi * 14 / 16 + np.pi / 4), abs=1e-6)
    assert value[4].tolist() == [np.float32(BLANK)] * 20


def test_a_positional_spec_is_read_back_unchanged() -> None:
    """The wavelengths are kept as its values."""
    memory = replace(LEDGER.state[1], initial=Initial("positional", (4.0,)))
    spec = replace(LEDGER, state=(LEDGER.state[0], memory, LEDGER.state[2]))

    assert ModelSpec.from_json(spec.to_json()) == spec


def test_state_bytes_grow_with_the_locations() -> None:
    """Each element takes four bytes: 2 elements for the total, 4 N for memory and weightings."""
    assert LEDGER.state_bytes(8) == 4 * (2 + 2 * 8 + 2 * 8)
    assert LEDGER.state_bytes(1000) == 4 * (2 + 4 * 1000)


def changed(**fields: Any) -> str:
    """The ledger's JSON with some fields replaced."""
    return json.dumps({**json.loads(LEDGER.to_json()), **fields})


def rich(place: str, index: int, **fields: Any) -> str:
    """The JSON of `RICH` with some fields of one tensor replaced."""
    spec = json.loads(RICH.to_json())
    spec[place][index] |= fields
    return json.dumps(spec)


TRACE = json.loads(LEDGER.to_json())["traces"][0]


def state(**fields: Any) -> str:
    """The ledger's JSON with its memory's fields replaced."""
    spec = json.loads(LEDGER.to_json())
    spec["state"][1] |= fields
    return json.dumps(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "the spec is \\[\\]; it must be a JSON object"),
        ("null", "the spec is None; it must be a JSON object"),
        ("{}", "spec format is None; this server reads formats 1 and 2"),
        ('{"format": 1}', "the spec lacks input, input_width"),
        ('{"format": 2, "task": "t"}', "the spec lacks architecture, inputs, outputs, state, trac"),
        ("[" * 14_000 + "]" * 14_000, "nested too deeply"),
        (changed(format=3), "spec format is 3; this server reads formats 1 and 2"),
        (changed(batched=False), "has fields of format 2, and its format is 1"),
        (rich("inputs", 0, type="float64"), "'audio' among the inputs has the type 'float64'"),
        (rich("inputs", 0, shape=[2, "N"]), "'audio' among the inputs has shape \\[2, 'N'\\]"),
        (rich("inputs", 0, shape=[2**40]), "the inputs of a step have .* the most is 2 GiB"),
        (rich("outputs", 1, name="speech"), "more than once: \\['speech'\\]"),
        (rich("outputs", 1, name=""), "one of the outputs has no name"),
        (
            rich("inputs", 0, batch=1),
            "a tensor of the step in the spec has 'batch', which it cannot have; it can have name,",
        ),
        (
            rich("state", 0, initial={"values": [1]}),
            "the initial of a state tensor in the spec lacks rule",
        ),
        (rich("state", 0, initial=1), "the initial of a state tensor in the spec is 1; it must be"),
        (changed(traces=[{"name": "r"}]), "a trace in the spec lacks output, first_head, heads, w"),
        (changed(traces=[TRACE | {"heads": 2**40}]), "heads in the spec is 1099511627776; it must"),
        (changed(traces=[TRACE | {"first_head": -1}]), "first_head in the spec is -1; it must be"),
        (changed(read_heads=-1), "read_heads in the spec is -1; it must be from 0 to 2147483647"),
        (changed(write_heads=2**40), "write_heads in the spec is 1099511627776; it must be from 0"),
        (changed(read_heads=3), r"with 3 read and 1 write heads it must be \[4, 'N'\]"),
        (changed(architecture="a" * 1025), "architecture in the spec has 1025 characters; the m"),
        (rich("state", 0, type="uint8"), "state 'seen' has the type 'uint8'; types are float32"),
        (rich("state", 0, name="on"), "state tensors more than once: \\['on'\\]"),
        (rich("state", 0, name="é" * 128), "the name of a state tensor has 256 bytes"),
        (rich("state", 0, input=""), "state 'seen' names no input"),
        (
            rich("state", 0, initial={"rule": "constant", "values": [0.5]}),
            "has the initial value 0.5; int64 holds whole numbers from -9223372036854775808 to",
        ),
        (
            rich("state", 1, initial={"rule": "constant", "values": [2]}),
            "has the initial value 2; bool holds whole numbers from 0 to 1",
        ),
        (
            rich("state", 2, initial={"rule": "constant", "values": [1e6]}),
            "state 'speaker' has an initial value that is infinite",
        ),
        (
            rich("state", 2, initial={"rule": "given", "values": [1.0]}),
            "has 1 initial values; the rule 'given' needs 0",
        ),
        (json.dumps({**json.loads(RICH.to_json()), "inputs": []}), "the spec has no inputs"),
        (changed(unknown=1), "the spec has 'unknown', which it cannot have; it can have task, a"),
        (changed(input_width=0), "'x' among the inputs has shape \\[0\\]; each size must be"),
        (changed(default_locations=-1), "must not be negative: -1"),
        (
            changed(default_locations=0),
            "'memory' has an axis of locations, but default_locations is 0",
        ),
        (state(input="x"), "more than once: \\['x'\\]"),
        (state(name="store"), "needs the state tensors memory and weighting"),
        (state(shape=[0, "N"]), "has shape \\(0, 'N'\\)"),
        (state(shape=["M", "N"]), "has shape \\('M', 'N'\\)"),
        (changed(task=1), "task in the spec is 1; it must be of type str"),
        (changed(fixed_locations=0), "fixed_locations in the spec is 0; it must be of type bool"),
        (
            state(initial={"rule": "random", "values": []}),
            "starts by 'random'; rules are constant, one_hot, positional, values, given",
        ),
        (
            state(initial={"rule": "constant", "values": []}),
            "has 0 initial values; the rule 'constant' needs 1",
        ),
        (
            state(initial={"rule": "constant", "values": [float("nan")]}),
            "has an initial value that is infinite or NaN",
        ),
        (state(initial={"rule": "constant", "values": [10**400]}), "cannot be read"),
        (changed(task="\ud800"), r"task in the spec is '\\ud800'; it must be printable"),
        (changed(architecture="\x1b[2J"), r"architecture in the spec is .*; it must be printable"),
        (changed(traces=[TRACE | {"name": "a\nb"}]), r"name in the spec is 'a\\nb'; it must be"),
        (state(initial={"rule": "values", "values": [0.0] * 16}), "fixed_locations must be true"),
        (
            state(initial={"rule": "positional", "values": [4.0, 8.0]}),
            "cannot start positional with 2 wavelengths",
        ),
        (
            state(shape=["N", 2], initial={"rule": "positional", "values": [4.0]}),
            "cannot start positional with 1 wavelengths",
        ),
        (
            state(initial={"rule": "positional", "values": []}),
            r"has the wavelengths \(\); it needs one or more, all above 0",
        ),
        (state(initial={"rule": "positional", "values": [-4.0]}), r"wavelengths \(-4.0,\)"),
    ],
)
def test_a_wrong_spec_is_refused_with_its_fault(text: str, message: str) -> None:
    """The error has what is wrong and the value."""
    with pytest.raises(ModelInvalid, match=message):
        ModelSpec.from_json(text)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_other_json_is_refused_cleanly(value: object) -> None:
    """Any JSON leads to ModelInvalid and to no other error."""
    with pytest.raises(ModelInvalid):
        ModelSpec.from_json(json.dumps(value))


SPOILED = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)


@given(st.sampled_from(sorted(json.loads(LEDGER.to_json()))), SPOILED)
def test_a_spec_with_one_field_spoiled_is_read_or_refused(field: str, value: object) -> None:
    """Any value of any field is read or leads to ModelInvalid."""
    with contextlib.suppress(ModelInvalid):
        ModelSpec.from_json(changed(**{field: value}))


@given(
    st.sampled_from(["inputs", "outputs", "state"]),
    st.sampled_from(["name", "type", "shape", "initial", "input", "output"]),
    SPOILED,
)
def test_a_tensor_with_one_field_spoiled_is_read_or_refused(
    place: str, field: str, value: object
) -> None:
    """Any value of any field of a tensor is read or leads to ModelInvalid."""
    with contextlib.suppress(ModelInvalid):
        ModelSpec.from_json(rich(place, 0, **{field: value}))
