"""
A task from a file of sequences, an .npz of numpy with three arrays:

- `inputs` [sequences, steps, input width], numbers;
- `targets` [sequences, steps, output width], 0 or 1;
- `mask` [sequences, steps], 1 in the steps whose output counts, else 0.

A shorter sequence is filled up at its end with steps whose mask is 0: a sequence ends with the last
step that counts. The size of a sequence is a length. A batch of a size has sequences of at most
that many steps, and ends with the longest of them.

One sequence in ten is kept for validation and one in ten for evaluation, whatever the seed of the
training is.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ntm_tasks.task import (
    KINDS,
    NAME,
    Batch,
    Float32,
    Purpose,
    Size,
    Task,
    TaskError,
    check_values,
    generator_for,
)

SUFFIX = ".npz"
ARRAYS = ("inputs", "targets", "mask")

LEAST_SEQUENCES = 10
"""With fewer, a part would have none."""

PART = 10
"""One in so many is for validation, and one for evaluation."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Sequences:
    """The sequences of a file."""

    inputs: Float32
    """[S, T, input width]"""
    targets: Float32
    """[S, T, output width]"""
    mask: Float32
    """[S, T]"""
    lengths: Rows
    """[S]"""

    def batch(self, rows: Rows) -> Batch:
        """Return some of the sequences, with as many steps as the longest of them."""
        steps = int(self.lengths[rows].max())
        inputs, targets, mask = (
            np.ascontiguousarray(each[rows, :steps].swapaxes(0, 1))
            for each in (self.inputs, self.targets, self.mask)
        )
        return Batch(inputs, targets, mask)


@dataclass(frozen=True, kw_only=True)
class FileTask(Task):
    """The task of a file. Its parts for training, validation and evaluation share no sequence."""

    sequences: Sequences
    parts: Mapping[Purpose, Rows]
    """The rows of each part."""

    def example(self, generator: np.random.Generator, size: Size) -> Batch:
        """Draw one sequence of the part for evaluation."""
        return self._drawn(Purpose.EVALUATION, generator, 1, size)

    def available(self, purpose: Purpose, size: Size) -> int:
        """Return how many sequences of at most this length a part has."""
        return len(self._rows(purpose, size))

    def batches(
        self, purpose: Purpose, seed: int, size: Size, count: int, at_once: int
    ) -> Iterator[Batch]:
        """
        Yield sequences of a part, each once, in an order that the seed decides.

        Raises:
            TaskError: the part has fewer than `count`.
        """
        rows = self._rows(purpose, size)
        if count > len(rows):
            raise TaskError(
                f"{self.source} has {len(rows)} sequences of at most {size[0]} steps for "
                f"{purpose.name.lower()}, not {count}; ask for fewer"
            )
        chosen = generator_for(purpose, seed, *size).permutation(rows)[:count]
        for start in range(0, count, at_once):
            yield self.sequences.batch(chosen[start : start + at_once])

    def _rows(self, purpose: Purpose, size: Size) -> Rows:
        rows = self.parts[purpose]
        return rows[self.sequences.lengths[rows] <= size[0]]

    def _drawn(
        self, purpose: Purpose, generator: np.random.Generator, batch: int, size: Size
    ) -> Batch:
        rows = self._rows(purpose, size)
        if not len(rows):
            raise TaskError(f"{self.source} has no sequence of at most {size[0]} steps to draw")
        return self.sequences.batch(generator.choice(rows, batch))


