"""The networks: pure, of any memory size, and finite whatever happens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from export.architectures import ARCHITECTURES, build
from export.network import Sizes
from export.ntm import INITIAL_MEMORIES, Ntm

SIZES = Sizes(5, 3, 8, 2, 2, 3, 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_changes_nothing_but_what_it_returns(architecture: str) -> None:
    """The same input and state give the same result again, and the state passed in stays."""
    network = build(architecture, SIZES, seed=1)
    x, state = torch.ones(2, 5), network.initial_state(2, 6)
    copies = [value.clone() for value in state]
    first, first_state, _ = network(x, state)
    second, second_state, _ = network(x, state)

    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(first_state, second_state, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(state, copies, strict=True))


@pytest.mark.parametrize("architecture", ["ntm-lstm", "ntm-ff"])
@pytest.mark.parametrize("locations", [1, 16, 64])
def test_one_set_of_parameters_serves_any_memory_size(architecture: str, locations: int) -> None:
    """A network steps at any N, and every tensor has the shape that its state documents."""
    network = build(architecture, SIZES, seed=1)
    logits, state, trace = network(torch.ones(2, 5), network.initial_state(2, locations))

    assert logits.shape == (2, 3)
    assert (2, 4, locations) == state.memory.shape
    assert (2, 5, locations) == state.weighting.shape
    assert state.read_vector.shape == (2, 2, 4)
    assert [tuple(value.shape) for value in trace] == [
        (2, 5, 4),
        (2, 5, 1),
        (2, 5, 1),
        (2, 5, 3),
        (2, 5, 1),
        (2, 3, 4),
        (2, 3, 4),
    ]


def test_the_initial_state_is_a_faint_memory_and_heads_at_location_0() -> None:
    """A session starts with constant memory and every head's whole weight on location 0."""
    state = build("ntm-ff", SIZES, seed=1).initial_state(2, 6)

    assert (state.memory == np.float32(1e-6)).all()  # type: ignore[attr-defined]  # an NTM's state
    assert state.weighting[1, 4].tolist() == [1.0, 0, 0, 0, 0, 0]  # type: ignore[attr-defined]


def test_a_positional_memory_is_what_the_server_makes_of_its_rule() -> None:
    """A positional memory starts from the spec's rule, the same for every sequence and any N."""
    sizes = replace(SIZES, memory_width=12, initial_memory="positional")
    state = build("ntm-ff", sizes, seed=1).initial_state(2, 9)
    expected = INITIAL_MEMORIES["positional"].value((12, 9))

    for memory in state.memory.numpy():  # type: ignore[attr-defined]  # an NTM's state
        np.testing.assert_array_equal(memory, expected)


def test_a_learned_memory_is_a_parameter_that_gets_a_gradient() -> None:
    """Every sequence starts from the learned values, and their gradients reach them."""
    sizes = replace(SIZES, initial_memory="learned", locations=7)
    network = build("ntm-lstm", sizes, seed=1)
    learned = network.get_parameter("initial_memory")
    state = network.initial_state(2, 7)
    logits, _, _ = network(torch.ones(2, 5), state)
    logits.sum().backward()

    assert learned.shape == (4, 7)
    assert torch.equal(state[0][1], learned)
    assert learned.grad is not None
    assert learned.grad.abs().max() > 0


def test_an_unknown_initial_memory_is_refused() -> None:
    """A misspelt rule is named, with those there are."""
    with pytest.raises(ValueError, match="'constnat' is not constant, positional, periodic"):
        build("ntm-ff", replace(SIZES, initial_memory="constnat"), seed=1)


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def test_stacked_lstm_layers_are_those_of_the_textbook() -> None:
    """Three steps of a two-layer baseline equal gate by gate arithmetic in numpy."""
    network = build("lstm", SIZES, seed=1)
    values = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
    inputs = np.random.default_rng(1).normal(size=(3, 2, 5))
    hidden, cell = np.zeros((2, 2, 8)), np.zeros((2, 2, 8))
    state = network.initial_state(2, 0)
    for step in inputs:
        logits, state, _ = network(torch.from_numpy(step).float(), state)
        x = step
        for layer in range(2):
            weight = values[f"lstm.layers.{layer}.gates.weight"]
            bias = values[f"lstm.layers.{layer}.gates.bias"]
            into = np.concatenate([x, hidden[layer]], 1) @ weight + bias
            keep, forget, out = (sigmoid(into[:, 8 * gate : 8 * gate + 8]) for gate in range(3))
            cell[layer] = forget * cell[layer] + keep * np.tanh(into[:, 24:])
            x = hidden[layer] = out * np.tanh(cell[layer])
        expected = x @ values["output.weight"] + values["output.bias"]

        np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(state[1].detach().numpy(), cell.transpose(1, 0, 2), atol=1e-6)


def test_heads_read_the_memory_that_the_step_finds() -> None:
    """A read vector is of the memory before the step's own writing."""
    network = build("ntm-lstm", SIZES, seed=1)
    before = network.initial_state(1, 6)
    memory = torch.arange(24.0).reshape(1, 4, 6)
    _, after, _ = network(torch.ones(1, 5), before._replace(memory=memory))

    torch.testing.assert_close(after.read_vector, after.weighting[:, :2] @ memory.mT)


def test_the_gate_bias_is_where_gates_start() -> None:
    """A gate bias of -3 starts the gates of all heads, and only them, near 0.05."""
    sizes = Sizes(5, 3, 8, 1, 2, 3, 4, gate_bias=-3.0)
    network = build("ntm-ff", sizes, seed=1)
    bias = network.get_parameter("heads.layer.bias")

    assert int((bias == -3).sum()) == 5
    _, _, trace = network(torch.zeros(1, 5), network.initial_state(1, 6))
    torch.testing.assert_close(trace.gate, torch.full((1, 5, 1), 0.0474), atol=0.001, rtol=0)


@pytest.mark.parametrize("architecture", ["ntm-lstm", "ntm-ff"])
@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_saturated_heads_stay_finite_over_long_sequences(architecture: str, scale: float) -> None:
    """Heads driven to their limits, or to zero, make no NaN in 60 steps or in their gradients."""
    network = build(architecture, SIZES, seed=1)
    assert isinstance(network, Ntm)
    with torch.no_grad():
        network.heads.layer.weight.mul_(scale)
    state = network.initial_state(2, 6)
    total = torch.zeros(())
    for step in range(60):
        logits, state, trace = network(torch.full((2, 5), float(step % 2)), state)
        total = total + logits.square().sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it

    assert all(value.isfinite().all() for value in (total, *state, *trace))
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in network.parameters()
    )


def test_head_parameters_are_cut_off() -> None:
    """However large the pre-activation, strength and sharpening stay near the limit of 20."""
    network = build("ntm-ff", SIZES, seed=1)
    with torch.no_grad():
        network.get_parameter("heads.layer.bias").fill_(1e9)
    _, _, trace = network(torch.zeros(1, 5), network.initial_state(1, 6))

    assert trace.strength.max().item() == pytest.approx(20)
    assert trace.sharpening.max().item() == pytest.approx(21)


def test_a_seed_fixes_the_parameters() -> None:
    """Equal seeds give equal parameters, other seeds give others."""
    first, again, other = (build("ntm-lstm", SIZES, seed).state_dict() for seed in (1, 1, 2))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.layer.weight"], other["heads.layer.weight"])
