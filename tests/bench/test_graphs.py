"""The peers of the network's step compute the same as the served graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import graphs
from bench.engine import EngineLoad
from bench.fused import FusedStep
from bench.graphs import BATCH, LOCATIONS, Step
from bench.row import Options
from bench.serving import load_network
from bench.training import PeerTraining
from service.models.runtime import Network


@pytest.fixture(scope="module")
def network() -> Network:
    """Load the measured model."""
    return load_network(Options())


def fused() -> Step:
    """Return the step fused by hand."""
    return FusedStep(graphs.parameters(), BATCH, LOCATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("peer", [graphs.literal_step, graphs.eager_step, fused])
def test_a_peer_gives_the_outputs_of_the_served_graph(
    network: Network, peer: Callable[[], Step]
) -> None:
    """In a copy of 20 vectors, each peer carries its own state and has the served outputs."""
    graphs.check(peer(), network)


def test_a_peer_that_computes_something_else_is_refused(network: Network) -> None:
    """A peer with outputs that are 0.1 % off is refused."""
    step = graphs.eager_step()
    with pytest.raises(ArithmeticError, match="the peer differs by"):
        graphs.check(lambda x: step(x) * 0.999, network)


def test_the_engine_is_measured_by_steps_that_succeeded(network: Network) -> None:
    """The throughput of the engine counts the steps of all its sessions."""
    assert EngineLoad(network, 64, 32).steps_a_second(0.01) > 0


def test_late_steps_are_measured_from_a_late_state(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states are those of as many steps, and steps are timed from each of them."""
    monkeypatch.setattr(graphs, "LATE", 30)
    continued = graphs.ContinuedSteps(network)
    assert list(continued.states) == [10, 30]
    assert (continued.states[10]["memory"] != continued.states[30]["memory"]).any()
    for steps in continued.states:
        assert continued.us_a_step(steps) > 0


def test_the_peer_of_training_learns() -> None:
    """The parameters of the peer change with every sequence, and stay finite."""
    peer = PeerTraining()
    before = [parameter.clone() for parameter in peer.parameters]
    for _ in range(3):
        peer.update()
    assert all(parameter.isfinite().all() for parameter in peer.parameters)
    changed = zip(before, peer.parameters, strict=True)
    assert all((old != new).any() for old, new in changed)
