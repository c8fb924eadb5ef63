"""
Elementwise functions and the LSTM cell, forward and backward, compiled by numba for training.

Arrays are float32. Compiled code does not check its indices: what does not fit would be read and
written beyond the ends of arrays. So the trainer calls only a `Kernel`, which checks its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import signature
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

# In single precision, or numba would go on in double.
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
LOWEST_POWER = np.float32(-126)
LOG2_E, LN_2, ROOT_2 = np.float32(1 / math.log(2)), np.float32(math.log(2)), np.float32(2**0.5)
MANTISSA, ONES_EXPONENT = np.int32(0x7FFFFF), np.int32(0x3F800000)

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F, *, inline: Literal["never", "always"] = "never") -> F:
    """
    Have numba compile the function when it is first called, and keep the code on disk.

    Where no folder can be written, neither beside this file nor in the user's cache, each process
    compiles it anew.
    """
    # Sums may be reordered, so that they vectorise. A NaN stays one, and training finds it.
    fastmath = {"reassoc", "contract", "arcp", "nsz"}
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=fastmath, inline=inline)(
        function
    )
    with suppress(RuntimeError):  # numba's, if it finds no folder
        dispatcher.enable_caching()
    return cast(F, dispatcher)


def inlined(function: F) -> F:
    """`compiled`, as a part of each caller, where arrays are known not to overlap."""
    return compiled(function, inline="always")


class Fit(NamedTuple):
    """What the arguments of a kernel have to be."""

    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each array, by the argument's name; of a field of a tuple, NAME.FIELD."""
    ranges: Mapping[str, range] = {}
    """The values that each number may have, by the argument's name."""


class Kernel:
    """
    Compiled code that checks shapes, types and numbers before it runs.

    Shapes repeat from step to step, so that only the first call with some shapes compares them with
    what they have to be. The others look that up.
    """

    def __init__(self, function: Callable[..., None], fit: Callable[..., Fit]) -> None:
        """`fit` gets all arguments, and says by the shapes of some what all have to be."""
        self.name = function.__name__
        self.parameters = tuple(signature(function).parameters)
        self._compiled = compiled(function)
        self._fit = fit
        self._ranges: dict[tuple[object, ...], tuple[tuple[int, range], ...]] = {}
        """By the shapes and types that fit, the ranges of the numbers by position."""

    def __call__(self, *arguments: Any) -> None:
        """
        Run it.

        Raises:
            ValueError: an array has another shape or type than it has to have, or a number is
                outside its range. Nothing was computed.
        """
        seen: list[object] = []
        for value in arguments:
            if isinstance(value, np.ndarray):
                seen += (value.shape, value.dtype)
            elif not isinstance(value, int):
                for part in value:
                    seen += (part.shape, part.dtype)
        key = tuple(seen)
        ranges = self._ranges.get(key)
        if ranges is None:
            ranges = self._ranges[key] = self._checked(arguments)
        for position, allowed in ranges:
            if arguments[position] not in allowed:
                raise ValueError(
                    f"{self.parameters[position]} of {self.name} is {arguments[position]}; it must "
                    f"be from {allowed.start} to {allowed.stop - 1}"
                )
        self._compiled(*arguments)

    def _checked(self, arguments: tuple[Any, ...]) -> tuple[tuple[int, range], ...]:
        """Check all arrays; return the ranges of the numbers."""
        arrays: dict[str, Array] = {}
        for name, value in zip(self.parameters, arguments, strict=True):
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif not isinstance(value, int):
                arrays |= {f"{name}.{field}": part for field, part in value._asdict().items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        try:
            fit = self._fit(*arguments)
        except (ValueError, IndexError, ZeroDivisionError) as error:  # of a shape
            raise ValueError(f"{self.name} got arrays of other axes: {shapes}") from error
        for name, array in arrays.items():
            if array.dtype != np.float32:
                raise ValueError(f"{name} of {self.name} is of {array.dtype}, not of float32")
            if array.shape != fit.shapes[name] or 0 in array.shape:
                raise ValueError(
                    f"{name} of {self.name} has the shape {array.shape}; with the other arrays it "
                    f"must be {fit.shapes[name]}, and no axis may be empty"
                )
        return tuple((self.parameters.index(name), each) for name, each in fit.ranges.items())


def kernel(fit: Callable[..., Fit]) -> Callable[[Callable[..., None]], Kernel]:
    """Make a `Kernel` of a function."""
    return lambda function: Kernel(function, fit)


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


def _of_a_cell(gates: Array, cell: Array, next_cell: Array, out: Array, next_input: Array) -> Fit:
    batch, size = cell.shape
    one = (batch, size)
    shapes = {"gates": (batch, 4 * size), "cell": one, "next_cell": one}
    return Fit({**shapes, "out": one, "next_input": one})


@kernel(_of_a_cell)
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


def _of_a_cell_back(
    gates: Array, cell: Array, next_cell: Array, d_out: Array, d_cell: Array, d_gates: Array
) -> Fit:
    batch, size = cell.shape
    one, four = (batch, size), (batch, 4 * size)
    shapes = {"gates": four, "cell": one, "next_cell": one}
    return Fit({**shapes, "d_out": one, "d_cell": one, "d_gates": four})


@kernel(_of_a_cell_back)
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
