"""
How heads access the memory, forward and backward, compiled by numba for training.

It computes the same functions as `addressing.py` and `ntm.Heads`, but one sequence after another,
so that a memory stays in the nearest cache of the processor. PyTorch's operators each pass over the
memories of the whole batch. The gradients are derived by hand. Letters are the paper's.

The parameters of heads have the order of `ntm.Heads`: key, strength, gate, shifts and sharpening of
each head, then erase and add vector of each write head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from export.addressing import NORM_EPSILON, WEIGHTING_EPSILON
from export.kernels import (
    HALF,
    ONE,
    TWO,
    ZERO,
    Array,
    Fit,
    Integers,
    compiled,
    exp,
    inlined,
    kernel,
    log,
    sigmoid_of,
    softmax,
    tanh_of,
)
from export.ntm import PREACTIVATION_LIMIT, SHIFTS

LIMIT = np.float32(PREACTIVATION_LIMIT)
NORM_FLOOR = np.float32(NORM_EPSILON)
WEIGHTING_FLOOR = np.float32(WEIGHTING_EPSILON)

SCALARS = 3 + len(SHIFTS)
"""The number of parameters of a head besides its key: strength, gate, shifts, sharpening."""


class HeadTape(NamedTuple):
    """The values that the heads computed in every step, for the backward pass."""

    memory: Array
    """M [T + 1, B, M, N]: before the first step and after each."""
    weighting: Array
    """w [T + 1, B, H, N]: before the first step and after each."""
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


def _fit_of(tape: HeadTape, read_vectors: Array, reads: str) -> Fit:
    """The fit of a step's arguments; the argument `reads` has the shape of read vectors."""
    entries, batch, width, locations = tape.memory.shape
    heads, steps = tape.weighting.shape[2], entries - 1
    read_heads = read_vectors.shape[1] // width
    parameters = heads * (width + SCALARS) + 2 * width * (heads - read_heads)
    of_heads = (steps, batch, heads, locations)
    shapes = {
        "memory": (entries, batch, width, locations),
        "weighting": (entries, *of_heads[1:]),
        "similarity": of_heads,
        "content": of_heads,
        "shifted": of_heads,
        "inverse_norm": (steps, batch, locations),
        "parameters": (steps, batch, parameters),
        "activations": (steps, batch, parameters),
    }
    fit = {f"tape.{name}": shape for name, shape in shapes.items()}
    fit[reads] = (batch, read_heads * width)
    return Fit(fit, {"t": range(steps), "reads": range(read_heads, read_heads + 1)})


def _of_access(t: int, reads: int, tape: HeadTape, read_vectors: Array, next_input: Array) -> Fit:
    fit = _fit_of(tape, read_vectors, "read_vectors")
    return fit._replace(shapes={**fit.shapes, "next_input": fit.shapes["read_vectors"]})


def _of_access_back(
    t: int,
    reads: int,
    tape: HeadTape,
    d_read: Array,
    d_memory: Array,
    d_weighting: Array,
    d_parameters: Array,
) -> Fit:
    fit = _fit_of(tape, d_read, "d_read")
    of_a_step = {
        f"d_{name}": fit.shapes[f"tape.{name}"][1:]
        for name in ("memory", "weighting", "parameters")
    }
    return fit._replace(shapes={**fit.shapes, **of_a_step})


@compiled
def clamp(x: np.float32) -> np.float32:
    """Clamp x to the limits of head parameters."""
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
def interpolate(content: Array, previous: Array, gate: np.float32, out: Array) -> None:
    """Equation 7."""
    for n in range(out.size):
        out[n] = previous[n] + gate * (content[n] - previous[n])


@compiled
def rotate(w: Array, back: np.float32, stay: np.float32, ahead: np.float32, out: Array) -> None:
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
def softplus_slope(softplus: np.float32) -> np.float32:
    """The derivative of a softplus, given its value: the logistic function."""
    return ONE - np.float32(math.exp(-softplus))


@inlined
def invert_norms(memory: Array, inverse: Array) -> None:
    """`memory` [M, N] -> `inverse` [N]: one over the length of every location's vector."""
    width, locations = memory.shape
    inverse[:] = NORM_FLOOR
    for m in range(width):
        for n in range(locations):
            inverse[n] += memory[m, n] * memory[m, n]
    for n in range(locations):
        inverse[n] = ONE / np.sqrt(inverse[n])


