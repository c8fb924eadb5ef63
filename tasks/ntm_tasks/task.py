"""What a task is: a seeded generator of input and target sequences, and facts about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

Size = tuple[int, ...]
"""What makes a sequence long: one number or two, as `Task.size_names` says."""


class Purpose(IntEnum):
    """The purpose that sequences are drawn for. Each purpose has its own random streams."""

    TRAINING = 0
    VALIDATION = 1
    EVALUATION = 2
    VERIFICATION = 3


class Batch(NamedTuple):
    """T steps of B sequences of one size."""

    inputs: Float32
    """[T, B, input width]"""
    targets: Float32
    """[T, B, output width], 0 or 1; zeros where the mask is 0."""
    mask: Float32
    """[T, B]: 1 in the steps whose output counts, else 0."""
    optimum: Float32 | None = None
    """[T, B, output width]: the best probabilities that a predictor could give; None if unknown."""


class TaskError(ValueError):
    """There is no such task, or no sequence of that size."""


class Generate(Protocol):
    """Draws a batch of sequences of one size."""

    def __call__(
        self, generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
    ) -> Batch:
        """In training, `blank_rate` of the vectors may be made zero."""


def no_marks(size: Size) -> dict[int, str]:
    """No step has a name."""
    return {}


def delimiter_after(size: Size) -> dict[int, str]:
    """The step after the first `size[0]` steps is the delimiter."""
    return {size[0]: "delimiter"}


def any_vectors(vectors: Float32) -> bool:
    """Every sequence of vectors may be shown."""
    return True


@dataclass(frozen=True)
class Task:
    """One task of a network: how its sequences are drawn, and their sizes and marks."""

    name: str
    input_width: int
    output_width: int
    size_names: tuple[str, ...]
    smallest: Size
    largest: Size
    """Sizes in training: each number is uniform from that in `smallest` to that in `largest`."""
    easiest: Size
    """Where a curriculum starts."""
    least: Size
    """No number of a size can be less."""
    generate: Generate
    marks: Callable[[Size], dict[int, str]] = no_marks
    """Returns the named steps of a sequence of some size, such as its delimiter."""
    longer: tuple[Size, ...] = ()
    """Sizes beyond those in training at which `ntm decipher` tries a program."""
    vector_bits: int = 0
    """The number of first input channels that show a vector; 0 if there are none."""
    allows: Callable[[Float32], bool] = any_vectors
    """Says whether a sequence may show these vectors [vectors, vector_bits], in this order."""

    def draw(
        self,
        generator: np.random.Generator,
        batch: int,
        blank_rate: float = 0.0,
        progress: float = 1.0,
    ) -> Batch:
        """
        Draw sequences of one size, as in training.

        `progress` is the progress through a curriculum, from 0 to 1. Before its end, sizes are
        uniform from `easiest` to a largest size that grows in proportion.
        """
        largest = self.largest
        smallest = self.smallest
        if progress < 1:
            smallest = self.easiest
            largest = tuple(
                round(easy + progress * (full - easy))
                for easy, full in zip(self.easiest, self.largest, strict=True)
            )
        size = tuple(
            int(generator.integers(low, high + 1))
            for low, high in zip(smallest, largest, strict=True)
        )
        return self.generate(generator, batch, size, blank_rate)


def generator_for(purpose: Purpose, seed: int, *index: int) -> np.random.Generator:
    """The random stream of one purpose, seed and index; streams do not overlap."""
    return np.random.default_rng([purpose, seed, *index])


def size_text(size: Size) -> str:
    """A size as text, such as 20 or 10x20."""
    return "x".join(str(number) for number in size)


def vectors(generator: np.random.Generator, shape: tuple[int, ...], blank_rate: float) -> Float32:
    """
    Random vectors of 0 and 1, [..., bits]; `blank_rate` of them are made zero.

    A random vector of 8 bits is zero only once in 256 times, and it looks like silence. Without
    more of them, a network may never learn to distinguish the two.
    """
    drawn = generator.integers(0, 2, shape).astype(np.float32)
    if blank_rate:
        drawn[generator.random(shape[:-1]) < blank_rate] = 0
    return drawn


def blank(steps: int, batch: int, input_width: int, output_width: int) -> Batch:
    """A batch in which nothing is shown, due or counted yet."""
    return Batch(
        np.zeros((steps, batch, input_width), np.float32),
        np.zeros((steps, batch, output_width), np.float32),
        np.zeros((steps, batch), np.float32),
    )
