"""Measure an exported model, and compare the result with its card."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from export import by_step, card, evaluation, training
from export.configuration import Trial, read_size, size_problem
from export.evaluation import Result
from export.options import (
    Address,
    ExistingFolder,
    Locations,
    Picture,
    Seed,
    Sequences,
    Sizes,
    TaskSource,
    Threads,
    check_output,
)
from export.served import ServedModel
from export.verification import OnnxRunner
from ntm_client import Client
from ntm_tasks import TASKS, Purpose, Task, load, size_text
from service.errors import ModelInvalid
from service.spec import ModelSpec


def evaluate(
    model: ExistingFolder,
    /,
    *,
    sizes: Sizes = (),
    locations: Locations = (),
    sequences: Sequences | None = None,
    seed: Seed = 0,
    threads: Threads = 1,
    server: Address = None,
    task: TaskSource = None,
    picture: Picture = None,
) -> None:
    """
    Run an exported model on fresh sequences, through onnxruntime or through a server.

    Args:
        model: Folder of the model, such as models/NAME.
        sizes: Sizes of the sequences, such as 20 or 10x20; by default the trials of the card.
        locations: Memory sizes, with --sizes; the model's own by default.
        sequences: Sequences of each size, with --sizes; 200 by default.
        seed: Seed of the sequences.
        threads: Threads of onnxruntime.
        server: Address of a server of the same model, to stream the sequences through instead.
        picture: PNG file to draw in where in a sequence the network errs, and how sharp its heads
            are there. Not with --server.
    """
    for name in (card.MODEL_NAME, card.CARD_NAME):
        if not (model / name).exists():
            raise ValueError(
                f"{model} has no {name}; name the folder of a model, such as one in the folder "
                "models of a checkout, or export one first"
            )
    if task is not None:
        load(task)
    described = card.read(model)
    for kind, called in (("module", "a module"), ("wrapped", "a network")):
        if kind in described:
            raise card.CardInvalid(
                f"{model / card.CARD_NAME} is of {called} that was not trained by ntm-export, and "
                "has no results"
            )
    file = model / card.MODEL_NAME
    content = file.read_bytes()
    try:
        runner = OnnxRunner(content, threads)
    except ModelInvalid as error:
        text = str(error).rstrip(".")
        raise ModelInvalid(f"{file}: {text}; export the model again") from error
    card.check_content(described, model, content)
    answers = evaluation.answers_of(runner)
    measured = _task_of(runner.spec, described.get("task_source"))
    on_card = card.results_on(described)
    trials = list(on_card)
    if sizes:
        chosen = [read_size(size) for size in sizes]
        trials = [
            Trial(size, each, sequences or 200)
            for each in locations or (runner.spec.default_locations,)
            for size in chosen
        ]
    elif locations or sequences:
        option = "--locations" if locations else "--sequences"
        raise ValueError(f"{option} goes with --sizes; give the sizes of the sequences too")
    elif not trials:
        raise ValueError("the model's card has no results to compare with; give --sizes")
    for trial in trials:
        problem = size_problem(measured, trial.size) or _locations_problem(
            runner.spec, trial.locations
        )
        if problem:
            raise ValueError(problem)
    watching = None
    if picture is not None:
        if server is not None:
            raise ValueError("--picture is drawn from runs here; leave out --server or --picture")
        if not picture.parent.is_dir():
            raise ValueError(f"--picture: there is no folder {picture.parent}; make it first")
        check_output("--picture", picture.parent)
        answers = watching = by_step.Watching(runner)
    results, seen = [], {}
    with ExitStack() as stack:
        if server is not None:
            client = stack.enter_context(Client(server))
            answers = _served(client, model.resolve().name, described["content_hash"])
        for trial in trials:
            results.append(evaluation.evaluate(answers, measured, trial, Purpose.EVALUATION, seed))
            if watching:
                seen[f"{size_text(trial.size)}, N = {trial.locations}"] = watching.seen()
    print(evaluation.table(results))
    if picture is not None:
        by_step.draw(picture, seen, model.resolve().name)
    if not sizes and seed == card.EVALUATION_SEED:
        differ = [
            size_text(result.size)
            for trial, result in zip(trials, results, strict=True)
            if not _agrees(result, on_card[trial])
        ]
        if differ:
            raise ArithmeticError(f"the results differ from the card at {', '.join(differ)}")
        print("as on the card")


def _served(client: Client, name: str, content_hash: str) -> ServedModel:
    """The server's model with this name. Raises ValueError if it is not the model of the card."""
    found = client.model(name).content_hash
    if found != content_hash:
        raise ValueError(f"{client.target} serves another {name}: {found}, not {content_hash}")
    return ServedModel(client, name)


def _agrees(result: Result, on_card: Mapping[str, Any]) -> bool:
    """Whether a result equals the card's, except for the rounding of another machine."""
    bits: float = on_card["bits_per_sequence"]
    return abs(result.bits_per_sequence - bits) <= max(1e-4, 1e-3 * bits)


def _task_of(spec: ModelSpec, source: object) -> Task:
    """Return the task of a model. Raises ValueError if it is not known, or of other widths."""
    if spec.task not in TASKS:
        named = source if isinstance(source, str) else None
        raise ValueError(f"the model is of the {training.task_unknown(spec.task, named)}")
    task = TASKS[spec.task]
    widths = (spec.input_width, spec.output_width)
    if widths != (task.input_width, task.output_width):
        raise ValueError(
            f"the model has {widths[0]} inputs and {widths[1]} outputs; the task {task.name} has "
            f"{task.input_width} and {task.output_width}"
        )
    return task


def _locations_problem(spec: ModelSpec, locations: int) -> str:
    """Return why a model has no memory of this size, or nothing."""
    if locations == spec.default_locations or (spec.has_memory and not spec.fixed_locations):
        return ""
    if not spec.has_memory:
        return (
            f"the model has no memory, so that there are no {locations} locations; leave them out"
        )
    return f"the model has {spec.default_locations} locations and no other number, not {locations}"
