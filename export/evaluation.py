"""Measure how well a network does a task, in PyTorch, on onnxruntime or served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from export.configuration import Trial
from export.device import device_of
from export.network import Network, State, begin
from ntm_tasks import Batch, Float32, Purpose, Size, Task, size_text

PROBABILITY_MARGIN = 1e-7
"""The least probability in a cost, so that the cost of an error stays finite."""

SEQUENCES_AT_ONCE = 40
"""A larger batch at 1,024 locations exceeds the processor's cache and is slower."""

S = TypeVar("S")

Answers = Callable[[Batch, int], Float32]
"""Runs whole sequences from the initial state at N locations: probabilities [T, B, Y]."""


class Runner(Protocol[S]):
    """A network that makes one step at a time, on any runtime."""

    def start(self, batch: int, locations: int) -> S:
        """Return the state of `batch` sequences before their first step."""

    def step(self, x: Float32, state: S) -> tuple[Float32, S]:
        """`x` [B, X] -> output probabilities [B, Y], the next state."""


class TorchRunner:
    """Runs a network in PyTorch, on the device that it is on."""

    def __init__(self, network: Network) -> None:
        """The network is not changed."""
        self._network = network
        self._device = device_of(network)

    def start(self, batch: int, locations: int) -> State:
        """Return the initial state of the network."""
        with torch.no_grad():
            return begin(self._network, batch, locations)

    def step(self, x: Float32, state: State) -> tuple[Float32, State]:
        """Make one step without gradients."""
        with torch.no_grad():
            logits, state, _ = self._network(torch.from_numpy(x).to(self._device), state)
            return torch.sigmoid(logits).cpu().numpy(), state


class Ends(NamedTuple):
    """How the end of answers was marked, over some sequences: see `Result`."""

    false: int
    missed: int
    wrong_before: int


class Scores(NamedTuple):
    """The scores of B sequences."""

    bits: Float32
    """[B]: the cross-entropy of the targets in bits per sequence, the paper's measure."""
    wrong: Float32
    """[B]: the number of outputs on the wrong side of 0.5."""


class Result(NamedTuple):
    """The result of a trial."""

    size: Size
    locations: int
    sequences: int
    bits_per_sequence: float
    wrong_bits: int
    """Over all sequences."""
    exact_match_rate: float
    """The share of the sequences without a wrong bit."""
    excess_bits: float | None = None
    """Bits per sequence above the cost of the optimal predictor, where it is known."""
    excess_error: float | None = None
    """The standard error of `excess_bits`."""
    false_ends: int | None = None
    """Steps marked as the end of an answer that are not, where the task has such a mark."""
    missed_ends: int | None = None
    """Ends that are not marked, where the task has such a mark."""
    wrong_before_ends: int | None = None
    """Wrong bits of the other outputs, without those of the steps with a false end."""


def score(probabilities: Float32, targets: Float32, mask: Float32) -> Scores:
    """`probabilities` and `targets` [T, B, Y], `mask` [T, B] -> a score of every sequence."""
    certain = np.where(targets > 0.5, probabilities, 1 - probabilities)
    cost = -np.log2(np.clip(certain, PROBABILITY_MARGIN, 1)) * mask[..., None]
    wrong = ((probabilities > 0.5) != (targets > 0.5)) * mask[..., None]
    return Scores(cost.sum((0, 2)), wrong.sum((0, 2)))


def ends(probabilities: Float32, targets: Float32, mask: Float32, end_bit: int) -> Ends:
    """`probabilities` and `targets` [T, B, Y], `mask` [T, B] -> how the ends were marked."""
    counts = mask > 0
    marked, due = (values[..., end_bit] > 0.5 for values in (probabilities, targets))
    false = marked & ~due & counts
    wrong = (probabilities > 0.5) != (targets > 0.5)
    others = np.delete(wrong, end_bit, axis=2)[counts & ~false]
    return Ends(int(false.sum()), int((due & ~marked & counts).sum()), int(others.sum()))


def outputs(runner: Runner[S], batch: Batch, locations: int) -> Float32:
    """Run whole sequences from the initial state; return the probabilities [T, B, Y]."""
    state = runner.start(batch.inputs.shape[1], locations)
    rows = []
    for x in batch.inputs:
        y, state = runner.step(x, state)
        rows.append(y)
    return np.stack(rows)


def answers_of(runner: Runner[S]) -> Answers:
    """Return the answers of a runner."""
    return lambda batch, locations: outputs(runner, batch, locations)


def evaluate(answers: Answers, task: Task, trial: Trial, purpose: Purpose, seed: int) -> Result:
    """Run a trial. Its sequences depend only on the trial, the purpose and the seed."""
    scores = []
    best = []
    marked = []
    for batch in task.batches(purpose, seed, trial.size, trial.sequences, SEQUENCES_AT_ONCE):
        if batch.optimum is not None:
            best.append(score(batch.optimum, batch.targets, batch.mask).bits)
        probabilities = answers(batch, trial.locations)
        scores.append(score(probabilities, batch.targets, batch.mask))
        if task.end_bit is not None:
            marked.append(ends(probabilities, batch.targets, batch.mask, task.end_bit))
    wrong = np.concatenate([each.wrong for each in scores])
    bits = np.concatenate([each.bits for each in scores])
    excess = bits - np.concatenate(best) if best else None
    return Result(
        *trial,
        float(bits.mean()),
        int(wrong.sum()),
        float(np.mean(wrong == 0)),
        None if excess is None else float(excess.mean()),
        None if excess is None else float(excess.std() / np.sqrt(len(excess))),
        *(map(sum, zip(*marked, strict=True)) if marked else (None,) * len(Ends._fields)),
    )


def table(results: Sequence[Result]) -> str:
    """Return the results as a text table."""
    heads = (
        f"{'size':>6} {'N':>5} {'sequences':>9} {'bits/seq':>12} {'wrong bits':>10} {'exact':>7}"
    )
    if any(r.excess_bits is not None for r in results):
        heads += "  above the optimum"
    if any(r.wrong_before_ends is not None for r in results):
        heads += "  false ends  missed ends  other wrong bits"
    lines = [heads]
    for r in results:
        line = (
            f"{size_text(r.size):>6} {r.locations:>5} {r.sequences:>9} "
            f"{r.bits_per_sequence:>12.6f} {r.wrong_bits:>10} {r.exact_match_rate:>7.1%}"
        )
        if r.excess_bits is not None:
            line += f"  {r.excess_bits:.3f} +- {r.excess_error:.3f} bits"
        if r.wrong_before_ends is not None:
            line += f"  {r.false_ends:>10} {r.missed_ends:>11} {r.wrong_before_ends:>16}"
        lines.append(line)
    return "\n".join(lines)
