"""Bytes that were damaged on the way: overwritten, cut, doubled, truncated, filled in."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_MOST_EDITS = 4
_LONGEST_RUN = 64


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly bytes as they were meant, sometimes edited ones, sometimes any bytes at all."""
    return st.one_of(whole, whole, _edited(whole), st.binary(max_size=_LONGEST_RUN))


@st.composite
def _edited(draw: Any, whole: st.SearchStrategy[bytes]) -> bytes:
    data = draw(whole)
    for _ in range(draw(st.integers(1, _MOST_EDITS))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, _LONGEST_RUN))
        byte = bytes([draw(st.sampled_from((0x00, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))])
        before, after = data[:start], data[start:]
        data = draw(
            st.sampled_from(
                (
                    before + byte + after[1:],
                    before + after[length:],
                    before + after[:length] + after,
                    before,
                    before + byte * min(length, 10) + after,
                )
            )
        )
    return bytes(data)
