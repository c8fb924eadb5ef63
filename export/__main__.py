"""The command line: `python -m export train | sweep | export | evaluate | report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from export import card, evaluation, sweep, training
from export import report as report_file
from export.architectures import ARCHITECTURES
from export.configuration import Configuration, Trial
from export.configurations import CONFIGURATIONS, PAPER
from export.evaluation import Result
from export.served import ServedModel
from export.training import Run
from export.verification import OnnxRunner
from ntm_client import Client, NtmClientError
from ntm_tasks import TASKS, Purpose, Size, size_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, FileNotFoundError, ArithmeticError, NtmClientError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_sweep(commands)
    _add_export(commands)
    _add_evaluate(commands)
    _add_report(commands)
    return top


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "train",
        help="train a network on a task",
        description="Train a network on a task. The same command goes on from the last checkpoint.",
    )
    command.add_argument("task", choices=sorted(TASKS))
    command.add_argument("--architecture", choices=ARCHITECTURES, default="ntm-lstm")
    command.add_argument("--seed", type=int, default=1, help="of parameters and sequences")
    command.add_argument(
        "--paper", action="store_true", help="the paper's own sizes and optimiser, not ours"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replace a setting of the configuration, such as updates=1000; may be repeated",
    )
    command.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where checkpoints go (default: runs)"
    )
    command.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    command.set_defaults(run=train)


def _add_sweep(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "sweep",
        help="run a list of trainings",
        description="Run trainings one after another, each in a process of its own. The same "
        "command skips those that are finished and goes on with the one that was stopped.",
    )
    command.add_argument(
        "names",
        nargs="*",
        choices=[[], *CONFIGURATIONS],
        metavar="TASK-ARCHITECTURE",
        help="such as copy-ntm-lstm (default: all fifteen)",
    )
    command.add_argument("--seeds", type=int, nargs="+", default=[1], help="(default: 1)")
    command.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where checkpoints go (default: runs)"
    )
    command.set_defaults(run=run_sweep)


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "report",
        help="compare all models with each other and with the paper",
        description="Write REPORT.md and its pictures from the models' folders alone.",
    )
    command.add_argument(
        "--models", type=Path, default=Path("models"), help="read and write here (default: models)"
    )
    command.set_defaults(run=run_report)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure an exported model",
        description="Run an exported model on fresh sequences, through onnxruntime or through a "
        "server. With the default trials the result is compared with the model's card.",
    )
    command.add_argument("model", type=Path, help="folder of the model, such as models/NAME")
    command.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        help="of the sequences, such as 20, or 10x20 where a size has two numbers "
        "(default: the trials of the model's card)",
    )
    command.add_argument(
        "--locations", type=int, nargs="+", help="memory sizes (default: the model's own)"
    )
    command.add_argument("--sequences", type=int, default=200, help="of each length (default: 200)")
    command.add_argument("--seed", type=int, default=0, help="of the sequences (default: 0)")
    command.add_argument("--threads", type=int, default=1, help="of onnxruntime (default: 1)")
    command.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="stream the sequences through this server instead, which serves the same model",
    )
    command.set_defaults(run=evaluate)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "export",
        help="write a trained network as a model to serve",
        description="Write the network that is best in validation, of one training run or of all "
        "seeds, as ONNX, after comparing the two step by step, with a card and training curves.",
    )
    command.add_argument(
        "run_folder",
        type=Path,
        help="of a model's seeds, such as runs/copy-ntm-lstm, or of one, runs/copy-ntm-lstm/seed-1",
    )
    command.add_argument(
        "--models", type=Path, default=Path("models"), help="where to write (default: models)"
    )
    command.set_defaults(run=export)


def evaluate(options: argparse.Namespace) -> None:
    """Print the measures of a model over all sizes and memory sizes, or over its card's trials."""
    model = (options.model / card.MODEL_NAME).read_bytes()
    runner = OnnxRunner(model, options.threads)
    answers = evaluation.answers_of(runner)
    task = TASKS[runner.spec.task]
    described = card.read(options.model)
    on_card = {
        Trial(tuple(each["size"]), each["locations"], each["sequences"]): each
        for each in card.shipped(described)["results"]
    }
    trials = list(on_card)
    if options.sizes:
        locations = options.locations or [runner.spec.default_locations]
        trials = [Trial(size, n, options.sequences) for n in locations for size in options.sizes]
    for trial in trials:
        if len(trial.size) != len(task.size_names):
            raise ValueError(f"a size of this task is {' x '.join(task.size_names)}")
    with ExitStack() as stack:
        if options.server:
            client = stack.enter_context(Client(options.server))
            answers = _served(client, options.model.resolve().name, described["content_hash"])
        results = [
            evaluation.evaluate(answers, task, trial, Purpose.EVALUATION, options.seed)
            for trial in trials
        ]
    print(evaluation.table(results))
    if not options.sizes and options.seed == card.EVALUATION_SEED:
        differ = [
            size_text(result.size)
            for trial, result in zip(trials, results, strict=True)
            if not agrees(result, on_card[trial])
        ]
        print(f"differs from the card at {', '.join(differ)}" if differ else "as on the card")


