"""The folder of a model: the ONNX file, the card that describes it, and the training curve."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from export import comparison, curve, evaluation, to_onnx, verification
from export.architectures import ARCHITECTURES
from export.comparison import Comparison
from export.configuration import SETTINGS, Configuration, Trial, differences
from export.configurations import CONFIGURATIONS, PAPER, of_task
from export.evaluation import Result
from export.network import Network
from export.training import TRIALS, Quality, Run, quality_of
from export.verification import OnnxRunner
from ntm_tasks import TASKS, Purpose

MODEL_NAME = "model.onnx"
CARD_NAME = "card.json"
CURVE_NAME = "curve.csv"
PICTURE_NAME = "curve.png"
WRITTEN = (CARD_NAME, CURVE_NAME, PICTURE_NAME, MODEL_NAME)
"""The files of an export. The model comes last, since a running server takes it over."""
PROGRAM_NAME = "PROGRAM.md"

VERIFIED_LOCATIONS = (512, 600)
"""Memories that hold a sequence of 1,000 steps; the second size is not a power of two."""

EVALUATION_SEED = 0

CHOICE_SEED = 0
"""Of the sequences by which a seed is chosen: those of validation, of a training with seed 0."""

NOTHING = Quality(-1, 0.0)
"""The quality of a run before its first validation."""

PACKAGES = ("torch", "onnx", "onnxscript", "numpy")


class CardInvalid(ValueError):
    """A model's card cannot be read; the message names its file."""


def write_model(runs: Sequence[Run], models: Path, name: str, *, replace: bool = False) -> Path:
    """
    Choose a run, and verify and write its network. Return the folder.

    Of several runs it is the one that is best in the trials of `choice`, or in those of validation
    if the configuration has none, all on the same sequences. The best network of every run is
    evaluated on onnxruntime; the card has the results of all. The folder is prepared beside its
    place, and there loaded and stepped as a server does it.

    Args:
        runs: All of one configuration.
        models: The folder of all models.
        name: The folder's name in it, which is the model's.
        replace: Whether the folder may have held another network until now.

    Raises:
        ValueError: the runs differ in their configuration, or one has no network yet.
        FileExistsError: the folder holds another network.
        VerificationFailed: the graph differs from the network.
        ModelInvalid: a server could not serve the file. In all four cases nothing is written.
    """
    configuration = runs[0].configuration
    for run in runs:
        differ = differences(configuration, run.configuration)
        if differ:
            raise ValueError(
                f"the runs of {configuration.name} are not of one configuration: of seeds "
                f"{run.seed} (there) and {runs[0].seed} (here), {'; '.join(differ.values())};"
                " export one seed alone"
            )
    networks = [run.best_network() for run in runs]
    print(f"converting {configuration.name}, and comparing it with PyTorch", flush=True)
    models_of_runs = [
        to_onnx.convert(each, to_onnx.spec_of(each, configuration)) for each in networks
    ]
    contents = [model.SerializeToString() for model in models_of_runs]
    choices = _choices(contents, runs)
    chosen = choices.index(max(choices))
    best = runs[chosen]
    folder = models / name
    if not replace:
        check_free(folder, contents[chosen])
    comparisons = comparison.show(
        verification.verify(contents[chosen], networks[chosen], _verified_locations(configuration))
    )
    results = []
    for run, content in zip(runs, contents, strict=True):
        shipped = " (chosen)" if run is best else ""
        print(f"evaluating seed {run.seed}{shipped}", flush=True)
        results.append(_evaluate(content, configuration))
        print(evaluation.table(results[-1]), flush=True)
    source = TASKS[configuration.task].source
    made_by = ARCHITECTURES[configuration.architecture].source
    described = {
        "task": configuration.task,
        **({"task_source": source} if source else {}),
        "architecture": configuration.architecture,
        **({"architecture_source": made_by} if made_by else {}),
        "content_hash": content_hash(contents[chosen]),
        "parameters": sum(parameter.numel() for parameter in networks[chosen].parameters()),
        "graph_nodes": len(models_of_runs[chosen].graph.node),
        "configuration": _configuration(configuration),
        "shipped_seed": best.seed,
        "seeds": [_seed(*each) for each in zip(runs, choices, results, strict=True)],
        "evaluation": {"runtime": "onnxruntime", "seed": EVALUATION_SEED},
        "verification": {
            "against": "PyTorch",
            "allowed_difference": comparison.LARGEST_DIFFERENCE,
            "comparisons": [each._asdict() for each in comparisons],
        },
        **made_with(),
    }
    curves = {run.seed: run.curve for run in runs}

    def draw(prepared: Path) -> None:
        curve.write_csv(prepared / CURVE_NAME, curves)
        curve.write_png(prepared / PICTURE_NAME, curves, best.seed, name)

    def rehearse(beside: Path) -> None:
        inputs = verification.sequences(configuration.task, 1, 0)
        verification.rehearse(beside, name, contents[chosen], inputs, _rounding(comparisons))

    write_files(folder, contents[chosen], described, rehearse, draw, replace=replace)
    return folder


