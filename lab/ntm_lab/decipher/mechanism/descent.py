"""Fits the layer of a mechanism to examples by gradient descent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.mechanism.model import Layer, with_one

UNITS = 256
"""The units of the layer."""

PASSES = 80
"""How often a step is drawn on average."""

LEAST_UPDATES = 1000
"""A fit to few examples has this many updates, though it draws each of them more often."""

BATCH = 512
"""Steps of sequences in an update."""

RATE = 0.006
"""The largest change of a coefficient in an update; it rises to this, and falls to 0."""

WARMING = 100
"""The updates in which the rate rises."""

SATURATED = 8.0
"""Beyond this, an activation function has reached its limit, and no difference is told."""

LEAST_VARIANCE = 1e-3
"""Added to the variance of what is known, most of which hardly varies along some directions."""


class Examples(NamedTuple):
    """E steps of a network. What is wanted is given before the activation functions."""

    known: Float32
    """[E, F]"""
    reads: Float32
    """[E, R * M]: what the read heads read in the step."""
    heads: Float32
    """[E, K]"""
    outputs: Float32
    """[E, Y]"""
    counted: Float32
    """[E, 1]: 1 in the steps whose outputs count, otherwise 0."""
    shares: Float32
    """[E]: how often a step is drawn."""


class Aim(NamedTuple):
    """What a fit aims at in each of the K columns of the heads."""

    weights: Float32
    """[K]: how much a difference counts."""
    ends: Float32
    """[K]: above this, no difference is told. Below -`SATURATED`, none is in any column."""
    decay: float
    """
    The part of a coefficient that is taken from it in an update, times the rate. Examples in which
    chance has a part ask for more.
    """


def fitted_layer(examples: Examples, aim: Aim, seed: int) -> Layer:
    """The layer that is nearest to the examples."""
    luck = np.random.default_rng(seed)
    mean, whitening = _whitening(examples.known)
    known = with_one(np.matmul(examples.known - mean, whitening, dtype=np.float32))
    running = np.cumsum(examples.shares / examples.shares.sum())
    reads = examples.reads.shape[1]
    layer = Layer(
        _drawn(luck, known.shape[1], UNITS),
        _drawn(luck, UNITS + 1, examples.heads.shape[1]),
        _drawn(luck, UNITS + reads + 1, examples.outputs.shape[1]),
    )
    descents = [_Descent(matrix) for matrix in layer]
    updates = max(LEAST_UPDATES, PASSES * len(known) // BATCH)
    for update in range(updates):
        drawn = np.searchsorted(running, luck.random(BATCH)).clip(max=len(known) - 1)
        one = known[drawn]
        units = np.tanh(one @ layer.units)
        inner = with_one(units)
        outer = np.concatenate([units, with_one(examples.reads[drawn])], 1)
        heads = _error(inner @ layer.heads, examples.heads[drawn], aim.ends) * aim.weights
        output = _error(outer @ layer.output, examples.outputs[drawn], SATURATED)
        output *= examples.counted[drawn]
        back = heads @ layer.heads[:-1].T + output @ layer.output[:UNITS].T
        rate = RATE * min((update + 1) / WARMING, (1 + np.cos(np.pi * update / updates)) / 2)
        slopes = one.T @ (back * (1 - units**2)), inner.T @ heads, outer.T @ output
        for descent, slope in zip(descents, slopes, strict=True):
            descent.update(slope / BATCH, rate, aim.decay)
    plain = whitening @ layer.units[:-1]
    return layer._replace(units=np.concatenate([plain, layer.units[-1:] - mean @ plain]))


def _error(found: Float32, wanted: Float32, ends: Float32 | float) -> Float32:
    """The difference, at most 1, and 0 where both have reached the same limit."""
    alike = (found > ends) & (wanted > ends) | (found < -SATURATED) & (wanted < -SATURATED)
    error: Float32 = np.where(alike, np.float32(0), np.clip(found - wanted, -1, 1))
    return error


def _whitening(known: Float32) -> tuple[Float32, Float32]:
    """The mean [1, F], and the matrix [F, F] after which no two columns vary together."""
    mean: Float32 = known.mean(0, keepdims=True)
    variance = np.cov((known - mean).T) + LEAST_VARIANCE * np.eye(known.shape[1])
    sizes, directions = np.linalg.eigh(variance)
    whitening: Float32 = (directions / np.sqrt(sizes)).astype(np.float32)
    return mean, whitening


def _drawn(luck: np.random.Generator, rows: int, width: int) -> Float32:
    drawn: Float32 = (luck.normal(size=(rows, width)) / np.sqrt(rows)).astype(np.float32)
    return drawn


class _Descent:
    """
    Adam in the directions in which slopes vary most: SOAP (Vyas et al., arXiv:2409.11321).

    From as many examples it comes nearer than Adam alone. What heads do depends on small
    differences of much that was read, along which plain slopes are gentle.
    """

    AVERAGED = 0.95
    """The part of the mean slope that an update keeps."""
    SQUARED = 0.99
    """The same of the mean square."""
    TURNED = 20
    """The directions are found anew after so many updates."""

    def __init__(self, matrix: Float32) -> None:
        """Fit `matrix` [A, B] in place."""
        self._matrix = matrix
        self._mean = np.zeros_like(matrix)
        self._square = np.zeros_like(matrix)
        self._sides = [np.zeros((size, size), np.float32) for size in matrix.shape]
        self._directions = self._sides
        self._updates = 0

    def update(self, slope: Float32, rate: float, decay: float) -> None:
        """Go down a slope [A, B]."""
        for side, product in zip(self._sides, (slope @ slope.T, slope.T @ slope), strict=True):
            side += (1 - self.SQUARED) * (product - side)
        if self._updates % self.TURNED == 0:
            self._directions = [np.linalg.eigh(side)[1] for side in self._sides]
        self._updates += 1
        rows, columns = self._directions
        self._mean += (1 - self.AVERAGED) * (slope - self._mean)
        turned = rows.T @ slope @ columns
        self._square += (1 - self.SQUARED) * (turned**2 - self._square)
        mean = rows.T @ self._mean @ columns / (1 - self.AVERAGED**self._updates)
        square = self._square / (1 - self.SQUARED**self._updates)
        step = mean / (np.sqrt(square) + 1e-8)
        self._matrix *= np.float32(1 - rate * decay)
        self._matrix -= np.float32(rate) * (rows @ step @ columns.T)
