"""Training: it learns, resumes exactly, keeps the best, and survives values that are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export import training
from export.network import ARCHITECTURES
from export.training import MOST_RESTARTS, NotFinite, Quality, Run
from tests.export.conftest import tiny


def test_training_lowers_the_cost(tmp_path: Path) -> None:
    """A few dozen updates bring the bits per sequence of short copies well below chance."""
    configuration = replace(
        tiny("ntm-lstm", updates=60, report_every=20), learning_rate=2e-2, batch=16
    )
    run = training.train(Run.new(configuration, seed=1), tmp_path, compiled=False)

    costs = [point.bits_per_sequence for point in run.curve]
    assert len(costs) == 3
    assert run.curve[-1].validation_bits < run.curve[0].validation_bits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_run_resumes_exactly(architecture: str, tmp_path: Path) -> None:
    """A run cut after a checkpoint ends with the parameters of an uncut one, bit for bit."""
    configuration = tiny(architecture, updates=6, report_every=2)
    whole = training.train(Run.new(configuration, 3), tmp_path / "whole", compiled=False)
    cut = Run.new(configuration, 3)
    chunk = training.chunk_of(cut.network, compiled=False)
    training.train_to_next_point(cut, chunk)
    cut.save(tmp_path / "cut")
    training.update(cut, chunk)  # lost: made after the last checkpoint
    resumed = training.train(Run.load(tmp_path / "cut"), tmp_path / "cut", compiled=False)

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert [point[:5] for point in whole.curve] == [point[:5] for point in resumed.curve]
    assert (whole.best_update, whole.best_quality) == (resumed.best_update, resumed.best_quality)


def test_a_checkpoint_holds_the_whole_run(tmp_path: Path) -> None:
    """Configuration, seed, counters, curve and best network come back from a checkpoint."""
    run = training.train(Run.new(tiny("ntm-ff"), 4), tmp_path, compiled=False)
    loaded = Run.load(tmp_path)

    assert (run.configuration, run.seed, run.update) == (
        loaded.configuration,
        loaded.seed,
        loaded.update,
    )
    assert run.curve == loaded.curve
    assert run.best_quality == loaded.best_quality
    for name, value in run.best_network().state_dict().items():
        assert torch.equal(value, loaded.best_network().state_dict()[name])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_the_best_network_is_kept(tmp_path: Path) -> None:
    """A later network that validates worse does not replace the best."""
    run = Run.new(tiny("ntm-ff"), 4)
    run.best = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.best_quality = Quality(passed=1, negative_bits=0.0)
    training.train(run, tmp_path, compiled=False)

    assert run.best_update == 0
    fresh = Run.new(tiny("ntm-ff"), 4).network
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, run.best[name])


def test_quality_counts_trials_before_bits() -> None:
    """More trials passed is better at any cost in bits; among equals fewer bits are better."""
    assert Quality(2, -900.0) > Quality(1, -1.0) > Quality(1, -2.0)


def test_values_not_finite_are_reported_and_change_nothing() -> None:
    """A NaN stops the update before the optimiser, naming the update and the seed."""
    run = Run.new(tiny("ntm-lstm"), seed=9)
    with torch.no_grad():
        run.network.output.bias[0] = float("nan")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}

    with pytest.raises(NotFinite, match="update 0 of seed 9"):
        training.update(run, training.chunk_of(run.network, compiled=False))

    for name, value in run.network.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True)


def test_a_restart_goes_back_with_half_the_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one NaN a run finishes from its last checkpoint, at half the rate, counted once."""
    update, failures = training.update, [3]

    def fail_once(run: Run, chunk: training.Chunk) -> tuple[float, float]:
        if run.update in failures:
            failures.remove(run.update)
            raise NotFinite("loss nan in update 3 of seed 1")
        return update(run, chunk)

    monkeypatch.setattr(training, "update", fail_once)
    run = training.train(Run.new(tiny("ntm-ff"), 1), tmp_path, compiled=False)

    assert (run.update, run.restarts) == (4, 1)
    assert Run.load(tmp_path).restarts == 1
    run.update = 0
    assert run.learning_rate() == run.configuration.learning_rate / 2


def test_restarts_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails every time gives up instead of going on for ever."""

    def fail(run: Run, chunk: training.Chunk) -> tuple[float, float]:
        raise NotFinite("loss nan")

    monkeypatch.setattr(training, "update", fail)

    with pytest.raises(NotFinite, match=f"after {MOST_RESTARTS} restarts"):
        training.train(Run.new(tiny("ntm-ff"), 1), tmp_path, compiled=False)


def test_the_learning_rate_falls_to_zero_in_the_second_half() -> None:
    """The rate is constant for half of the updates, then falls in a line."""
    run = Run.new(replace(tiny("ntm-ff", updates=100), learning_rate=1.0), 1)
    rates = []
    for run.update in (0, 50, 75, 99):
        rates.append(run.learning_rate())

    assert rates == pytest.approx([1, 1, 0.5, 0.02])