@inlined
def compare(memory: Array, inverse: Array, key: Array, strength: np.float32, z: Array) -> None:
    """Equation 6, times beta: the similarity of `key` [M] to every location, into `z` [N]."""
    width, locations = memory.shape
    scale = key_scale(key, strength)
    z[:] = ZERO
    for m in range(width):
        q = key[m] * scale
        for n in range(locations):
            z[n] += q * memory[m, n]
    for n in range(locations):
        z[n] *= inverse[n]


@inlined
def write(memory: Array, written: Array, w: Array, vectors: Array) -> None:
    """Equations 3 and 4: `memory` -> `written` [M, N], by heads at `w` [W, N]."""
    width, locations = memory.shape
    for m in range(width):
        for n in range(locations):
            written[m, n] = memory[m, n]
        for h in range(len(w)):
            erase = vectors[2 * width * h + m]
            for n in range(locations):
                written[m, n] *= ONE - erase * w[h, n]
        for h in range(len(w)):
            add = vectors[2 * width * h + width + m]
            for n in range(locations):
                written[m, n] += add * w[h, n]


@kernel(_of_access)
def access(t: int, reads: int, tape: HeadTape, read_vectors: Array, next_input: Array) -> None:
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
        memory, after = tape.memory[t, b], tape.weighting[t + 1, b]
        inverse = tape.inverse_norm[t, b]
        invert_norms(memory, inverse)
        for h in range(heads):
            at = h * size + width
            z, content = tape.similarity[t, b, h], tape.content[t, b, h]
            compare(memory, inverse, y[h * size : at], y[at], z)
            content[:] = z
            softmax(content, bits_n)
            interpolate(content, tape.weighting[t, b, h], y[at + 1], v)
            shifted, w = tape.shifted[t, b, h], after[h]
            rotate(v, y[at + 2], y[at + 3], y[at + 4], shifted)
            for n in range(locations):
                shifted[n] += WEIGHTING_FLOOR
            log(shifted, w, bits_n)
            for n in range(locations):
                w[n] *= y[at + 5]
            softmax(w, bits_n)
        for h in range(reads):
            for m in range(width):
                total = ZERO
                for n in range(locations):
                    total += after[h, n] * memory[m, n]
                read_vectors[b, h * width + m] = total
                next_input[b, h * width + m] = total
        write(memory, tape.memory[t + 1, b], after[reads:], y[heads * size :])


@inlined
def write_back(
    memory: Array, w: Array, vectors: Array, d_memory: Array, dw: Array, d_vectors: Array
) -> None:
    """
    The gradient of `write`.

    Changes `d_memory` in place, from that of what was written to that of what was there; adds to
    `dw` [W, N]; writes `d_vectors`, before the activation functions.
    """
    width, locations = memory.shape
    heads = len(w)
    # The factors that the heads before and after one leave of a location.
    behind = np.empty((heads + 1, locations), np.float32)
    before, lost = np.empty((2, locations), np.float32)
    for m in range(width):
        behind[heads] = ONE
        for h in range(heads - 1, -1, -1):
            erase = vectors[2 * width * h + m]
            for n in range(locations):
                behind[h, n] = behind[h + 1, n] * (ONE - erase * w[h, n])
        before[:] = ONE
        for h in range(heads):
            at = 2 * width * h + m
            erase, add = vectors[at], vectors[at + width]
            d_erase, d_add = ZERO, ZERO
            # Two loops: with more arrays in one, the compiler does not vectorise it.
            for n in range(locations):
                lost[n] = -d_memory[m, n] * memory[m, n] * before[n] * behind[h + 1, n]
                before[n] *= ONE - erase * w[h, n]
            for n in range(locations):
                d_add += d_memory[m, n] * w[h, n]
                d_erase += lost[n] * w[h, n]
                dw[h, n] += add * d_memory[m, n] + erase * lost[n]
            d_vectors[at] = d_erase * erase * (ONE - erase)
            d_vectors[at + width] = d_add * (ONE - add * add)
        for n in range(locations):
            d_memory[m, n] *= before[n]


@inlined
def read_back(memory: Array, w: Array, d_read: Array, d_memory: Array, dw: Array) -> None:
    """Add to `d_memory` [M, N] and `dw` what reading at `w` [R, N] gives, from `d_read` [R M]."""
    width, locations = memory.shape
    for h in range(len(w)):
        for m in range(width):
            d = d_read[h * width + m]
            for n in range(locations):
                dw[h, n] += d * memory[m, n]
                d_memory[m, n] += d * w[h, n]


