"""
Finds the table of counts that explains a network's predictions, from recordings of the network.

That the network counts, by how many of the last bits, and how counts become a probability: all of
it is found in the predictions, not taken from the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_lab.decipher.induction import HELD_OUT
from ntm_lab.decipher.tables.counting import Bits, contexts, divergence, tallies
from ntm_lab.decipher.tables.table import CountTable, Float64
from ntm_lab.recordings.recording import Recording

WINDOWS = range(9)
"""The numbers of last bits that are tried. Longer contexts hardly occur twice in 200 bits."""

DIVERGENCE = 0.1
"""
The largest divergence of a table from its network, as a part of what there is to explain.

That is the smaller of two divergences from the network: that of a uniform guess, and that of the
best constant for each context. The second one is small for a network that looks at the last bits
but counts nothing.
"""

FEWEST_BITS = 0.1
"""If there is less to explain, in bits a sequence, the outputs hardly vary."""

ROUNDS, POINTS = 8, 9
"""A grid of this many points a side is searched, and made finer this many times."""


@dataclass(frozen=True)
class Divergence:
    """How far a network's predictions are from others', in bits a sequence, in a mean over some."""

    sequences: int
    steps: float
    """Steps of a sequence in the mean."""
    table: float
    uniform: float
    """The divergence of a guess of one half."""
    constant: float
    """The divergence of the best constant for each context, which counts nothing."""

    @property
    def share(self) -> float:
        """The table's divergence as a part of what there is to explain."""
        return self.table / max(min(self.uniform, self.constant), FEWEST_BITS)


@dataclass(frozen=True)
class TableCandidate:
    """A table of counts, or why there is none."""

    table: CountTable | None
    reason: str
    divergence: Divergence | None = None
    """On recordings that the table was not fitted to; None if no table was tried."""
    by_window: tuple[float, ...] = ()
    """The divergence of the best table for each of `WINDOWS`, on the same recordings."""


def induce_table(recordings: Sequence[Recording]) -> TableCandidate:
    """
    Find the table of counts by which a network predicts bits.

    Only inputs and outputs are used, neither the task's name nor its targets. There must be at
    least `HELD_OUT` recordings.
    """
    first = recordings[0]
    if not (first.model.read_heads and first.model.write_heads):
        return TableCandidate(None, "the network has no heads and no memory")
    widths = (first.inputs.shape[1], first.outputs.shape[1])
    if widths != (1, 1):
        reason = f"tables are of single bits, and the network has {widths[0]} inputs"
        return TableCandidate(None, f"{reason} and {widths[1]} outputs")
    if not all(np.isin(each.inputs, (0, 1)).all() for each in recordings):
        return TableCandidate(None, "tables are of bits, and the inputs are other numbers")
    bits = Bits.of(recordings)
    rows = np.arange(len(recordings))
    held = (rows + 1) % HELD_OUT == 0
    learned, kept = bits.some(rows[~held]), bits.some(rows[held])
    tables = [_fitted(first.model.name, learned, window) for window in WINDOWS]
    found = [measured(table, kept, learned) for table in tables]
    best = min(WINDOWS, key=lambda window: found[window].table)
    judged = found[best]
    by_window = tuple(each.table for each in found)
    if min(judged.uniform, judged.constant) < FEWEST_BITS:
        return TableCandidate(None, "the predictions hardly vary", judged, by_window)
    reason = (
        f"a table of counts by the last {best} bits is {judged.table:.2f} bits a sequence from the "
        f"network, {judged.share:.1%} of what there is to explain"
    )
    if judged.share > DIVERGENCE:
        reason += f", and {DIVERGENCE:.0%} are allowed"
    return TableCandidate(
        tables[best] if judged.share <= DIVERGENCE else None, reason, judged, by_window
    )


def measured(table: CountTable, bits: Bits, learned: Bits) -> Divergence:
    """
    How far the network of `bits` is from a table. The constants of the contexts are those of
    `learned`.
    """
    known = contexts(bits, table.window)
    guesses = {
        "table": table.probabilities(tallies(bits, table.window)),
        "uniform": np.full(known.shape, 0.5),
        "constant": _constants(learned, table.window)[known],
    }
    sums = {
        name: float(divergence(bits.outputs, guess)[bits.asked].sum() / len(known))
        for name, guess in guesses.items()
    }
    return Divergence(len(known), float(bits.asked.sum() / len(known)), **sums)


def _constants(bits: Bits, window: int) -> Float64:
    """[contexts + 1]: the mean prediction after each context, and last that before there is one."""
    known = contexts(bits, window)[bits.asked]
    said = bits.outputs[bits.asked]
    number = np.bincount(known + 1, minlength=2**window + 1)
    total = np.bincount(known + 1, said, minlength=2**window + 1)
    mean = np.where(number > 0, total / np.maximum(number, 1), said.mean())
    return np.roll(mean, -1)


def _fitted(model: str, bits: Bits, window: int) -> CountTable:
    """The table of this window with the constants that are nearest to the network."""
    known = (contexts(bits, window) >= 0) & bits.asked
    counts = tallies(bits, window)[known]
    # A pair of counts as one number, because numpy finds unique pairs slowly.
    base = bits.inputs.shape[1] + 1
    pairs, index = np.unique(counts @ (base, 1), return_inverse=True)
    cells = np.stack([pairs // base, pairs % base], 1)
    number = np.bincount(index)
    said = np.bincount(index, bits.outputs[known])

    def cost(zeros: float, ones: float) -> float:
        guess = CountTable(model, window, zeros, ones).probabilities(cells)
        return -float((said * np.log(guess) + (number - said) * np.log(1 - guess)).sum())

    centre, width = np.zeros(2), np.log(32.0)
    for _ in range(ROUNDS):
        steps = np.linspace(-width, width, POINTS)
        tried = [(a, b) for a in centre[0] + steps for b in centre[1] + steps]
        centre = np.array(min(tried, key=lambda each: cost(*np.exp(each))))
        width /= 3
    zeros, ones = (round(float(each), 4) for each in np.exp(centre))
    return CountTable(model, window, zeros, ones)
