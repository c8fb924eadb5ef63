"""Fits affine maps, followed by an activation function, to examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RIDGE = 0.01
"""The weight of the squared coefficients, so that few examples do not give large ones."""

ROUNDS = 5
"""Newton's steps of a logistic fit; more change little."""

LIMIT = 20.0
"""Networks clamp the inputs of their activation functions to this."""


def affine(features: Floats, values: Floats) -> Floats:
    """[F, K]: the ridge regression of values [E, K] on features [E, F]; the first is constant."""
    square = features.T @ features + _ridge(features.shape[1])
    fitted = np.linalg.solve(square, features.T @ np.clip(values, -LIMIT, LIMIT))
    return fitted.astype(np.float64)


def logistic(features: Floats, shares: Floats) -> Floats:
    """[F, K]: maps whose logistic function is nearest to shares [E, K], from 0 to 1."""
    ridge = _ridge(features.shape[1])
    columns = []
    for share in shares.T:
        column = np.zeros(features.shape[1])
        for _ in range(ROUNDS):
            fitted = sigmoid(features @ column)
            slope = np.maximum(fitted * (1 - fitted), 1e-3)
            gradient = features.T @ (share - fitted) - ridge @ column
            column = column + np.linalg.solve(
                (features * slope[:, None]).T @ features + ridge, gradient
            )
        columns.append(column)
    return np.array(columns).T.reshape(features.shape[1], shares.shape[1])


def hyperbolic(features: Floats, values: Floats) -> Floats:
    """[F, K]: maps whose hyperbolic tangent is nearest to values [E, K], from -1 to 1."""
    return logistic(features, (values + 1) / 2) / 2


def sigmoid(values: Floats) -> Floats:
    """The logistic function, for values of any size."""
    found: Floats = 1 / (1 + np.exp(-np.clip(values, -LIMIT, LIMIT)))
    return found


def softplus(values: Floats) -> Floats:
    """log(1 + e^x), for values of any size."""
    found: Floats = np.logaddexp(0, np.clip(values, -LIMIT, LIMIT))
    return found


def inverse_softplus(values: Floats) -> Floats:
    """The x of which log(1 + e^x) has these values."""
    found: Floats = np.log(np.expm1(np.clip(values, 1e-6, LIMIT)))
    return found


def _ridge(features: int) -> Floats:
    ridge = np.eye(features) * RIDGE
    ridge[0, 0] /= 100
    return ridge
