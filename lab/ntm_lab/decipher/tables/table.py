"""A table of counts by the last bits, as a program: as pseudo-code, as Python, and run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CountTable:
    """
    Predicts the next bit from the numbers of zeros and ones that followed the same last bits.

    A context is the last `window` bits. Its two counts begin at 0. The probability of a 1 is
    (N1 + `ones`) / (N0 + N1 + `zeros` + `ones`). Before there is a context, the counts are 0.
    """

    model: str
    """The name of the model that the table was found in."""
    window: int
    """The number of bits of a context."""
    zeros: float
    ones: float

    @property
    def contexts(self) -> tuple[str, ...]:
        """The bits of every context, the oldest bit first; a context's place here is its number."""
        numbers = range(2**self.window)
        return tuple(f"{number:0{self.window}b}" for number in numbers) if self.window else ("",)

    def probabilities(self, counts: npt.NDArray[np.generic]) -> Float64:
        """The probability [...] of a 1, from counts [..., 2] of zeros and ones."""
        found = np.asarray(counts, np.float64)
        result: Float64 = (found[..., 1] + self.ones) / (found.sum(-1) + self.zeros + self.ones)
        return result


class TableMachine:
    """
    Runs a table from its first step on.

    `counts` [contexts, 2] may be changed between steps, to find out the consequences. They need not
    be whole numbers.
    """

    def __init__(self, table: CountTable) -> None:
        self.table = table
        self.counts = np.zeros((2**table.window, 2))
        self.context: int | None = None if table.window else 0
        """The number of the context that the last steps showed; None before there is one."""
        self._bits = 0
        self._steps = 0

    def step(self, x: Float32) -> float:
        """Make one step: from an input [1] to the probability that the next one is 1."""
        bit = int(x[0] > 0.5)
        if self.context is not None:
            self.counts[self.context, bit] += 1
        self._bits = (2 * self._bits + bit) % 2**self.table.window
        self._steps += 1
        if self._steps < self.table.window:
            return float(self.table.probabilities(np.zeros(2)))
        self.context = self._bits
        return float(self.table.probabilities(self.counts[self.context]))

    def run(self, inputs: Float32) -> Float32:
        """Make T steps: from inputs [T, 1] to probabilities [T, 1]."""
        return np.array([[self.step(x)] for x in inputs], np.float32)


def formula(table: CountTable) -> str:
    """How counts become the probability of a 1, in a line."""
    zeros, ones = table.zeros, table.ones
    return f"(N1 + {ones:.3f}) / (N0 + N1 + {zeros + ones:.3f})"


def listing(table: CountTable) -> tuple[str, ...]:
    """The table as pseudo-code."""
    return (
        "start with N0 = N1 = 0 for each context",
        "at each step:",
        "    if there is a context: add 1 to its N1 if the input is 1, else to its N0",
        f"    context = the last {table.window} inputs",
        f"    emit {formula(table)} of the context",
    )


def source(table: CountTable) -> str:
    """
    The text of Python that defines `run(inputs)`, which yields a probability for each bit.

    The text needs nothing but Python, and computes what `TableMachine` computes.
    """
    return f'''\
"""What {table.model} does: a table of counts by the last {table.window} bits."""

WINDOW = {table.window}
ZEROS, ONES = {table.zeros!r}, {table.ones!r}


def run(inputs):
    """Yield the probability that the next bit is 1, for each row of one bit."""
    counts, last = {{}}, []
    for row in inputs:
        bit = int(row[0] > 0.5)
        if len(last) == WINDOW:
            counts.setdefault(tuple(last), [0, 0])[bit] += 1
        last = [*last, bit][-WINDOW:] if WINDOW else []
        known = counts.get(tuple(last), [0, 0])
        yield (known[1] + ONES) / (sum(known) + ZEROS + ONES)
'''
