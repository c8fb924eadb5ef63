"""
Modules as people write them: some that are served, and some that are refused.

The comment `# change` marks the line that a refusal has to name.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody imports it
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]

X, Y, H = 5, 4, 6
"""Widths of input, output and state."""


class Tagger(nn.Module):
    """Two layers of GRU with an output: the state [layers, B, H] has the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.GRU(X, H, 2)
        self.output = nn.Linear(H, Y)

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        hidden, state = self.layers(x[None], state)
        return self.output(hidden[0]), state


class Window(nn.Module):
    """A sum over this input and the last two: a state that is the past itself."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3 * X, Y)

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.output(torch.cat((x, state["last"], state["before"]), 1))
        return y, {"before": state["last"], "last": x}


class Cells(NamedTuple):
    """The state of `Nested`."""

    hidden: Tensor
    cell: Tensor


class Nested(nn.Module):
    """A state of a pair and a named tuple, a trace of one head, and one of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTMCell(X, H), nn.LSTMCell(H, H)
        self.seen: Any = None  # for whoever looks; nothing reads it

    def forward(
        self, x: Tensor, state: tuple[Pair, Cells]
    ) -> tuple[Tensor, tuple[Pair, Cells], dict[str, Tensor]]:
        lower, upper = state
        lower = self.first(x, lower)
        upper = Cells(*self.second(lower[0], tuple(upper)))
        self.seen = upper.hidden
        gates = torch.stack((lower[1], upper.cell), 1)
        return upper.hidden, (lower, upper), {"open": lower[0].sigmoid(), "cells": gates}


class Memory(nn.Module):
    """A memory [B, N, width] that is read by content and written where the head was."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters_of_heads = nn.Linear(X, 3)
        self.output = nn.Linear(3, Y)

    def forward(
        self, x: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        key = self.parameters_of_heads(x)
        memory = state["memory"] + state["weighting"][:, :, None] * key[:, None]
        scores = (memory * key[:, None]).sum(2) + torch.roll(state["weighting"], 1, 1)
        weighting = torch.softmax(scores, 1)
        read = (weighting[:, :, None] * memory).sum(1)
        after = {"memory": memory, "weighting": weighting}
        return self.output(read), after, {"read_weighting": weighting, "key": key}


class Sums(nn.Module):
    """Adds its inputs up."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(X, Y)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.layer(x), state + x


class Counted(nn.Module):
    """The mean so far, with the count [B] of the steps; it changes the state in place."""

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        state["total"] += x
        state["count"] += 1
        return state["total"] / state["count"][:, None], state


class Refused(nn.Module):
    """What the refused ones have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(X, X)


class KeepsAttribute(Refused):
    """Keeps a tensor on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.zeros(1, X)

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        self.hidden = torch.tanh(self.layer(x) + self.hidden)  # change
        return self.hidden, state + x


class KeepsBuffer(Refused):
    """Changes a buffer."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1))

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        self.total += x.sum()  # change
        return self.layer(x) + self.total, state + x


class KeepsCount(Refused):
    """Counts its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        self.count += 1  # change
        return self.layer(x) / self.count, state + x


class KeepsList(Refused):
    """Keeps all that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.past: list[Tensor] = []

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        self.past.append(x)  # change
        return self.layer(x) + self.past[0], state + x


class KeepsInside(Refused):
    """Has a part that keeps a tensor on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Trailing()

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        return self.layer(self.part(x)), state + x


class Trailing(nn.Module):
    """Gives the input of the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Tensor] = {"x": torch.zeros(1, X)}

    def forward(self, x: Tensor) -> Tensor:
        before = self.last["x"]
        self.last["x"] = x  # changed here
        return x + before


class DrawsFromPython(Refused):
    """Draws a number where PyTorch does not see it."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.layer(x) * random.random(), state + x  # noqa: S311 - no secret


class Explodes(Refused):
    """Squares its state with each step."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.layer(x), (state + x + 2) ** 2


class BranchesOnValues(Refused):
    """Does one thing or another."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        if x.sum() > 0:  # change
            return self.layer(x), state + x
        return self.layer(x), state


class LoopsByValue(Refused):
    """Does something as often as a value says."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        for _ in range(int(x.abs().sum())):  # change
            state = state + x
        return self.layer(x), state


class SizeByValue(Refused):
    """Takes the positive values alone."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        positive = x[x > 0]  # change
        return self.layer(x) + positive.sum(), state + x


class Grows(Refused):
    """Appends each input to its state."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        history = torch.cat((state, x), 1)  # change
        return self.layer(x), history


class OneBatch(Refused):
    """Has the example's batch as a number."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        both = torch.cat((state, x), 1).view(3, 2, X)  # change
        return self.layer(x), both.sum(1)


class ComparesBatch(Refused):
    """Is another for a batch of three."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.layer(x) * (2 if len(x) == 3 else 1), state + x


class Drops(Refused):
    """Drops values as in training."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        return F.dropout(self.layer(x), 0.5, self.training), state + x  # change


class DropsByLayer(Refused):
    """Has a layer that drops values as in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.drop(self.layer(x)), state + x


class Normalises(Refused):
    """Has a layer that learns the mean of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(X)

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.norm(self.layer(x)), state + x


class AddsNoise(Refused):
    """Draws random numbers."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        return self.layer(x) + torch.rand_like(x), state + x  # change


class MeanOfBatch(Refused):
    """Subtracts the mean of all sessions."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        centred = x - x.mean(0)  # change
        return self.layer(centred), state + x


class ThroughNumpy(Refused):
    """Leaves PyTorch."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        return torch.from_numpy(self.layer(x).detach().numpy()), state + x  # change


class WithoutOperator(Refused):
    """Needs what ONNX has not."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        values = torch.linalg.svdvals(x[:, :, None] * state[:, None])  # change
        return self.layer(x) + values, state + x


class Fails(Refused):
    """Multiplies what does not fit."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        return self.layer(x) @ torch.zeros(7, 7), state + x  # change


class FlatOutput(Refused):
    """Returns one number for each session."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.layer(x).sum(1), state + x


class OtherNumbers(Refused):
    """Returns integers."""

    def forward(self, x: Tensor, state: Tensor) -> Pair:  # change
        return self.layer(x).argmax(1, keepdim=True), state + x


class OtherStructure(Refused):
    """Returns more state than it takes."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Pair]:  # change
        return self.layer(x), (state + x, state)


class NoState(Refused):
    """Returns no state."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:  # change
        y: Tensor = self.layer(x) + state
        return y


def make() -> tuple[nn.Module, Tensor, Tensor]:
    """A module with its example, as the command `module` takes it."""
    return Sums(), torch.zeros(3, X), torch.zeros(3, X)
