"""Write the best of the trained networks as a model to serve."""

from __future__ import annotations

from pathlib import Path

import torch

from export import architecture_trial, card, own_architecture, training
from export.architectures import ARCHITECTURES
from export.options import (
    ArchitectureSource,
    ExistingFolder,
    Folder,
    ModelName,
    TaskSource,
    check_output,
)
from export.training import Run
from ntm_tasks import load


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
    configuration = loaded[0].configuration
    if ARCHITECTURES[configuration.architecture].source:
        architecture_trial.try_out(configuration)  # its code may have changed
    name = name or configuration.name
    for folder in (models, models / name):
        check_output("--models", folder)
    print(card.write_model(loaded, models, name, replace=replace))
