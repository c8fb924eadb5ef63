"""Sequences of steps as files: .npy, CSV, and JSON lines with one array for each step."""

from __future__ import annotations

import codecs
import csv
import errno
import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, get_args

import numpy as np

from ntm_client.values import Float32

Format = Literal["csv", "jsonl", "npy"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
}
"""The format of a file by the ending of its name."""

LARGEST = float(np.finfo(np.float32).max)
"""The largest float32. A longer whole number may not even be a float64."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.A | re.I)
"""
A number in decimal digits. Python's own reading takes more, such as 1_0. What is not finite is read
and then refused as such.
"""

OTHER_STARTS = {
    codecs.BOM_UTF16_LE: "it is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "it is UTF-16; save it as UTF-8",
    b"\x93NUMPY": "it is an array of numpy; name the format npy",
    b"PK\x03\x04": "it is a spreadsheet or an archive; save it as CSV",
}
"""How files begin that hold no lines of text, and what to do about each."""


class SequenceError(ValueError):
    """A file does not hold steps of the expected width; the message names the place."""


class Writer(Protocol):
    """Writes the outputs of steps to a file."""

    steps: int
    """Steps given to `write` so far."""

    def write(self, steps: Float32) -> None:
        """Add steps, [steps, width]."""

    def close(self) -> None:
        """Finish the file's content; the file stays open."""


def format_of(path: Path, option: str, default: Format) -> Format:
    """
    The format that the ending of a file's name stands for; `default` if it has no ending.

    Raises SequenceError for another ending; the message names the option that says the format.
    """
    ending = path.suffix.lower()
    if ending and ending not in ENDINGS:
        raise SequenceError(
            f"{path} ends in {ending}, which names no format; give {option} {' or '.join(FORMATS)}"
        )
    return ENDINGS.get(ending, default)


def check_header(header: bool, layout: Format) -> None:
    """Raise SequenceError if a first line of names is to be left out where there can be none."""
    if header and layout != "csv":
        raise SequenceError(f"--header is of csv, and the steps are {layout}")


def read(
    file: BinaryIO, name: str, layout: str, width: int, at_once: int, header: bool = False
) -> Iterator[Float32]:
    """
    Yield the steps of a file as arrays [1 to at_once, width], each as soon as its lines are read.

    Args:
        file: Open for reading.
        name: The name of the file in errors.
        layout: One of `FORMATS`.
        width: Values that each step must have.
        at_once: Steps to wait for; the last array may have fewer.
        header: Whether the first line has names instead of numbers and is left out.

    Raises:
        SequenceError: the content is wrong; the message names the file, and the line if it has
            lines.
    """
    if layout == "npy":
        steps = _read_npy(file, name, width)
        yield from (steps[start : start + at_once] for start in range(0, len(steps), at_once))
        return
    gathered: list[Float32] = []
    for step in _read_lines(file, name, layout, width, header):
        gathered.append(step)
        if len(gathered) == at_once:
            yield np.stack(gathered)
            gathered.clear()
    if gathered:
        yield np.stack(gathered)


def count(path: Path, layout: Format, header: bool) -> int | None:
    """The number of steps of a regular file; None if it is another file, or cannot be counted."""
    if not path.is_file():
        return None
    if layout != "npy":
        with path.open("rb") as file:
            return sum(not line.isspace() and line[:1] != b"#" for line in file) - header
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception:  # as in `_read_npy`, which says what is wrong
        return None


def writer(file: BinaryIO, layout: str) -> Writer:
    """Make the writer for a file that is open for writing."""
    return NpyWriter(file) if layout == "npy" else LineWriter(file, layout)


class LineWriter:
    """
    Writes one line for each step, at once; each value reads back as the same float32.

    When no place is left, the file keeps the whole lines that were written; `steps` counts them.
    """

    def __init__(self, file: BinaryIO, layout: str) -> None:
        # Without a buffer it is known what was written, and nothing is left to fail at the end.
        self._file: BinaryIO = getattr(file, "raw", file)
        self._template = "[{}]\n" if layout == "jsonl" else "{}\n"
        self._separator = ", " if layout == "jsonl" else ","
        self.steps = 0
        """Steps written so far."""

    def write(self, steps: Float32) -> None:
        """Add steps, [steps, width]."""
        lines = "".join(
            self._template.format(self._separator.join(str(value) for value in step))
            for step in steps
        ).encode()
        written = 0
        try:
            while written < len(lines):
                written += self._write(lines[written:])
        except OSError:
            whole = lines.rfind(b"\n", 0, written) + 1
            self._cut(written - whole)
            self.steps += lines.count(b"\n", 0, whole)
            raise
        self.steps += len(steps)

    def close(self) -> None:
        """Do nothing: every line is written already."""

    def _write(self, content: bytes) -> int:
        count: int | None = self._file.write(content)
        if count is None:  # a pipe that does not wait, as some programs give
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return count

    def _cut(self, size: int) -> None:
        """Take back the last bytes, unless it is a pipe or something comes after them."""
        if size and self._file.seekable():
            end = self._file.tell()
            if end == os.fstat(self._file.fileno()).st_size:
                self._file.truncate(end - size)
                self._file.seek(end - size)


