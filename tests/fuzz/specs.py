"""Specs as a damaged or hostile model file has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import onnx
from hypothesis import strategies as st

from service.errors import ModelInvalid
from service.spec import METADATA_KEY, ModelSpec
from tests.conftest import MODELS
from tests.fuzz.edits import damaged
from tests.tiny_models import ledger

PROTOS = [
    onnx.load_model_from_string(model)
    for model in (
        ledger(),
        *(
            (MODELS / name / "model.onnx").read_bytes()
            for name in ("copy-ntm-ff", "copy-lstm", "priority-sort-ntm-ff")
        ),
    )
]
"""Sound models, with initial states of every rule."""

SPECS = [
    entry.value for proto in PROTOS for entry in proto.metadata_props if entry.key == METADATA_KEY
]

_WORDS = ("N", "constant", "one_hot", "positional", "values", "memory", "x", "")
_NUMBERS = (0, -1, 1, 2, 3, 1.5, 2**31, 2**63, 10**400, float("inf"), float("nan"))

_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from((*_WORDS, *_NUMBERS)),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def spoiled(draw: Any) -> str:
    """A spec with up to three values, anywhere in it, replaced by others."""
    spec = json.loads(draw(st.sampled_from(SPECS)))
    for _ in range(draw(st.integers(0, 3))):
        part = spec
        while keys := list(part if isinstance(part, dict) else range(len(part))):
            key = draw(st.sampled_from(keys))
            if not isinstance(part[key], dict | list) or draw(st.integers(0, 3)) == 0:
                part[key] = draw(_json)
                break
            part = part[key]
    return json.dumps(spec)


def _deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


texts = damaged(spoiled().map(str.encode)) | st.builds(_deep, st.sampled_from((10, 14_000)))
"""Specs as bytes, which need not even be text."""


@contextmanager
def spec_reader() -> Iterator[Callable[[bytes], None]]:
    """Hand out what reads a spec, which is refused as ModelInvalid or comes back unchanged."""

    def check(text: bytes) -> None:
        with suppress(ModelInvalid):
            spec = ModelSpec.from_json(text.decode(errors="replace"))
            assert ModelSpec.from_json(spec.to_json()) == spec
            assert spec.state_bytes(spec.default_locations) >= 0

    yield check
