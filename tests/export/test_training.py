"""Training: it learns, resumes exactly, keeps the best, and survives values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export import training
from export.architectures import ARCHITECTURES
from export.arena import Arena
from export.configuration import Configuration, Trial
from export.evaluation import score
from export.network import Network, State
from export.training import MAX_RESTARTS, CheckpointInvalid, NotFinite, Point, Quality, Run
from export.unrolled import logits_of
from ntm_tasks import TASKS, Purpose, generator_for
from tests.export.conftest import tiny


def test_training_lowers_the_cost(tmp_path: Path) -> None:
    """A few dozen updates bring the bits per sequence of short copies well below chance."""
    configuration = replace(
        tiny("ntm-lstm", updates=60, report_every=20), learning_rate=2e-2, batch=16
    )
    run = training.train(Run.new(configuration, seed=1), tmp_path)

    costs = [point.bits_per_sequence for point in run.curve]
    assert len(costs) == 3
    assert run.curve[-1].validation_bits < run.curve[0].validation_bits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupted_run_resumes_exactly(architecture: str, tmp_path: Path) -> None:
    """A run cut after a checkpoint ends with the parameters of an uncut one, bit for bit."""
    configuration = tiny(architecture, updates=6, report_every=2)
    whole = training.train(Run.new(configuration, 3), tmp_path / "whole")
    cut = Run.new(configuration, 3)
    training.train_to_next_point(cut)
    cut.save(tmp_path / "cut")
    training.update(cut)  # lost: made after the last checkpoint
    resumed = training.train(Run.load(tmp_path / "cut"), tmp_path / "cut")

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert [point[:5] for point in whole.curve] == [point[:5] for point in resumed.curve]
    assert (whole.best_update, whole.best_quality) == (resumed.best_update, resumed.best_quality)


def test_a_checkpoint_holds_the_whole_run(tmp_path: Path) -> None:
    """Configuration, seed, counters, curve and best network come back from a checkpoint."""
    run = training.train(Run.new(tiny("ntm-ff"), 4), tmp_path)
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
    training.train(run, tmp_path)

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
        run.network.get_parameter("output.bias")[0] = float("nan")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}

    with pytest.raises(NotFinite, match="update 0 of seed 9"):
        training.update(run)

    for name, value in run.network.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True)


def test_a_restart_goes_back_with_half_the_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one NaN a run finishes from its last checkpoint, at half the rate, counted once."""
    update, failures = training.update, [3]

    def fail_once(run: Run) -> tuple[float, float]:
        if run.update in failures:
            failures.remove(run.update)
            raise NotFinite("loss nan in update 3 of seed 1")
        return update(run)

    monkeypatch.setattr(training, "update", fail_once)
    run = training.train(Run.new(tiny("ntm-ff"), 1), tmp_path)

    assert (run.update, run.restarts) == (4, 1)
    assert Run.load(tmp_path).restarts == 1
    run.update = 0
    assert run.learning_rate() == run.configuration.learning_rate / 2


def test_a_run_goes_on_with_another_way_to_be_measured(tmp_path: Path) -> None:
    """Settings that no update depends on may change, and are kept; any other is refused."""
    begun = tiny("ntm-ff")
    training.train(Run.new(begun, 1), tmp_path)
    measured = replace(
        begun,
        choice=(Trial((5,), 32, 2),),
        evaluation=(Trial((9,), 32, 2),),
        default_locations=32,
    )

    assert Run.load_to_go_on(tmp_path, measured, 1).configuration == measured
    assert Run.load(tmp_path).configuration == measured
    with pytest.raises(CheckpointInvalid, match=r"pass_bits is 0\.0 there, and 1\.0 here"):
        Run.load_to_go_on(tmp_path, replace(measured, pass_bits=1.0), 1)


def exploding(updates: Iterable[int]) -> Callable[..., Tensor]:
    """The norm of gradients, except that it is infinite in the updates of these numbers."""
    number, true = iter(range(1_000_000)), torch.nn.utils.get_total_norm

    def norm(gradients: Iterator[Tensor]) -> Tensor:
        found = true(gradients)
        return found * float("inf") if next(number) in updates else found

    return norm


def test_an_update_whose_gradient_is_not_finite_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes nothing and is counted, also by a checkpoint; the others are made."""
    run = Run.new(tiny("ntm-ff"), 1)
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", exploding({0, 3}))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    training.update(run)
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    training.update(run)
    assert any(
        not torch.equal(value, before[name]) for name, value in run.network.state_dict().items()
    )

    run = training.train(run, tmp_path)

    assert (run.update, run.skipped, run.restarts) == (4, 2, 0)
    assert Run.load(tmp_path).skipped == 2


def test_a_run_without_a_finite_gradient_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all updates up to a point of the curve were skipped, the learning rate is halved."""
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", exploding({2, 3}))

    run = training.train(Run.new(tiny("ntm-ff"), 1), tmp_path)

    assert (run.update, run.skipped, run.restarts) == (4, 0, 1)