class NpyWriter:
    """Writes one array when it is closed, because the header of .npy holds the number of steps."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._steps: list[Float32] = []
        self.steps = 0
        """Steps to be written at the end."""

    def write(self, steps: Float32) -> None:
        """Add steps, [steps, width]."""
        self.steps += len(steps)
        self._steps.append(steps)

    def close(self) -> None:
        """Write the array of all steps."""
        steps = np.concatenate(self._steps) if self._steps else np.zeros((0, 0), np.float32)
        content = BytesIO()
        np.lib.format.write_array(content, steps, allow_pickle=False)
        self._file.write(content.getvalue())
        self._file.flush()


def _read_npy(file: BinaryIO, name: str, width: int) -> Float32:
    try:
        # The content goes through memory, because numpy seeks in real files and a pipe cannot seek.
        content = BytesIO(file.read())
        array = np.lib.format.read_array(content, allow_pickle=False)
    except Exception as error:
        # A damaged header makes numpy's parser, or the memory for its shape, raise nearly anything.
        raise SequenceError(f"{name} is not an .npy file of numbers: {error}") from error
    if array.dtype.kind not in "fiu":
        raise SequenceError(f"{name} has values of the type {array.dtype}, not real numbers")
    if rest := content.read():
        raise SequenceError(f"{name} has {len(rest)} bytes more than its array")
    if array.ndim != 2 or array.shape[1] != width:
        raise SequenceError(
            f"{name} has shape {list(array.shape)}, but the steps have {width} values each"
        )
    with np.errstate(over="ignore"):
        steps: Float32 = array.astype(np.float32)
    if not np.isfinite(steps).all():
        raise SequenceError(f"{name} has a value that is not a finite float32")
    return steps


def _read_lines(
    file: BinaryIO, name: str, layout: str, width: int, header: bool
) -> Iterator[Float32]:
    parse = _json_values if layout == "jsonl" else _csv_values
    for number, line in enumerate(file, 1):
        try:
            text = _text(line, number)
            if not text or text.startswith("#"):
                continue
            if header:
                header = False
                continue
            yield _step(parse(text), width)
        except ValueError as error:
            raise SequenceError(f"{name}, line {number}: {error}") from error


def _text(line: bytes, number: int) -> str:
    """A line as text, without the mark of UTF-8 at a file's start and without spaces around it."""
    if number == 1:
        for mark, fault in OTHER_STARTS.items():
            if line.startswith(mark):
                raise ValueError(fault)
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"not text in UTF-8: byte {line[error.start]:#04x}") from error


def _csv_values(text: str) -> list[float]:
    if text.startswith("["):
        raise ValueError(f"{text!r:.40} is JSON; name the format jsonl")
    # Spreadsheets write semicolons where the comma is the sign before decimals.
    delimiter = next((each for each in ";\t" if each in text), ",")
    try:
        row = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"not CSV: {error}") from error
    return [_csv_value(cell.strip()) for cell in row]


def _csv_value(cell: str) -> float:
    if NUMBER.fullmatch(cell):
        return float(cell)
    if not cell:
        raise ValueError("a value is missing")
    if "," in cell and NUMBER.fullmatch(cell.replace(",", "")):
        raise ValueError(
            f"{cell!r} has a comma; write decimals with a point, and no thousands' sign"
        )
    hint = "; --header leaves out a first line of names" if cell[0].isalpha() else ""
    raise ValueError(f"{cell!r:.40} is not a number{hint}")


def _json_values(text: str) -> list[float]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise ValueError("not an array of numbers: one has too many digits") from error
    except RecursionError as error:
        raise ValueError("not an array of numbers: its brackets are too deep") from error
    if not isinstance(values, list):
        raise ValueError("not an array of numbers")
    for value in values:
        if type(value) not in (int, float):
            raise ValueError(f"not an array of numbers: {value!r:.40}")
        if type(value) is int and abs(value) > LARGEST:
            raise ValueError(f"{value!r:.40} is not a finite float32")
    return values


def _step(values: list[float], width: int) -> Float32:
    if len(values) != width:
        raise ValueError(f"{len(values)} values, but a step has {width}")
    with np.errstate(over="ignore"):
        step = np.array(values, np.float64).astype(np.float32)
    if not np.isfinite(step).all():
        wrong = values[int(np.isfinite(step).argmin())]
        raise ValueError(f"{wrong!r} is not a finite float32")
    return step
