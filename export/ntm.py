"""The networks as pure functions: (input, state) -> (output logits, state, trace).

A network holds its parameters and nothing else. Shapes: B sequences, R read and W write heads
(H = R + W, read heads first), N memory locations of width M, X inputs, Y outputs, C the size of
each of the controller's L layers. No parameter depends on N, but for a learned initial memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from export import addressing
from service.spec import Initial

ARCHITECTURES = ("ntm-lstm", "ntm-ff", "lstm")

INITIAL_MEMORIES = {
    "constant": Initial("constant", (1e-6,)),
    "positional": Initial("positional", (4.0, 16.0, 64.0, 256.0, 1024.0)),
}
"""
What the memory may hold before the first step, besides learned values.

With a constant memory nothing tells one location from another. The positional one marks each: the
first two wavelengths by four signs each, for a lookup of one of many; the long ones by values that
change slowly, for a place chosen by a number, such as a priority.
"""

SHIFTS = (-1, 0, 1)
"""The shifts a head may choose from, in the order of its shift distribution."""

PREACTIVATION_LIMIT = 20.0
"""Head parameters are cut off here before their activation functions: nothing can overflow."""


@dataclass(frozen=True)
class Sizes:
    """What a network's parameters are made from; those of the memory mean nothing to a baseline."""

    input_width: int
    output_width: int
    controller_size: int
    layers: int
    """Of the controller or the LSTM baseline."""
    read_heads: int
    write_heads: int
    memory_width: int
    gate_bias: float = 0.0
    """Where the bias of every gate starts: below zero, heads start by shifting, not by content."""
    initial_memory: str = "constant"
    """One of `INITIAL_MEMORIES`, or "learned"."""
    locations: int = 0
    """N, if the initial memory is learned."""


class FeedforwardNtmState(NamedTuple):
    """What an NTM with a feedforward controller carries from step to step."""

    memory: Tensor
    """[B, M, N]"""
    weighting: Tensor
    """[B, H, N]"""
    read_vector: Tensor
    """[B, R, M]"""


class LstmNtmState(NamedTuple):
    """What an NTM with an LSTM controller carries from step to step."""

    memory: Tensor
    """[B, M, N]"""
    weighting: Tensor
    """[B, H, N]"""
    read_vector: Tensor
    """[B, R, M]"""
    controller_hidden: Tensor
    """[B, L, C]"""
    controller_cell: Tensor
    """[B, L, C]"""


class LstmState(NamedTuple):
    """What the LSTM baseline carries from step to step."""

    controller_hidden: Tensor
    """[B, L, C]"""
    controller_cell: Tensor
    """[B, L, C]"""


NtmState = FeedforwardNtmState | LstmNtmState
State = NtmState | LstmState


class Trace(NamedTuple):
    """What every head did in a step, besides the weightings and read vectors in the state."""

    key: Tensor
    """k [B, H, M]"""
    strength: Tensor
    """beta [B, H, 1]"""
    gate: Tensor
    """g [B, H, 1]"""
    shift: Tensor
    """s [B, H, 3], over the shifts -1, 0, +1"""
    sharpening: Tensor
    """gamma [B, H, 1]"""
    erase_vector: Tensor
    """e [B, W, M]"""
    add_vector: Tensor
    """a [B, W, M]"""


