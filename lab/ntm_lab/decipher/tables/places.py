"""
Finds where in memory a network keeps the counts of each context, and what is added to them.

A network is said to read the counts of a context if its prediction is a linear function of what a
head read: the log-odds are v r + b, with v and b learned for each context. What the head read is a
sum over locations, r = sum_i w(i) M(i), and so are the log-odds, but for b. The share of a location
is how much its summand v w(i) M(i) varies together with them: the size of the covariance, as a part
of the sum over all locations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntm_lab.decipher.induction import HELD_OUT
from ntm_lab.decipher.tables.counting import Bits, Integers, contexts, tallies
from ntm_lab.decipher.tables.table import CountTable, Float64
from ntm_lab.recordings.contents import contents, trace
from ntm_lab.recordings.recording import READ_WEIGHTING, Recording

DELAYS = (0, 1)
"""Steps from a read to the prediction that it serves."""

RIDGE = 1e-2
"""Added to the squares of a regression, so that what hardly varies gets no weight."""

LOCATED = 0.9
"""The counts of a context are found if at least this part of the variance is explained."""

COVERED = 0.95
"""The locations of a context are the fewest whose shares add up to this."""

LOGIT_LIMIT = 1e-6
"""Probabilities are kept at this distance from 0 and 1 before their log-odds."""

FOCUSED = 0.9
"""What is added is measured where a head had at least this much weight on one location."""

AFTER = 3
"""Steps after a read within which the counts that were read are written."""

SHOWN_COUNTS = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (4, 1), (1, 4), (5, 5))
"""The counts (N0, N1) for which the report has what is added."""


@dataclass(frozen=True)
class Place:
    """Where a network keeps the counts of one context."""

    context: str
    explained: float
    """The part of the variance of the log-odds that what was read explains, in recordings that the
    linear function was not learned from."""
    locations: tuple[tuple[int, float], ...]
    """The locations and their shares, the largest first. Empty if the counts were not found."""


@dataclass(frozen=True)
class Added:
    """What is added to the log-odds that memory holds for a context when its next bit is known."""

    counts: tuple[int, int]
    """The counts (N0, N1) before."""
    cases: int
    by_zero: float
    by_one: float
    counted_zero: float
    """What a count of one more 0 adds, by the formula of the table."""
    counted_one: float


@dataclass(frozen=True, eq=False)
class Places:
    """Where and how a network keeps a table."""

    read_head: int
    delay: int
    """Steps from the read to the prediction."""
    places: tuple[Place, ...]
    """One for each context, by its number."""
    shares: Float64
    """[contexts, N]: the share of each location; zeros if a context's counts were not found."""
    written: tuple[float, ...]
    """
    How much the log-odds in memory change at the step of the read and at each of the next `AFTER`,
    as a part of the sum.
    """
    added: tuple[Added, ...]

    @property
    def located(self) -> float:
        """The part of the contexts whose counts were found."""
        return sum(bool(each.locations) for each in self.places) / len(self.places)

    def locations(self, context: int) -> npt.NDArray[np.intp]:
        """The locations of a context, by its number."""
        return np.array([location for location, _ in self.places[context].locations], np.intp)


def find_places(table: CountTable, recordings: Sequence[Recording]) -> Places:
    """
    Find where in memory the counts of a table are, from recordings of its network.

    Raises:
        InvalidRequest: the network does not trace its writes.
    """
    heads = recordings[0].model.read_heads
    ways = [_Reads(table, recordings, head, delay) for head in range(heads) for delay in DELAYS]
    return max(ways, key=lambda each: float(np.mean(each.explained))).places()


