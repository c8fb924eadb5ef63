"""The GRU computes the equations of Cho et al. 2014."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from export.architectures import build
from export.network import Sizes

Values = npt.NDArray[np.float64]


def sigmoid(x: Values) -> Values:
    value: Values = 1 / (1 + np.exp(-x))
    return value


def test_every_step_is_the_papers() -> None:
    """h' = z h + (1 - z) tanh(W [x, r h]), layer upon layer, from learned initial values."""
    network = build("gru", Sizes(5, 3, 4, 2, 1, 1, 1), seed=2).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    p = {name: each.detach().numpy() for name, each in network.named_parameters()}
    hidden = [row.copy() for row in p["initial_hidden"]]
    state = network.initial_state(1, 0)
    for inputs in np.random.default_rng(3).normal(size=(6, 5)):
        x = inputs
        for layer in range(2):
            seen = np.concatenate([x, hidden[layer]])
            gates = seen @ p[f"gates.{layer}.weight"] + p[f"gates.{layer}.bias"]
            update, reset = np.split(sigmoid(gates), 2)
            seen = np.concatenate([x, reset * hidden[layer]])
            weight, bias = p[f"candidates.{layer}.weight"], p[f"candidates.{layer}.bias"]
            proposed = np.tanh(seen @ weight + bias)
            x = hidden[layer] = update * hidden[layer] + (1 - update) * proposed
        logits, state, _ = network(torch.from_numpy(inputs)[None], state)
        expected = x @ p["output.weight"] + p["output.bias"]
        np.testing.assert_allclose(logits[0].detach().numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(state[0][0].detach().numpy(), hidden, atol=1e-12)
