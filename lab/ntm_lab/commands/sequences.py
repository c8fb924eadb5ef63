"""Sequences of steps as files: .npy, CSV, and JSON lines with one array for each step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import PurePath
from typing import BinaryIO, Literal, Protocol, get_args

import numpy as np

from ntm_client.values import Float32

Format = Literal["csv", "jsonl", "npy"]
FORMATS: tuple[Format, ...] = get_args(Format)


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


def format_of(path: str, default: Format) -> Format:
    """The format that the ending of a file's name stands for; otherwise `default`."""
    ending = PurePath(path).suffix.removeprefix(".")
    return next((each for each in FORMATS if each == ending), default)


def read(file: BinaryIO, name: str, layout: str, width: int, at_once: int) -> Iterator[Float32]:
    """
    Yield the steps of a file as arrays [1 to at_once, width], each as soon as its lines are read.

    Args:
        file: Open for reading.
        name: The name of the file in errors.
        layout: One of `FORMATS`.
        width: Values that each step must have.
        at_once: Steps to wait for; the last array may have fewer.

    Raises:
        SequenceError: the content is wrong; the message names the file, and the line if it has
            lines.
    """
    if layout == "npy":
        steps = _read_npy(file, name, width)
        yield from (steps[start : start + at_once] for start in range(0, len(steps), at_once))
        return
    gathered: list[Float32] = []
    for step in _read_lines(file, name, layout, width):
        gathered.append(step)
        if len(gathered) == at_once:
            yield np.stack(gathered)
            gathered.clear()
    if gathered:
        yield np.stack(gathered)


def writer(file: BinaryIO, layout: str) -> Writer:
    """Make the writer for a file that is open for writing."""
    return NpyWriter(file) if layout == "npy" else LineWriter(file, layout)


class LineWriter:
    """Writes one line for each step, at once; each value reads back as the same float32."""

    def __init__(self, file: BinaryIO, layout: str) -> None:
        self._file = file
        self._template = "[{}]\n" if layout == "jsonl" else "{}\n"
        self._separator = ", " if layout == "jsonl" else ","
        self.steps = 0
        """Steps written so far."""

    def write(self, steps: Float32) -> None:
        """Add steps, [steps, width]."""
        self.steps += len(steps)
        for step in steps:
            line = self._template.format(self._separator.join(str(value) for value in step))
            self._file.write(line.encode())
        self._file.flush()

    def close(self) -> None:
        """Do nothing: every line is written already."""


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
        array = np.lib.format.read_array(BytesIO(file.read()), allow_pickle=False)
        steps: Float32 = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise SequenceError(f"{name} is not an .npy file of numbers: {error}") from error
    if steps.ndim != 2 or steps.shape[1] != width:
        raise SequenceError(
            f"{name} has shape {list(steps.shape)}, but the steps have {width} values each"
        )
    if not np.isfinite(steps).all():
        raise SequenceError(f"{name} has a value that is not a finite float32")
    return steps


def _read_lines(file: BinaryIO, name: str, layout: str, width: int) -> Iterator[Float32]:
    parse = _json_values if layout == "jsonl" else _csv_values
    for number, line in enumerate(file, 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            yield _step(parse(line), width)
        except ValueError as error:
            raise SequenceError(f"{name}, line {number}: {error}") from error


def _csv_values(line: bytes) -> list[float]:
    return [float(value) for value in line.decode().split(",")]


def _json_values(line: bytes) -> list[float]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from error
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise ValueError("not an array of numbers")
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