@inlined
def sharpen_back(
    shifted: Array, w: Array, sharpening: np.float32, dw: Array, d_shifted: Array
) -> np.float32:
    """The gradient of equation 9: from `dw` to `d_shifted`; returns that of gamma."""
    logs, bits = np.empty_like(w), np.empty(w.size, np.int32)
    log(shifted, logs, bits)
    mean, d_sharpening = ZERO, ZERO
    for n in range(w.size):
        mean += dw[n] * w[n]
    for n in range(w.size):
        d = w[n] * (dw[n] - mean)
        d_sharpening += d * logs[n]
        d_shifted[n] = sharpening * d / shifted[n]
    return d_sharpening


@inlined
def shift_back(v: Array, shift: Array, d_shifted: Array, dv: Array, d_shift: Array) -> None:
    """The gradient of equation 8 and the softmax before it: from `d_shifted` to `dv`, `d_shift`."""
    last = v.size - 1
    d_back, d_stay, d_ahead = d_shifted[last] * v[0], d_shifted[0] * v[0], d_shifted[0] * v[last]
    for n in range(1, v.size):
        d_back += d_shifted[n - 1] * v[n]
        d_stay += d_shifted[n] * v[n]
        d_ahead += d_shifted[n] * v[n - 1]
    # Back along the way that the weights came: the rotation the other way round.
    rotate(d_shifted, shift[2], shift[1], shift[0], dv)
    mean = d_back * shift[0] + d_stay * shift[1] + d_ahead * shift[2]
    d_shift[0] = shift[0] * (d_back - mean)
    d_shift[1] = shift[1] * (d_stay - mean)
    d_shift[2] = shift[2] * (d_ahead - mean)


@inlined
def compare_back(memory: Array, du: Array, y: Array, d_memory: Array, dx: Array) -> None:
    """
    The gradient of `compare`, but for the lengths of locations.

    From `du` [N], that of the product of key and memory, adds to `d_memory`; from a head's
    parameters `y` writes those of key and strength into `dx`, before their activation functions.
    """
    width, locations = memory.shape
    key = y[:width]
    strength = np.float32(y[width])
    scale = key_scale(key, strength)
    d_scale = ZERO
    for m in range(width):
        q, total = key[m] * scale, ZERO
        for n in range(locations):
            total += du[n] * memory[m, n]
            d_memory[m, n] += q * du[n]
        dx[m] = total
        d_scale += total * key[m]
    norm = strength / scale
    shrink = d_scale * scale / (norm * norm)
    for m in range(width):
        dx[m] = (dx[m] * scale - shrink * key[m]) * (ONE - key[m] * key[m])
    dx[width] = d_scale / norm * softplus_slope(strength)


@kernel(_of_access_back)
def access_back(
    t: int,
    reads: int,
    tape: HeadTape,
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
    v, dv, d_shifted, du, d_norm = np.empty((5, locations), np.float32)
    for b in range(batch):
        x, y, dx = tape.parameters[t, b], tape.activations[t, b], d_parameters[b]
        memory, dm, dw = tape.memory[t, b], d_memory[b], d_weighting[b]
        after, inverse = tape.weighting[t + 1, b], tape.inverse_norm[t, b]
        vectors = heads * size
        write_back(memory, after[reads:], y[vectors:], dm, dw[reads:], dx[vectors:])
        read_back(memory, after[:reads], d_read[b], dm, dw[:reads])
        d_norm[:] = ZERO
        for h in range(heads):
            start, at = h * size, h * size + width
            content, previous = tape.content[t, b, h], tape.weighting[t, b, h]
            shifted, z = tape.shifted[t, b, h], tape.similarity[t, b, h]
            gate, sharpening = y[at + 1], y[at + 5]
            d_sharpening = sharpen_back(shifted, after[h], sharpening, dw[h], d_shifted)
            dx[at + 5] = d_sharpening * softplus_slope(sharpening - ONE)
            interpolate(content, previous, gate, v)
            shift_back(v, y[at + 2 : at + 5], d_shifted, dv, dx[at + 2 : at + 5])
            d_gate, mean = ZERO, ZERO
            for n in range(locations):
                d_gate += dv[n] * (content[n] - previous[n])
                mean += dv[n] * content[n]
            dx[at + 1] = d_gate * gate * (ONE - gate)
            for n in range(locations):
                d = gate * content[n] * (dv[n] - mean)
                d_norm[n] -= d * z[n] * inverse[n] * inverse[n]
                du[n] = d * inverse[n]
                dw[h, n] = (ONE - gate) * dv[n]
            compare_back(memory, du, y[start : start + size], dm, dx[start : start + size])
        for m in range(width):
            for n in range(locations):
                dm[m, n] += d_norm[n] * memory[m, n]
        for i in range(x.size):
            if abs(x[i]) > LIMIT:
                dx[i] = ZERO
