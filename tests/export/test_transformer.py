"""The Transformer: its two forms make the same outputs, and a step reaches back to a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from export.architectures import ARCHITECTURES, build, transformer
from export.architectures.transformer import Transformer
from export.arena import Arena
from export.network import Sizes

SIZES = Sizes(5, 3, 12, 2, 1, 1, 1)


def drawn() -> Transformer:
    """A network in double precision, whose every parameter differs from its first value."""
    network = build("transformer", SIZES, seed=2).double()
    assert isinstance(network, Transformer)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def inputs(steps: int, batch: int = 3) -> Tensor:
    """[T, B, 5]"""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(steps, batch, 5, generator=generator, dtype=torch.float64)


def step_by_step(network: Transformer, x: Tensor) -> Tensor:
    """The logits of all steps, one after another."""
    state, rows = network.initial_state(x.shape[1], 0), []
    with torch.no_grad():
        for each in x:
            logits, state, _ = network(each, state)
            rows.append(logits)
    return torch.stack(rows)


@pytest.mark.parametrize("window", [6, 256])
def test_training_computes_what_the_steps_compute(
    monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """All steps at once have the outputs of one after another, also beyond the window."""
    monkeypatch.setattr(transformer, "WINDOW", window)
    network, x = drawn(), inputs(20)
    unroll = ARCHITECTURES["transformer"].logits
    with torch.no_grad():
        whole = unroll(network, x, network.initial_state(3, 0), Arena())

    torch.testing.assert_close(whole, step_by_step(network, x), rtol=0, atol=1e-12)


def test_attention_is_that_of_the_paper() -> None:
    """Each head's output is softmax(Q K' / sqrt(d)) V over the steps so far, in numpy."""
    query, key, value = np.random.default_rng(3).normal(size=(3, 1, 4, 7, 16))
    bias = torch.full((7, 7), -1e9, dtype=torch.float64).triu(1)
    found = transformer._read(
        torch.from_numpy(query), torch.from_numpy(key), torch.from_numpy(value), bias
    )

    for head in range(4):
        for step in range(7):
            seen = slice(step + 1)
            scores = np.exp(key[0, head, seen] @ query[0, head, step] / np.sqrt(16))
            expected = scores / scores.sum() @ value[0, head, seen]
            np.testing.assert_allclose(found[0, head, step], expected, atol=1e-12)


def test_an_output_depends_on_no_later_input() -> None:
    """A change of the input of step 9 changes outputs from step 9 on, and none before."""
    network, x = drawn(), inputs(16)
    changed = x.clone()
    changed[9] += 1
    with torch.no_grad():
        differ = (network.whole(changed) - network.whole(x)).abs().amax((1, 2)) > 1e-9

    assert differ.tolist() == [False] * 9 + [True] * 7


def test_a_step_reaches_no_further_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one layer and a window of 4, the first input matters to the first four outputs."""
    monkeypatch.setattr(transformer, "WINDOW", 4)
    sizes = replace(SIZES, layers=1)
    network = build("transformer", sizes, seed=2).double()
    assert isinstance(network, Transformer)
    x = inputs(8)
    changed = x.clone()
    changed[0] += 1
    differ = (step_by_step(network, changed) - step_by_step(network, x)).abs().amax((1, 2)) > 1e-9

    assert differ.tolist() == [True] * 4 + [False] * 4


def test_order_matters() -> None:
    """The same inputs in another order have another last output: positions are given."""
    network, x = drawn(), inputs(6)
    swapped = x[[1, 0, 2, 3, 4, 5]]
    with torch.no_grad():
        difference = (network.whole(swapped) - network.whole(x))[-1].abs().max()

    assert difference > 1e-3


def test_whole_sequences_run_from_the_initial_state_alone() -> None:
    """A state of a later step is refused, since training would ignore it."""
    network, x = drawn(), inputs(2)
    with torch.no_grad():
        _, later, _ = network(x[0], network.initial_state(3, 0))

    with pytest.raises(ValueError, match="run from the initial state alone"):
        transformer.logits_of(network, x, later, Arena())
    with pytest.raises(TypeError, match="this trains Transformers, not Gru"):
        transformer.logits_of(build("gru", SIZES, 1), x, later, Arena())
