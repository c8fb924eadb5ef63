"""
The memory and the heads of several sessions at once, with the paper's equations 2 to 9.

Shapes: B sessions, R read and W write heads (H = R + W, read heads first), N locations of width M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32, Memory

F = TypeVar("F", np.float32, np.float64)

NORM_EPSILON = 1e-6
"""Added under the root of a norm, as the networks do."""

WEIGHTING_EPSILON = 1e-12
"""Added to a weighting before its logarithm, as the networks do."""


@dataclass(frozen=True, eq=False)
class Actions:
    """What the heads do in one step."""

    key: Float32
    """[B, H, M]"""
    strength: Float32
    """[B, H, 1]"""
    gate: Float32
    """[B, H, 1]"""
    shift: Float32
    """[B, H, 3], over the shifts -1, 0, +1"""
    sharpening: Float32
    """[B, H, 1]"""
    erase: Float32
    """[B, W, M]"""
    add: Float32
    """[B, W, M]"""


class SoftMemory:
    """The state of B sessions. Its arrays may be changed between steps."""

    def __init__(self, start: Memory, sessions: int) -> None:
        """Let every session start from the same memory and weightings, with empty read vectors."""
        heads = np.concatenate([start.read_weightings, start.write_weightings])
        self.memory: Float32 = np.repeat(start.memory[None].astype(np.float32), sessions, 0)
        """[B, N, M]"""
        self.weightings: Float32 = np.repeat(heads[None].astype(np.float32), sessions, 0)
        """[B, H, N]"""
        self.read_heads = len(start.read_weightings)
        width = start.memory.shape[1]
        self.reads: Float32 = np.zeros((sessions, self.read_heads, width), np.float32)
        """[B, R, M]: what each read head read in the step before."""

    def step(self, actions: Actions) -> None:
        """Let the heads move and read, then erase and add."""
        keys = actions.key * (actions.strength / _lengths(actions.key))
        content = softmax(keys @ (self.memory / _lengths(self.memory)).transpose(0, 2, 1))
        started = self.weightings + actions.gate * (content - self.weightings)
        backward, stay, forward = np.split(actions.shift, 3, 2)
        moved = backward * np.roll(started, -1, 2) + stay * started
        moved = moved + forward * np.roll(started, 1, 2)
        self.weightings = softmax(actions.sharpening * np.log(moved + WEIGHTING_EPSILON))
        self.reads = self.weightings[:, : self.read_heads] @ self.memory
        writing = self.weightings[:, self.read_heads :]
        for head in range(writing.shape[1]):
            erased = writing[:, head, :, None] * actions.erase[:, head, None, :]
            self.memory = self.memory * (1 - erased)
        self.memory = self.memory + writing.transpose(0, 2, 1) @ actions.add


def _lengths(vectors: Float32) -> Float32:
    """[B, K, 1]: the length of each vector of [B, K, M]."""
    lengths: Float32 = np.sqrt((vectors**2).sum(axis=2, keepdims=True) + np.float32(NORM_EPSILON))
    return lengths


def softmax(logits: npt.NDArray[F]) -> npt.NDArray[F]:
    """[B, K, N]: shares of `logits` [B, K, N] that add up to 1 along the last axis."""
    powers = np.exp(logits - logits.max(2, keepdims=True))
    shares: npt.NDArray[F] = powers / powers.sum(2, keepdims=True)
    return shares
