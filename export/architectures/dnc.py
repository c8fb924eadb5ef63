"""
The Differentiable Neural Computer with an LSTM controller (Graves et al. 2016, Nature 538).

Shapes: B sequences, R read heads, one write head, N memory locations of width M, X inputs, Y
outputs, C the size of each of the L layers of the controller. No parameter depends on N.

It differs from the paper in two ways: what the controller emits is clamped before its activation
functions, so that nothing overflows, and only the last layer of a controller of several emits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from export import addressing, dnc_addressing
from export.layers import Affine, LstmController
from export.network import Architecture, Network, Sizes, State, next_name
from export.ntm import INITIAL_MEMORIES, PREACTIVATION_LIMIT
from service.spec import Dimension, Initial, TraceTensor

MODES = 3
"""What a read head chooses between: written before, content, written after."""


class DncState(NamedTuple):
    """What the network carries from step to step."""

    memory: Tensor
    """[B, M, N]"""
    weighting: Tensor
    """[B, R + 1, N]: of the read heads, then of the write head"""
    usage: Tensor
    """[B, 1, N]"""
    precedence: Tensor
    """[B, 1, N]"""
    link: Tensor
    """[B, N, N]"""
    read_vector: Tensor
    """[B, R, M]"""
    controller_hidden: Tensor
    """[B, L, C]"""
    controller_cell: Tensor
    """[B, L, C]"""


class DncTrace(NamedTuple):
    """What the heads did in a step, besides what is in the state."""

    key: Tensor
    """k [B, R + 1, M]"""
    strength: Tensor
    """beta [B, R + 1, 1]"""
    content: Tensor
    """c [B, R + 1, N]"""
    erase_vector: Tensor
    """e [B, 1, M]"""
    add_vector: Tensor
    """v [B, 1, M]"""
    free_gate: Tensor
    """f [B, R, 1]"""
    allocation_gate: Tensor
    """g_a [B, 1, 1]"""
    write_gate: Tensor
    """g_w [B, 1, 1]"""
    allocation: Tensor
    """a [B, 1, N]"""
    read_mode: Tensor
    """pi [B, R, 3]: to what was written before, by content, to what was written after"""


class Emission(NamedTuple):
    """What the controller tells the heads: the paper's interface vector, after activation."""

    key: Tensor
    strength: Tensor
    erase_vector: Tensor
    add_vector: Tensor
    free_gate: Tensor
    allocation_gate: Tensor
    write_gate: Tensor
    read_mode: Tensor


