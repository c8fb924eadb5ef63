"""The commands: train, sweep, export, evaluate and report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter

from export import by_step, card, evaluation, own_architecture, training
from export import report as report_file
from export import sweep as sweeping
from export.configuration import Configuration, Trial, read_size, size_problem
from export.configurations import CONFIGURATIONS, PAPER, of_task
from export.device import CPU, opened, title_of
from export.evaluation import Result
from export.options import (
    Address,
    ArchitectureSource,
    Device,
    ExistingFolder,
    Folder,
    Locations,
    ModelName,
    Picture,
    Seed,
    Seeds,
    Sequences,
    Sizes,
    TaskSource,
    Text,
    Threads,
    check_output,
)
from export.served import ServedModel
from export.training import Run
from export.verification import OnnxRunner
from ntm_client import Client
from ntm_tasks import TASKS, Purpose, Task, load, size_text
from service.errors import ModelInvalid
from service.spec import ModelSpec, printable


def train(
    task: Text,
    /,
    *,
    architecture: Text = "ntm-lstm",
    seed: Seed = 1,
    paper: bool = False,
    set: tuple[str, ...] = (),  # noqa: A002 - the option's name
    runs: Folder = Path("runs"),
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """
    Train a network on a task, from the last checkpoint if there is one.

    Args:
        task: Name of the task; or MODULE:NAME of one of your own, such as my_tasks:PARITY; or a
            file of sequences, .npz.
        architecture: Name of the network, such as ntm-lstm, dnc or lstm; or MODULE:NAME of one of
            your own, such as my_nets:MY_NET.
        seed: Seed of parameters and sequences.
        paper: Take the paper's own sizes and optimiser, not ours.
        set: Replace a setting of the configuration, as NAME=VALUE; may be repeated.
        runs: Folder of the checkpoints.
        threads: Threads of PyTorch.
        device: Device to train on. --set batch=NUMBER gives a GPU more sequences at a time.
    """
    torch.set_num_threads(threads)
    chosen = opened(device)
    drawn = load(task)
    network = own_architecture.load(architecture)
    configuration = _row(drawn, network.name, paper=paper).with_settings(_settings(set))
    drawn.draw(np.random.default_rng(0), 1, configuration.blank_rate)  # before it is needed
    folder = training.folder_of(runs, configuration.name, seed, paper=paper)
    check_output("--runs", folder)
    checkpoint = folder / training.CHECKPOINT_NAME
    if network.source:
        own_architecture.try_out(configuration)
    with training.alone_in(folder):
        if checkpoint.exists():  # another process may have trained until now
            run = Run.load_to_go_on(folder, configuration, seed, chosen)
            former = printable(" and ".join(run.former_sources))
            until_now = f"; until now it was trained with {former}" if former else ""
            print(f"going on from {run.sequences:,} sequences{until_now}")
            if run.update >= configuration.updates:
                print(f"all {configuration.updates:,} updates are made; --set updates=MORE goes on")
        else:
            run = Run.new(configuration, seed, chosen)
        if network.source and chosen != CPU:
            own_architecture.try_on(configuration, chosen)
        parameters = sum(parameter.numel() for parameter in run.network.parameters())
        print(
            f"{configuration.name}: seed {seed}, {parameters:,} parameters, "
            f"{configuration.updates * configuration.batch:,} sequences"
            + (f", on {title_of(chosen)}" if chosen != CPU else "")
        )
        print(f"{'sequences':>10} {'bits/seq':>10} {'wrong bits':>10} {'seq/s':>7}  validation")
        run = training.train(run, folder, _show_last_point)
    if run.stopped:
        print(
            f"ended early: {configuration.stop_metric} was not better for "
            f"{configuration.stop_patience} points of the curve"
        )
    print(f"best after {run.best_update * configuration.batch:,} sequences; {folder}")


def sweep(
    *names: Annotated[str, Parameter(name="TASK-ARCHITECTURE")],
    seeds: Seeds = (1,),
    set: tuple[str, ...] = (),  # noqa: A002 - the option's name
    runs: Folder = Path("runs"),
    device: Device = "cpu",
) -> None:
    """
    Run trainings one after another, each in a process of its own.

    Args:
        names: Such as copy-ntm-lstm; all of the table by default.
        seeds: Seeds of each.
        set: Replace a setting in all of them, as NAME=VALUE; --set again for another.
        runs: Folder of the checkpoints.
        device: Device to train on.
    """
    for name in names:
        if "=" in name:
            raise ValueError(f"{name!r} is no configuration; to replace a setting: --set {name}")
    chosen = [_known(name, CONFIGURATIONS) for name in dict.fromkeys(names or CONFIGURATIONS)]
    settings = _settings(set)
    rows = [CONFIGURATIONS[name].with_settings(settings) for name in chosen]
    check_output("--runs", runs)
    outcomes = sweeping.sweep(rows, list(dict.fromkeys(seeds)), runs, opened(device), set)
    print(sweeping.table(outcomes))
    failed = [outcome for outcome in outcomes if not outcome.finished]
    if failed:
        raise ArithmeticError(f"{len(failed)} of {len(outcomes)} trainings failed")


def export(
    run_folder: ExistingFolder,
    /,
    *,
    models: Folder = Path("models"),
    name: ModelName = None,
    replace: bool = False,
    task: TaskSource = None,
    architecture: ArchitectureSource = None,
) -> None:
    """
    Write a trained network as a model to serve, after comparing the two step by step.

    Args:
        run_folder: Of a model's seeds, such as runs/copy-ntm-lstm, or of one of its runs.
        models: Folder to write the model's folder in.
        name: Name of the model and of its folder; TASK-ARCHITECTURE by default.
        replace: Write it also in place of another network of that name.
    """
    torch.set_num_threads(1)
    if task is not None:
        load(task)
    if architecture is not None:
        own_architecture.load(architecture)
    one = (run_folder / training.CHECKPOINT_NAME).exists()
    folders = [run_folder] if one else sorted(run_folder.glob("seed-*"))
    if not folders:
        raise ValueError(
            f"{run_folder} has no {training.CHECKPOINT_NAME} and no folder seed-*; give the folder "
            "of a training, such as runs/copy-ntm-lstm"
        )
    loaded = sorted((Run.load(folder) for folder in folders), key=lambda run: run.seed)
    name = name or loaded[0].configuration.name
    for folder in (models, models / name):
        check_output("--models", folder)
    print(card.write_model(loaded, models, name, replace=replace))


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
            if not agrees(result, on_card[trial])
        ]
        if differ:
            raise ArithmeticError(f"the results differ from the card at {', '.join(differ)}")
        print("as on the card")


def report(*, models: ExistingFolder = Path("models")) -> None:
    """
    Compare all models with each other and with the paper, in REPORT.md and its pictures.

    Args:
        models: Folder of the models, to read and to write.
    """
    check_output("--models", models)
    print(report_file.write(models))


def _served(client: Client, name: str, content_hash: str) -> ServedModel:
    """The server's model with this name. Raises ValueError if it is not the model of the card."""
    found = client.model(name).content_hash
    if found != content_hash:
        raise ValueError(f"{client.target} serves another {name}: {found}, not {content_hash}")
    return ServedModel(client, name)