def write_files(
    folder: Path,
    content: bytes,
    described: Mapping[str, Any],
    rehearse: Callable[[Path], None],
    draw: Callable[[Path], None] | None = None,
    *,
    replace: bool,
) -> None:
    """
    Prepare a model's files beside their place, step them as a server does, and move them.

    Args:
        folder: The model's, whose name is the model's.
        content: The model's file.
        described: The card.
        rehearse: Steps the model in a folder of models as a server does, and compares.
        draw: Writes the training curve into a folder; without it the model has none.
        replace: Whether the folder may have held another network until now.

    Raises:
        FileExistsError, VerificationFailed, ModelInvalid: as `write_model`.
    """
    models, name = folder.parent, folder.name
    models.mkdir(parents=True, exist_ok=True)
    # The server leaves out names that start with a dot.
    with TemporaryDirectory(prefix=f".{name}.", dir=models) as beside:
        prepared = Path(beside) / name
        prepared.mkdir()
        (prepared / MODEL_NAME).write_bytes(content)
        if draw:
            draw(prepared)
        (prepared / CARD_NAME).write_text(json.dumps(described, indent=2) + "\n", "utf-8")
        rehearse(Path(beside))
        print("loaded and stepped as by a server")
        if not replace:
            check_free(folder, content)
        is_another = not _holds(folder, content)
        folder.mkdir(exist_ok=True)
        for file in WRITTEN:
            if (prepared / file).exists():
                os.replace(prepared / file, folder / file)
            else:  # of a network before
                (folder / file).unlink(missing_ok=True)
    if is_another and (folder / PROGRAM_NAME).exists():
        print(f"{folder / PROGRAM_NAME} is of the network before; ntm decipher writes it anew")


def made_with() -> dict[str, Any]:
    """Return what a card says of the software and the machine that made a model."""
    return {
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": verification.RUNTIME_VERSION,
            **{package: version(package) for package in PACKAGES},
        },
        "machine": platform.machine(),
    }


def entry_of(result: Result) -> dict[str, Any]:
    """Return a result as a card has it."""
    return {name: value for name, value in result._asdict().items() if value is not None}


def _holds(folder: Path, content: bytes) -> bool:
    """Whether a folder has this file as its model."""
    path = folder / MODEL_NAME
    return path.is_file() and path.read_bytes() == content


def check_free(folder: Path, content: bytes) -> None:
    """Raise FileExistsError if a folder holds files of another network."""
    if _holds(folder, content):
        return
    there = [name for name in WRITTEN if (folder / name).exists()]
    if there:
        raise FileExistsError(
            f"{folder} holds another network ({', '.join(there)}); give this one another name with "
            "--name, or --replace the other"
        )


def _rounding(comparisons: Sequence[Comparison]) -> float:
    """Return PyTorch's own rounding of outputs in range."""
    return max(each.output_rounding for each in comparisons if each.in_range)


def _verified_locations(configuration: Configuration) -> tuple[int, ...]:
    """Return the memory sizes at which a model is verified."""
    if not configuration.default_locations:
        return (0,)
    if configuration.has_learned_memory:
        return (configuration.default_locations,)
    return VERIFIED_LOCATIONS


def _evaluate(content: bytes, configuration: Configuration) -> list[Result]:
    """Run all trials of evaluation on onnxruntime."""
    answers = evaluation.answers_of(OnnxRunner(content))
    task = TASKS[configuration.task]
    return [
        evaluation.evaluate(answers, task, trial, Purpose.EVALUATION, EVALUATION_SEED)
        for trial in configuration.evaluation
    ]


def _configuration(configuration: Configuration) -> dict[str, Any]:
    """Return all settings and the name of their table."""
    tables = {"ours": CONFIGURATIONS, "paper": PAPER}
    sources = [name for name, rows in tables.items() if configuration in rows.values()]
    if configuration == of_task(TASKS[configuration.task], configuration.architecture):
        sources.append("of any task")
    values = asdict(configuration)
    return {
        "table": sources[0] if sources else "changed by --set",
        **{name: value for name, value in values.items() if name not in ("task", "architecture")},
        **{name: [trial._asdict() for trial in getattr(configuration, name)] for name in TRIALS},
    }


