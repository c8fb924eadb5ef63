"""Dynamic N-grams (section 4.4): predict the next bit of a source whose law is new each time."""

from __future__ import annotations

import numpy as np

from ntm_tasks.task import Batch, Size, Task

CONTEXT_BITS = 5
"""Bits that decide the law of the next one: a table of 6-grams."""


def ngrams(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """
    Predict the next bit of a source whose law is new in every sequence; size (bits, context).

    Each sequence has its own table: for each of the 2**context contexts of `context` bits (five in
    the paper), the probability that a 1 follows, from Beta(1/2, 1/2). The first `context` bits are
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


TASK = Task(
    "ngrams",
    1,
    1,
    ("bits", "context"),
    smallest=(200, CONTEXT_BITS),
    largest=(200, CONTEXT_BITS),
    easiest=(100, 1),
    least=(1, 1),
    generate=ngrams,
    longer=((400, CONTEXT_BITS), (800, CONTEXT_BITS)),
)
