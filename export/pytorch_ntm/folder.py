"""Write a checkpoint of pytorch-ntm as a model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export import card, comparison, evaluation, to_onnx, verification
from export.configuration import Trial
from export.evaluation import Result, TorchRunner
from export.pytorch_ntm.checkpoint import Checkpoint
from export.pytorch_ntm.equations import Equations
from export.pytorch_ntm.network import (
    ACTIVATIONS,
    ARCHITECTURE,
    Activations,
    PytorchNtm,
    spec_of,
)
from export.pytorch_ntm.verification import sequences, verify
from export.verification import OnnxRunner
from ntm_tasks import TASKS, Purpose

REPOSITORY = "https://github.com/loudinthecloud/pytorch-ntm"

SEQUENCES = 1000
"""Sequences by which a network of a known task is measured, of the largest size of training."""

FEW_SEQUENCES = 40
"""Sequences by which activations are compared; wrong ones leave a network that guesses."""


def costs(checkpoint: Checkpoint, task: str) -> dict[Activations, float]:
    """
    Return what a network answers with each kind of activations, in bits a sequence of a task.

    Raises:
        ValueError: the task has other widths than the network.
    """
    _check_task(task, checkpoint)
    trial = Trial(TASKS[task].largest, checkpoint.locations, FEW_SEQUENCES)
    found: dict[Activations, float] = {}
    for each in ACTIVATIONS:
        answers = evaluation.answers_of(TorchRunner(PytorchNtm(checkpoint, each).float()))
        result = evaluation.evaluate(answers, TASKS[task], trial, Purpose.VALIDATION, 0)
        found[each] = result.bits_per_sequence
    return found


def write_model(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    activations: Activations = "softplus",
    task: str = "",
    replace: bool = False,
) -> Path:
    """
    Verify and write the network of a checkpoint as a model to serve. Return its folder.

    If the task is one of ours, the network is measured on it, and the card has the result. The
    folder is prepared beside its place, and there loaded and stepped as a server does it.

    Args:
        checkpoint: From `checkpoint.read`.
        folder: The model's, whose name is the model's.
        activations: What the heads applied to their parameters when the network was trained.
        task: The task that the spec names; by default the model's name.
        replace: Whether the folder may have held another network until now.

    Raises:
        ValueError: the task is of ours, and of other widths than the network.
        FileExistsError: the folder holds another network.
        VerificationFailed: the graph differs from the equations.
        ModelInvalid: a server could not serve the file. In all four cases nothing is written.
    """
    _check_task(task, checkpoint)
    network = PytorchNtm(checkpoint, activations).float()
    spec = spec_of(network, task or folder.name)
    model = to_onnx.convert(network, spec)
    content = model.SerializeToString()
    if not replace:
        card.check_free(folder, content)
    verification.check_graph(model)
    comparisons = comparison.show(verify(content, network, Equations(checkpoint, activations)))
    results = _results(content, task, checkpoint)
    if results:
        print(evaluation.table(results))
    described: dict[str, Any] = {
        "task": spec.task,
        "architecture": ARCHITECTURE,
        "content_hash": card.content_hash(content),
        "parameters": checkpoint.parameters,
        "graph_nodes": len(model.graph.node),
        "imported": {
            "from": REPOSITORY,
            "activations": activations,
            "heads": list(checkpoint.heads),
            "controller_size": checkpoint.controller_size,
            "layers": checkpoint.layers,
            "locations": checkpoint.locations,
            "memory_width": checkpoint.width,
        },
        "results": [card.entry_of(result) for result in results],
        "evaluation": {"runtime": "onnxruntime", "seed": card.EVALUATION_SEED},
        "verification": {
            "against": "the repository's equations in double precision",
            "allowed_difference": comparison.LARGEST_DIFFERENCE,
            "comparisons": [each._asdict() for each in comparisons],
        },
        **card.made_with(),
    }
    rounding = max(each.output_rounding for each in comparisons if each.in_range)

    def rehearse(beside: Path) -> None:
        verification.rehearse(beside, folder.name, content, sequences(spec, 1), rounding)

    card.write_files(folder, content, described, rehearse, replace=replace)
    return folder


def _check_task(task: str, checkpoint: Checkpoint) -> None:
    """Raise ValueError if a task of ours has other widths than the network."""
    if task not in TASKS:
        return
    widths = (checkpoint.inputs, checkpoint.outputs)
    expected = (TASKS[task].input_width, TASKS[task].output_width)
    if widths != expected:
        raise ValueError(
            f"the network has {widths[0]} inputs and {widths[1]} outputs; the task {task} has "
            f"{expected[0]} and {expected[1]}; leave out --task, or name another"
        )


def _results(content: bytes, task: str, checkpoint: Checkpoint) -> list[Result]:
    """Measure the network on a task of ours, on onnxruntime."""
    if task not in TASKS:
        return []
    trial = Trial(TASKS[task].largest, checkpoint.locations, SEQUENCES)
    answers = evaluation.answers_of(OnnxRunner(content))
    return [
        evaluation.evaluate(answers, TASKS[task], trial, Purpose.EVALUATION, card.EVALUATION_SEED)
    ]