def read(path: Path) -> FileTask:
    """
    Return the task of a file, named after it.

    Raises:
        TaskError: the file is not there, or its arrays are missing, of other shapes or of objects.
    """
    if not NAME.fullmatch(path.stem):
        raise TaskError(
            f"{path}: a task is named after its file, and {path.stem!r} cannot be a name; rename "
            "it to letters, digits, _ . and -, at most 64"
        )
    try:
        sequences = _sequences(_arrays(path))
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error
    order = np.random.default_rng(0).permutation(len(sequences.lengths))
    held_out = max(1, len(order) // PART)
    parts = {
        Purpose.VALIDATION: order[:held_out],
        Purpose.EVALUATION: order[held_out : 2 * held_out],
        Purpose.TRAINING: order[2 * held_out :],
    }
    # The longest that every part can draw from; the shortest likewise.
    shortest = max(int(sequences.lengths[rows].min()) for rows in parts.values())
    longest = int(sequences.lengths.max())

    def generate(
        generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
    ) -> Batch:
        if blank_rate:
            raise TaskError(f"{path} has no vectors to make blank; leave blank_rate at 0")
        return task._drawn(Purpose.TRAINING, generator, batch, size)

    task = FileTask(
        path.stem,
        sequences.inputs.shape[2],
        sequences.targets.shape[2],
        ("length",),
        smallest=(longest,),  # so that training draws every sequence alike
        largest=(longest,),
        easiest=(shortest,),
        least=(shortest,),
        most=(longest,),
        generate=generate,
        source=str(path),
        sequences=sequences,
        parts=parts,
    )
    return task


def _arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the three arrays of a file. Nothing in it is unpickled, since that would run code."""
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as file:
            return _read(file)
    except FileNotFoundError as error:
        raise TaskError("there is no such file") from error
    except OSError as error:
        raise TaskError(f"it cannot be read: {error.strerror or error}") from error


def _read(file: BinaryIO) -> dict[str, npt.NDArray[np.generic]]:
    try:
        content = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TaskError("it is not an .npz file; write it with numpy.savez_compressed") from error
    if not isinstance(content, np.lib.npyio.NpzFile):
        raise TaskError("it holds one array; write an .npz file with numpy.savez_compressed")
    with content:
        missing = [name for name in ARRAYS if name not in content.files]
        if missing:
            raise TaskError(
                f"it has no {' and no '.join(missing)}; it must have inputs [sequences, steps, "
                "channels], targets [sequences, steps, channels] and mask [sequences, steps]"
            )
        return {name: _array(content, name) for name in ARRAYS}


def _array(content: np.lib.npyio.NpzFile, name: str) -> npt.NDArray[np.generic]:
    try:
        array: npt.NDArray[np.generic] = content[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise TaskError(
                f"{name} is an array of Python objects, which are not read, since that could run "
                "code; fill up shorter sequences with zeros to one array of numbers, and let mask "
                "be 0 there"
            ) from error
        raise TaskError(f"{name} is damaged ({error}); write the file again") from error
    if array.dtype.kind not in KINDS:
        raise TaskError(f"{name} is an array of {array.dtype}; it must be one of numbers")
    return array


def _sequences(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Sequences:
    """Check the arrays against each other."""
    for name, array in arrays.items():
        axes = ("sequences", "steps", "channels")[: 2 if name == "mask" else 3]
        if array.ndim != len(axes):
            names = ", ".join(axes)
            raise TaskError(f"{name} has the shape {array.shape}; its axes must be [{names}]")
        if 0 in array.shape:
            missing = axes[array.shape.index(0)]
            raise TaskError(f"{name} has the shape {array.shape}, and so no {missing}; give some")
        for axis, what in enumerate(("sequences", "steps")):
            if array.shape[axis] != arrays["inputs"].shape[axis]:
                raise TaskError(
                    f"inputs has {arrays['inputs'].shape[axis]} {what} and {name} has "
                    f"{array.shape[axis]}; give them as many"
                )
    if len(arrays["inputs"]) < LEAST_SEQUENCES:
        raise TaskError(
            f"it has {len(arrays['inputs'])} sequences; to keep some for validation and evaluation,"
            f" it needs {LEAST_SEQUENCES} at least"
        )
    inputs, targets, mask = (arrays[name].astype(np.float32) for name in ARRAYS)
    check_values({"inputs": inputs, "targets": targets, "mask": mask.T})
    steps = mask.shape[1]
    lengths = steps - (mask[:, ::-1] > 0).argmax(1)
    return Sequences(inputs, targets, mask, lengths)
