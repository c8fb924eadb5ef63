"""Networks that have learned nothing, or not what they are said to: what decipher is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from export import card
from export.architectures import build
from export.configuration import Configuration
from export.network import Network
from export.to_onnx import spec_of
from export.training import Run, update
from ntm_client.values import Float32, Memory, Model, TraceTensor
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TASKS, Batch, Size, Task, TaskSequence, register

Kind = Literal["as it ships", "untrained", "shuffled", "noised", "random targets", "LSTM"]

KINDS: tuple[Kind, ...] = ("untrained", "shuffled", "noised", "random targets", "LSTM")
"""
The kinds of controls.

untrained: the parameters are drawn anew. shuffled: the values of each matrix are permuted. noised:
noise as large as its values is added to each matrix. random targets: trained on the task's
sequences, each with random bits for its answer. LSTM: the baselines, which have no memory.
"""

UPDATES = 40
"""Updates of a training on random targets, of which nothing but a constant can be learned."""

SMALL_SIZES = {"ngrams": (40, 5)}
"""Sizes of the sequences in these trainings, where those of the task cost too much."""


@dataclass(frozen=True)
class Control:
    """A network, by the model that it was made from."""

    kind: Kind
    model: str
    seed: int
    configuration: Configuration
    network: Network


def shipped(models: Path, architectures: Sequence[str]) -> list[str]:
    """The names of the models that have one of these architectures."""
    return sorted(
        folder.parent.name
        for folder in models.glob("*/card.json")
        if card.read(folder.parent)["architecture"] in architectures
    )


def control(models: Path, model: str, kind: Kind, seed: int) -> Control:
    """Make the control of a kind from a model that ships. Equal seeds give equal networks."""
    configuration = card.configuration_on(card.read(models / model))
    if kind == "untrained":
        network = build(configuration.architecture, configuration.sizes, seed)
    elif kind == "random targets":
        network = _on_random_targets(configuration, seed)
    else:
        network = card.load(models / model)
        if kind in ("shuffled", "noised"):
            _break(network, kind, seed)
    return Control(kind, model, seed, configuration, network)


def _break(network: Network, kind: Kind, seed: int) -> None:
    """Shuffle or noise the matrices of a network."""
    luck = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            values = parameter.numpy()
            if values.ndim < 2:
                continue
            if kind == "shuffled":
                other = luck.permutation(values.ravel()).reshape(values.shape)
            else:
                other = values + luck.normal(0, values.std(), values.shape)
            parameter.copy_(torch.from_numpy(other.astype(np.float32)))


def _on_random_targets(configuration: Configuration, seed: int) -> Network:
    """Train a network for a short time on the task's inputs, with random targets."""
    task = _with_random_targets(TASKS[configuration.task])
    other = replace(
        configuration,
        task=task.name,
        blank_rate=0.0,
        curriculum=0,
        expected_targets=False,
        updates=UPDATES,
    )
    run = Run.new(other, seed)
    while run.update < UPDATES:
        update(run)
    return run.network


def _with_random_targets(task: Task) -> Task:
    """Register a task like this one, whose targets are random, and return it."""
    name = f"{task.name}-random-targets"
    if name in TASKS:
        return TASKS[name]

    def generate(
        generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
    ) -> Batch:
        drawn = task.generate(generator, batch, size, blank_rate)
        random = generator.integers(0, 2, drawn.targets.shape).astype(np.float32)
        return Batch(drawn.inputs, random * drawn.mask[:, :, None], drawn.mask)

    size = SMALL_SIZES.get(task.name, task.largest)
    smallest = SMALL_SIZES.get(task.name, task.smallest)
    found = replace(task, name=name, generate=generate, smallest=smallest, largest=size)
    register(found)
    return found


