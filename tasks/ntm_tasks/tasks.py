"""The five tasks of the paper: seeded generators of input and target sequences, in numpy alone.

A task is one generator, names for some steps of what it draws, and one row of `TASKS`. Channels and
layouts that the paper leaves open are stated at each generator.
"""

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

COPY_BITS = 8
"""Bits of each vector of copy and repeat copy."""

ITEM_BITS = 6
"""Bits of each vector of an associative recall item."""

ITEM_VECTORS = 3
"""Vectors of an associative recall item."""

CONTEXT_BITS = 5
"""Bits that decide the law of the next one in dynamic N-grams: a table of 6-grams."""

SORT_BITS = 8
"""Bits of each vector of priority sort; the paper does not say how many."""

MOST_REPEATS = 10
"""Repeat counts in training are uniform from 1 to this; they are normalised by that law."""


class Purpose(IntEnum):
    """What sequences are drawn for; each purpose has random streams of its own."""

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
    """[T, B, output width]: the best probabilities that a predictor could give, where known."""


class Generate(Protocol):
    """Draws a batch of sequences of one size."""

    def __call__(
        self, generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
    ) -> Batch:
        """In training, `blank_rate` of the vectors may be made zero."""


@dataclass(frozen=True)
class Task:
    """What one task asks of a network."""

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
    marks: Callable[[Size], dict[int, str]]
    """The steps of a sequence of that size that have a name, such as its delimiter."""

    def draw(
        self,
        generator: np.random.Generator,
        batch: int,
        blank_rate: float = 0.0,
        progress: float = 1.0,
    ) -> Batch:
        """
        Sequences of one size, drawn by the law of training.

        `progress` through a curriculum, from 0 to 1: before its end, sizes are uniform from
        `easiest` to a largest one that grows in proportion.
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
    """A size as people write it, such as 20 or 10x20."""
    return "x".join(str(number) for number in size)


def copy(generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0) -> Batch:
    """
    Repeat a sequence after hearing it to its end; size (length,).

    Channels 0 to 7 show `length` random vectors, then channel 8 alone marks the end, then the
    input is silent for `length` steps, in which the vectors are due: T = 2 length + 1.
    """
    (length,) = size
    vectors = _vectors(generator, (length, batch, COPY_BITS), blank_rate)
    out = _blank(2 * length + 1, batch, COPY_BITS + 1, COPY_BITS)
    out.inputs[:length, :, :COPY_BITS] = vectors
    out.inputs[length, :, COPY_BITS] = 1
    out.targets[length + 1 :] = vectors
    out.mask[length + 1 :] = 1
    return out


def repeat_copy(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Repeat a sequence so many times, then mark the end; size (length, repeats).

    Channels 0 to 7 show `length` random vectors; then channel 8 alone shows the number of repeats,
    less the mean and over the standard deviation of its law in training; then the input is silent
    while the vectors are due `repeats` times on outputs 0 to 7, and then output 8 alone is due
    once, the end marker: T = length + 1 + length * repeats + 1.
    """
    length, repeats = size
    vectors = _vectors(generator, (length, batch, COPY_BITS), blank_rate)
    out = _blank(length + 1 + length * repeats + 1, batch, COPY_BITS + 1, COPY_BITS + 1)
    out.inputs[:length, :, :COPY_BITS] = vectors
    out.inputs[length, :, COPY_BITS] = normalised_count(repeats)
    out.targets[length + 1 : -1, :, :COPY_BITS] = np.tile(vectors, (repeats, 1, 1))
    out.targets[-1, :, COPY_BITS] = 1
    out.mask[length + 1 :] = 1
    return out


def normalised_count(repeats: int) -> float:
    """A repeat count with mean 0 and variance 1 under the law of training."""
    mean = (1 + MOST_REPEATS) / 2
    variance = (MOST_REPEATS**2 - 1) / 12
    return float((repeats - mean) / variance**0.5)


