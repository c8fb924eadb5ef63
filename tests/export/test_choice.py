"""Which network is chosen: of checkpoints by validation, of seeds by trials of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import card
from export.configuration import Configuration, Trial
from export.evaluation import Answers, TorchRunner, answers_of, evaluate
from export.training import Point, Quality, Run, quality_of
from ntm_tasks import TASKS, Batch, Float32, Purpose
from tests.export.conftest import tiny

CHOICE = (Trial((4,), 16, 20),)


def copied(certainty: float) -> Answers:
    """Answers to copy that are right by so much."""

    def answers(batch: Batch, _locations: int) -> Float32:
        return np.where(batch.targets > 0.5, certainty, 1 - certainty).astype(np.float32)

    return answers


def test_a_trial_without_a_limit_passes_without_a_wrong_bit() -> None:
    """Outputs that are barely right pass; the last trial's bits are those of the quality."""
    row = replace(tiny("ntm-ff"), validation=(Trial((3,), 16, 2), Trial((5,), 16, 2)))

    passed, negative_bits = quality_of(copied(0.75), row, row.validation, 1)

    assert passed == 2
    np.testing.assert_allclose(negative_bits, 5 * 8 * np.log2(0.75), rtol=1e-5)


def test_a_trial_with_a_limit_passes_by_its_bits() -> None:
    """Outputs that are barely right do not pass a limit of few bits, and pass one of many."""
    row = replace(tiny("ntm-ff"), validation=(Trial((3,), 16, 2), Trial((5,), 16, 2)))
    bits = -3 * 8 * np.log2(0.75)

    for limit, passed in ((bits - 0.01, 0), (bits + 0.01, 1), (2 * bits, 2)):
        limited = replace(row, pass_bits=float(limit))
        assert quality_of(copied(0.75), limited, row.validation, 1).passed == passed


def runs_of(row: Configuration, best_in_validation: int) -> list[Run]:
    """Seeds 1 and 2, fresh; one of them claims to be the best in validation."""
    runs = [Run.new(row, seed) for seed in (1, 2)]
    for run in runs:
        run.best = run.network.state_dict()
        run.best_quality = Quality(int(run.seed == best_in_validation), 0.0)
        run.curve = [Point(0, 1.0, 1.0, 0, 1.0, 0.1)]
    return runs


@pytest.mark.parametrize("has_choice", [True, False])
def test_seeds_are_chosen_by_the_same_sequences(tmp_path: Path, has_choice: bool) -> None:
    """The seed with the fewest bits there ships although another was better on its own."""
    row = replace(tiny("lstm"), choice=())
    choice = tuple(trial._replace(locations=0) for trial in CHOICE)
    bits = [
        evaluate(
            answers_of(TorchRunner(run.network)), TASKS["copy"], choice[0], Purpose.VALIDATION, 0
        ).bits_per_sequence
        for run in runs_of(row, 1)
    ]
    better = 1 + int(np.argmin(bits))

    row = replace(row, choice=choice) if has_choice else replace(row, validation=choice)
    runs = runs_of(row, best_in_validation=3 - better)
    chosen = card.read(card.write_model(runs, tmp_path, "chosen"))

    assert chosen["shipped_seed"] == better
    of_seeds = [seed["choice"]["bits"] for seed in chosen["seeds"]]
    np.testing.assert_allclose(of_seeds, bits, rtol=1e-4)
    assert card.configuration_on(chosen) == row