class _Reads:
    """What one read head read some steps before each prediction, and what follows from it."""

    def __init__(
        self, table: CountTable, recordings: Sequence[Recording], head: int, delay: int
    ) -> None:
        self._table, self._recordings = table, recordings
        self._head, self._delay = head, delay
        bits = Bits.of(recordings)
        self._inputs = bits.inputs
        self._contexts = contexts(bits, table.window)
        self._tallies = tallies(bits, table.window)
        self._asked = bits.asked
        said = np.clip(bits.outputs, LOGIT_LIMIT, 1 - LOGIT_LIMIT)
        self._logits = np.log(said / (1 - said))
        self._read = _padded([trace(each, "read_vector")[:, head] for each in recordings])
        self._weighting = _padded([trace(each, READ_WEIGHTING)[:, head] for each in recordings])
        self._readouts: list[Float64] = []
        """For each context: v [M]."""
        self.explained: list[float] = []
        """For each context: the explained part of the variance in recordings kept back."""
        for context in range(2**table.window):
            self._learn(context)

    def _steps(self, context: int) -> tuple[Integers, Integers]:
        """The sequences and steps in which a context is predicted from."""
        there = (self._contexts == context) & self._asked
        there[:, : self._delay] = False
        rows, steps = np.nonzero(there)
        return rows, steps

    def _learn(self, context: int) -> None:
        rows, steps = self._steps(context)
        held = (rows + 1) % HELD_OUT == 0
        read = self._read[rows, steps - self._delay]
        logits = self._logits[rows, steps]
        if held.all() or not held.any():
            self._readouts.append(np.zeros(read.shape[1]))
            self.explained.append(0.0)
            return
        means = read[~held].mean(0), logits[~held].mean()
        x, y = read[~held] - means[0], logits[~held] - means[1]
        readout = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
        left = logits[held] - means[1] - (read[held] - means[0]) @ readout
        varied = float(((logits[held] - means[1]) ** 2).sum())
        self._readouts.append(readout)
        self.explained.append(1 - float((left**2).sum()) / varied if varied else 0.0)

    def places(self) -> Places:
        """The places of all contexts."""
        memories = _padded([contents(each) for each in self._recordings])
        shares = np.array([self._shares(each, memories) for each in range(len(self.explained))])
        named = []
        for context, explained in enumerate(self.explained):
            order = np.argsort(-shares[context])
            number = int(np.searchsorted(np.cumsum(shares[context][order]), COVERED)) + 1
            found = [(int(each), float(shares[context, each])) for each in order[:number]]
            locations = tuple(found) if explained >= LOCATED else ()
            named.append(Place(self._table.contexts[context], explained, locations))
        written, added = self._writes(memories)
        return Places(self._head, self._delay, tuple(named), shares, written, added)

    def _shares(self, context: int, memories: Float64) -> Float64:
        """[N]: the share of each location in what is predicted from a context."""
        if self.explained[context] < LOCATED:
            return np.zeros(memories.shape[2])
        rows, steps = self._steps(context)
        before = steps - self._delay
        parts = self._weighting[rows, before] * (memories[rows, before] @ self._readouts[context])
        logits = self._logits[rows, steps] - self._logits[rows, steps].mean()
        together = np.abs((parts - parts.mean(0)).T @ logits)
        found: Float64 = together / together.sum()
        return found

    def _writes(self, memories: Float64) -> tuple[tuple[float, ...], tuple[Added, ...]]:
        """When what was read is written, and what is then added."""
        changes, counts, followers = [], [], []
        for context, explained in enumerate(self.explained):
            if explained < LOCATED:
                continue
            rows, steps = self._steps(context)
            # The counts are not read again before they are written, and the sequence goes on.
            alone = steps + AFTER < self._inputs.shape[1]
            alone &= self._weighting[rows, steps - self._delay].max(1) >= FOCUSED
            for later in range(1, AFTER + 1):
                following = np.minimum(steps + later, self._inputs.shape[1] - 1)
                alone &= self._contexts[rows, following] != context
                alone &= self._asked[rows, following]
            rows, steps = rows[alone], steps[alone]
            before = steps - self._delay
            held = [
                np.einsum(
                    "sn,sn->s",
                    self._weighting[rows, before],
                    memories[rows, steps + later] @ self._readouts[context],
                )
                for later in range(AFTER + 2)
            ]
            changes.append(np.diff(held, axis=0))
            counts.append(self._tallies[rows, steps])
            followers.append(self._inputs[rows, steps + 1])
        if not changes:
            return (), ()
        change = np.concatenate(changes, 1)
        sizes = np.abs(change).mean(1)
        written = tuple(float(each) for each in sizes / sizes.sum())
        tally, follower = np.concatenate(counts), np.concatenate(followers)
        every = (self._added(each, tally, follower, change.sum(0)) for each in SHOWN_COUNTS)
        return written, tuple(each for each in every if each)

    def _added(
        self, counts: tuple[int, int], tally: Integers, follower: Integers, change: Float64
    ) -> Added | None:
        there = (tally == counts).all(1)
        by = [change[there & (follower == bit)] for bit in (0, 1)]
        if not (len(by[0]) and len(by[1])):
            return None
        zeros, ones = counts[0] + self._table.zeros, counts[1] + self._table.ones
        return Added(
            counts,
            len(by[0]) + len(by[1]),
            by_zero=float(by[0].mean()),
            by_one=float(by[1].mean()),
            counted_zero=float(np.log(zeros / (zeros + 1))),
            counted_one=float(np.log((ones + 1) / ones)),
        )


def _padded(arrays: Sequence[npt.NDArray[np.float32]]) -> Float64:
    """[S, longest T, ...]: arrays [T, ...] of different lengths, filled up with zeros."""
    longest = max(len(each) for each in arrays)
    found = np.zeros((len(arrays), longest, *arrays[0].shape[1:]))
    for row, each in enumerate(arrays):
        found[row, : len(each)] = each
    return found
