"""
Finds the instruction of each head at each step: where it moved and how, and what it did there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ntm_client.values import Float32
from ntm_lab.recordings.contents import contents, memory_before, trace
from ntm_lab.recordings.recording import ADD_VECTOR, ERASE_VECTOR, Recording

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
    nothing = BLANK * max(float(_lengths(memory - memories[0]).max()) for memory in memories)
    read_heads = _heads(recording, "read", memories, before.read_weightings, nothing)
    write_heads = _heads(recording, "write", memories, before.write_weightings, nothing)
    return [[*reads, *writes] for reads, writes in zip(read_heads, write_heads, strict=True)]


def _heads(
    recording: Recording,
    kind: HeadKind,
    memories: Sequence[Float32],
    first: Float32,
    nothing: float,
) -> list[list[Instruction]]:
    """The instructions of the heads of one kind, [step][head]."""
    weightings = trace(recording, f"{kind}_weighting")
    keys, strengths = trace(recording, f"{kind}_key"), trace(recording, f"{kind}_strength")
    gates, shifts = trace(recording, f"{kind}_gate"), trace(recording, f"{kind}_shift")
    previous = np.concatenate([first[None], weightings[:-1]])
    found = []
    for step, memory in enumerate(memories[:-1]):
        row = []
        for head in range(weightings.shape[1]):
            path = _Path.most_weight(
                memory,
                keys[step, head],
                float(strengths[step, head, 0]),
                float(gates[step, head, 0]),
                previous[step, head],
                shifts[step, head],
                int(weightings[step, head].argmax()),
            )
            weighting = weightings[step, head]
            if kind == "read":
                access = _reading(weighting, memories[0], memory, nothing)
            else:
                access = _writing(path.location, memories[0], memory, memories[step + 1], nothing)
            erase, add = _sizes(recording, step, head) if kind == "write" else (0.0, 0.0)
            row.append(
                _instruction(kind, head, path, access, previous[step, head], weighting, erase, add)
            )
        found.append(row)
    return found


@dataclass(frozen=True)
class _Path:
    """The way that carried most of the weight that arrived at a location."""

    location: int
    by_content: bool
    target: int
    shift: int
    share: float
    """The part of all weight at the location that came in this way."""
    similarity: float

    @classmethod
    def most_weight(
        cls,
        memory: Float32,
        key: Float32,
        strength: float,
        gate: float,
        previous: Float32,
        shift: Float32,
        location: int,
    ) -> _Path:
        """
        Find the way of one head: `memory` [N, M], `key` [M], `previous` [N], and `shift` [S], whose
        middle element is the shift 0.
        """
        similarity = _cosines(memory, key)
        content = np.exp(strength * (similarity - similarity.max()))
        content /= content.sum()
        offsets = np.arange(len(shift)) - len(shift) // 2
        sources = (location - offsets) % len(memory)
        # [2, S]: the weight that each way brings, by content and from the last weighting.
        ways = np.stack([gate * content[sources], (1 - gate) * previous[sources]]) * shift
        kind, index = np.unravel_index(ways.argmax(), ways.shape)
        return cls(
            location,
            by_content=bool(kind == 0),
            target=int(sources[index]),
            shift=int(offsets[index]),
            share=float(ways[kind, index] / max(ways.sum(), np.finfo(np.float32).tiny)),
            similarity=float(similarity[sources[index]]),
        )


def _cosines(memory: Float32, key: Float32) -> Float32:
    norms = np.sqrt((memory**2).sum(1) + NORM_EPSILON)
    cosines: Float32 = memory @ key / (norms * np.sqrt((key**2).sum() + NORM_EPSILON))
    return cosines


def _lengths(vectors: Float32) -> Float32:
    lengths: Float32 = np.linalg.norm(vectors, axis=-1)
    return lengths


def _reading(weighting: Float32, first: Float32, memory: Float32, nothing: float) -> Access:
    """What a read head with this weighting [N] does. `first` is the memory [N, M] at the start."""
    return "read" if _lengths(weighting @ (memory - first)) > nothing else "idle"


def _writing(
    location: int, first: Float32, before: Float32, after: Float32, nothing: float
) -> Access:
    """
    What a write head did to a location, given the memory [N, M] at the start, before and after.
    """
    if _lengths(after[location] - before[location]) <= nothing:
        return "idle"
    held = _lengths(before[location] - first[location]) > nothing
    return "overwrite" if held else "write"


def _sizes(recording: Recording, step: int, head: int) -> tuple[float, float]:
    """Mean of a write head's erase vector, and mean size of its add vector's values."""
    erase = trace(recording, ERASE_VECTOR)[step, head]
    add = trace(recording, ADD_VECTOR)[step, head]
    return float(erase.mean()), float(np.abs(add).mean())


def _instruction(
    kind: HeadKind,
    head: int,
    path: _Path,
    access: Access,
    previous: Float32,
    weighting: Float32,
    erase: float,
    add: float,
) -> Instruction:
    focus = float(weighting[path.location])
    move: Move = "jump" if path.by_content else "shift" if path.shift else "hold"
    return Instruction(
        kind=kind,
        head=head,
        move=move,
        access=access,
        previous=int(previous.argmax()),
        location=path.location,
        target=path.target,
        shift=path.shift,
        similarity=path.similarity,
        focus=focus,
        erase=erase,
        add=add,
        confidence=path.share * focus,
    )
