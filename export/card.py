"""A model's folder: the ONNX file, the card that says what it is, and the training curve."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from export import curve, evaluation, to_onnx, verification
from export.configurations import CONFIGURATIONS, Configuration
from export.evaluation import Result
from export.network import Network
from export.tasks import TASKS, Purpose
from export.training import Run
from export.verification import Comparison, OnnxRunner

MODEL_NAME = "model.onnx"
CARD_NAME = "card.json"
CURVE_NAME = "curve.csv"
PICTURE_NAME = "curve.png"

VERIFIED_LOCATIONS = (512, 600)
"""Memories that hold a sequence of 1,000 steps; the second size is no power of two."""

EVALUATION_SEED = 0

PACKAGES = ("torch", "onnx", "onnxscript", "numpy")


def write_model(run: Run, seeds: Sequence[int], folder: Path) -> Path:
    """
    Write the best network of a run, after verifying and evaluating it.

    Raises:
        VerificationFailed: the graph is not what the network is; nothing is written.
    """
    configuration = run.configuration
    network = run.best_network()
    model = to_onnx.convert(network, to_onnx.spec_of(network, configuration))
    content = model.SerializeToString()
    locations = VERIFIED_LOCATIONS if configuration.locations else (0,)
    comparisons = verification.verify(content, network, locations)
    print(verification.table(comparisons))
    runner = OnnxRunner(content)
    results = [
        evaluation.evaluate(
            runner, TASKS[configuration.task], trial, Purpose.EVALUATION, EVALUATION_SEED
        )
        for trial in configuration.evaluation
    ]
    print(evaluation.table(results))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_NAME).write_bytes(content)
    curve.write_csv(folder / CURVE_NAME, run.curve)
    curve.write_png(folder / PICTURE_NAME, run.curve, f"{configuration.name}, seed {run.seed}")
    card = describe(run, seeds, content, len(model.graph.node), comparisons, results)
    (folder / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
    return folder


def describe(
    run: Run,
    seeds: Sequence[int],
    content: bytes,
    nodes: int,
    comparisons: Sequence[Comparison],
    results: Sequence[Result],
) -> dict[str, Any]:
    """The card: everything needed to judge a model, and to train it again."""
    configuration = asdict(run.configuration)
    return {
        "task": configuration.pop("task"),
        "architecture": configuration.pop("architecture"),
        "content_hash": content_hash(content),
        "parameters": sum(parameter.numel() for parameter in run.network.parameters()),
        "graph_nodes": nodes,
        "configuration": {
            "optimiser": "adam",
            **configuration,
            "validation": [trial._asdict() for trial in run.configuration.validation],
            "evaluation": [trial._asdict() for trial in run.configuration.evaluation],
        },
        "training": _training(run, seeds),
        "evaluation": {
            "runtime": "onnxruntime",
            "seed": EVALUATION_SEED,
            "results": [result._asdict() for result in results],
        },
        "verification": {
            "against": "PyTorch",
            "allowed_difference": verification.LARGEST_DIFFERENCE,
            "comparisons": [comparison._asdict() for comparison in comparisons],
        },
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": verification.RUNTIME_VERSION,
            **{package: version(package) for package in PACKAGES},
        },
    }


def _training(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """What the training cost, and which part of it was kept."""
    solved = (point.sequences for point in run.curve if point.wrong_bits == 0)
    return {
        "seed": run.seed,
        "seeds_trained": list(seeds),
        "sequences": run.sequences,
        "best_at_sequences": run.best_update * run.configuration.batch,
        "first_point_without_wrong_bits_at_sequences": next(solved, None),
        "restarts_after_values_not_finite": run.restarts,
        "seconds": round(run.seconds, 1),
        "sequences_per_second": round(run.sequences / run.seconds, 1) if run.seconds else None,
        "machine": platform.machine(),
    }


def content_hash(content: bytes) -> str:
    """What names a model's exact content: SHA-256 of its file."""
    return hashlib.sha256(content).hexdigest()


def seeds_trained(run_folder: Path) -> list[int]:
    """All seeds that were trained beside this run, its own among them."""
    return sorted({int(folder.name.split("-")[1]) for folder in run_folder.parent.glob("seed-*")})


def load(folder: Path) -> Network:
    """
    Rebuild the PyTorch network of a model's folder.

    Raises:
        ValueError: the file is not the one that the card describes.
    """
    card = json.loads((folder / CARD_NAME).read_text())
    content = (folder / MODEL_NAME).read_bytes()
    if content_hash(content) != card["content_hash"]:
        raise ValueError(f"{folder / MODEL_NAME} is not the file that the card describes")
    return to_onnx.load(onnx.load_from_string(content), configuration_on(card))


def configuration_on(card: dict[str, Any]) -> Configuration:
    """The configuration with a card's numbers."""
    base = CONFIGURATIONS[f"{card['task']}-{card['architecture']}"]
    numbers = {name: str(value) for name, value in card["configuration"].items()
               if isinstance(value, int | float)}  # fmt: skip
    return base.with_settings(numbers)