class Affine(nn.Module):
    """`x @ weight + bias`, x [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        """Start from Glorot's uniform weights and zero biases."""
        super().__init__()
        weight = torch.empty(inputs, outputs)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(weight, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return torch.addmm(self.bias, x, self.weight)


class LstmLayer(nn.Module):
    """One layer of long short-term memory, all four gates in one product."""

    def __init__(self, inputs: int, size: int, generator: torch.Generator) -> None:
        """Make a layer of `size` cells."""
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
    """Layers of tanh units; they remember nothing by themselves."""

    State: type[NtmState] = FeedforwardNtmState

    def __init__(self, inputs: int, size: int, layers: int, generator: torch.Generator) -> None:
        """Make `layers` layers of `size` units."""
        super().__init__()
        self.layers = nn.ModuleList(
            Affine(size if layer else inputs, size, generator) for layer in range(layers)
        )

    def products(self) -> list[Affine]:
        """The product of each layer, the input's first."""
        return cast("list[Affine]", list(self.layers))

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`x` [B, inputs] -> output [B, C], and no state."""
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return (x,)


class LstmController(nn.Module):
    """Stacked LSTM layers with a learned initial state."""

    State: type[NtmState] = LstmNtmState

    def __init__(self, inputs: int, size: int, layers: int, generator: torch.Generator) -> None:
        """Make `layers` layers of `size` cells."""
        super().__init__()
        self.layers = nn.ModuleList(
            LstmLayer(size if layer else inputs, size, generator) for layer in range(layers)
        )
        self.initial_hidden = nn.Parameter(torch.zeros(layers, size))
        self.initial_cell = nn.Parameter(torch.zeros(layers, size))

    def products(self) -> list[Affine]:
        """The product of each layer, the input's first."""
        return [cast(LstmLayer, layer).gates for layer in self.layers]

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Hidden and cell, each [B, L, C]."""
        return tuple(
            value.repeat(batch, 1, 1) for value in (self.initial_hidden, self.initial_cell)
        )

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


class Heads(nn.Module):
    """Turns the controller's output into the parameters of all heads, in one product."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        """Make the product's parameters."""
        super().__init__()
        self.count = sizes.read_heads + sizes.write_heads
        self.write_heads = sizes.write_heads
        self.width = sizes.memory_width
        # Of each head: key, strength, gate, shift, sharpening.
        self.parts = [self.width, 1, 1, len(SHIFTS), 1]
        self.addressing = self.count * sum(self.parts)
        self.writing = self.write_heads * 2 * self.width
        self.layer = Affine(sizes.controller_size, self.addressing + self.writing, generator)
        with torch.no_grad():
            self.layer.bias[self.width + 1 : self.addressing : sum(self.parts)] = sizes.gate_bias

    def forward(self, controller_output: Tensor) -> Trace:
        """`controller_output` [B, C] -> what every head is to do."""
        limit = PREACTIVATION_LIMIT
        preactivation = self.layer(controller_output).clamp(-limit, limit)
        of_all, of_writing = torch.split(preactivation, [self.addressing, self.writing], 1)
        of_all = of_all.reshape(-1, self.count, sum(self.parts))
        of_writing = of_writing.reshape(-1, self.write_heads, 2 * self.width)
        key, strength, gate, shift, sharpening = torch.split(of_all, self.parts, 2)
        erase, add = torch.split(of_writing, self.width, 2)
        return Trace(
            key=torch.tanh(key),
            strength=softplus(strength),
            gate=torch.sigmoid(gate),
            shift=torch.softmax(shift, 2),
            sharpening=1 + softplus(sharpening),
            erase_vector=torch.sigmoid(erase),
            add_vector=torch.tanh(add),
        )


class Ntm(nn.Module):
    """A controller with read and write heads on a memory."""

    def __init__(
        self, sizes: Sizes, controller: type[FeedforwardController | LstmController], seed: int
    ) -> None:
        """Make the parameters from a seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        read_width = sizes.read_heads * sizes.memory_width
        self.read_heads = sizes.read_heads
        self.controller = controller(
            sizes.input_width + read_width, sizes.controller_size, sizes.layers, generator
        )
        self.heads = Heads(sizes, generator)
        self.output = Affine(sizes.controller_size + read_width, sizes.output_width, generator)
        self.memory_rule = INITIAL_MEMORIES.get(sizes.initial_memory)
        if self.memory_rule is None and sizes.initial_memory != "learned":
            names = f"{', '.join(INITIAL_MEMORIES)} or learned"
            raise ValueError(f"initial memory {sizes.initial_memory!r} is not {names}")
        self.initial_memory: nn.Parameter | None = None
        if self.memory_rule is None:
            values = torch.empty(sizes.memory_width, sizes.locations)
            self.initial_memory = nn.Parameter(values.uniform_(-0.5, 0.5, generator=generator))

    def initial_state(self, batch: int, locations: int) -> NtmState:
        """
        The state before the first step, for any number of locations; for the one that it was
        learned at, if the initial memory is learned.

        The read vector starts at zero, which is what an empty memory gives. Were it learned, a
        feedforward controller could tell the first step from the second by it; two trainings were
        seen to end in networks that treat the first vector apart and lose the next.
        """
        like = self.output.weight
        weighting = like.new_zeros(batch, self.heads.count, locations)
        weighting[:, :, 0] = 1
        memory: Tensor | None = self.initial_memory
        if self.memory_rule is not None:
            shape = (self.heads.width, locations)
            memory = torch.from_numpy(self.memory_rule.value(shape)).to(like)
        assert memory is not None
        return self.controller.State(
            memory.repeat(batch, 1, 1),
            weighting,
            like.new_zeros(batch, self.read_heads, self.heads.width),
            *self.controller.initial_state(batch),
        )

    def forward(self, x: Tensor, state: NtmState) -> tuple[Tensor, NtmState, Trace]:
        """
        Make one step: `x` [B, X] -> output logits [B, Y], the next state, what the heads did.

        All heads address the memory M_{t-1} as the step finds it, and read from it; then it is
        written. The output sees the controller and what was just read.
        """
        memory, previous, read_before, *controller_state = state
        output, *controller_state = self.controller(
            torch.cat([x, read_before.flatten(1)], 1), *controller_state
        )
        trace = self.heads(output)
        content = addressing.content_weighting(memory, trace.key, trace.strength)
        weighting = addressing.interpolate(content, previous, trace.gate)
        weighting = addressing.shift_weighting(weighting, trace.shift)
        weighting = addressing.sharpen(weighting, trace.sharpening)
        reading, writing = torch.split(weighting, [self.read_heads, self.heads.write_heads], 1)
        read_vector = addressing.read(memory, reading)
        memory = addressing.write(memory, writing, trace.erase_vector, trace.add_vector)
        logits = self.output(torch.cat([output, read_vector.flatten(1)], 1))
        return logits, type(state)(memory, weighting, read_vector, *controller_state), trace


class LstmBaseline(nn.Module):
    """The paper's baseline: stacked LSTM layers, no memory, no heads."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        """Make the parameters from a seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = sizes.controller_size
        self.lstm = LstmController(sizes.input_width, size, sizes.layers, generator)
        self.output = Affine(size, sizes.output_width, generator)

    def initial_state(self, batch: int, locations: int) -> LstmState:
        """The state before the first step; there are no locations."""
        return LstmState(*self.lstm.initial_state(batch))

    def forward(self, x: Tensor, state: LstmState) -> tuple[Tensor, LstmState, None]:
        """Make one step: `x` [B, X] -> output logits [B, Y], the next state, and no trace."""
        output, *after = self.lstm(x, *state)
        return self.output(output), LstmState(*after), None


Network = Ntm | LstmBaseline


def build(architecture: str, sizes: Sizes, seed: int) -> Network:
    """Make a network of one of the `ARCHITECTURES`, its parameters drawn from a seed."""
    if architecture == "lstm":
        return LstmBaseline(sizes, seed)
    controllers: dict[str, type[FeedforwardController | LstmController]] = {
        "ntm-lstm": LstmController,
        "ntm-ff": FeedforwardController,
    }
    return Ntm(sizes, controllers[architecture], seed)
