"""
The Neural Turing Machine: a controller with read and write heads on a memory.

Shapes: B sequences, R read and W write heads (H = R + W, read heads first), N memory locations of
width M, X inputs, Y outputs, C the size of each of the L layers of the controller. No parameter
depends on N, except a learned initial memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from export import addressing
from export.layers import Affine, FeedforwardController, LstmController
from export.network import Network, Sizes, State, next_name
from service.spec import Dimension, Initial, TraceTensor

INITIAL_MEMORIES = {
    "constant": Initial("constant", (1e-6,)),
    "positional": Initial("positional", (4.0, 16.0, 64.0, 256.0, 1024.0)),
    "periodic": Initial("positional", (4.0, 8.0)),
}
"""
What the memory may hold before the first step, besides learned values.

In a constant memory all locations are alike. A positional memory marks each location: the first two
wavelengths by four signs each, for a lookup of one of many; the long wavelengths by values that
change slowly, for a place that is chosen by a number, such as a priority. A periodic memory has the
same eight marks again and again, so that a longer sequence meets no mark that training never had.
"""

LEARNED = "learned"
"""The initial memory whose values are parameters. The network then has only its own N."""

SHIFTS = (-1, 0, 1)
"""The shifts that a head can choose from, in the order of its shift distribution."""

PREACTIVATION_LIMIT = 20.0
"""Head parameters are clamped to this before their activation functions, so nothing overflows."""

OVER_LOCATIONS = {"memory": 1, "weighting": 1}
"""The number of last axes of state tensors that are the locations."""


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


class Heads(nn.Module):
    """Computes the parameters of all heads from the controller's output, in one product."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
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
        """`controller_output` [B, C] -> what every head does in this step."""
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


class Ntm(Network):
    """A controller with read and write heads on a memory."""

    def __init__(
        self,
        sizes: Sizes,
        controller: type[FeedforwardController | LstmController],
        state: Callable[..., State],
        seed: int,
    ) -> None:
        """
        Draw the parameters from a seed.

        `state` makes a state from memory, weighting, read vector and the controller's tensors.

        Raises:
            ValueError: the initial memory is none that there is.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        read_width = sizes.read_heads * sizes.memory_width
        self.read_heads = sizes.read_heads
        self._state = state
        self.controller = controller(
            sizes.input_width + read_width, sizes.controller_size, sizes.layers, generator
        )
        self.heads = Heads(sizes, generator)
        self.output = Affine(sizes.controller_size + read_width, sizes.output_width, generator)
        self.memory_rule = INITIAL_MEMORIES.get(sizes.initial_memory)
        if self.memory_rule is None and sizes.initial_memory != LEARNED:
            names = f"{', '.join(INITIAL_MEMORIES)} or {LEARNED}"
            raise ValueError(f"initial memory {sizes.initial_memory!r} is not {names}")
        self.initial_memory: nn.Parameter | None = None
        if self.memory_rule is None:
            values = torch.empty(sizes.memory_width, sizes.locations)
            self.initial_memory = nn.Parameter(values.uniform_(-0.5, 0.5, generator=generator))

    def initial_state(self, batch: int, locations: int) -> State:
        """
        Return the state before the first step.

        The read vector starts at zero, which is what an empty memory gives. With a learned start, a
        feedforward controller can distinguish the first step from the second. Two trainings then
        ended in networks that treat the first vector differently and lose the next one.

        Raises:
            ValueError: the memory is learned, at another N.
        """
        learned = self.initial_memory
        if learned is not None and locations != learned.shape[1]:
            raise ValueError(
                f"the initial memory was learned at {learned.shape[1]} locations, and has no other "
                f"number; {locations} were asked for"
            )
        like = self.output.weight
        weighting = like.new_zeros(batch, self.heads.count, locations)
        weighting[:, :, 0] = 1
        memory: Tensor | None = learned
        if self.memory_rule is not None:
            shape = (self.heads.width, locations)
            memory = torch.from_numpy(self.memory_rule.value(shape)).to(like)
        assert memory is not None
        return self._state(
            memory.repeat(batch, 1, 1),
            weighting,
            like.new_zeros(batch, self.read_heads, self.heads.width),
            *self.controller.initial_state(batch),
        )

    def starts(self) -> Mapping[str, Initial | str]:
        """Return the rules of memory and heads, and the learned parameters of the controller."""
        return {
            "memory": self.memory_rule or "initial_memory",
            "weighting": Initial("one_hot"),
            "read_vector": Initial("constant", (0.0,)),
            **self.controller.starts("controller"),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Trace]:
        """
        Make one step: `x` [B, X] -> output logits [B, Y], the next state, what the heads did.

        All heads address and read the memory M_{t-1} from before the step. Then the memory is
        written. The output depends on the controller's output and on what was just read.
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
        return logits, self._state(memory, weighting, read_vector, *controller_state), trace


def traces(sizes: Sizes) -> Sequence[TraceTensor]:
    """Return the traces of the heads: in each output, read heads come before write heads."""
    width, reads, writes = sizes.memory_width, sizes.read_heads, sizes.write_heads
    of_all: list[tuple[str, str, Dimension]] = [
        ("weighting", next_name("weighting"), "N"),
        ("key", "key", width),
        ("strength", "strength", 1),
        ("gate", "gate", 1),
        ("shift", "shift", len(SHIFTS)),
        ("sharpening", "sharpening", 1),
    ]
    found = []
    for name, output, size in of_all:
        found.append(TraceTensor(f"read_{name}", output, 0, reads, size))
        found.append(TraceTensor(f"write_{name}", output, reads, writes, size))
    found.append(TraceTensor("read_vector", next_name("read_vector"), 0, reads, width))
    found.append(TraceTensor("erase_vector", "erase_vector", 0, writes, width))
    found.append(TraceTensor("add_vector", "add_vector", 0, writes, width))
    return tuple(found)
