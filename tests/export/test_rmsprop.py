"""The paper's optimiser, against its formula."""

from __future__ import annotations

import pytest
import torch

from export.rmsprop import RmsProp


def test_steps_follow_the_formula_of_graves() -> None:
    """Four steps of one parameter equal the four lines of the formula, with a floor in the root."""
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimiser = RmsProp([parameter], lr=1e-2)
    square = mean = move = 0.0
    expected = 1.0
    for gradient in (0.5, -0.25, 0.0, 2.0):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
        square = 0.95 * square + 0.05 * gradient**2
        mean = 0.95 * mean + 0.05 * gradient
        move = 0.9 * move - 1e-2 * gradient / (square - mean**2 + 1e-4) ** 0.5
        expected += move

        assert parameter.item() == pytest.approx(expected, rel=1e-12)


def test_a_large_steady_gradient_makes_no_nan() -> None:
    """A variance that rounds below zero is taken for zero."""
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimiser = RmsProp([parameter], lr=1e-4)
    for _ in range(400):
        parameter.grad = torch.tensor([1e4])
        optimiser.step()

    assert parameter.isfinite().all()


def test_a_parameter_without_a_gradient_stays() -> None:
    """What no loss reached is not moved."""
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    RmsProp([parameter], lr=1.0).step()

    assert parameter.item() == 1.0