class Interface(nn.Module):
    """Computes what all heads are told from the controller's output, in one product."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__()
        self.reads, self.width = sizes.read_heads, sizes.memory_width
        # Of all heads keys and strengths; erase and add vectors; the gates; the read modes.
        heads = self.reads + 1
        self.parts = [heads * self.width, heads, self.width, self.width, self.reads, 1, 1]
        self.parts.append(self.reads * MODES)
        self.layer = Affine(sizes.controller_size, sum(self.parts), generator)
        with torch.no_grad():
            first = sum(self.parts[:4])
            self.layer.bias[first : first + self.reads] = sizes.gate_bias

    def forward(self, controller_output: Tensor) -> Emission:
        """`controller_output` [B, C] -> what every head does in this step."""
        limit = PREACTIVATION_LIMIT
        preactivation = self.layer(controller_output).clamp(-limit, limit)
        parts = torch.split(preactivation, self.parts, 1)
        key, strength, erase, add, free, allocate, write, mode = parts
        return Emission(
            key=key.reshape(-1, self.reads + 1, self.width),
            strength=1 + softplus(strength)[:, :, None],
            erase_vector=torch.sigmoid(erase)[:, None],
            add_vector=add[:, None],
            free_gate=torch.sigmoid(free)[:, :, None],
            allocation_gate=torch.sigmoid(allocate)[:, None],
            write_gate=torch.sigmoid(write)[:, None],
            read_mode=torch.softmax(mode.reshape(-1, self.reads, MODES), 2),
        )


class Dnc(Network):
    """A controller with read heads and a write head on a memory that knows what is in use."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        """Draw the parameters from a seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        read_width = sizes.read_heads * sizes.memory_width
        self.reads, self.width = sizes.read_heads, sizes.memory_width
        self.controller = LstmController(
            sizes.input_width + read_width, sizes.controller_size, sizes.layers, generator
        )
        self.interface = Interface(sizes, generator)
        self.output = Affine(sizes.controller_size + read_width, sizes.output_width, generator)
        self.memory_rule = INITIAL_MEMORIES[sizes.initial_memory]

    def initial_state(self, batch: int, locations: int) -> DncState:
        """Return the state before the first step: nothing is used, linked or read."""
        like = self.output.weight
        memory = torch.from_numpy(self.memory_rule.value((self.width, locations))).to(like)
        return DncState(
            memory.repeat(batch, 1, 1),
            like.new_zeros(batch, self.reads + 1, locations),
            like.new_zeros(batch, 1, locations),
            like.new_zeros(batch, 1, locations),
            like.new_zeros(batch, locations, locations),
            like.new_zeros(batch, self.reads, self.width),
            *self.controller.initial_state(batch),
        )

    def starts(self) -> Mapping[str, Initial | str]:
        """Return the rules of all that belongs to the memory, and the controller's parameters."""
        nothing = Initial("constant", (0.0,))
        empty = ("weighting", "usage", "precedence", "link", "read_vector")
        return {
            "memory": self.memory_rule,
            **dict.fromkeys(empty, nothing),
            **self.controller.starts("controller"),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, DncTrace]:
        """
        Make one step: `x` [B, X] -> output logits [B, Y], the next state, what the heads did.

        The memory is written first, then read. The output depends on the controller's output and on
        what was just read.
        """
        memory, weighting, usage, precedence, link, read_before, *controller_state = state
        output, *controller_state = self.controller(
            torch.cat([x, read_before.flatten(1)], 1), *controller_state
        )
        told = self.interface(output)
        reads = [self.reads, 1]
        reading, writing = torch.split(weighting, reads, 1)
        read_key, write_key = torch.split(told.key, reads, 1)
        read_strength, write_strength = torch.split(told.strength, reads, 1)

        usage = dnc_addressing.usage_after(usage, writing, reading, told.free_gate)
        allocation = dnc_addressing.allocation(usage)
        write_content = addressing.content_weighting(memory, write_key, write_strength)
        writing = dnc_addressing.write_weighting(
            allocation, write_content, told.allocation_gate, told.write_gate
        )
        memory = addressing.write(memory, writing, told.erase_vector, told.add_vector)

        link = dnc_addressing.link_after(link, precedence, writing)
        precedence = dnc_addressing.precedence_after(precedence, writing)
        read_content = addressing.content_weighting(memory, read_key, read_strength)
        reading = dnc_addressing.read_weighting(reading, link, read_content, told.read_mode)
        read_vector = addressing.read(memory, reading)

        logits = self.output(torch.cat([output, read_vector.flatten(1)], 1))
        after = DncState(
            memory,
            torch.cat([reading, writing], 1),
            usage,
            precedence,
            link,
            read_vector,
            *controller_state,
        )
        trace = DncTrace(
            told.key,
            told.strength,
            torch.cat([read_content, write_content], 1),
            told.erase_vector,
            told.add_vector,
            told.free_gate,
            told.allocation_gate,
            told.write_gate,
            allocation,
            told.read_mode,
        )
        return logits, after, trace


def traces(sizes: Sizes) -> Sequence[TraceTensor]:
    """Return the traces of the heads: in each output of both kinds, read heads come first."""
    width, reads = sizes.memory_width, sizes.read_heads
    of_both: list[tuple[str, str, Dimension]] = [
        ("weighting", next_name("weighting"), "N"),
        ("key", "key", width),
        ("strength", "strength", 1),
        ("content", "content", "N"),
    ]
    found = []
    for name, output, size in of_both:
        found.append(TraceTensor(f"read_{name}", output, 0, reads, size))
        found.append(TraceTensor(f"write_{name}", output, reads, 1, size))
    return (
        *found,
        TraceTensor("erase_vector", "erase_vector", 0, 1, width),
        TraceTensor("add_vector", "add_vector", 0, 1, width),
        TraceTensor("free_gate", "free_gate", 0, reads, 1),
        TraceTensor("allocation_gate", "allocation_gate", 0, 1, 1),
        TraceTensor("write_gate", "write_gate", 0, 1, 1),
        TraceTensor("allocation", "allocation", 0, 1, "N"),
        TraceTensor("read_mode", "read_mode", 0, reads, MODES),
        TraceTensor("usage", next_name("usage"), 0, 1, "N"),
        TraceTensor("read_vector", next_name("read_vector"), 0, reads, width),
    )


ARCHITECTURE = Architecture(
    name="dnc",
    title="DNC, LSTM",
    legend="DNC, LSTM controller",
    colour="tab:red",
    build=Dnc,
    over_locations={"memory": 1, "weighting": 1, "usage": 1, "precedence": 1, "link": 2},
    traces=traces,
    allows={"write_heads": (1,), "initial_memory": tuple(INITIAL_MEMORIES)},
)