def associative_recall(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Hear items, then one of them again, and answer with the item that followed it; size (items,).

    An item is three 6-bit vectors on channels 0 to 5, after a step in which channel 6 alone marks
    its start. Channel 7 alone marks the query, which follows, then marks its end; then the input
    is silent for the three steps in which the next item is due: T = 4 items + 8. Any item but the
    last is queried equally often. Items are drawn anew until none equals the queried one.
    """
    (items,) = size
    item_shape = (batch, ITEM_VECTORS, ITEM_BITS)
    shown = _vectors(generator, (items, *item_shape), blank_rate)
    asked = generator.integers(0, items - 1, batch)
    every = np.arange(batch)
    while (same := _repeats_of(shown, asked)).any():
        shown[same] = generator.integers(0, 2, (int(same.sum()), *item_shape[1:]))
    out = _blank(4 * items + 8, batch, ITEM_BITS + 2, ITEM_BITS)
    for item in range(items):
        out.inputs[4 * item, :, ITEM_BITS] = 1
        out.inputs[4 * item + 1 : 4 * item + 4, :, :ITEM_BITS] = shown[item].transpose(1, 0, 2)
    query = 4 * items
    out.inputs[[query, query + 4], :, ITEM_BITS + 1] = 1
    out.inputs[query + 1 : query + 4, :, :ITEM_BITS] = shown[asked, every].transpose(1, 0, 2)
    out.targets[-ITEM_VECTORS:] = shown[asked + 1, every].transpose(1, 0, 2)
    out.mask[-ITEM_VECTORS:] = 1
    return out


def ngrams(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Predict the next bit of a source whose law is new in every sequence; size (bits, context).

    Each sequence has its own table: for each of the 2**context contexts (of so many bits; in the
    paper five), the probability that a 1 follows, from Beta(1/2, 1/2). The first `context` bits are
    fair. At each step the input is one bit and the target is the next: T = bits, of bits + 1
    drawn. There are no vectors to blank.

    The optimum is that of equation 10: P(1 | N1, N0, context) = (N1 + 1/2) / (N1 + N0 + 1), and
    1/2 without a context.
    """
    bits, context_bits = size
    every = np.arange(batch)
    table = generator.beta(0.5, 0.5, (batch, 2**context_bits))
    luck = generator.random((bits + 1, batch))
    sequence = np.zeros((bits + 1, batch), np.int64)
    counts = np.full((batch, 2**context_bits, 2), 0.5)
    optimum = np.full((bits, batch, 1), 0.5, np.float32)
    context = np.zeros(batch, np.int64)
    for step in range(bits + 1):
        if step < context_bits:
            sequence[step] = luck[step] < 0.5
        else:
            sequence[step] = luck[step] < table[every, context]
            seen = counts[every, context]
            optimum[step - 1, :, 0] = seen[:, 1] / seen.sum(1)
            counts[every, context, sequence[step]] += 1
        context = (2 * context + sequence[step]) % 2**context_bits
    shown = sequence.astype(np.float32)[:, :, None]
    return Batch(shown[:-1], shown[1:], np.ones((bits, batch), np.float32), optimum)


def priority_sort(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Answer with the vectors of highest priority, in order; size (items,).

    Channels 0 to 7 show `items` random vectors, channel 8 the priority of each, uniform from -1 to
    1. Channel 9 alone marks the end; then the input is silent while the four fifths of highest
    priority are due (of 20 items 16), the highest first: T = items + 1 + 4 items / 5.
    """
    (items,) = size
    wanted = sorted_count(items)
    vectors = _vectors(generator, (items, batch, SORT_BITS), blank_rate)
    priorities = generator.uniform(-1, 1, (items, batch)).astype(np.float32)
    order = np.argsort(-priorities, axis=0)[:wanted]
    out = _blank(items + 1 + wanted, batch, SORT_BITS + 2, SORT_BITS)
    out.inputs[:items, :, :SORT_BITS] = vectors
    out.inputs[:items, :, SORT_BITS] = priorities
    out.inputs[items, :, SORT_BITS + 1] = 1
    out.targets[items + 1 :] = np.take_along_axis(vectors, order[:, :, None], 0)
    out.mask[items + 1 :] = 1
    return out


def sorted_count(items: int) -> int:
    """How many of so many items priority sort wants back: four fifths, at least one."""
    return max(1, 4 * items // 5)


def _delimiter_after(size: Size) -> dict[int, str]:
    return {size[0]: "delimiter"}


def _repeat_copy_marks(size: Size) -> dict[int, str]:
    length, repeats = size
    return {length: f"{repeats} times", length + 1 + length * repeats: "end"}


def _associative_recall_marks(size: Size) -> dict[int, str]:
    query = 4 * size[0]
    return dict.fromkeys(range(0, query, 4), "item") | {query: "query", query + 4: "delimiter"}


def _no_marks(size: Size) -> dict[int, str]:
    return {}


def _vectors(generator: np.random.Generator, shape: tuple[int, ...], blank_rate: float) -> Float32:
    """
    Random vectors [..., bits], of which that part is all zeros, besides those by chance.

    A vector of zeros is so rare (of 8 bits one in 256) and so like the silence that a network may
    never learn to tell the two apart.
    """
    vectors = generator.integers(0, 2, shape).astype(np.float32)
    if blank_rate:
        vectors[generator.random(shape[:-1]) < blank_rate] = 0
    return vectors


def _blank(steps: int, batch: int, input_width: int, output_width: int) -> Batch:
    """A batch in which nothing is shown, due or counted yet."""
    return Batch(
        np.zeros((steps, batch, input_width), np.float32),
        np.zeros((steps, batch, output_width), np.float32),
        np.zeros((steps, batch), np.float32),
    )


def _repeats_of(shown: Float32, asked: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """[items, B]: which items equal the one asked for without being it."""
    queried = shown[asked, np.arange(shown.shape[1])]
    same: npt.NDArray[np.bool_] = (shown == queried).all((2, 3))
    same[asked, np.arange(shown.shape[1])] = False
    return same


TASKS = {
    "copy": Task(
        COPY_BITS + 1,
        COPY_BITS,
        ("length",),
        smallest=(1,),
        largest=(20,),
        easiest=(1,),
        least=(1,),
        generate=copy,
        marks=_delimiter_after,
    ),
    "repeat-copy": Task(
        COPY_BITS + 1,
        COPY_BITS + 1,
        ("length", "repeats"),
        smallest=(1, 1),
        largest=(10, MOST_REPEATS),
        easiest=(1, 1),
        least=(1, 1),
        generate=repeat_copy,
        marks=_repeat_copy_marks,
    ),
    "associative-recall": Task(
        ITEM_BITS + 2,
        ITEM_BITS,
        ("items",),
        smallest=(2,),
        largest=(6,),
        easiest=(2,),
        least=(2,),
        generate=associative_recall,
        marks=_associative_recall_marks,
    ),
    "ngrams": Task(
        1,
        1,
        ("bits", "context"),
        smallest=(200, CONTEXT_BITS),
        largest=(200, CONTEXT_BITS),
        easiest=(100, 1),
        least=(1, 1),
        generate=ngrams,
        marks=_no_marks,
    ),
    "priority-sort": Task(
        SORT_BITS + 2,
        SORT_BITS,
        ("items",),
        smallest=(20,),
        largest=(20,),
        easiest=(2,),
        least=(1,),
        generate=priority_sort,
        marks=_delimiter_after,
    ),
}
