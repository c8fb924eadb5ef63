"""Sequences as files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from ntm_client.values import Float32
from ntm_lab.commands.sequences import FORMATS, SequenceError, format_of, read, writer

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SEQUENCES = stnp.arrays(
    np.float32, st.tuples(st.integers(1, 7), st.integers(1, 4)), elements=FINITE
)


def written(steps: Float32, layout: str) -> bytes:
    """The file that holds the steps, written in two parts."""
    file = BytesIO()
    sink = writer(file, layout)
    sink.write(steps[:1])
    sink.write(steps[1:])
    sink.close()
    return file.getvalue()


@pytest.mark.parametrize("layout", FORMATS)
@given(steps=SEQUENCES, at_once=st.integers(1, 8))
def test_what_is_written_reads_back(layout: str, steps: Float32, at_once: int) -> None:
    """Every finite float32 survives each format, however many steps are read at once."""
    file = BytesIO(written(steps, layout))
    blocks = list(read(file, "steps", layout, steps.shape[1], at_once))

    assert steps.tobytes() == np.concatenate(blocks).tobytes()
    assert max(len(block) for block in blocks) <= at_once


@pytest.mark.parametrize("layout", FORMATS)
def test_no_step(layout: str) -> None:
    """A file without steps reads as none, except that an array has a shape to be checked."""
    empty = np.zeros((0, 3), np.float32)

    assert list(read(BytesIO(written(empty, layout)), "steps", layout, 3, 10)) == []


def test_lines_without_steps() -> None:
    """Empty lines, and comments as numpy writes them, are no steps."""
    file = BytesIO(b"# a, b\n1, 2\n\n3,4\n")

    assert np.concatenate(list(read(file, "f", "csv", 2, 1))).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("layout", "line", "message"),
    [
        ("csv", b"1,2,3", "3 values, but a step has 2"),
        ("csv", b"1,two", "'two' is not a number; --header leaves out"),
        ("csv", b"1,nan", "not a finite float32"),
        ("csv", b"1,1e39", "not a finite float32"),
        ("csv", b"\xff,1", "not text in UTF-8: byte 0xff"),
        ("jsonl", b"[1]", "1 values, but a step has 2"),
        ("jsonl", b"[1, true]", "not an array of numbers"),
        ("jsonl", b'{"a": 1}', "not an array of numbers"),
        ("jsonl", b"[1, 2", "not JSON"),
    ],
)
def test_errors_name_the_line(layout: str, line: bytes, message: str) -> None:
    """A line that is no step is named, and the steps before it were read."""
    first = b"[1, 2]" if layout == "jsonl" else b"1,2"
    steps = read(BytesIO(first + b"\n\n" + line + b"\n"), "data", layout, 2, 1)

    assert next(steps).tolist() == [[1, 2]]
    with pytest.raises(SequenceError, match=rf"data, line 3: .*{message}"):
        next(steps)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 3)), r"shape \[4, 3\], but the steps have 2 values"),
        (np.zeros(4), r"shape \[4\]"),
        (np.full((1, 2), np.inf), "not a finite float32"),
        (np.array([["a", "b"]]), "values of the type <U1, not real numbers"),
        (np.zeros((4, 2), complex), "values of the type complex128, not real numbers"),
        (np.zeros((4, 2), bool), "values of the type bool, not real numbers"),
    ],
)
def test_arrays_that_are_no_steps(
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    """An array of another shape, or not of finite numbers, is refused."""
    file = BytesIO()
    np.save(file, array)
    file.seek(0)

    with pytest.raises(SequenceError, match=message):
        list(read(file, "data.npy", "npy", 2, 10))


def test_a_file_that_is_no_array() -> None:
    """Another kind of file under the name .npy is refused."""
    with pytest.raises(SequenceError, match=r"data\.npy is not an \.npy file"):
        list(read(BytesIO(b"1,2\n"), "data.npy", "npy", 2, 10))


def test_a_name_tells_the_format() -> None:
    """The ending decides, in capitals as well; a name without one has the default."""
    names = ("a.npy", "b.jsonl", "c.txt", "D.CSV", "e", "-")
    formats = ["npy", "jsonl", "csv", "csv", "npy", "npy"]
    assert [format_of(Path(name), "--format", "npy") for name in names] == formats


def test_a_name_of_no_format() -> None:
    """An ending that stands for nothing is refused, with the option that says the format."""
    with pytest.raises(SequenceError, match=r"a\.npz ends in \.npz, .* give --format csv or jsonl"):
        format_of(Path("a.npz"), "--format", "csv")
