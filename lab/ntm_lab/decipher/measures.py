"""Measures a share, bits or a fit from head traces, for each head or each pair of heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32
from ntm_lab.recordings.instructions import Instruction, instructions
from ntm_lab.recordings.recording import READ_WEIGHTING, WRITE_WEIGHTING, Recording

Places = npt.NDArray[np.intp]
Hits = npt.NDArray[np.bool_]

DELAYS = (0, 1)
"""Steps from a read to the output that it serves."""


@dataclass(frozen=True)
class Measure:
    """A claim of the paper, the measure that tests it, and the result for each head."""

    name: str
    paper: str
    """The paper's claim."""
    definition: str
    unit: str
    """"share" of 1, "bits", or "R²"."""
    values: Mapping[str, float]
    """The result for each head or pair of heads, by its name."""
    baseline: Mapping[str, float] | None = None
    """The results that chance would give, by the same names; None where they are obvious."""
    note: str = ""
    """A further observation; empty if there is none."""

    @property
    def best(self) -> tuple[str, float]:
        """The head with the largest value above its baseline, and the value."""
        base = self.baseline or {}
        name = max(self.values, key=lambda head: self.values[head] - base.get(head, 0))
        return name, self.values[name]


@dataclass(frozen=True, eq=False)
class HeadLocations:
    """The location of each head at each step of a recording: that of its largest weight."""

    recording: Recording
    reads: Places
    """[T, read heads]"""
    writes: Places
    """[T, write heads]"""

    @classmethod
    def of(cls, recording: Recording) -> HeadLocations:
        """Find the locations in a recording, whose network must have heads."""
        reads, writes = (recording.traces[name] for name in (READ_WEIGHTING, WRITE_WEIGHTING))
        return cls(recording, reads.argmax(2), writes.argmax(2))

    @cached_property
    def instructions(self) -> list[list[Instruction]]:
        """[step][head], the read heads first."""
        return instructions(self.recording)

    @cached_property
    def answer(self) -> npt.NDArray[np.intp]:
        """The indices of the steps whose outputs count."""
        assert self.recording.mask is not None
        return np.flatnonzero(self.recording.mask)

    @cached_property
    def due(self) -> Float32:
        """[steps that count, output width]: the target of these steps."""
        assert self.recording.target is not None
        due: Float32 = self.recording.target[self.answer]
        return due

    @property
    def shown(self) -> int:
        """The number of vectors or items that the sequence shows, the first number of its size."""
        assert self.recording.size is not None
        return self.recording.size[0]


def of_pairs(
    heads: Sequence[HeadLocations],
    name: str,
    paper: str,
    definition: str,
    hits: Callable[[HeadLocations, int, int, int], Hits],
    delays: Sequence[int] = DELAYS,
    note: str = "",
) -> Measure:
    """The share of hits for each pair of a read head and a write head, at the better delay."""
    reads, writes = heads[0].reads.shape[1], heads[0].writes.shape[1]
    values = {}
    for read, write in product(range(reads), range(writes)):
        shares = {
            delay: _share([hits(one, read, write, delay) for one in heads]) for delay in delays
        }
        delay = max(shares, key=lambda each: shares[each])
        values[f"read head {read + 1}{_later(delay)}, write head {write + 1}"] = shares[delay]
    return Measure(name, paper, definition, "share", values, note=note)


def of_reads(
    heads: Sequence[HeadLocations],
    name: str,
    paper: str,
    definition: str,
    hits: Callable[[HeadLocations, int, int], Hits],
    delays: Sequence[int] = DELAYS,
) -> Measure:
    """The share of hits for each read head, at the better delay."""
    values = {}
    for read in range(heads[0].reads.shape[1]):
        shares = {delay: _share([hits(one, read, delay) for one in heads]) for delay in delays}
        delay = max(shares, key=lambda each: shares[each])
        values[f"read head {read + 1}{_later(delay)}"] = shares[delay]
    return Measure(name, paper, definition, "share", values)


def _share(hits: Sequence[Hits]) -> float:
    every = np.concatenate(hits)
    return float(every.mean()) if every.size else 0.0


def _later(delay: int) -> str:
    return " (a step before the output)" if delay else ""


def each_head(heads: Sequence[HeadLocations]) -> Iterator[tuple[str, list[Places]]]:
    """The name of every head, and its locations [T] in each recording."""
    for head in range(heads[0].reads.shape[1]):
        yield f"read head {head + 1}", [one.reads[:, head] for one in heads]
    for head in range(heads[0].writes.shape[1]):
        yield f"write head {head + 1}", [one.writes[:, head] for one in heads]


def mutual_information(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """The mutual information in bits of two sequences of whole numbers that are equally long."""
    _, one_index = np.unique(one, return_inverse=True)
    _, other_index = np.unique(other, return_inverse=True)
    joint = np.zeros((one_index.max() + 1, other_index.max() + 1))
    np.add.at(joint, (one_index, other_index), 1)
    return entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint.ravel())


def linear_fit(x: npt.ArrayLike, places: npt.ArrayLike, locations: int) -> float:
    """
    R² of the best straight line from `x` to the places on a ring of locations.

    The ring is cut where the line fits best. The result is 0 if the places do not vary.
    """
    x, places = np.asarray(x, float), np.asarray(places)
    best = 0.0
    for cut in range(locations):
        y = (places - cut) % locations
        if y.std() > 0:
            best = max(best, float(np.corrcoef(x, y)[0, 1] ** 2))
    return best


def entropy(counts: npt.ArrayLike) -> float:
    """The entropy in bits of the distribution that has these counts."""
    share = np.asarray(counts, float)
    share = share[share > 0] / share.sum()
    return float(-(share * np.log2(share)).sum())