def _choices(contents: Sequence[bytes], runs: Sequence[Run]) -> list[Quality]:
    """Return the quality by which one of several runs is chosen."""
    if len(runs) == 1:
        return [run.best_quality or NOTHING for run in runs]
    configuration = runs[0].configuration
    trials = configuration.choice or configuration.validation
    choices = []
    for run, content in zip(runs, contents, strict=True):
        answers = evaluation.answers_of(OnnxRunner(content))
        # In validation each seed has its own sequences, which can be harder than another's.
        choices.append(quality_of(answers, configuration, trials, CHOICE_SEED))
        passed, bits = choices[-1].passed, -choices[-1].negative_bits
        print(
            f"seed {run.seed}: {passed} of {len(trials)} trials of choice, {bits:.4f} bits",
            flush=True,
        )
    return choices


def _seed(run: Run, choice: Quality, results: Sequence[Result]) -> dict[str, Any]:
    """Return the cost of training one seed and the results of its best network."""
    solved = (point.sequences for point in run.curve if point.wrong_bits == 0)
    quality = run.best_quality or NOTHING
    return {
        "seed": run.seed,
        "finished": run.finished,
        "sequences": run.sequences,
        "best_at_sequences": run.best_update * run.configuration.batch,
        "first_point_without_wrong_bits_at_sequences": next(solved, None),
        "restarts_after_values_not_finite": run.restarts,
        "updates_skipped": run.skipped,
        "relapses": run.relapses,
        "trained_on": run.trained_on,
        "seconds": round(run.seconds, 1),
        "sequences_per_second": round(run.sequences / run.seconds, 1) if run.seconds else None,
        "validation": {"trials_passed": quality.passed, "bits": -quality.negative_bits},
        "choice": {"trials_passed": choice.passed, "bits": -choice.negative_bits},
        "results": [entry_of(result) for result in results],
    }


def shipped(described: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of the seed that the card's model has."""
    entry: dict[str, Any] = next(
        each for each in described["seeds"] if each["seed"] == described["shipped_seed"]
    )
    return entry


def is_of_training(described: Mapping[str, Any]) -> bool:
    """Whether a card is of a network that was trained here; one from elsewhere has no seeds."""
    return "seeds" in described


def results_on(described: dict[str, Any]) -> dict[Trial, dict[str, Any]]:
    """Return the results of the card's model by trial; none if it was measured on no task."""
    measured = shipped(described) if is_of_training(described) else described
    return {
        Trial(tuple(each["size"]), each["locations"], each["sequences"]): each
        for each in measured.get("results", ())
    }


def content_hash(content: bytes) -> str:
    """Return the SHA-256 of a model's file in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read(folder: Path) -> dict[str, Any]:
    """
    Read the card in a model's folder.

    Raises:
        CardInvalid: it is not a card.
        OSError: there is none.
    """
    path = folder / CARD_NAME
    try:
        described: dict[str, Any] = json.loads(path.read_bytes())
        if not isinstance(described, dict):
            raise TypeError("it is no object")
        numbers = [(*size, *others) for size, *others in results_on(described)]
        if not all(isinstance(number, int) for trial in numbers for number in trial):
            raise TypeError("a number in it is none")
        named = [described[name] for name in ("task", "architecture")]
        settings = described["configuration"] if is_of_training(described) else ()
        if not all(isinstance(name, str) for name in (*named, *settings)):
            raise TypeError("a name in it is no text")
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        raise CardInvalid(
            f"{path} is not a card that ntm-export wrote, or is damaged; export the model again"
        ) from error
    return described


def check_content(described: Mapping[str, Any], folder: Path, content: bytes) -> None:
    """
    Check that the model's file in a folder has the content that the card describes.

    Raises:
        CardInvalid: it has another.
    """
    if content_hash(content) != described.get("content_hash"):
        raise CardInvalid(
            f"{folder / MODEL_NAME} is not the file that the card describes; export the model again"
        )


def load(folder: Path) -> Network:
    """
    Rebuild the PyTorch network of a model's folder.

    Raises:
        CardInvalid: the file is not the one that the card describes.
    """
    described = read(folder)
    content = (folder / MODEL_NAME).read_bytes()
    check_content(described, folder, content)
    return to_onnx.load(onnx.load_from_string(content), configuration_on(described))


def configuration_on(described: dict[str, Any]) -> Configuration:
    """Return the configuration with the settings of a card."""
    values = {name: value for name, value in described["configuration"].items() if name in SETTINGS}
    for name in TRIALS:
        values[name] = tuple(
            Trial(tuple(each["size"]), each["locations"], each["sequences"])
            for each in values.get(name, ())  # an older card lacks the settings that came later
        )
    values["locations"] = tuple(values["locations"])
    return Configuration(described["task"], described["architecture"], **values)
