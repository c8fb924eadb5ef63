"""What a task is: a seeded generator of input and target sequences, and facts about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a task may be called: the name is a part of the names of models and of folders."""

KINDS = "biuf"
"""The kinds of numpy's types that arrays of yours may have: bool, whole numbers, floating point."""

MAX_WIDTH = 65_536
"""The most channels of inputs or of outputs."""


class TaskError(ValueError):
    """There is no such task, it is not one, or it has no sequence of that size."""


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
    """Draws sequences as in training."""
    marks: Callable[[Size], dict[int, str]] = no_marks
    """Returns the named steps of a sequence of some size, such as its delimiter."""
    longer: tuple[Size, ...] = ()
    """Sizes beyond those in training at which `ntm decipher` tries a program."""
    vector_bits: int = 0
    """The number of first input channels that show a vector; 0 if there are none."""
    allows: Callable[[Float32], bool] = any_vectors
    """Says whether a sequence may show these vectors [vectors, vector_bits], in this order."""
    most: Size | None = None
    """No number of a size can be more; None if sequences of any size can be drawn."""
    end_bit: int | None = None
    """
    The output that marks the end of an answer, if there is one.

    A step in which it is set too early is counted as a false end, apart from its other outputs.
    """
    source: str = ""
    """How `load` names it: a place in a Python module, or a file; empty if its name is enough."""

    def __post_init__(self) -> None:
        """Raise TaskError if a name, a width or a size cannot be."""
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise TaskError(
                f"a task's name is letters, digits, _ . and -, at most 64, not {self.name!r}"
            )
        for name in ("input_width", "output_width"):
            width = getattr(self, name)
            if not isinstance(width, int) or not 1 <= width <= MAX_WIDTH:
                raise self._error(name, f"it must be a whole number from 1 to {MAX_WIDTH}")
        if not isinstance(self.size_names, tuple) or not self.size_names:
            raise self._error("size_names", 'it must be a tuple of names, such as ("length",)')
        for name in ("smallest", "largest", "easiest", "least", "most"):
            self._check_size(name)
        if self.end_bit is not None and self.end_bit not in range(self.output_width):
            raise self._error("end_bit", "it must be the number of an output, or None")
        if not callable(self.generate):
            raise self._error("generate", "it must be a function that draws a batch")

    def _check_size(self, name: str) -> None:
        size = getattr(self, name)
        if name == "most" and size is None:
            return
        count = len(self.size_names)
        if not isinstance(size, tuple) or len(size) != count:
            raise self._error(name, f"it must be a tuple of {count}, as size_names is")
        bounds = zip(size, self.least, self.most or size, strict=True)
        if not all(
            isinstance(number, int) and low <= number <= high for number, low, high in bounds
        ):
            raise self._error(
                name, "its numbers must be whole, from those of least to those of most"
            )
        if name == "largest" and any(map(int.__lt__, size, self.smallest)):
            raise self._error(name, "it must not be less than smallest")

    def _error(self, name: str, problem: str) -> TaskError:
        return TaskError(f"{self.name}: {name} is {getattr(self, name)!r}; {problem}")

    def size_problem(self, size: Size) -> str:
        """Return why there are no sequences of a size, or nothing."""
        names = " and ".join(self.size_names)
        if len(size) != len(self.size_names):
            return f"the size of {self.name} is its {names}, not {size_text(size) or 'nothing'}"
        if any(number < least for number, least in zip(size, self.least, strict=True)):
            return (
                f"the size of {self.name}, its {names}, must be at least {size_text(self.least)}, "
                f"not {size_text(size)}"
            )
        if self.most and any(number > most for number, most in zip(size, self.most, strict=True)):
            return (
                f"the size of {self.name}, its {names}, must be at most {size_text(self.most)}, "
                f"not {size_text(size)}"
            )
        return ""

    def example(self, generator: np.random.Generator, size: Size) -> Batch:
        """Draw one sequence to look at, which training has not seen."""
        return self.generate(generator, 1, size)

    def available(self, purpose: Purpose, size: Size) -> int | None:
        """Return how many different sequences of a size there are; None if any number is drawn."""
        return None

    def batches(
        self, purpose: Purpose, seed: int, size: Size, count: int, at_once: int
    ) -> Iterator[Batch]:
        """Draw `count` sequences of one size, at most `at_once` in a batch."""
        generator = generator_for(purpose, seed, *size)
        for start in range(0, count, at_once):
            yield self.generate(generator, min(at_once, count - start), size)

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


def check_values(arrays: dict[str, Float32]) -> None:
    """
    Check the values of inputs [T, B, X], targets [T, B, Y], mask [T, B] and perhaps optimum.

    Raises:
        TaskError: inputs are not finite, or the others not 0 or 1, or nothing counts.
    """
    if not np.isfinite(arrays["inputs"]).all():
        raise TaskError("inputs has values that are not finite; make them numbers")
    for name in ("targets", "mask"):
        other = arrays[name][(arrays[name] != 0) & (arrays[name] != 1)]
        if other.size:
            raise TaskError(f"{name} has the value {other[0]:g}; its values must be 0 or 1")
    if not (arrays["mask"] > 0).any(0).all():
        raise TaskError("mask is 0 in every step of a sequence; make it 1 where the output counts")
    optimum = arrays.get("optimum")
    if optimum is not None and not ((optimum >= 0) & (optimum <= 1)).all():
        raise TaskError("optimum has values that are no probabilities, from 0 to 1")


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
