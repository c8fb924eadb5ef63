"""
A causal Transformer: decoder layers with attention over the last steps (Vaswani et al. 2017).

Shapes: T steps, B sequences, n rows (B of them in a step, T B in training), C the width of each of
the L layers, A the width of all attention heads together, W the steps that attention reaches back.

Each layer normalises its input first. The state is the cache of keys and values of the last W
steps, so that a session is stepped like that of every other network. In training all steps run at
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu

from export.arena import Arena
from export.layers import Affine
from export.network import Architecture, Network, Sizes, State
from service.spec import Initial

WINDOW = 256
"""W: a step attends to itself and the 255 steps before it. All sequences of the cards fit."""

HEADS = 4
HEAD_WIDTH = 16
FREQUENCIES = 16
"""How many sinusoids of the position there are, and as many cosines."""

INNER = 4
"""The width of the hidden units of a layer, over C."""

FAR_BELOW = -1e9
"""Added to the score of a step that is not attended to."""

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries, keys and values [n, A] of some rows to what these rows read [n, A]."""


class TransformerState(NamedTuple):
    """What the network carries from step to step. The newest step is the last of W."""

    keys: Tensor
    """[B, L, W, A]"""
    values: Tensor
    """[B, L, W, A]"""
    position: Tensor
    """[B, 1]: the number of steps before"""


class Layer(nn.Module):
    """Attention, then one layer of hidden units, each added to its input."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        attended = HEADS * HEAD_WIDTH
        self.projection = Affine(width, 3 * attended, generator)
        self.attended = Affine(attended, width, generator)
        self.units = Affine(width, INNER * width, generator)
        self.result = Affine(INNER * width, width, generator)

    def forward(self, x: Tensor, attention: Attention) -> Tensor:
        """`x` [n, C] -> [n, C]."""
        query, key, value = torch.chunk(self.projection(_normalised(x)), 3, 1)
        x = x + self.attended(attention(query, key, value))
        result: Tensor = self.result(relu(self.units(_normalised(x))))
        return x + result


class Transformer(Network):
    """L layers of width C. The position is given to the first as sinusoids beside the input."""

    frequencies: Tensor
    """[16] in radians a step"""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        """Draw the parameters from a seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        width = sizes.controller_size
        self.input = Affine(sizes.input_width + 2 * FREQUENCIES, width, generator)
        self.layers = nn.ModuleList(Layer(width, generator) for _ in range(sizes.layers))
        self.output = Affine(width, sizes.output_width, generator)
        # From a radian a step to one turn in 2 pi W steps.
        exponents = torch.arange(FREQUENCIES) / (FREQUENCIES - 1)
        self.register_buffer("frequencies", WINDOW**-exponents, persistent=False)

    def initial_state(self, batch: int, locations: int) -> TransformerState:
        """Return the state before the first step; `locations` has no meaning here."""
        empty = self.output.weight.new_zeros(batch, len(self.layers), WINDOW, HEADS * HEAD_WIDTH)
        return TransformerState(empty, empty.clone(), self.output.weight.new_zeros(batch, 1))

    def starts(self) -> Mapping[str, Initial]:
        """Return that everything starts at zero."""
        return dict.fromkeys(TransformerState._fields, Initial("constant", (0.0,)))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, None]:
        """Make one step: `x` [B, X] -> output logits [B, Y], the next state, and no trace."""
        keys_before, values_before, position = state
        ages = torch.arange(WINDOW - 1, -1, -1, dtype=x.dtype, device=x.device)
        # 0 for a step that has been; written without a comparison, which graphs would have to cast.
        bias = FAR_BELOW * relu(ages - position)[:, None, None]
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            layer = len(keys)
            keys.append(torch.cat([keys_before[:, layer, 1:], key[:, None]], 1))
            values.append(torch.cat([values_before[:, layer, 1:], value[:, None]], 1))
            read = _read(_heads(query[:, None]), _heads(keys[-1]), _heads(values[-1]), bias)
            return read.flatten(1)

        logits = self._logits(x, position, attention)
        return (
            logits,
            TransformerState(torch.stack(keys, 1), torch.stack(values, 1), position + 1),
            None,
        )

    def whole(self, inputs: Tensor) -> Tensor:
        """Make all steps of `inputs` [T, B, X] from the initial state at once: logits [T, B, Y]."""
        steps, batch, _ = inputs.shape
        position = torch.arange(steps, device=inputs.device)
        age = position[:, None] - position
        bias = torch.where((age >= 0) & (age < WINDOW), 0.0, FAR_BELOW).to(inputs.dtype)

        def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            query, key, value = (
                _heads(each.reshape(steps, batch, -1).transpose(0, 1))
                for each in (query, key, value)
            )
            read = _read(query, key, value, bias)
            return read.permute(2, 0, 1, 3).reshape(steps * batch, -1)

        rows = position.to(inputs.dtype).repeat_interleave(batch)[:, None]
        return self._logits(inputs.flatten(0, 1), rows, attention).reshape(steps, batch, -1)

    def _logits(self, x: Tensor, position: Tensor, attention: Attention) -> Tensor:
        """Run `x` [n, X] at `position` [n, 1] through all layers: logits [n, Y]."""
        phase = position * self.frequencies
        x = self.input(torch.cat([x, torch.sin(phase), torch.cos(phase)], 1))
        for layer in self.layers:
            x = layer(x, attention)
        logits: Tensor = self.output(_normalised(x))
        return logits


def _normalised(x: Tensor) -> Tensor:
    """Return rows of mean 0 and variance 1; the product that follows scales and moves them."""
    return layer_norm(x, x.shape[1:])


def _heads(rows: Tensor) -> Tensor:
    """`rows` [B, T, A] -> [B, heads, T, width of a head]."""
    return rows.reshape(-1, rows.shape[1], HEADS, HEAD_WIDTH).transpose(1, 2)


def _read(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """
    Return for each query the mean of the values, weighted by the softmax of its scores.

    Scores are products of query and key, plus `bias`, which spreads over [B, heads, queries, keys].
    All others are [B, heads, steps, width of a head].
    """
    scores = query @ key.transpose(2, 3) / math.sqrt(HEAD_WIDTH)
    return torch.softmax(scores + bias, 3) @ value


def logits_of(network: Network, inputs: Tensor, state: State, _arena: Arena) -> Tensor:
    """
    Run `inputs` [T, B, X] from the initial state: logits [T, B, Y], for autograd.

    Raises:
        TypeError: the network is not a Transformer.
        ValueError: the state is not an initial one.
    """
    if not isinstance(network, Transformer):
        raise TypeError(f"this trains Transformers, not {type(network).__name__}")
    if not isinstance(state, TransformerState) or state.position.any():
        raise ValueError("whole sequences run from the initial state alone; step from any other")
    return network.whole(inputs)


ARCHITECTURE = Architecture(
    name="transformer",
    title="Transformer",
    colour="tab:brown",
    build=Transformer,
    logits=logits_of,
)
