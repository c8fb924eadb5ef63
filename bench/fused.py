"""
A step fused by hand: a peer of the served graph that shows what the machine can reach.

numpy's BLAS computes the matrix products. numba computes everything between them in two passes over
the memory of each session: one to address it, one to read and write it. Exponentials and logarithms
are polynomials, so that the compiler can vectorise their loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]

WIDTH, CELLS = 20, 100
"""Width of the memory and size of the LSTM of the model, which has one head of each kind."""

KEY, ERASE, ADD = 26, 52, 72
"""First columns of the write head, the erase vector and the add vector."""

_compiled = numba.njit(fastmath=True, error_model="numpy", boundscheck=False)
F = np.float32


@_compiled
def _exp(x: Any) -> Any:
    """e ** x: 2 to the nearest whole power times a polynomial of the rest."""
    x = min(max(x, F(-87)), F(88))
    n = np.floor(x * F(1.44269504) + F(0.5))
    r = x - n * F(0.693359375) + n * F(2.12194440e-4)
    p = F(1.9875691500e-4)
    for c in (F(1.3981999507e-3), F(8.3334519073e-3), F(4.1665795894e-2), F(0.16666665459), F(0.5)):
        p = p * r + c
    scale = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + F(1)) * scale


@_compiled
def _log(x: Any) -> Any:
    """The natural logarithm of a positive x: its exponent, and a polynomial of its mantissa."""
    bits = np.float32(max(x, F(1e-37))).view(np.int32)
    e = F((bits >> np.int32(23)) - np.int32(126))
    m = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)
    small = m < F(0.707106781)
    e = e - F(1) if small else e
    m = m + m - F(1) if small else m - F(1)
    p = F(7.0376836292e-2)
    for c in (
        F(-1.1514610310e-1), F(1.1676998740e-1), F(-1.2420140846e-1), F(1.4249322787e-1),
        F(-1.6668057665e-1), F(2.0000714765e-1), F(-2.4999993993e-1), F(3.3333331174e-1),
    ):  # fmt: skip
        p = p * m + c
    return p * m * m * m - F(0.5) * m * m + m + e * F(0.69314718)


@_compiled
def _sigmoid(x: Any) -> Any:
    return F(1) / (F(1) + _exp(-x))


@_compiled
def _tanh(x: Any) -> Any:
    return F(1) - F(2) / (F(1) + _exp(x + x))


@_compiled
def _softplus(x: Any) -> Any:
    return _log(F(1) + _exp(x))


@_compiled
def cells(gates: Any, cell: Any, hidden: Any) -> None:
    """Compute cell and hidden [B, C] from the gates [B, 4 C], in place."""
    for b in range(gates.shape[0]):
        for j in range(CELLS):
            kept = _sigmoid(gates[b, CELLS + j]) * cell[b, j]
            kept += _sigmoid(gates[b, j]) * _tanh(gates[b, 3 * CELLS + j])
            cell[b, j] = kept
            hidden[b, j] = _sigmoid(gates[b, 2 * CELLS + j]) * _tanh(kept)


@_compiled
def access(heads: Any, memory: Any, weighting: Any, read: Any) -> None:
    """
    Address, read and write, in place: equations 2 to 9.

    `heads` [B, 92] preactivations, `memory` [B, M, N], `weighting` [B, 2, N], `read` [B, M].
    """
    locations = memory.shape[2]
    norm = np.empty(locations, np.float32)
    similarity = np.empty((2, locations), np.float32)
    gated = np.empty(locations + 2, np.float32)
    keys = np.empty((2, WIDTH), np.float32)
    for b in range(heads.shape[0]):
        for j in range(heads.shape[1]):
            heads[b, j] = min(max(heads[b, j], F(-20)), F(20))
        for head in range(2):
            first = head * KEY
            total = F(1e-6)
            for m in range(WIDTH):
                keys[head, m] = _tanh(heads[b, first + m])
                total += keys[head, m] * keys[head, m]
            scale = _softplus(heads[b, first + WIDTH]) / np.sqrt(total)
            for m in range(WIDTH):
                keys[head, m] *= scale
        norm[:] = F(1e-6)
        similarity[:] = F(0)
        of_read, of_write = similarity[0], similarity[1]
        for m in range(WIDTH):
            row, k0, k1 = memory[b, m], keys[0, m], keys[1, m]
            for n in range(locations):
                norm[n] += row[n] * row[n]
                of_read[n] += k0 * row[n]
                of_write[n] += k1 * row[n]
        for n in range(locations):
            norm[n] = F(1) / np.sqrt(norm[n])
        for head in range(2):
            _address(heads[b], head * KEY, similarity[head], norm, gated, weighting[b, head])
        w_read, w_write = weighting[b, 0], weighting[b, 1]
        for m in range(WIDTH):
            row, total = memory[b, m], F(0)
            erase, add = _sigmoid(heads[b, ERASE + m]), _tanh(heads[b, ADD + m])
            for n in range(locations):
                total += w_read[n] * row[n]
            for n in range(locations):
                row[n] += w_write[n] * (add - erase * row[n])
            read[b, m] = total


@_compiled
def _address(p: Any, first: Any, similarity: Any, norm: Any, gated: Any, weighting: Any) -> None:
    """Compute the next weighting [N] of a head from the last, in place."""
    locations = len(weighting)
    gate = _sigmoid(p[first + WIDTH + 1])
    gamma = F(1) + _softplus(p[first + WIDTH + 5])
    s0, s1, s2 = _exp(p[first + 22]), _exp(p[first + 23]), _exp(p[first + 24])
    whole = s0 + s1 + s2
    s0, s1, s2 = s0 / whole, s1 / whole, s2 / whole
    largest = F(-1e30)
    for n in range(locations):
        similarity[n] *= norm[n]
        largest = max(largest, similarity[n])
    total = F(0)
    for n in range(locations):
        similarity[n] = _exp(similarity[n] - largest)
        total += similarity[n]
    scale = gate / total
    for n in range(locations):
        gated[n + 1] = scale * similarity[n] + (F(1) - gate) * weighting[n]
    gated[0], gated[locations + 1] = gated[locations], gated[1]
    largest = F(-1e30)
    for n in range(locations):
        rotated = s0 * gated[n + 2] + s1 * gated[n + 1] + s2 * gated[n]
        weighting[n] = gamma * _log(rotated)
        largest = max(largest, weighting[n])
    total = F(0)
    for n in range(locations):
        weighting[n] = _exp(weighting[n] - largest)
        total += weighting[n]
    scale = F(1) / total
    for n in range(locations):
        weighting[n] *= scale


class FusedStep:
    """Steps a batch of sessions in place."""

    def __init__(self, parameters: Mapping[str, Array], batch: int, locations: int) -> None:
        """Start a batch of sessions from a constant memory and the learned cells."""
        self._p = parameters
        self._memory = np.full((batch, WIDTH, locations), 1e-6, np.float32)
        self._weighting = np.zeros((batch, 2, locations), np.float32)
        self._weighting[:, :, 0] = 1
        width = parameters["controller.layers.0.gates.weight"].shape[0]
        self._seen = np.zeros((batch, width), np.float32)  # input, read vector, hidden
        self._read = np.zeros((batch, WIDTH), np.float32)
        self._seen[:, -CELLS:] = parameters["controller.initial_hidden"]
        self._cell = np.repeat(parameters["controller.initial_cell"], batch, 0)
        self._hidden = np.empty((batch, CELLS), np.float32)
        self._features = np.empty((batch, CELLS + WIDTH), np.float32)

    def __call__(self, x: Array) -> Array:
        """Make one step: `x` [B, X] -> outputs [B, Y]."""
        p, seen, inputs = self._p, self._seen, x.shape[1]
        seen[:, :inputs] = x
        seen[:, inputs : inputs + WIDTH] = self._read
        gates = seen @ p["controller.layers.0.gates.weight"]
        gates += p["controller.layers.0.gates.bias"]
        cells(gates, self._cell, self._hidden)
        seen[:, -CELLS:] = self._hidden
        heads = self._hidden @ p["heads.layer.weight"]
        heads += p["heads.layer.bias"]
        access(heads, self._memory, self._weighting, self._read)
        self._features[:, :CELLS] = self._hidden
        self._features[:, CELLS:] = self._read
        logits = self._features @ p["output.weight"] + p["output.bias"]
        outputs: Array = 1 / (1 + np.exp(-logits))
        return outputs
