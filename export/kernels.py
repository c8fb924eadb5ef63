"""
What a step does between its matrix products, forward and backward, compiled by numba.

The same functions as in `addressing.py` and `network.py`, for training: one sequence after another,
so that a memory stays in the processor's nearest cache, where PyTorch's operators, compiled or not,
walk over the memories of the whole batch again and again. The gradients are derived by hand.

Arrays are float32, [T, B, ...] with the last axis contiguous; a kernel makes one step `t` of all
sequences. Letters are those of the paper. `parameters` has for each head key, strength, gate,
shifts and sharpening, then for each write head erase and add vector, as `network.Heads` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from export.addressing import NORM_EPSILON, WEIGHTING_EPSILON
from export.network import PREACTIVATION_LIMIT, SHIFTS

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

# In single precision, or numba would go on in double.
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
LIMIT = np.float32(PREACTIVATION_LIMIT)
NORM_FLOOR = np.float32(NORM_EPSILON)
WEIGHTING_FLOOR = np.float32(WEIGHTING_EPSILON)
LOWEST_POWER = np.float32(-126)
LOG2_E, LN_2, ROOT_2 = np.float32(1 / math.log(2)), np.float32(math.log(2)), np.float32(2**0.5)
MANTISSA, ONES_EXPONENT = np.int32(0x7FFFFF), np.int32(0x3F800000)

SCALARS = 3 + len(SHIFTS)
"""Parameters of a head besides its key: strength, gate, shifts, sharpening."""

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Have numba compile the function when it is first called, and keep the code on disk."""
    # Sums may be reordered, so that they vectorise. A NaN stays one, and training finds it.
    fastmath = {"reassoc", "contract", "arcp", "nsz"}
    dispatcher = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=fastmath)
    return cast(F, dispatcher(function))


class Memory(NamedTuple):
    """What the heads did in every step, for the way back."""

    memory: Array
    """M [T + 1, B, M, N]: before the first step and after each."""
    weighting: Array
    """w [T + 1, B, H, N]: likewise."""
    similarity: Array
    """beta K [T, B, H, N]"""
    content: Array
    """w^c [T, B, H, N]"""
    shifted: Array
    """w~ [T, B, H, N], its floor added."""
    inverse_norm: Array
    """1 / |M(i)| [T, B, N]"""
    parameters: Array
    """Before their activation functions [T, B, P]."""
    activations: Array
    """After them [T, B, P]."""


