"""The models that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export import card, evaluation
from export.configurations import CONFIGURATIONS, Trial
from export.tasks import TASKS, Purpose
from export.verification import OnnxRunner

MODELS = Path(__file__).parents[2] / "models"

SHIPPED = ("copy-ntm-lstm", "copy-ntm-ff")


def card_of(name: str) -> dict[str, Any]:
    """A model's card."""
    described: dict[str, Any] = json.loads((MODELS / name / card.CARD_NAME).read_text())
    return described


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_is_of_the_file(name: str) -> None:
    """The content hash on the card is the file's, and the file loads as the card's network."""
    described = card_of(name)
    content = (MODELS / name / card.MODEL_NAME).read_bytes()

    assert described["content_hash"] == card.content_hash(content)
    network = card.load(MODELS / name)
    assert described["parameters"] == sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_says_how_to_train_the_model_again(name: str) -> None:
    """The card's hyper-parameters are those of the table."""
    assert CONFIGURATIONS[name] == card.configuration_on(card_of(name))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_reports_no_wrong_bit(name: str) -> None:
    """200 sequences each at lengths 20, 120 and 1,000 were copied without a wrong bit."""
    results = card_of(name)["evaluation"]["results"]

    assert [
        (each["length"], each["locations"], each["sequences"], each["wrong_bits"])
        for each in results
    ] == [(20, 128, 200, 0), (120, 128, 200, 0), (1000, 1024, 200, 0)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_copies_six_times_the_longest_training_length(name: str) -> None:
    """Sequences of length 120, never seen before, are copied without a wrong bit."""
    runner = OnnxRunner((MODELS / name / card.MODEL_NAME).read_bytes())
    trial = Trial(length=120, locations=128, sequences=5)

    result = evaluation.evaluate(runner, TASKS["copy"], trial, Purpose.EVALUATION, seed=77)

    assert result.wrong_bits == 0
