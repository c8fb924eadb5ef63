"""Train a network on a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export import own_architecture, training
from export.commands import rows
from export.configuration import Configuration
from export.device import CPU, opened, title_of
from export.options import Device, Folder, Seed, Text, Threads, check_output
from export.training import Run
from ntm_tasks import load, size_text
from service.spec import printable


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
    configuration = rows.of(drawn, network.name, paper=paper).with_settings(rows.settings(set))
    drawn.draw(np.random.default_rng(0), 1, configuration.blank_rate)  # before it is needed
    folder = training.folder_of(runs, configuration.name, seed, paper=paper)
    check_output("--runs", folder)
    checkpoint = folder / training.CHECKPOINT_NAME
    if network.source:
        # Loaded here alone: the converter takes longer to load than all else but PyTorch.
        from export import architecture_trial

        architecture_trial.try_out(configuration)
        if chosen != CPU:
            architecture_trial.try_on(configuration, chosen)
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
