"""JSON in which some values are not what they ought to be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_WORDS = ("N", "constant", "one_hot", "positional", "values", "memory", "x", "RS256", "EC", "")
_NUMBERS = (0, -1, 1, 2, 3, 1.5, 2**31, 2**63, 10**400, float("inf"), float("nan"))

_values = st.recursive(
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
def spoiled(draw: Any, texts: Sequence[str]) -> str:
    """One of the texts, with up to three values, anywhere in it, replaced by others."""
    value = json.loads(draw(st.sampled_from(texts)))
    for _ in range(draw(st.integers(0, 3))):
        part = value
        while keys := list(part if isinstance(part, dict) else range(len(part))):
            key = draw(st.sampled_from(keys))
            if not isinstance(part[key], dict | list) or draw(st.integers(0, 3)) == 0:
                part[key] = draw(_values)
                break
            part = part[key]
    return json.dumps(value)


def _deep(depth: int, opening: bytes) -> bytes:
    return opening * depth


nested = st.builds(_deep, st.sampled_from((10, 14_000)), st.sampled_from((b"[", b'{"keys":')))
"""Texts that are nested more deeply than a parser can go."""