def agrees(result: Result, on_card: Mapping[str, Any]) -> bool:
    """Whether a result equals the card's, except for the rounding of another machine."""
    bits: float = on_card["bits_per_sequence"]
    return abs(result.bits_per_sequence - bits) <= max(1e-4, 1e-3 * bits)


def _show_last_point(run: Run) -> None:
    """Print the curve's last point."""
    point = run.curve[-1]
    before = run.curve[-2] if len(run.curve) > 1 else None
    sequences = point.sequences - (before.sequences if before else 0)
    seconds = point.seconds - (before.seconds if before else 0)
    best = " (best)" if run.best_update == run.update else ""
    print(
        f"{point.sequences:>10,} {point.bits_per_sequence:>10.3f} {point.wrong_bits:>10.3f} "
        f"{sequences / seconds:>7,.0f}  {_validation(run.configuration, point)}{best}",
        flush=True,
    )


def _validation(configuration: Configuration, point: training.Point) -> str:
    trials = configuration.validation
    if not trials:
        return ""
    trial = trials[min(point.trials_passed, len(trials) - 1)]
    return (
        f"{point.trials_passed} of {len(trials)} trials; "
        f"{size_text(trial.size)}: {point.validation_bits:.4f} bits"
    )


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


def _row(task: Task, architecture: str, *, paper: bool) -> Configuration:
    """Return the settings of a training. Raises ValueError if there are none."""
    name = f"{task.name}-{architecture}"
    if paper:
        return PAPER[_known(name, PAPER)]
    return CONFIGURATIONS[name] if name in CONFIGURATIONS else of_task(task, architecture)


def _known(name: str, table: Mapping[str, Configuration]) -> str:
    """Return the name if the table has a row for it. Raises ValueError if not."""
    if name not in table:
        raise ValueError(
            f"there is no configuration {name!r}; there are {', '.join(table)}; to add one, write "
            "its row in export/configurations.py"
        )
    return name


def _settings(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the settings that are written as NAME=VALUE, by name."""
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not NAME=VALUE")
        if name in settings:
            raise ValueError(f"{name} is set to {settings[name]} and to {value}; set it once")
        settings[name] = value
    return settings
