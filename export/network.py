"""
The contracts of a network and of an architecture with the trainer, the exporter and the report.

Shapes here and in the networks: T steps, B sequences, X inputs, Y outputs, N memory locations.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.arena import Arena
from export.device import device_of
from service.spec import Initial, TraceTensor

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What an architecture can be called. Folders and servers have the name too."""

State = NamedTuple
"""What a network carries from step to step: a named tuple of float32 tensors, batch axis first."""


@dataclass(frozen=True)
class Sizes:
    """What a network's parameters are made from. A network without memory ignores the memory's."""

    input_width: int
    output_width: int
    controller_size: int
    layers: int
    """The number of layers of the controller."""
    read_heads: int
    write_heads: int
    memory_width: int
    gate_bias: float = 0.0
    """The initial bias of every gate. Below zero, heads start by shifting, not by content."""
    initial_memory: str = "constant"
    """A key of `ntm.INITIAL_MEMORIES`, or "learned"."""
    locations: int = 0
    """N, if the initial memory is learned."""


class ArchitectureError(ValueError):
    """There is no such architecture, it is not one, or it breaks its contract."""


class Network(nn.Module, ABC):
    """A step as a pure function. A network holds its parameters and nothing else."""

    @abstractmethod
    def initial_state(self, batch: int, locations: int) -> State:
        """Return the state of `batch` sequences before the first step, at N = `locations`."""

    @abstractmethod
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, NamedTuple | None]:
        """
        Make one step.

        `x` [B, X] -> output logits [B, Y], the next state, and what the step did: a named tuple of
        tensors [B, heads, width], in the order in which the architecture's traces name them, or
        None. The next value of every state tensor has to depend on its last value.
        """

    def starts(self) -> Mapping[str, Initial | str]:
        """
        Return how state tensors start, by name: a rule, or the name of the learned parameter.

        A tensor that is not named starts from the values of `initial_state`, which are then
        written into the file and cannot span the locations.
        """
        return {}


def begin(network: Network, batch: int, locations: int) -> State:
    """Return the state before the first step, on the device of the network's parameters."""
    state = network.initial_state(batch, locations)
    return type(state)._make(value.to(device_of(network)) for value in state)


def next_name(tensor: str) -> str:
    """Return the graph's name of the next value of a state tensor."""
    return f"{tensor}_next"


def stepped(network: Network, inputs: Tensor, state: State, _arena: Arena) -> Tensor:
    """Return the logits [T, B, Y] of `inputs` [T, B, X], step by step, for autograd."""
    rows = []
    for x in inputs:
        logits, state, _ = network(x, state)
        rows.append(logits)
    return torch.stack(rows)


def no_traces(_sizes: Sizes) -> Sequence[TraceTensor]:
    """Return the traces of a network without heads."""
    return ()


@dataclass(frozen=True)
class Architecture:
    """Everything that the trainer, the exporter and the report need about a kind of network."""

    name: str
    """Ends the names of its models, such as ntm-ff in copy-ntm-ff."""
    title: str
    """Heads its column in the report."""
    build: Callable[[Sizes, int], Network]
    """Makes a network from its sizes and a seed of the parameters."""
    over_locations: Mapping[str, int] = field(default_factory=dict)
    """
    How many of a state tensor's last axes are the N locations; empty for a network without memory.

    A network with memory has the tensors "memory" [B, M, N] and "weighting" [B, heads, N], read
    heads first. A matrix [B, N, N] has two such axes.
    """
    traces: Callable[[Sizes], Sequence[TraceTensor]] = no_traces
    """The traces that the served network offers."""
    allows: Mapping[str, tuple[int | float | str, ...]] = field(default_factory=dict)
    """The only values that a setting may have, by the setting's name; any that is not named may
    have all of its values."""
    logits: Callable[[Network, Tensor, State, Arena], Tensor] = stepped
    """Runs whole sequences in training; the default leaves the gradient to autograd."""
    legend: str = ""
    """Names it in pictures; the title, if empty."""
    colour: str = "tab:gray"
    """Its lines in pictures."""

    source: str = ""
    """How `--architecture` names it: a place in a Python module; empty if its name is enough."""

    def __post_init__(self) -> None:
        """Raise ArchitectureError if a name or a part cannot be."""
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ArchitectureError(
                f"an architecture's name is letters, digits, _ . and -, at most 64, not "
                f"{self.name!r}"
            )
        if not isinstance(self.title, str) or not self.title.isprintable() or not self.title:
            raise ArchitectureError(
                f"{self.name}: title is {self.title!r}; it must be a printable text"
            )
        for part in ("build", "traces", "logits"):
            if not callable(value := getattr(self, part)):
                raise ArchitectureError(f"{self.name}: {part} is {value!r}; it must be a function")
        for name, count in self.over_locations.items():
            if not isinstance(count, int) or count < 1:
                raise ArchitectureError(
                    f"{self.name}: over_locations of {name} is {count!r}; it must be the number of "
                    "its last axes that are the locations"
                )

    @property
    def has_memory(self) -> bool:
        """Whether sessions choose a number of locations."""
        return bool(self.over_locations)
