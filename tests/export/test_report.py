"""The report: what it says of the cards, and that its pictures are drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import card, curve, figures, report, to_onnx
from export.architectures import build
from export.configurations import CONFIGURATIONS
from export.training import Point
from ntm_tasks import TASKS, Size
from tests.export.conftest import tiny

Bits = Mapping[Size, float]


def add_model(models: Path, name: str, seeds: Sequence[Bits], shipped: int, **field: float) -> None:
    """A model's card and curves, as if its seeds 1, 2, ... had cost so many bits."""
    task, architecture = next(
        (task, name.removeprefix(f"{task}-")) for task in TASKS if name.startswith(f"{task}-")
    )
    results = [
        [
            {"size": size, "locations": 64, "sequences": 100, "bits_per_sequence": bits, **field}
            for size, bits in each.items()
        ]
        for each in seeds
    ]
    described: dict[str, Any] = {
        "task": task,
        "architecture": architecture,
        "configuration": {"table": "ours"},
        "parameters": 12_345,
        "shipped_seed": shipped,
        "seeds": [
            {
                "seed": seed,
                "sequences": 32_000 if seed < 3 else 8_000,
                "seconds": 1800.0,
                "first_point_without_wrong_bits_at_sequences": 16_000 if seed == shipped else None,
                "restarts_after_values_not_finite": seed - 1,
                "relapses": 2 * (seed - 1),
                "results": each,
            }
            for seed, each in enumerate(results, 1)
        ],
    }
    folder = models / name
    folder.mkdir()
    (folder / card.CARD_NAME).write_text(json.dumps(described))
    points = [Point(16_000, 10.0, 3.0, 0, 11.0, 900.0), Point(32_000, 0.1, 0.0, 1, 0.2, 1800.0)]
    curve.write_csv(folder / card.CURVE_NAME, dict.fromkeys(range(1, len(seeds) + 1), points))


@pytest.fixture
def recall(tmp_path: Path) -> str:
    """The report on an NTM with three seeds and a baseline with one, of one task."""
    ntm: list[Bits] = [{(6,): 0.05, (15,): 0.15, (20,): 3.0}, {(6,): 0.25}, {(6,): 0.15}]
    add_model(tmp_path, "associative-recall-ntm-lstm", ntm, shipped=1)
    lstm: list[Bits] = [{(6,): 2.0, (15,): 36.0, (20,): 40.25}]
    add_model(tmp_path, "associative-recall-lstm", lstm, shipped=1)
    return report.write(tmp_path).read_text()


def row(text: str, *starts: str) -> list[str]:
    """The cells of the table row that starts with these."""
    lines = [line for line in text.splitlines() if line.startswith("| " + " | ".join(starts))]
    assert len(lines) == 1, starts
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_measures_stand_beside_the_papers_and_the_goals(recall: str) -> None:
    """The row has the value of the shipped network, and which of the NTMs meets its goal."""
    met = row(recall, "associative-recall", "bits, 6 items")
    missed = row(recall, "associative-recall", "bits, 20 items")
    unknown = row(recall, "associative-recall", "bits, 4 items")
    two_goals = row(recall, "ngrams", "bits above")

    assert met[2:5] == ["-", "0.050", "2.000"]
    assert met[-2:] == ["<= 0.1", "-; yes"]
    assert missed[2:5] == ["-", "3.000", "40.2"]
    assert missed[-2:] == ["<= 0.05", "-; **no**"]
    assert unknown[2:5] == ["-", "-", "-"]
    assert unknown[-2:] == ["", ""]
    assert two_goals[-2:] == ["<= 0.4; <= 0.25", "-; -"]


def test_models_that_are_missing_are_named(recall: str) -> None:
    """The report names the models that have no folder, and no others."""
    (line,) = (line for line in recall.splitlines() if line.startswith("Missing models"))

    assert "associative-recall-ntm-ff" in line
    assert "associative-recall-ntm-lstm" not in line
    assert line.count(",") == len(CONFIGURATIONS) - 2 - 1


def test_ntms_stand_against_networks_without_memory(tmp_path: Path) -> None:
    """The row names the best network, in range and beyond, if an NTM and another have models."""
    add_model(tmp_path, "priority-sort-ntm-ff", [{(20,): 0.5, (25,): 0.75}], shipped=1)
    add_model(tmp_path, "priority-sort-lstm", [{(20,): 2.0, (25,): 40.25}], shipped=1)
    add_model(tmp_path, "priority-sort-transformer", [{(20,): 0.25, (25,): 90.5}], shipped=1)
    add_model(tmp_path, "associative-recall-lstm", [{(6,): 0.125}], shipped=1)
    text = report.write(tmp_path).read_text()

    assert row(text, "priority-sort", "in range")[2:] == [
        "0.500",
        "2.000",
        "-",
        "0.250",
        "Transformer",
    ]
    assert row(text, "priority-sort", "beyond")[2:] == ["0.750", "40.2", "-", "90.5", "NTM"]
    assert row(text, "associative-recall", "in range")[2:] == ["-", "0.125", "-", "-", "-"]
    assert "every opponent that was trained in 1 of 2 comparisons." in text


