"""
Finds the instruction of each head at each step: where it moved and how, and what it did there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32
from ntm_lab.recordings.contents import contents, memory_before, trace
from ntm_lab.recordings.recording import ADD_VECTOR, ERASE_VECTOR, Recording

T = TypeVar("T", bound=np.generic)

HeadKind = Literal["read", "write"]
Move = Literal["hold", "shift", "jump"]
Access = Literal["read", "write", "overwrite", "idle"]

MAJORITY = 0.5
"""A weighting is at a location that has more than half of it; otherwise it is spread."""

BLANK = 0.05
"""A change of a location counts as none up to this part of the largest change in the recording."""

NORM_EPSILON = 1e-6
"""Added under the root of a norm, as networks do, because a location of zeros has no direction."""


@dataclass(frozen=True)
class Instruction:
    """The instruction that one head carried out in one step."""

    kind: HeadKind
    head: int
    """The index of the head among the heads of its kind."""
    move: Move
    """
    How the head came to `location`: from where it was, or by content from a location like its key.
    """
    access: Access
    """What the head did there. Idle: it read what was never written, or changed nothing."""
    previous: int
    """The location of its largest weight before the step."""
    location: int
    """The location of its largest weight after the step."""
    target: int
    """The location that it shifted from: one with weight before, or one found by content."""
    shift: int
    """The distance from `target` to `location`, positive towards higher locations."""
    similarity: float
    """The cosine of its key and the content of `target`."""
    focus: float
    """The weight of `location`, from 0 to 1."""
    erase: float
    """The mean of the erase vector, from 0 to 1; 0 for a read head."""
    add: float
    """The mean absolute value of the add vector; 0 for a read head."""
    confidence: float
    """The part of the weight at `location` that came in this way, times the focus; from 0 to 1."""

    @property
    def spread(self) -> bool:
        """
        Whether no location has more than half of the weight, so that the head is at no single
        place.
        """
        return self.focus <= MAJORITY

    def words(self) -> str:
        """
        The instruction in words, such as "content jump to location 17, then shift +1, read; focus
        0.99".
        """
        if self.move == "jump":
            moved = f"content jump to location {self.target}"
            if self.shift:
                moved += f", then shift {self.shift:+d}"
        elif self.move == "shift":
            moved = f"shift {self.shift:+d} to location {self.location}"
        else:
            moved = f"hold location {self.location}"
        where = "spread, most of all by " if self.spread else ""
        return f"{where}{moved}, {self.access}; focus {self.focus:.2f}"


def instructions(recording: Recording) -> list[list[Instruction]]:
    """
    The instructions of a recording: [step][head], the read heads first.

    Equations 5 to 9 move weight between locations. Weight can reach a location from every other
    one: by content or by the last weighting, and then by a shift. The instruction is the way that
    carried most weight to the location with the largest weight.

    Raises:
        InvalidRequest: the network has no memory, or lacks a trace that this needs.
    """
    memories = contents(recording)
    before = memory_before(recording)
    changes = memories - memories[0]
    nothing = BLANK * float(_lengths(changes).max())
    read_heads = _heads(recording, "read", memories, changes, before.read_weightings, nothing)
    write_heads = _heads(recording, "write", memories, changes, before.write_weightings, nothing)
    return [[*reads, *writes] for reads, writes in zip(read_heads, write_heads, strict=True)]


def _heads(
    recording: Recording,
    kind: HeadKind,
    memories: Float32,
    changes: Float32,
    first: Float32,
    nothing: float,
) -> list[list[Instruction]]:
    """
    The instructions of the heads of one kind, [step][head].

    `memories` [T + 1, N, M] are before the first step and after each, `changes` how far they are
    from the first one, and `first` [heads, N] the weightings before the first step.
    """
    weightings = trace(recording, f"{kind}_weighting")
    before = np.concatenate([first[None], weightings[:-1]])
    similarity = _cosines(memories[:-1], trace(recording, f"{kind}_key"))
    paths = _Paths.of_most_weight(
        similarity,
        trace(recording, f"{kind}_strength"),
        trace(recording, f"{kind}_gate"),
        before,
        trace(recording, f"{kind}_shift"),
        weightings.argmax(2),
    )
    focus = _at(weightings, paths.location)
    if kind == "read":
        accesses = _readings(weightings, changes[:-1], nothing)
        erase = add = np.zeros_like(focus)
    else:
        accesses = _writings(paths.location, memories, changes[:-1], nothing)
        erase = trace(recording, ERASE_VECTOR).mean(2)
        add = np.abs(trace(recording, ADD_VECTOR)).mean(2)
    columns = {
        "move": paths.moves(),
        "access": accesses,
        "previous": before.argmax(2),
        "location": paths.location,
        "target": paths.target,
        "shift": paths.shift,
        "similarity": _at(similarity, paths.target),
        "focus": focus,
        "erase": erase,
        "add": add,
        "confidence": paths.share * focus,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        [
            Instruction(kind, head, **dict(zip(columns, facts, strict=True)))
            for head, facts in enumerate(zip(*row, strict=True))
        ]
        for row in rows
    ]


@dataclass(frozen=True)
class _Paths:
    """The ways that carried most of the weight that arrived where heads are, each [T, heads]."""

    location: npt.NDArray[np.intp]
    by_content: npt.NDArray[np.bool_]
    target: npt.NDArray[np.intp]
    shift: npt.NDArray[np.intp]
    share: Float32
    """The part of all weight at the location that came in this way."""

    @classmethod
    def of_most_weight(
        cls,
        similarity: Float32,
        strengths: Float32,
        gates: Float32,
        before: Float32,
        shifts: Float32,
        location: npt.NDArray[np.intp],
    ) -> _Paths:
        """
        Find the ways of all heads: `similarity` and `before` [T, heads, N], `strengths` and `gates`
        [T, heads, 1], `shifts` [T, heads, S], whose middle element is the shift 0, and `location`
        [T, heads].
        """
        content = np.exp(strengths * (similarity - similarity.max(2, keepdims=True)))
        content /= content.sum(2, keepdims=True)
        width = shifts.shape[2]
        offsets = np.arange(width) - width // 2
        sources = (location[:, :, None] - offsets) % similarity.shape[2]
        # [T, heads, 2 S]: the weight that each way brings, by content and from the last weighting.
        found = gates * np.take_along_axis(content, sources, 2)
        kept = (1 - gates) * np.take_along_axis(before, sources, 2)
        ways = np.concatenate([found * shifts, kept * shifts], 2)
        best = ways.argmax(2)
        index = best % width
        return cls(
            location,
            by_content=best < width,
            target=_at(sources, index),
            shift=offsets[index],
            share=_at(ways, best) / np.maximum(ways.sum(2), np.finfo(np.float32).tiny),
        )

    def moves(self) -> npt.NDArray[np.str_]:
        """How each head came to its location, a `Move`."""
        return np.where(self.by_content, "jump", np.where(self.shift != 0, "shift", "hold"))


def _at(values: npt.NDArray[T], index: npt.NDArray[np.intp]) -> npt.NDArray[T]:
    """Of `values` [T, heads, n], those with this index [T, heads]."""
    return np.take_along_axis(values, index[:, :, None], 2)[:, :, 0]


def _cosines(memories: Float32, keys: Float32) -> Float32:
    """How alike keys [T, heads, M] are to the locations of memories [T, N, M]: [T, heads, N]."""
    norms = np.sqrt(np.einsum("tnm,tnm->tn", memories, memories) + NORM_EPSILON)
    key_norms = np.sqrt((keys**2).sum(2) + NORM_EPSILON)
    scales = key_norms[:, :, None] * norms[:, None, :]
    cosines: Float32 = keys @ memories.transpose(0, 2, 1) / scales
    return cosines


def _lengths(vectors: Float32) -> Float32:
    lengths: Float32 = np.sqrt(np.einsum("...m,...m->...", vectors, vectors))
    return lengths


def _readings(weightings: Float32, changes: Float32, nothing: float) -> npt.NDArray[np.str_]:
    """
    What read heads do, an `Access` [T, heads]: `weightings` [T, heads, N], and the `changes`
    [T, N, M] of memory since the first step.
    """
    return np.where(_lengths(weightings @ changes) > nothing, "read", "idle")


def _writings(
    location: npt.NDArray[np.intp], memories: Float32, changes: Float32, nothing: float
) -> npt.NDArray[np.str_]:
    """
    What write heads do to their `location`, an `Access` [T, heads]: `memories` [T + 1, N, M], and
    the `changes` [T, N, M] of memory since the first step.
    """
    step = np.arange(len(location))[:, None]
    written = _lengths(memories[step + 1, location] - memories[step, location]) > nothing
    held = _lengths(changes[step, location]) > nothing
    return np.where(written, np.where(held, "overwrite", "write"), "idle")
