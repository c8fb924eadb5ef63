"""
The paper's equations as written, in PyTorch: a peer of the served graph.

Nothing is reorganised: one product for each head parameter, memory as [B, N, M], memory and keys
normalised for the cosine, rotation by rolling, sharpening by powers, erasing and adding by outer
products. Letters are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax, softplus

from export.addressing import NORM_EPSILON

WIDTH, CELLS = 20, 100
"""Width of the memory and size of the LSTM of the model, which has one head of each kind."""

State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Memory [B, N, M], read and write weighting [B, N], read vector [B, M], hidden and cell [B, C]."""


class Head(nn.Module):
    """One head: each parameter has a product of its own (section 3.3)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """`weight` and `bias` have the columns k, beta, g, s, gamma."""
        super().__init__()
        sizes = [WIDTH, 1, 1, 3, 1]
        products = [
            _linear(*columns)
            for columns in zip(torch.split(weight, sizes, 1), torch.split(bias, sizes), strict=True)
        ]
        self.key: nn.Linear = products[0]
        self.strength: nn.Linear = products[1]
        self.gate: nn.Linear = products[2]
        self.shift: nn.Linear = products[3]
        self.sharpening: nn.Linear = products[4]

    def forward(self, h: Tensor, memory: Tensor, previous: Tensor) -> Tensor:
        """Return the next weighting [B, N]: equations 5 to 9."""
        k = torch.tanh(_limited(self.key(h)))
        beta = softplus(_limited(self.strength(h)))
        g = torch.sigmoid(_limited(self.gate(h)))
        s = softmax(_limited(self.shift(h)), 1)
        gamma = 1 + softplus(_limited(self.sharpening(h)))
        similarity = (_normalised(memory) * _normalised(k)[:, None]).sum(2)
        content = softmax(beta * similarity, 1)
        gated = g * content + (1 - g) * previous
        rotated = (
            s[:, :1] * torch.roll(gated, -1, 1)
            + s[:, 1:2] * gated
            + s[:, 2:] * torch.roll(gated, 1, 1)
        )
        powers = rotated**gamma
        return powers / powers.sum(1, keepdim=True)


class LiteralStep(nn.Module):
    """A step of an NTM with an LSTM, one read head and one write head."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """`parameters` have the names of the model's file."""
        super().__init__()
        gates = parameters["controller.layers.0.gates.weight"]
        bias = parameters["controller.layers.0.gates.bias"]
        inputs = gates.shape[0] - CELLS
        self.of_input = nn.ModuleList(
            _linear(part, offset)
            for part, offset in zip(
                torch.split(gates[:inputs], CELLS, 1), torch.split(bias, CELLS), strict=True
            )
        )
        self.of_hidden = nn.ModuleList(
            _linear(part, torch.zeros(CELLS)) for part in torch.split(gates[inputs:], CELLS, 1)
        )
        weight, bias = parameters["heads.layer.weight"], parameters["heads.layer.bias"]
        of_head = WIDTH + 6
        sizes = [of_head, of_head, WIDTH, WIDTH]
        weights, offsets = torch.split(weight, sizes, 1), torch.split(bias, sizes)
        self.read_head = Head(weights[0], offsets[0])
        self.write_head = Head(weights[1], offsets[1])
        self.erase, self.add = _linear(weights[2], offsets[2]), _linear(weights[3], offsets[3])
        self.output = _linear(parameters["output.weight"], parameters["output.bias"])

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, ...]:
        """`x` [B, X] -> outputs [B, Y] and the next state."""
        memory, w_read, w_write, read, h, c = state
        seen = torch.cat([x, read], 1)
        i, f, o, u = (
            of_input(seen) + of_hidden(h)
            for of_input, of_hidden in zip(self.of_input, self.of_hidden, strict=True)
        )
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(u)
        h = torch.sigmoid(o) * torch.tanh(c)
        w_read = self.read_head(h, memory, w_read)
        w_write = self.write_head(h, memory, w_write)
        read = torch.bmm(w_read[:, None], memory)[:, 0]  # equation 2
        e, a = torch.sigmoid(_limited(self.erase(h))), torch.tanh(_limited(self.add(h)))
        memory = memory * (1 - w_write[:, :, None] * e[:, None])  # equation 3
        memory = memory + w_write[:, :, None] * a[:, None]  # equation 4
        y = torch.sigmoid(self.output(torch.cat([h, read], 1)))
        return y, memory, w_read, w_write, read, h, c


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the layer `x @ weight + bias`."""
    linear = nn.Linear(*weight.shape)
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        linear.bias.copy_(bias)
    return linear


def _limited(value: Tensor) -> Tensor:
    return value.clamp(-20, 20)


def _normalised(vectors: Tensor) -> Tensor:
    return vectors / torch.sqrt((vectors**2).sum(-1, keepdim=True) + NORM_EPSILON)
