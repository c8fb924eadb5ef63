"""The command `import pytorch-ntm`: write a checkpoint of that repository as a model to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from cyclopts import validators as limits

from export.options import Folder, ModelName, check_output
from export.pytorch_ntm import checkpoint as files
from export.pytorch_ntm.folder import costs, write_model
from export.pytorch_ntm.network import ACTIVATIONS, Activations
from ntm_tasks import TASKS
from service.spec import is_name

CheckpointFile = Annotated[Path, Parameter(validator=limits.Path(exists=True, dir_okay=False))]


def pytorch_ntm(
    checkpoint: CheckpointFile,
    /,
    *,
    models: Folder = Path("models"),
    name: ModelName = None,
    task: str = "",
    activations: Activations | None = None,
    replace: bool = False,
) -> None:
    """
    Write a checkpoint of loudinthecloud/pytorch-ntm as a model to serve, after verifying it.

    Args:
        checkpoint: File that its train.py wrote, such as copy-task-1000-batch-40000.model. Of it
            nothing but tensors is read.
        models: Folder to write the model's folder in.
        name: Name of the model and of its folder; the file's name without its ending by default.
        task: What it was trained on, such as copy, to measure it and to draw sequences of.
        activations: Of the heads: softplus since 26 March 2018, softplus-shift before, relu before
            7 October 2017. No checkpoint tells. By default softplus, unless another kind makes
            less than half its bits of the task.
        replace: Write it also in place of another network of that name.
    """
    torch.set_num_threads(1)
    name = name or checkpoint.stem
    if not is_name(name) or name.startswith("."):
        raise ValueError(f"{name!r} cannot be a model's name; give one with --name")
    read = files.read(checkpoint)
    check_output("--models", models / name)
    print(
        f"{read.inputs} inputs, {read.outputs} outputs, LSTM of {read.layers} x "
        f"{read.controller_size}, memory of {read.locations} x {read.width}, heads: "
        f"{', '.join(read.heads)}"
    )
    if activations is None:
        activations = _likeliest(read, task)
    print(write_model(read, models / name, activations=activations, task=task, replace=replace))


def _likeliest(checkpoint: files.Checkpoint, task: str) -> Activations:
    """Choose the activations that a checkpoint was trained with, and say why."""
    chosen: Activations = "softplus"
    if task in TASKS:
        found = costs(checkpoint, task)
        best = min(ACTIVATIONS, key=lambda each: found[each])
        if found[best] < found[chosen] / 2:
            chosen = best
        bits = ", ".join(f"{each} {found[each]:.1f}" for each in ACTIVATIONS)
        print(f"bits a sequence of {task} with each kind of activations: {bits}")
    print(
        f"taken as trained with {chosen}, which the file does not tell; --activations has the "
        "other kinds"
    )
    return chosen
