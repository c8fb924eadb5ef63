"""
Parts of networks: the affine layer, the LSTM layer, and the controllers that are made of them.

Shapes: B sequences, C the size of each of the L layers of a controller.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """`x @ weight + bias`, x [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        """Draw Glorot's uniform weights; biases start at zero."""
        super().__init__()
        weight = torch.empty(inputs, outputs)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(weight, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class LstmLayer(nn.Module):
    """One layer of long short-term memory, all four gates in one product."""

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.size = size
        self.gates = Affine(inputs + size, 4 * size, generator)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """`x` [B, inputs], `hidden` and `cell` [B, size] -> the next hidden and cell."""
        preactivation = self.gates(torch.cat([x, hidden], 1))
        gates, candidate = torch.split(preactivation, [3 * self.size, self.size], 1)
        input_gate, forget_gate, output_gate = torch.split(torch.sigmoid(gates), self.size, 1)
        cell = forget_gate * cell + input_gate * torch.tanh(candidate)
        return output_gate * torch.tanh(cell), cell


class FeedforwardController(nn.Module):
    """Layers of tanh units, without state."""

    def __init__(self, inputs: int, size: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Affine(size if layer else inputs, size, generator) for layer in range(layers)
        )

    def products(self) -> list[Affine]:
        """Return the affine part of each layer, from the input on."""
        return cast("list[Affine]", list(self.layers))

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return an empty state."""
        return ()

    def starts(self, name: str) -> dict[str, str]:
        """Return an empty mapping: no state tensor starts from a parameter."""
        return {}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`x` [B, inputs] -> output [B, C], and no state."""
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return (x,)


class LstmController(nn.Module):
    """Stacked LSTM layers of `size` cells with a learned initial state."""

    def __init__(self, inputs: int, size: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            LstmLayer(size if layer else inputs, size, generator) for layer in range(layers)
        )
        self.initial_hidden = nn.Parameter(torch.zeros(layers, size))
        self.initial_cell = nn.Parameter(torch.zeros(layers, size))

    def products(self) -> list[Affine]:
        """Return the affine part of each layer, from the input on."""
        return [cast(LstmLayer, layer).gates for layer in self.layers]

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return hidden and cell before the first step, each [B, L, C]."""
        return tuple(
            value.repeat(batch, 1, 1) for value in (self.initial_hidden, self.initial_cell)
        )

    def starts(self, name: str) -> dict[str, str]:
        """Return the parameters that state tensors start from, if the network calls this `name`."""
        return {
            "controller_hidden": f"{name}.initial_hidden",
            "controller_cell": f"{name}.initial_cell",
        }

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        """`x` [B, inputs] -> output [B, C], then the next state: hidden and cell [B, L, C]."""
        size = self.initial_hidden.shape[1]
        before = zip(
            *(torch.split(values.flatten(1), size, 1) for values in (hidden, cell)), strict=True
        )
        after = []
        for layer, (layer_hidden, layer_cell) in zip(self.layers, before, strict=True):
            x, layer_cell = layer(x, layer_hidden, layer_cell)
            after.append((x, layer_cell))
        shape = (-1, *self.initial_hidden.shape)
        return x, *(torch.cat(values, 1).reshape(shape) for values in zip(*after, strict=True))