def recorded(control: Control, sequences: Sequence[TaskSequence]) -> list[Recording]:
    """
    Run sequences through a network, all at once, and record each with every trace.

    Sequences of different lengths are filled up with zeros, and what comes then is left out.
    """
    spec = spec_of(control.network, control.configuration)
    locations = control.configuration.default_locations if spec.read_heads else 0
    longest = max(len(sequence.inputs) for sequence in sequences)
    width = control.configuration.sizes.input_width
    inputs = np.zeros((longest, len(sequences), width), np.float32)
    for row, sequence in enumerate(sequences):
        inputs[: len(sequence.inputs), row] = sequence.inputs
    with torch.no_grad():
        state = control.network.initial_state(len(sequences), locations)
        first = {name: value.clone() for name, value in state._asdict().items()}
        answers, names = [], [trace.name for trace in spec.traces]
        traces: dict[str, list[Float32]] = {name: [] for name in names}
        for x in torch.from_numpy(inputs):
            logits, state, trace = control.network(x, state)
            answers.append(torch.sigmoid(logits).numpy())
            given = {f"{name}_next": value for name, value in state._asdict().items()}
            given |= trace._asdict() if trace is not None else {}
            for each in spec.traces:
                rows = given[each.output][:, each.first_head : each.first_head + each.heads]
                traces[each.name].append(rows.numpy())
    outputs = np.array(answers)
    stacked = {name: np.array(values) for name, values in traces.items()}
    model = _model(control)
    found = []
    for row, sequence in enumerate(sequences):
        steps = len(sequence.inputs)
        before = None
        if locations:
            weighting = first["weighting"][row].numpy()
            heads = np.split(weighting, [spec.read_heads])
            before = Memory(0, first["memory"][row].numpy().T, *heads)
        found.append(
            Recording(
                model,
                locations,
                sequence.inputs,
                outputs[:steps, row],
                {name: values[:steps, row] for name, values in stacked.items()},
                before,
                size=sequence.size,
                target=sequence.target,
                mask=sequence.mask,
                marks=sequence.marks,
            )
        )
    return found


def _model(control: Control) -> Model:
    """What a server would say of the network."""
    configuration = control.configuration
    spec = spec_of(control.network, configuration)
    locations = -1
    traces = tuple(
        TraceTensor(each.name, each.heads, locations if each.width == "N" else int(each.width))
        for each in spec.traces
    )
    return Model(
        name=f"{control.model}, {control.kind}, seed {control.seed}",
        content_hash="",
        task=configuration.task,
        architecture=configuration.architecture,
        input_width=configuration.sizes.input_width,
        output_width=configuration.sizes.output_width,
        state=(),
        traces=traces,
        read_heads=spec.read_heads,
        write_heads=spec.write_heads,
        default_locations=spec.default_locations,
        fixed_locations=spec.fixed_locations,
        provider="PyTorch",
    )


def controls(models: Path, each: int, trained: int, counting: int = 0) -> Iterator[Control]:
    """
    Make the controls one by one: `each` seeds of the first three kinds for each model that has the
    heads of an NTM, `trained` of random targets, and every LSTM.

    Of a model of single bits, in which tables can be looked for, there are `counting` seeds if that
    is more.
    """
    for model in shipped(models, ("ntm-lstm", "ntm-ff")):
        seeds = max(each, counting) if is_of_bits(models, model) else each
        for kind in ("untrained", "shuffled", "noised"):
            for seed in range(1, seeds + 1):
                yield control(models, model, kind, seed)
        for seed in range(1, trained + 1):
            yield control(models, model, "random targets", seed)
    for model in shipped(models, ("lstm",)):
        yield control(models, model, "LSTM", 1)


def is_of_bits(models: Path, model: str) -> bool:
    """Whether a model has a single input and a single output."""
    sizes = card.configuration_on(card.read(models / model)).sizes
    return (sizes.input_width, sizes.output_width) == (1, 1)


WITH_MECHANISMS = ("copy", "repeat-copy")
"""
The tasks in whose controls a mechanism is looked for. That of sorting is none that counts as found,
and recall's are left out for time.
"""


def mechanism_controls(models: Path, seeds: int) -> Iterator[Control]:
    """
    Make the controls that mechanisms are fitted to: for each model of these tasks with the heads of
    an NTM, `seeds` of each kind with heads, and the model as it ships. None if `seeds` is 0.
    """
    for model in shipped(models, ("ntm-lstm", "ntm-ff")):
        if seeds and card.read(models / model)["task"] in WITH_MECHANISMS:
            for kind in (each for each in KINDS if each != "LSTM"):
                for seed in range(1, seeds + 1):
                    yield control(models, model, kind, seed)
            yield control(models, model, "as it ships", 0)
