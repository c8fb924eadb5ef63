"""
The equations of pytorch-ntm in plain numpy, as slow as they read: what the graph is verified by.

Nothing is shared with `network`: one sequence at a time, double precision, one head after another,
the memory as [N, M], one location after another where the equations have an index. The tensors are
read as the repository lays them out, and only the results are put in our order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from export.pytorch_ntm.checkpoint import CELL, HIDDEN, LSTM, MEMORY, Checkpoint, Float64


@dataclass(frozen=True)
class Head:
    """What one head did in a step, by the paper's letters."""

    k: Float64
    beta: float
    g: float
    s: Float64
    """As the repository has it: `s[0]` moves a weighting from i to i + 1."""
    gamma: float
    w: Float64
    e: Float64
    a: Float64


@dataclass(frozen=True)
class Sequence:
    """A sequence between two steps."""

    memory: Float64
    weightings: tuple[Float64, ...]
    """[N] of each head, in the order in which they act."""
    reads: tuple[Float64, ...]
    hidden: Float64
    cell: Float64


class Equations:
    """Steps of the network of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, activations: str) -> None:
        self._of = checkpoint
        self._activations = activations
        heads = range(len(checkpoint.heads))
        self._order = sorted(heads, key=lambda at: checkpoint.heads[at] == "write")
        """Heads as the graph orders them: those that read first."""

    def start(self) -> Sequence:
        """Return a sequence before its first step."""
        tensors = self._of.tensors
        return Sequence(
            tensors[MEMORY],
            tuple(np.zeros(self._of.locations) for _ in self._of.heads),
            tuple(tensors[f"ntm.read{row}_bias"][0] for row in range(self._of.reads)),
            tensors[HIDDEN][:, 0],
            tensors[CELL][:, 0],
        )

    def step(self, x: Float64, before: Sequence) -> tuple[Float64, Sequence, list[Head]]:
        """`x` [X] -> output probabilities [Y], the next state, and what each head did."""
        hidden, cell = self._lstm(np.concatenate([x, *before.reads]), before)
        output, memory = hidden[-1], before.memory
        heads, reads = [], []
        for index, kind in enumerate(self._of.heads):
            weight, bias = self._of.head(index)
            head = self._head(weight @ output + bias, memory, before.weightings[index])
            heads.append(head)
            if kind == "read":
                reads.append(
                    sum((w * row for w, row in zip(head.w, memory, strict=True)), 0 * x[0])
                )
            else:
                memory = np.stack(
                    [
                        row * (1 - w * head.e) + w * head.a
                        for w, row in zip(head.w, memory, strict=True)
                    ]
                )
        seen = np.concatenate([output, *reads])
        y = _sigmoid(self._of.tensors["ntm.fc.weight"] @ seen + self._of.tensors["ntm.fc.bias"])
        weightings = tuple(head.w for head in heads)
        return y, Sequence(memory, weightings, tuple(reads), hidden, cell), heads

    def _lstm(self, x: Float64, before: Sequence) -> tuple[Float64, Float64]:
        hidden, cell = [], []
        for layer in range(self._of.layers):
            weight_x, weight_h, bias_x, bias_h = (
                self._of.tensors[f"{LSTM}.{part}_l{layer}"]
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            gates = weight_x @ x + bias_x + weight_h @ before.hidden[layer] + bias_h
            i, f, g, o = np.split(gates, 4)
            c = _sigmoid(f) * before.cell[layer] + _sigmoid(i) * np.tanh(g)
            x = _sigmoid(o) * np.tanh(c)
            hidden.append(x)
            cell.append(c)
        return np.stack(hidden), np.stack(cell)

    def _head(self, values: Float64, memory: Float64, previous: Float64) -> Head:
        count, width = memory.shape
        k, scalars = values[:width], values[width : width + 6]
        e, a = values[width + 6 : 2 * width + 6], values[2 * width + 6 :]
        if self._activations == "relu":
            k, e, a = np.maximum(k, 0), np.maximum(e, 0), np.maximum(a, 0)
            beta, gamma = max(scalars[0], 0.0), 1 + max(scalars[5], 0.0)
            s = _softmax([max(value, 0.0) for value in scalars[2:5]])
        else:
            e = _sigmoid(e)
            beta, gamma = _softplus(scalars[0]), 1 + _softplus(scalars[5])
            shifts = list(scalars[2:5])
            if self._activations == "softplus-shift":
                shifts = [_softplus(value) for value in shifts]
            s = _softmax(shifts)
        g = float(_sigmoid(scalars[1:2])[0])
        content = _softmax([beta * _cosine(row + 1e-16, k + 1e-16) for row in memory])
        gated = [g * content[n] + (1 - g) * previous[n] for n in range(count)]
        shifted = [
            s[0] * gated[(n - 1) % count] + s[1] * gated[n] + s[2] * gated[(n + 1) % count]
            for n in range(count)
        ]
        powers = [value**gamma for value in shifted]
        w = np.array(powers) / (sum(powers) + 1e-16)
        return Head(k, beta, g, s, gamma, w, e, a)

    def named(self, y: Float64, after: Sequence, heads: list[Head]) -> dict[str, Float64]:
        """Return a step's results as the graph names and orders them, without the batch axis."""
        ours = [heads[at] for at in self._order]
        writers = [heads[at] for at in self._order if self._of.heads[at] == "write"]
        return {
            "y": y,
            **{f"{name}_next": value for name, value in self.state(after).items()},
            "key": np.stack([head.k for head in ours]),
            "strength": np.array([[head.beta] for head in ours]),
            "gate": np.array([[head.g] for head in ours]),
            "shift": np.stack([head.s[::-1] for head in ours]),
            "sharpening": np.array([[head.gamma] for head in ours]),
            "erase_vector": np.stack([head.e for head in writers]),
            "add_vector": np.stack([head.a for head in writers]),
        }

    def state(self, sequence: Sequence) -> dict[str, Float64]:
        """Return the state tensors of a sequence by name, as the graph orders them."""
        return {
            "memory": sequence.memory.T,
            "weighting": np.stack([sequence.weightings[at] for at in self._order]),
            "read_vector": np.stack(sequence.reads),
            "controller_hidden": sequence.hidden,
            "controller_cell": sequence.cell,
        }

    def sequence(self, state: dict[str, Float64]) -> Sequence:
        """Return a sequence from its state tensors by name, as the graph orders them."""
        rows = map(self._order.index, range(len(self._order)))
        return Sequence(
            state["memory"].T,
            tuple(state["weighting"][row] for row in rows),
            tuple(state["read_vector"]),
            state["controller_hidden"],
            state["controller_cell"],
        )


def _cosine(u: Float64, v: Float64) -> float:
    lengths = [max(math.sqrt(math.fsum(vector**2)), 1e-8) for vector in (u, v)]
    return math.fsum(u * v) / (lengths[0] * lengths[1])


def _softmax(values: list[float]) -> Float64:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    return np.array(powers) / sum(powers)


def _softplus(value: float) -> float:
    return float(np.logaddexp(0, value))


def _sigmoid(values: Float64) -> Float64:
    with np.errstate(over="ignore"):  # the exponential of a value far below zero
        found: Float64 = 1 / (1 + np.exp(-values))
    return found
