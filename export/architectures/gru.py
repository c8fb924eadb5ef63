"""Gated recurrent units (Cho et al. 2014): no memory, no heads; the smallest architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.layers import Affine
from export.network import Architecture, Network, Sizes, State


class GruState(NamedTuple):
    """What the network carries from step to step."""

    hidden: Tensor
    """[B, L, C]"""


class Gru(Network):
    """L layers of C gated recurrent units."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size, layers = sizes.controller_size, sizes.layers
        widths = [sizes.input_width] + [size] * (layers - 1)
        self.gates = nn.ModuleList(Affine(each + size, 2 * size, generator) for each in widths)
        self.candidates = nn.ModuleList(Affine(each + size, size, generator) for each in widths)
        self.output = Affine(size, sizes.output_width, generator)
        self.initial_hidden = nn.Parameter(torch.zeros(layers, size))

    def initial_state(self, batch: int, locations: int) -> GruState:
        """Return the state before the first step; `locations` has no meaning here."""
        return GruState(self.initial_hidden.repeat(batch, 1, 1))

    def starts(self) -> Mapping[str, str]:
        """Return the learned parameter that the hidden state starts from."""
        return {"hidden": "initial_hidden"}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, None]:
        """Make one step: `x` [B, X] -> output logits [B, Y], the next state, and no trace."""
        (before,) = state
        after = []
        for layer, (gates, candidate) in enumerate(zip(self.gates, self.candidates, strict=True)):
            hidden = before[:, layer]
            both = torch.sigmoid(gates(torch.cat([x, hidden], 1)))
            update, reset = torch.chunk(both, 2, 1)
            proposed = torch.tanh(candidate(torch.cat([x, reset * hidden], 1)))
            x = update * hidden + (1 - update) * proposed
            after.append(x)
        return self.output(x), GruState(torch.stack(after, 1)), None


ARCHITECTURE = Architecture(name="gru", title="GRU", colour="tab:purple", build=Gru)
