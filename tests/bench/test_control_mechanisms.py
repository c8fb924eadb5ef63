"""Mechanisms that are fitted to networks which run no program."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from bench import control_networks
from bench.control_mechanisms import MechanismJudgement, judge_mechanism, mechanism_section
from bench.control_networks import control, mechanism_controls
from tests.support.served import MODELS

CONSTANT = MechanismJudgement("untrained", "copy-ntm-ff", 1, 0.0, 1.0, 1.0, 40, 30, 60.0)
"""An untrained network whose outputs never change, so that a mechanism has them all alike."""


def test_a_true_mechanism_of_a_network_without_skill_is_not_told() -> None:
    """It is alike, but the network never does its task."""
    assert (CONSTANT.alike_enough, CONSTANT.told) == (True, False)


def test_a_mechanism_of_a_network_with_a_skill_is_told_if_it_is_alike() -> None:
    """From half of the sequences without a mistake, and from nine tenths alike."""
    assert replace(CONSTANT, exact=0.5, alike=0.9).told
    assert not replace(CONSTANT, exact=0.49, alike=0.9).told
    assert not replace(CONSTANT, exact=0.5, alike=0.89).told


def test_the_section_tells_false_mechanisms_from_true_ones() -> None:
    """The shipped network's is no false one, nor counted in the bound."""
    shuffled = replace(CONSTANT, kind="shuffled", exact=0.6)
    shipped = replace(CONSTANT, kind="as it ships", exact=1.0, constant=0.0)
    text = "\n\n".join(mechanism_section([CONSTANT, shuffled, shipped], [0.0, 0.6, 0.5, 0.49]))

    assert "told of 1 of 2 controls, a share of at most 97.5%" in text
    assert "The condition itself was met by 2 of 4 controls." in text
    assert "In 2 of them it had every bit" in text
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if "|" in line]
    assert rows[2][1:4] == ["untrained", "1", "0"]
    assert rows[3][1:4] == ["shuffled", "1", "1"]
    assert rows[4][1:4] == ["as it ships", "1", "1"]
    assert rows[2][8] == "30 of 40 (75.0%)"


def test_mechanisms_are_looked_for_in_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one model, the four kinds with heads, and the model as it ships; and none of no seeds."""
    monkeypatch.setattr(control_networks, "control", lambda _, *which: which)
    made = [cast("tuple[str, str, int]", each) for each in mechanism_controls(MODELS, 1)]
    kinds = ("untrained", "shuffled", "noised", "random targets")

    assert [(kind, seed) for model, kind, seed in made if model == "repeat-copy-ntm-ff"] == [
        *((kind, 1) for kind in kinds),
        ("as it ships", 0),
    ]
    assert {model for model, _, _ in made} == {
        f"{task}-ntm-{controller}"
        for task in ("copy", "repeat-copy")
        for controller in ("ff", "lstm")
    }
    assert list(mechanism_controls(MODELS, 0)) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mechanism_is_fitted_to_a_network_as_it_ships() -> None:
    """And told, because the network copies, and the mechanism foretells what changes do."""
    found = judge_mechanism(control(MODELS, "copy-ntm-ff", "as it ships", 0))

    assert found is not None
    assert (found.exact, found.alike, found.told) == (1, 1, True)
    assert found.foretold > 0.85 * found.changed > 100