def test_restarts_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails every time gives up instead of going on for ever."""

    def fail(run: Run) -> tuple[float, float]:
        raise NotFinite("loss nan")

    monkeypatch.setattr(training, "update", fail)

    with pytest.raises(NotFinite, match=f"after {MAX_RESTARTS} restarts"):
        training.train(Run.new(tiny("ntm-ff"), 1), tmp_path)


def test_a_relapse_goes_back_with_half_the_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that lost its task is given up for its last checkpoint, counted once."""
    validate, lost = training.validate, [4]

    def lose_once(network: Network, configuration: Configuration, seed: int) -> Quality:
        lost[0] -= 1
        return Quality(0, -900.0) if not lost[0] else validate(network, configuration, seed)

    monkeypatch.setattr(training, "validate", lose_once)
    configuration = replace(tiny("ntm-ff", updates=10), relapse_bits=100.0)
    run = training.train(Run.new(configuration, 1), tmp_path)

    assert (run.update, run.restarts, run.relapses) == (10, 0, 1)
    assert [point.sequences for point in run.curve] == [8, 16, 24, 32, 40]
    assert all(point.validation_bits < 100 for point in run.curve)
    run.update = 0
    assert run.learning_rate() == configuration.learning_rate / 2


@pytest.mark.parametrize(
    ("bits", "passed", "best", "relapsed"),
    [
        (101.0, 0, Quality(0, -20.0), True),
        (99.0, 0, Quality(0, -20.0), False),
        (101.0, 0, Quality(0, -26.0), False),
        (101.0, 0, Quality(1, -500.0), True),
        (101.0, 1, Quality(1, -20.0), False),
        (101.0, 0, None, False),
    ],
)
def test_a_relapse_costs_many_bits_and_much_more_than_before(
    bits: float, passed: int, best: Quality | None, relapsed: bool
) -> None:
    """A relapse costs more than the limit and four times the best; no limit, no relapse."""
    configuration = replace(tiny("ntm-ff"), relapse_bits=100.0)
    for each, expected in ((configuration, relapsed), (tiny("ntm-ff"), False)):
        run = Run.new(each, 1)
        run.curve.append(Point(8, 1.0, 1.0, passed, bits, 1.0))
        run.best_quality = best

        assert training.has_relapsed(run) == expected


def test_the_learning_rate_falls_to_zero_in_the_second_half() -> None:
    """The rate is constant for half of the updates, then falls in a line."""
    run = Run.new(replace(tiny("ntm-ff", updates=100), learning_rate=1.0), 1)
    rates = []
    for run.update in (0, 50, 75, 99):
        rates.append(run.learning_rate())

    assert rates == pytest.approx([1, 1, 0.5, 0.02])


