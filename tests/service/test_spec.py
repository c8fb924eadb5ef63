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
from service.spec import BLANK, Initial, ModelSpec, StateTensor
from tests.support.tiny_models import LEDGER


def test_a_spec_is_read_back_unchanged() -> None:
    """`from_json` undoes `to_json`."""
    assert ModelSpec.from_json(LEDGER.to_json()) == LEDGER


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
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ("[" * 14_000 + "]" * 14_000, "nested too deeply"),
        (changed(format=2), "spec format is 2; this server reads format 1"),
        (changed(unknown=1), "cannot be read"),
        (changed(input_width=0), "widths must be positive, not 0 and 2"),
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
            "starts by 'random'; rules are constant, one_hot, positional, values",
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


@given(
    st.sampled_from(sorted(json.loads(LEDGER.to_json()))),
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    ),
)
def test_a_spec_with_one_field_spoiled_is_read_or_refused(field: str, value: object) -> None:
    """Any value of any field is read or leads to ModelInvalid."""
    with contextlib.suppress(ModelInvalid):
        ModelSpec.from_json(changed(**{field: value}))
