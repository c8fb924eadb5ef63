"""The command line: `python -m export train | evaluate | export`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from export import card, evaluation, training
from export.configurations import CONFIGURATIONS, Configuration, Trial
from export.network import ARCHITECTURES
from export.tasks import TASKS, Purpose, Size, size_text
from export.training import Run
from export.verification import OnnxRunner


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, FileNotFoundError, ArithmeticError) as error:
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
    _add_evaluate(commands)
    _add_export(commands)
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
        "--set",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="replace a number of the configuration, such as updates=1000; may be repeated",
    )
    command.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where checkpoints go (default: runs)"
    )
    command.add_argument(
        "--eager", action="store_true", help="do not compile the step, although a compiler exists"
    )
    command.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    command.set_defaults(run=train)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure an exported model",
        description="Run an exported model on fresh sequences, through onnxruntime.",
    )
    command.add_argument("model", type=Path, help="folder of the model, such as models/NAME")
    command.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        required=True,
        help="of the sequences, such as 20, or 10x20 where a size has two numbers",
    )
    command.add_argument(
        "--locations", type=int, nargs="+", help="memory sizes (default: the model's own)"
    )
    command.add_argument("--sequences", type=int, default=200, help="of each length (default: 200)")
    command.add_argument("--seed", type=int, default=0, help="of the sequences (default: 0)")
    command.add_argument("--threads", type=int, default=1, help="of onnxruntime (default: 1)")
    command.set_defaults(run=evaluate)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "export",
        help="write a trained network as a model to serve",
        description="Write the best network of a training run as ONNX, after comparing the two "
        "step by step, with a card and the training curve.",
    )
    command.add_argument("run_folder", type=Path, help="such as runs/copy-ntm-lstm/seed-1")
    command.add_argument(
        "--models", type=Path, default=Path("models"), help="where to write (default: models)"
    )
    command.set_defaults(run=export)


def evaluate(options: argparse.Namespace) -> None:
    """Print the measures of a model over all lengths and memory sizes."""
    model = (options.model / card.MODEL_NAME).read_bytes()
    runner = OnnxRunner(model, options.threads)
    for locations in options.locations or [runner.spec.default_locations]:
        trials = [Trial(size, locations, options.sequences) for size in options.sizes]
        results = [
            evaluation.evaluate(
                runner, TASKS[runner.spec.task], trial, Purpose.EVALUATION, options.seed
            )
            for trial in trials
        ]
        print(evaluation.table(results))


def export(options: argparse.Namespace) -> None:
    """Verify, evaluate and write a model."""
    torch.set_num_threads(1)
    run = Run.load(options.run_folder)
    seeds = card.seeds_trained(options.run_folder)
    folder = card.write_model(run, seeds, options.models / run.configuration.name)
    print(folder)


def train(options: argparse.Namespace) -> None:
    """Train, from the last checkpoint if there is one."""
    torch.set_num_threads(options.threads)
    configuration = CONFIGURATIONS[f"{options.task}-{options.architecture}"].with_settings(
        dict(_name_and_value(text) for text in options.set)
    )
    folder = options.runs / configuration.name / f"seed-{options.seed}"
    if (folder / training.CHECKPOINT_NAME).exists():
        run = Run.load(folder)
        if run.configuration != configuration:
            raise ValueError(f"{folder} holds a run of another configuration; remove it first")
        print(f"going on from {run.sequences:,} sequences")
    else:
        run = Run.new(configuration, options.seed)
    compiled = not options.eager and training.can_compile()
    parameters = sum(parameter.numel() for parameter in run.network.parameters())
    print(
        f"{configuration.name}: seed {options.seed}, {parameters:,} parameters, "
        f"{configuration.updates * configuration.batch:,} sequences, "
        f"{'compiled' if compiled else 'eager'} step"
    )
    print(f"{'sequences':>10} {'bits/seq':>10} {'wrong bits':>10} {'seq/s':>7}  validation")
    run = training.train(run, folder, compiled=compiled, report=report)
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
        raise ValueError(f"{text!r} is not NAME=NUMBER")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