@compiled
def exp(x: Array, scratch: Integers) -> None:
    """Replace every x <= 0 by its exponential; `scratch` has the length of x."""
    powers = scratch.view(np.float32)
    for i in range(x.size):
        y = max(x[i] * LOG2_E, LOWEST_POWER)
        whole = np.floor(y + HALF)
        f = (y - whole) * LN_2
        scratch[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        # Taylor's series: what is left out is below the rounding, since |f| <= ln(2) / 2.
        p = np.float32(1 / 5040) * f + np.float32(1 / 720)
        p = p * f + np.float32(1 / 120)
        p = p * f + np.float32(1 / 24)
        p = p * f + np.float32(1 / 6)
        p = p * f + HALF
        x[i] = (p * f + ONE) * f + ONE
    for i in range(x.size):
        x[i] *= powers[i]


@compiled
def log(x: Array, out: Array, scratch: Integers) -> None:
    """Set `out` to the logarithm of every x > 0; `scratch` has the length of x."""
    bits = x.view(np.int32)
    mantissas = scratch.view(np.float32)
    for i in range(x.size):
        scratch[i] = (bits[i] & MANTISSA) | ONES_EXPONENT
    for i in range(x.size):
        high = mantissas[i] > ROOT_2
        m = mantissas[i] * HALF if high else mantissas[i]
        exponent = np.float32((bits[i] >> np.int32(23)) - np.int32(126 if high else 127))
        # 2 artanh(s): what is left out is below the rounding, since |s| <= 0.172.
        s = (m - ONE) / (m + ONE)
        q = s * s
        p = np.float32(2 / 9) * q + np.float32(2 / 7)
        p = p * q + np.float32(2 / 5)
        p = p * q + np.float32(2 / 3)
        out[i] = exponent * LN_2 + (p * q + TWO) * s


@compiled
def softmax(x: Array, scratch: Integers) -> None:
    """Replace x by its softmax."""
    top = x[0]
    for i in range(x.size):
        top = max(top, x[i])
    for i in range(x.size):
        x[i] -= top
    exp(x, scratch)
    total = ZERO
    for i in range(x.size):
        total += x[i]
    for i in range(x.size):
        x[i] /= total


@compiled
def sigmoid_of(x: np.float32, exponential: np.float32) -> np.float32:
    """The logistic function, given exp(-|x|)."""
    above = ONE / (ONE + exponential)
    return above if x >= ZERO else exponential * above


@compiled
def tanh_of(x: np.float32, exponential: np.float32) -> np.float32:
    """The hyperbolic tangent, given exp(-|2 x|)."""
    magnitude = (ONE - exponential) / (ONE + exponential)
    return magnitude if x >= ZERO else -magnitude


@compiled
def clamp(x: np.float32) -> np.float32:
    """x within the limits of head parameters."""
    return min(max(x, -LIMIT), LIMIT)


@compiled
def activate(x: Array, y: Array, heads: int, width: int, scratch: Array, bits: Integers) -> None:
    """Apply the activation functions to one sequence's head parameters: `x` [P] -> `y` [P]."""
    size = width + SCALARS
    addressing = heads * size
    e = scratch[: x.size]
    for i in range(x.size):
        e[i] = -TWO * abs(clamp(x[i]))
    for h in range(heads):
        for i in range(h * size + width, (h + 1) * size):
            e[i] *= HALF
    for start in range(addressing, x.size, 2 * width):
        for i in range(start, start + width):
            e[i] *= HALF
    exp(e, bits[: x.size])
    for i in range(x.size):
        y[i] = tanh_of(x[i], e[i])
    for start in range(addressing, x.size, 2 * width):
        for i in range(start, start + width):
            y[i] = sigmoid_of(x[i], e[i])
    for h in range(heads):
        at = h * size + width
        last = at + SCALARS - 1
        y[at] = max(clamp(x[at]), ZERO) + np.float32(math.log1p(e[at]))
        y[at + 1] = sigmoid_of(x[at + 1], e[at + 1])
        y[last] = ONE + max(clamp(x[last]), ZERO) + np.float32(math.log1p(e[last]))
        total = ZERO
        for i in range(at + 2, last):
            y[i] = math.exp(clamp(x[i]))
            total += y[i]
        for i in range(at + 2, last):
            y[i] /= total


@compiled
def interpolated(content: Array, previous: Array, gate: np.float32, out: Array) -> None:
    """Equation 7."""
    for n in range(out.size):
        out[n] = previous[n] + gate * (content[n] - previous[n])


@compiled
def rotated(w: Array, back: np.float32, stay: np.float32, ahead: np.float32, out: Array) -> None:
    """Equation 8: `out`(i) = back w(i + 1) + stay w(i) + ahead w(i - 1)."""
    last = w.size - 1
    for n in range(1, last):
        out[n] = back * w[n + 1] + stay * w[n] + ahead * w[n - 1]
    out[0] = back * w[1 % w.size] + stay * w[0] + ahead * w[last]
    out[last] = back * w[0] + stay * w[last] + ahead * w[last - 1]


@compiled
def key_scale(key: Array, strength: np.float32) -> np.float32:
    """beta / |k|"""
    squares = NORM_FLOOR
    for m in range(key.size):
        squares += key[m] * key[m]
    scale: np.float32 = strength / np.sqrt(squares)
    return scale


@compiled
def access(t: int, reads: int, tape: Memory, read_vectors: Array, next_input: Array) -> None:
    """
    Address, read and write: equations 2 to 9 in step `t`.

    Reads `tape.parameters[t]`, `memory[t]` and `weighting[t]`; writes the other entries of the
    step, `memory[t + 1]` and `weighting[t + 1]`, and the read vectors [B, R M] into two arrays.
    """
    batch, width, locations = tape.memory.shape[1:]
    heads = tape.weighting.shape[2]
    size = width + SCALARS
    scratch = np.empty(max(locations, tape.parameters.shape[2]), np.float32)
    bits = np.empty(scratch.size, np.int32)
    v, bits_n = scratch[:locations], bits[:locations]
    for b in range(batch):
        y = tape.activations[t, b]
        activate(tape.parameters[t, b], y, heads, width, scratch, bits)
        old, new = tape.memory[t, b], tape.memory[t + 1, b]
        inverse = tape.inverse_norm[t, b]
        inverse[:] = NORM_FLOOR
        for m in range(width):
            for n in range(locations):
                inverse[n] += old[m, n] * old[m, n]
        for n in range(locations):
            inverse[n] = ONE / np.sqrt(inverse[n])
        for h in range(heads):
            key = y[h * size : h * size + width]
            at = h * size + width
            scale = key_scale(key, y[at])
            z, content = tape.similarity[t, b, h], tape.content[t, b, h]
            z[:] = ZERO
            for m in range(width):
                q = key[m] * scale
                for n in range(locations):
                    z[n] += q * old[m, n]
            for n in range(locations):
                z[n] *= inverse[n]
                content[n] = z[n]
            softmax(content, bits_n)
            interpolated(content, tape.weighting[t, b, h], y[at + 1], v)
            shifted, w = tape.shifted[t, b, h], tape.weighting[t + 1, b, h]
            rotated(v, y[at + 2], y[at + 3], y[at + 4], shifted)
            for n in range(locations):
                shifted[n] += WEIGHTING_FLOOR
            log(shifted, w, bits_n)
            for n in range(locations):
                w[n] *= y[at + 5]
            softmax(w, bits_n)
        for h in range(reads):
            w = tape.weighting[t + 1, b, h]
            for m in range(width):
                total = ZERO
                for n in range(locations):
                    total += w[n] * old[m, n]
                read_vectors[b, h * width + m] = total
                next_input[b, h * width + m] = total
        for m in range(width):
            for n in range(locations):
                new[m, n] = old[m, n]
            for h in range(reads, heads):
                w = tape.weighting[t + 1, b, h]
                erase = y[heads * size + 2 * width * (h - reads) + m]
                for n in range(locations):
                    new[m, n] *= ONE - erase * w[n]
            for h in range(reads, heads):
                w = tape.weighting[t + 1, b, h]
                add = y[heads * size + 2 * width * (h - reads) + width + m]
                for n in range(locations):
                    new[m, n] += add * w[n]


@compiled
def access_back(
    t: int,
    reads: int,
    tape: Memory,
    d_read: Array,
    d_memory: Array,
    d_weighting: Array,
    d_parameters: Array,
) -> None:
    """
    The gradient of `access` in step `t`.

    `d_read` [B, R M] is that of the read vectors. `d_memory` [B, M, N] and `d_weighting` [B, H, N]
    are changed in place, from those of `memory[t + 1]` and `weighting[t + 1]` to those of entry
    `t`. Writes `d_parameters` [B, P].
    """
    batch, width, locations = tape.memory.shape[1:]
    heads = tape.weighting.shape[2]
    size = width + SCALARS
    behind = np.empty((heads - reads + 1, locations), np.float32)
    before, logs, v, dq, dv, coefficient = np.empty((6, locations), np.float32)
    du = np.empty((heads, locations), np.float32)
    d_key = np.empty((heads, width), np.float32)
    bits = np.empty(locations, np.int32)
    for b in range(batch):
        x, y, dx = tape.parameters[t, b], tape.activations[t, b], d_parameters[b]
        old, dm, dw = tape.memory[t, b], d_memory[b], d_weighting[b]
        after = tape.weighting[t + 1, b]
        inverse = tape.inverse_norm[t, b]
        # Writing, then reading: equations 3, 4 and 2.
        for m in range(width):
            behind[heads - reads] = ONE
            for h in range(heads - 1, reads - 1, -1):
                erase = y[heads * size + 2 * width * (h - reads) + m]
                for n in range(locations):
                    behind[h - reads, n] = behind[h - reads + 1, n] * (ONE - erase * after[h, n])
            before[:] = ONE
            for h in range(reads, heads):
                at = heads * size + 2 * width * (h - reads) + m
                erase, add = y[at], y[at + width]
                d_erase, d_add = ZERO, ZERO
                for n in range(locations):
                    w = after[h, n]
                    lost = -dm[m, n] * old[m, n] * before[n] * behind[h - reads + 1, n]
                    d_add += dm[m, n] * w
                    d_erase += lost * w
                    dw[h, n] += add * dm[m, n] + erase * lost
                    before[n] *= ONE - erase * w
                dx[at] = d_erase * erase * (ONE - erase)
                dx[at + width] = d_add * (ONE - add * add)
            for n in range(locations):
                dm[m, n] *= before[n]
            for h in range(reads):
                d = d_read[b, h * width + m]
                for n in range(locations):
                    dw[h, n] += d * old[m, n]
                    dm[m, n] += d * after[h, n]
        # Addressing: equations 9 to 5.
        coefficient[:] = ZERO
        for h in range(heads):
            at = h * size + width
            content, previous = tape.content[t, b, h], tape.weighting[t, b, h]
            shifted, z = tape.shifted[t, b, h], tape.similarity[t, b, h]
            gate, sharpening = y[at + 1], y[at + 5]
            log(shifted, logs, bits)
            mean = ZERO
            for n in range(locations):
                mean += dw[h, n] * after[h, n]
            d_sharpening = ZERO
            for n in range(locations):
                d = after[h, n] * (dw[h, n] - mean)
                d_sharpening += d * logs[n]
                dq[n] = sharpening * d / shifted[n]
            interpolated(content, previous, gate, v)
            last = locations - 1
            d_back = dq[last] * v[0]
            d_stay = dq[0] * v[0]
            d_ahead = dq[0] * v[last]
            for n in range(1, locations):
                d_back += dq[n - 1] * v[n]
                d_stay += dq[n] * v[n]
                d_ahead += dq[n] * v[n - 1]
            # Back along the way that the weights came: the rotation the other way round.
            rotated(dq, y[at + 4], y[at + 3], y[at + 2], dv)
            d_gate, mean = ZERO, ZERO
            for n in range(locations):
                d_gate += dv[n] * (content[n] - previous[n])
                mean += dv[n] * content[n]
            for n in range(locations):
                d = gate * content[n] * (dv[n] - mean)
                coefficient[n] -= d * z[n] * inverse[n] * inverse[n]
                du[h, n] = d * inverse[n]
                dw[h, n] = (ONE - gate) * dv[n]
            dx[at + 1] = d_gate * gate * (ONE - gate)
            mean = d_back * y[at + 2] + d_stay * y[at + 3] + d_ahead * y[at + 4]
            dx[at + 2] = y[at + 2] * (d_back - mean)
            dx[at + 3] = y[at + 3] * (d_stay - mean)
            dx[at + 4] = y[at + 4] * (d_ahead - mean)
            # The derivative of the softplus is the logistic function.
            dx[at + 5] = d_sharpening * (ONE - np.float32(math.exp(ONE - sharpening)))
        for m in range(width):
            for n in range(locations):
                dm[m, n] += coefficient[n] * old[m, n]
        for h in range(heads):
            key, at = y[h * size : h * size + width], h * size + width
            scale = key_scale(key, y[at])
            d_scale = ZERO
            for m in range(width):
                q, total = key[m] * scale, ZERO
                for n in range(locations):
                    total += du[h, n] * old[m, n]
                    dm[m, n] += q * du[h, n]
                d_key[h, m] = total
                d_scale += total * key[m]
            norm = y[at] / scale
            shrink = d_scale * scale / (norm * norm)
            for m in range(width):
                d = d_key[h, m] * scale - shrink * key[m]
                dx[h * size + m] = d * (ONE - key[m] * key[m])
            dx[at] = d_scale / norm * (ONE - np.float32(math.exp(-y[at])))
        for i in range(x.size):
            if abs(x[i]) > LIMIT:
                dx[i] = ZERO


@compiled
def lstm_cell(gates: Array, cell: Array, next_cell: Array, out: Array, next_input: Array) -> None:
    """
    One LSTM layer in one step, after its product.

    `gates` [B, 4 C] becomes their activations: input, forget, output, candidate. From `cell`
    [B, C] come `next_cell`, and the output, which is written into two arrays [B, C].
    """
    batch, size = cell.shape
    scratch, bits = np.empty(4 * size, np.float32), np.empty(4 * size, np.int32)
    for b in range(batch):
        x = gates[b]
        for i in range(3 * size):
            scratch[i] = -abs(x[i])
        for i in range(3 * size, 4 * size):
            scratch[i] = -TWO * abs(x[i])
        exp(scratch, bits)
        for i in range(3 * size):
            x[i] = sigmoid_of(x[i], scratch[i])
        for i in range(3 * size, 4 * size):
            x[i] = tanh_of(x[i], scratch[i])
        squashed = scratch[:size]
        for i in range(size):
            c = x[size + i] * cell[b, i] + x[i] * x[3 * size + i]
            next_cell[b, i] = c
            squashed[i] = -TWO * abs(c)
        exp(squashed, bits[:size])
        for i in range(size):
            output = x[2 * size + i] * tanh_of(next_cell[b, i], squashed[i])
            out[b, i] = output
            next_input[b, i] = output


@compiled
def lstm_cell_back(
    gates: Array, cell: Array, next_cell: Array, d_out: Array, d_cell: Array, d_gates: Array
) -> None:
    """
    The gradient of `lstm_cell`.

    `d_out` [B, C] is that of the output. `d_cell` [B, C] is changed in place, from that of
    `next_cell` to that of `cell`. Writes `d_gates` [B, 4 C], before the activation functions.
    """
    batch, size = cell.shape
    scratch, bits = np.empty(size, np.float32), np.empty(size, np.int32)
    for b in range(batch):
        y, dx = gates[b], d_gates[b]
        for i in range(size):
            scratch[i] = -TWO * abs(next_cell[b, i])
        exp(scratch, bits)
        for i in range(size):
            enters, stays, leaves = y[i], y[size + i], y[2 * size + i]
            candidate = y[3 * size + i]
            squashed = tanh_of(next_cell[b, i], scratch[i])
            d = d_cell[b, i] + d_out[b, i] * leaves * (ONE - squashed * squashed)
            dx[i] = d * candidate * enters * (ONE - enters)
            dx[size + i] = d * cell[b, i] * stays * (ONE - stays)
            dx[2 * size + i] = d_out[b, i] * squashed * leaves * (ONE - leaves)
            dx[3 * size + i] = d * enters * (ONE - candidate * candidate)
            d_cell[b, i] = d * stays