def test_opponents_stand_with_what_they_cost(recall: str) -> None:
    """The row has parameters, sequences, speed, hours and bits; or that there is no model."""
    cost = ["12,345", "32,000", "18", "0.50"]

    assert row(recall, "associative-recall", "LSTM", "12")[2:] == [*cost, "2.000", "40.2"]
    assert row(recall, "associative-recall", "NTM, LSTM", "12")[2:] == [*cost, "0.050", "3.000"]
    assert row(recall, "associative-recall", "GRU")[2] == "no model"
    assert row(recall, "copy", "NTM, LSTM")[2:] == ["no model", "", "", "", "", ""]


def test_seeds_are_told_by_median_and_worst(recall: str) -> None:
    """
    The row has the median and the worst seed, and the cost of three trainings, one of them
    unfinished.
    """
    cells = row(recall, "associative-recall-ntm-lstm")

    assert cells[1:4] == ["3", "0.150 / 0.250", "3.000 / 3.000"]
    assert cells[4:] == ["1 of 3, 16,000", "8,000 to 32,000", "13", "1.50", "3", "6", "ours"]
    assert "4 trainings took 2.0 hours of one core. 3 times" in recall
    assert "(restarts) and 6 times a network lost its task (relapses)" in recall


def test_ngrams_are_compared_by_their_excess(tmp_path: Path) -> None:
    """Bits above the optimum stand in every table, and the optimum on the curve's picture."""
    add_model(tmp_path, "ngrams-ntm-ff", [{(200, 5): 133.5}], shipped=1, excess_bits=0.5)
    text = report.write(tmp_path).read_text()

    assert row(text, "ngrams", "bits above the optimum")[2] == "0.500"
    assert row(text, "ngrams", "in range")[2:] == ["0.500", "-", "-", "-", "-"]
    assert row(text, "ngrams-ntm-ff")[2] == "0.500 / 0.500"


def test_models_from_elsewhere_do_not_stop_the_report(tmp_path: Path) -> None:
    """One with results is told; one without, a module or a checkpoint of another task, is not."""
    add_model(tmp_path, "associative-recall-lstm", [{(6,): 0.5}], shipped=1)
    result: dict[str, object] = {"size": [20], "locations": 64, "sequences": 7, report.BITS: 3.25}
    result |= {report.WRONG: 2.0, report.EXACT: 0.5}
    elsewhere: dict[str, dict[str, object]] = {
        "theirs": {"results": [result]},
        "copy-lstm": {"results": []},
        "adder": {"module": "my_nets.Adder"},
    }
    for name, more in elsewhere.items():
        (tmp_path / name).mkdir()
        described = {"task": "copy", "architecture": "pytorch-ntm", **more}
        (tmp_path / name / card.CARD_NAME).write_text(json.dumps(described))

    text = report.write(tmp_path).read_text()
    others = text.partition("## Other models")[2]
    assert row(others, "theirs")[:5] == ["theirs", "copy", "20", "64", "7"]
    assert "adder" not in text
    assert f"copy-lstm/{card.PICTURE_NAME}" not in text


def test_every_picture_is_linked_and_drawn(tmp_path: Path, recall: str) -> None:
    """Each picture is a PNG file that the report links."""
    drawn = {path.name for path in (tmp_path / "report").iterdir()}

    assert drawn == {"items.png", "learning-associative-recall.png"}
    for name in drawn:
        assert f"](report/{name})" in recall
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_examples_are_answered_by_the_exported_file(tmp_path: Path) -> None:
    """The picture has a row of targets, and a row with the answers of the exported file."""
    row = tiny("ntm-ff")
    network = build("ntm-ff", row.sizes, seed=5)
    model = to_onnx.convert(network, to_onnx.spec_of(network, row))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    figures.examples(
        tmp_path / "drawn.png", "copy", {"ntm-ff": tmp_path / "model.onnx"}, [(2,), (5,)]
    )

    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_curves_come_back_from_their_file(tmp_path: Path) -> None:
    """Every number of every seed comes back with six digits."""
    points = [Point(10, 1 / 3, 0.0, 2, 1e-7, 12.5), Point(20, 1e-9, 1.0, 3, 0.0, 25.0)]
    curve.write_csv(tmp_path / "curve.csv", {4: points, 2: points[:1]})
    read = curve.read_csv(tmp_path / "curve.csv")

    assert {seed: len(each) for seed, each in read.items()} == {4: 2, 2: 1}
    np.testing.assert_allclose(read[4], points, rtol=1e-5)
    assert [type(value) for value in read[4][0]] == [int, float, float, int, float, float]
