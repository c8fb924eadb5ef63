"""The models that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import card, curve, evaluation
from export.configuration import Trial
from export.configurations import CONFIGURATIONS, PAPER
from export.evaluation import TorchRunner, outputs
from export.verification import OnnxRunner
from ntm_tasks import TASKS, Purpose, Size
from service.spec import ModelSpec

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = sorted(path.name for path in MODELS.iterdir() if path.is_dir() and path.name != "report")


def card_of(name: str) -> dict[str, Any]:
    """A model's card."""
    return card.read(MODELS / name)


def test_the_papers_models_ship_and_every_model_has_its_row() -> None:
    """A row that the paper's table has not can do without a model; no model is without a row."""
    assert sorted(set(PAPER) - set(SHIPPED)) == []
    assert sorted(set(SHIPPED) - set(CONFIGURATIONS)) == []


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
def test_the_curve_ends_where_the_card_says(name: str) -> None:
    """For every seed the last point of the curve is at the sequences that the card counts."""
    curves = curve.read_csv(MODELS / name / card.CURVE_NAME)

    ends = {seed: points[-1].sequences for seed, points in curves.items()}
    assert ends == {each["seed"]: each["sequences"] for each in card_of(name)["seeds"]}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_file_tells_the_server_its_task(name: str) -> None:
    """Name, widths and memory in the spec are the table's."""
    spec: ModelSpec = OnnxRunner((MODELS / name / card.MODEL_NAME).read_bytes()).spec
    row = CONFIGURATIONS[name]

    assert f"{spec.task}-{spec.architecture}" == name
    assert (spec.input_width, spec.output_width) == (
        TASKS[row.task].input_width,
        TASKS[row.task].output_width,
    )
    assert spec.default_locations == row.default_locations


@pytest.mark.parametrize("name", SHIPPED)
def test_the_file_computes_what_its_network_computes(name: str) -> None:
    """Some sequences of its task come out of onnxruntime as out of PyTorch."""
    row = CONFIGURATIONS[name]
    batch = TASKS[row.task].draw(np.random.default_rng(1), 3)
    expected = outputs(TorchRunner(card.load(MODELS / name)), batch, row.default_locations)
    runner = OnnxRunner((MODELS / name / card.MODEL_NAME).read_bytes())

    found = outputs(runner, batch, row.default_locations)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "max_bits"),
    [
        ("copy-ntm-ff", (120,), 0.5),
        ("copy-ntm-lstm", (120,), 0.5),
        ("repeat-copy-ntm-lstm", (10, 10), 1.0),
        ("associative-recall-ntm-lstm", (15,), 1.0),
        ("priority-sort-ntm-lstm", (20,), 20.0),
    ],
)
def test_a_shipped_model_does_its_task(name: str, size: Size, max_bits: float) -> None:
    """Twenty sequences that no card reports cost few bits, through onnxruntime."""
    row = CONFIGURATIONS[name]
    runner = OnnxRunner((MODELS / name / card.MODEL_NAME).read_bytes())
    trial = Trial(size, row.default_locations, 20)

    answers = evaluation.answers_of(runner)
    result = evaluation.evaluate(answers, TASKS[row.task], trial, Purpose.EVALUATION, seed=77)

    assert result.bits_per_sequence < max_bits


@pytest.mark.parametrize("name", ["copy-ntm-ff", "copy-ntm-lstm"])
def test_copying_makes_no_mistake_at_six_times_the_length_of_training(name: str) -> None:
    """The card counts no wrong bit in 1,000 sequences of 20 vectors and of 120."""
    results = {tuple(each["size"]): each for each in card.shipped(card_of(name))["results"]}

    for size in ((20,), (120,)):
        assert (results[size]["sequences"], results[size]["wrong_bits"]) == (1000, 0)
