"""Unrolled training: values and gradients of the network's own steps, whatever its shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from export import kernels
from export.architectures import ARCHITECTURES, build
from export.architectures.transformer import logits_of as whole_sequences
from export.arena import Arena
from export.network import Network, Sizes, stepped
from export.ntm import PREACTIVATION_LIMIT
from export.unrolled import logits_of

STEPS, BATCH = 9, 3

FAST = [name for name, each in ARCHITECTURES.items() if each.logits is logits_of]
"""The architectures that train on the fast path."""

Gradients = dict[str, Tensor]


def network_of(architecture: str, layers: int, reads: int, writes: int, memory: str) -> Network:
    """A network whose parameters are far from where training starts."""
    sizes = Sizes(5, 4, 11, layers, reads, writes, 10, -1.0, memory, locations=7)
    network = build(architecture, sizes, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.4)
    return network


def gradients(network: Network, logits: Tensor) -> Gradients:
    """Return the gradient of every parameter, for a random gradient of the logits."""
    network.zero_grad()
    generator = torch.Generator().manual_seed(2)
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    found = {name: each.grad for name, each in network.named_parameters() if each.grad is not None}
    assert len(found) == len(list(network.parameters()))
    return found


@pytest.mark.parametrize("architecture", FAST)
@pytest.mark.parametrize(
    ("layers", "reads", "writes", "memory"),
    [(1, 1, 1, "constant"), (2, 3, 2, "positional"), (1, 1, 3, "learned")],
    ids=["one head", "two layers and five heads", "learned memory"],
)
def test_logits_and_gradients_are_those_of_the_steps(
    architecture: str, layers: int, reads: int, writes: int, memory: str
) -> None:
    """Logits and the gradient of every parameter agree, also when the arena is used again."""
    network = network_of(architecture, layers, reads, writes, memory)
    inputs = torch.randn(STEPS, BATCH, 5, generator=torch.Generator().manual_seed(4))
    expected = stepped(network, inputs, network.initial_state(BATCH, 7), Arena())
    expected_gradients = gradients(network, expected)
    arena = Arena()
    for _ in range(3):
        logits = logits_of(network, inputs, network.initial_state(BATCH, 7), arena)
        found = gradients(network, logits)

        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        for name, gradient in expected_gradients.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[name] / scale, gradient / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [400, -400])
def test_parameters_beyond_their_limit_get_no_gradient(factor: float) -> None:
    """Values and gradients of clamped heads are those of the network's steps."""
    network = network_of("ntm-ff", 1, 1, 1, "positional")
    with torch.no_grad():
        network.get_parameter("heads.layer.bias").mul_(factor)
    inputs = torch.randn(STEPS, BATCH, 5, generator=torch.Generator().manual_seed(4))
    expected = stepped(network, inputs, network.initial_state(BATCH, 7), Arena())
    expected_gradient = gradients(network, expected)["heads.layer.bias"]
    logits = logits_of(network, inputs, network.initial_state(BATCH, 7), Arena())

    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    found = gradients(network, logits)["heads.layer.bias"]
    torch.testing.assert_close(found, expected_gradient, rtol=1e-3, atol=1e-5)
    beyond = network.get_parameter("heads.layer.bias").abs() > 2 * PREACTIVATION_LIMIT
    assert 0 < beyond.sum() < len(beyond)
    assert (found[beyond] == 0).all()


def test_a_nan_stays_one() -> None:
    """A NaN in an input makes the logits of its sequence NaN from that step on, and no others."""
    network = network_of("ntm-lstm", 1, 1, 1, "constant")
    inputs = torch.zeros(STEPS, BATCH, 5)
    inputs[4, 1] = float("nan")
    logits = logits_of(network, inputs, network.initial_state(BATCH, 7), Arena())

    assert logits[:4].isfinite().all()
    assert logits[4:, 1].isnan().all()
    assert logits[:, [0, 2]].isfinite().all()


def test_exponentials_and_logarithms_are_exact_to_the_rounding() -> None:
    """They are exact over the range of softmax and weightings, and near zero below it."""
    x = np.linspace(-87, 0, 10_001, dtype=np.float32)
    exponentials = x.copy()
    kernels.exp(exponentials, np.empty(x.size, np.int32))
    y = np.logspace(-12, 0.01, 10_001, dtype=np.float32)
    logarithms = np.empty_like(y)
    kernels.log(y, logarithms, np.empty(y.size, np.int32))
    tiny = np.array([-1e4, -np.inf], np.float32)
    kernels.exp(tiny, np.empty(2, np.int32))

    np.testing.assert_allclose(exponentials, np.exp(x.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(logarithms, np.log(y.astype(np.float64)), rtol=2e-7, atol=2e-7)
    assert (tiny < 1e-37).all()


def test_the_papers_networks_are_trained_on_the_fast_path() -> None:
    """The others leave the gradient to autograd: step by step, or the Transformer all at once."""
    assert FAST == ["ntm-ff", "ntm-lstm", "lstm"]
    rest = {name: each.logits for name, each in ARCHITECTURES.items() if name not in FAST}
    assert rest.pop("transformer") is whole_sequences
    assert set(rest.values()) == {stepped}
