"""The activation functions of the paper's head parameters, and their inverses."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

F = TypeVar("F", np.float32, np.float64)

Floats = npt.NDArray[np.float64]

LIMIT = 20.0
"""Networks clamp the inputs of their activation functions to this."""

LEAST = 1e-9
"""The smallest distance of a share from 0 and 1 whose logit is taken."""


def sigmoid(values: Floats) -> Floats:
    """The logistic function, for values of any size."""
    found: Floats = 1 / (1 + np.exp(-np.clip(values, -LIMIT, LIMIT)))
    return found


def logit(shares: Floats) -> Floats:
    """The x whose logistic function has these values."""
    found: Floats = np.log(np.clip(shares, LEAST, 1)) - np.log(np.clip(1 - shares, LEAST, 1))
    return found


def hyperbolic(values: npt.NDArray[F]) -> npt.NDArray[F]:
    """The hyperbolic tangent of half of the values."""
    found: npt.NDArray[F] = np.tanh(values / 2)
    return found


def inverse_hyperbolic(values: Floats) -> Floats:
    """The x of which the hyperbolic tangent of x / 2 has these values."""
    return logit((values + 1) / 2)


def softplus(values: Floats) -> Floats:
    """log(1 + e^x), for values of any size."""
    found: Floats = np.logaddexp(0, np.clip(values, -LIMIT, LIMIT))
    return found


def inverse_softplus(values: Floats) -> Floats:
    """The x of which log(1 + e^x) has these values."""
    found: Floats = np.log(np.expm1(np.clip(values, 1e-6, LIMIT)))
    return found