def test_a_decay_of_zero_keeps_the_learning_rate() -> None:
    """With a decay of 0, the rate stays the same to the last update."""
    run = Run.new(replace(tiny("ntm-ff", updates=100), learning_rate=1.0, decay=0.0), 1)
    run.update = 99

    assert run.learning_rate() == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "rmsprop", "learning_rate": 1e-3, "clip_norm": 0.0, "clip_value": 10.0},
        {"clip_ratio": 1.5, "curriculum": 5, "curriculum_cost": 100.0},
        {"locations": (8, 16), "initial_memory": "positional", "memory_width": 12},
    ],
    ids=["paper", "curriculum", "two sizes"],
)
def test_whatever_the_settings_a_run_resumes_exactly(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Moments, progress, the typical gradient and the draw of N are as in an uncut run."""
    configuration = replace(tiny("ntm-ff", updates=4, report_every=2), **settings)
    whole = training.train(Run.new(configuration, 3), tmp_path / "whole")
    cut = Run.new(configuration, 3)
    training.train_to_next_point(cut)
    cut.save(tmp_path / "cut")
    resumed = training.train(Run.load(tmp_path / "cut"), tmp_path / "cut")

    assert (whole.progress, whole.typical_norm) == (resumed.progress, resumed.typical_norm)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def with_gradient(run: Run, value: float) -> float:
    """Give every parameter that gradient, shorten it, and return its length."""
    for parameter in run.network.parameters():
        parameter.grad = torch.full_like(parameter, value)
    training.shorten(run)
    gradients = (each.grad for each in run.network.parameters() if each.grad is not None)
    return float(torch.nn.utils.get_total_norm(gradients))


def test_a_gradient_longer_than_is_typical_is_shortened() -> None:
    """With a ratio of 2, a gradient of 1,000 times the typical norm is cut to twice that norm."""
    run = Run.new(replace(tiny("ntm-ff"), clip_norm=0.0, clip_ratio=2.0), 1)
    typical = with_gradient(run, 1e-3)

    assert run.typical_norm == pytest.approx(typical)
    assert with_gradient(run, 1e-3) == pytest.approx(typical)
    assert with_gradient(run, 1.0) == pytest.approx(2 * typical, rel=1e-4)
    # What passed was twice the mean, which so grows by a fiftieth.
    assert run.typical_norm == pytest.approx(1.02 * typical, rel=1e-4)


@pytest.mark.parametrize(("limit", "length"), [(0.05, 0.05), (0.0, None)])
def test_a_gradient_longer_than_the_limit_is_shortened_to_it(
    limit: float, length: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimiser gets a gradient of the limit's norm; without a limit, the original one."""
    lengths = []

    def look(optimiser: torch.optim.Adam) -> None:
        parameters = optimiser.param_groups[0]["params"]
        lengths.append(float(torch.nn.utils.get_total_norm(each.grad for each in parameters)))

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    run = Run.new(replace(tiny("ntm-ff"), clip_norm=limit), 1)
    with torch.no_grad():
        run.network.get_parameter("output.bias").fill_(100)
    training.update(run)

    assert lengths[0] == pytest.approx(length, rel=1e-4) if length else lengths[0] > 0.1


@pytest.mark.parametrize(("cost", "progress"), [(100.0, 0.25), (0.0, 0.0)])
def test_a_curriculum_goes_on_by_successes_only(cost: float, progress: float) -> None:
    """An update counts as one of four only if its cost is low enough."""
    run = Run.new(replace(tiny("ntm-ff"), curriculum=4, curriculum_cost=cost), 1)
    training.update(run)

    assert run.progress == progress


def test_expected_targets_are_the_optimum() -> None:
    """The gradient is towards the optimum; the reported bits are of the drawn targets."""
    trials = (Trial((9, 2), 16, 2),)
    ngrams = replace(tiny("ntm-ff"), task="ngrams", validation=trials, evaluation=trials)
    configuration = replace(ngrams, expected_targets=True, clip_norm=0.0, batch=2)
    run = Run.new(configuration, 1)
    batch = TASKS["ngrams"].draw(generator_for(Purpose.TRAINING, 1, 0), 2)
    state = run.network.initial_state(2, 24)
    logits = logits_of(run.network, torch.from_numpy(batch.inputs), state, Arena())
    assert batch.optimum is not None
    training.mean_cross_entropy(logits, batch.optimum, batch.mask).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    expected = [each.grad.clone() for each in run.network.parameters() if each.grad is not None]
    bits, _ = training.update(run)

    found = [each.grad for each in run.network.parameters() if each.grad is not None]
    assert len(found) == len(expected) > 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    probabilities = torch.sigmoid(logits.detach()).numpy()
    assert bits == pytest.approx(
        score(probabilities, batch.targets, batch.mask).bits.mean(), rel=1e-4
    )


def test_denormals_are_zeros_in_training_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Denormals are flushed to zero in training, and not afterwards in the same process."""
    seen = []

    def halve_the_smallest() -> float:
        return float(torch.full((8,), 2.0**-126) @ torch.full((8,), 2.0**-3) / 2)

    def look(network: Network, configuration: Configuration, seed: int) -> Quality:
        seen.append(halve_the_smallest())
        return Quality(0, 0.0)

    monkeypatch.setattr(training, "validate", look)
    training.train_to_next_point(Run.new(tiny("ntm-ff"), 1))

    assert seen == [0.0]
    assert halve_the_smallest() == 2.0**-127


def test_every_update_draws_its_number_of_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates draw both of two sizes, and no other."""
    run = Run.new(replace(tiny("ntm-ff"), locations=(5, 9)), 1)
    seen = set()

    def watched(network: Network, inputs: Tensor, state: State, arena: Arena) -> Tensor:
        seen.add(state[0].shape[-1])
        return logits_of(network, inputs, state, arena)

    monkeypatch.setitem(ARCHITECTURES, "ntm-ff", replace(ARCHITECTURES["ntm-ff"], logits=watched))
    for _ in range(12):
        training.update(run)

    assert seen == {5, 9}
