"""The LSTM without memory that the paper compares the Neural Turing Machine with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from export.layers import Affine, LstmController
from export.network import Network, Sizes, State
from service.spec import Initial


class LstmState(NamedTuple):
    """What the LSTM carries from step to step."""

    controller_hidden: Tensor
    """[B, L, C]"""
    controller_cell: Tensor
    """[B, L, C]"""


class LstmBaseline(Network):
    """Stacked LSTM layers: no memory, no heads. L layers of C cells."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = sizes.controller_size
        self.lstm = LstmController(sizes.input_width, size, sizes.layers, generator)
        self.output = Affine(size, sizes.output_width, generator)

    def initial_state(self, batch: int, locations: int) -> LstmState:
        """Return the state before the first step; `locations` has no meaning here."""
        return LstmState(*self.lstm.initial_state(batch))

    def starts(self) -> Mapping[str, Initial | str]:
        """Return the learned parameters that hidden and cell start from."""
        return self.lstm.starts("lstm")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, None]:
        """Make one step: `x` [B, X] -> output logits [B, Y], the next state, and no trace."""
        output, *after = self.lstm(x, *state)
        return self.output(output), LstmState(*after), None