def _served(client: Client, name: str, content_hash: str) -> ServedModel:
    """The server's model of that name. Raises ValueError if it is another than the card's."""
    found = client.model(name).content_hash
    if found != content_hash:
        raise ValueError(f"{client.target} serves another {name}: {found}, not {content_hash}")
    return ServedModel(client, name)


def agrees(result: Result, on_card: Mapping[str, Any]) -> bool:
    """Whether a result is the card's, but for the rounding of another machine."""
    bits: float = on_card["bits_per_sequence"]
    return abs(result.bits_per_sequence - bits) <= max(1e-4, 1e-3 * bits)


def export(options: argparse.Namespace) -> None:
    """Verify, evaluate and write a model."""
    torch.set_num_threads(1)
    one = (options.run_folder / training.CHECKPOINT_NAME).exists()
    folders = [options.run_folder] if one else sorted(options.run_folder.glob("seed-*"))
    if not folders:
        raise FileNotFoundError(f"{options.run_folder} has no checkpoint and no folder seed-*")
    runs = sorted((Run.load(folder) for folder in folders), key=lambda run: run.seed)
    print(card.write_model(runs, options.models / runs[0].configuration.name))


def run_sweep(options: argparse.Namespace) -> None:
    """Run the trainings, then say what became of each."""
    outcomes = sweep.sweep(options.names or list(CONFIGURATIONS), options.seeds, options.runs)
    print(sweep.table(outcomes))
    failed = [outcome for outcome in outcomes if not outcome.finished]
    if failed:
        raise ArithmeticError(f"{len(failed)} of {len(outcomes)} trainings failed")


def run_report(options: argparse.Namespace) -> None:
    """Write the report."""
    print(report_file.write(options.models))


def train(options: argparse.Namespace) -> None:
    """Train, from the last checkpoint if there is one."""
    torch.set_num_threads(options.threads)
    table = PAPER if options.paper else CONFIGURATIONS
    configuration = table[f"{options.task}-{options.architecture}"].with_settings(
        dict(_name_and_value(text) for text in options.set)
    )
    folder = training.folder_of(options.runs, configuration.name, options.seed, paper=options.paper)
    if (folder / training.CHECKPOINT_NAME).exists():
        run = Run.load(folder)
        if run.configuration != configuration:
            raise ValueError(f"{folder} holds a run of another configuration; remove it first")
        print(f"going on from {run.sequences:,} sequences")
    else:
        run = Run.new(configuration, options.seed)
    parameters = sum(parameter.numel() for parameter in run.network.parameters())
    print(
        f"{configuration.name}: seed {options.seed}, {parameters:,} parameters, "
        f"{configuration.updates * configuration.batch:,} sequences"
    )
    print(f"{'sequences':>10} {'bits/seq':>10} {'wrong bits':>10} {'seq/s':>7}  validation")
    run = training.train(run, folder, report)
    print(f"best after {run.best_update * configuration.batch:,} sequences; {folder}")


def report(run: Run) -> None:
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


def _size(text: str) -> Size:
    return tuple(int(number) for number in text.split("x"))


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
