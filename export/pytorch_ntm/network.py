"""
The step of pytorch-ntm as a network of ours, in PyTorch, from which the graph is made.

Shapes: B sequences, R read and W write heads (H = R + W), N memory locations of width M, X inputs,
Y outputs, L layers of C cells. State and traces are laid out as those of `export.ntm`, so that all
tools can read them: the memory as [B, M, N], read heads before write heads, shifts as -1, 0, +1.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from export import addressing
from export.architectures.ntm_lstm import LstmNtmState
from export.layers import Affine, LstmController
from export.network import Network, Sizes, State, next_name
from export.ntm import SHIFTS, Trace, traces
from export.pytorch_ntm.checkpoint import CELL, HIDDEN, LSTM, MEMORY, SCALARS, Checkpoint
from service.spec import Dimension, Initial, ModelSpec, StateTensor, vector

ARCHITECTURE = "pytorch-ntm"

Activations = Literal["softplus", "softplus-shift", "relu"]
"""
What the repository's heads applied to their parameters, which a checkpoint does not tell.

`softplus` since 26 March 2018; `softplus-shift` before, where the shifts went through a softplus
too; `relu` until 7 October 2017, for everything but the gate.
"""

ACTIVATIONS: tuple[Activations, ...] = get_args(Activations)

TINY = 1e-16
"""
Added to the sum of a weighting.

The repository also adds it to memory and key before their cosine, where single precision does not
see it.
"""

LEAST_NORM = 1e-8
"""PyTorch's `cosine_similarity` takes a shorter vector for one of this length."""


class PytorchNtm(Network):
    """The network of a checkpoint, in double precision until `float()` is called."""

    def __init__(self, checkpoint: Checkpoint, activations: Activations) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.activations = activations
        reads, width, size = checkpoint.reads, checkpoint.width, checkpoint.controller_size
        self.parts = [width, 1, 1, len(SHIFTS), 1]
        rows = {"read": 0, "write": reads}
        self.order: list[tuple[str, int]] = []
        """The heads as they act: kind, and row in weighting and traces."""
        for kind in checkpoint.heads:
            self.order.append((kind, rows[kind]))
            rows[kind] += 1
        generator = torch.Generator()
        self.controller = LstmController(
            checkpoint.inputs + reads * width, size, checkpoint.layers, generator
        )
        self.addressing_size = len(self.order) * sum(self.parts)
        heads = self.addressing_size + checkpoint.writes * 2 * width
        self.heads = Affine(size, heads, generator)
        self.output = Affine(size + reads * width, checkpoint.outputs, generator)
        tensors = {name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()}
        self.memory: Tensor
        self.read_vector: Tensor
        self.register_buffer("memory", tensors[MEMORY].T.contiguous())
        read_vectors = [tensors[f"ntm.read{row}_bias"] for row in range(reads)]
        self.register_buffer("read_vector", torch.cat(read_vectors))
        self.double()
        with torch.no_grad():
            self._fill(tensors)

    def _fill(self, tensors: dict[str, Tensor]) -> None:
        """Copy the parameters, their rows in our order."""
        self.controller.initial_hidden.copy_(tensors[HIDDEN][:, 0])
        self.controller.initial_cell.copy_(tensors[CELL][:, 0])
        for index, layer in enumerate(self.controller.products()):
            both = [tensors[f"{LSTM}.weight_{part}_l{index}"] for part in ("ih", "hh")]
            bias = sum(tensors[f"{LSTM}.bias_{part}_l{index}"] for part in ("ih", "hh"))
            layer.weight.copy_(_our_gates(torch.cat(both, 1)).T)
            layer.bias.copy_(_our_gates(torch.as_tensor(bias)))
        weight, bias = (torch.from_numpy(part) for part in self._stacked())
        self.heads.weight.copy_(weight.T)
        self.heads.bias.copy_(bias)
        self.output.weight.copy_(tensors["ntm.fc.weight"].T)
        self.output.bias.copy_(tensors["ntm.fc.bias"])

    def _stacked(self) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
        """Return weight and bias of one layer for all heads: addressing, then erase and add."""
        width, count = self.checkpoint.width, len(self.order)
        ours = np.arange(width + SCALARS)
        # The first of their shifts moves a weighting from i to i + 1, the last of ours does.
        ours[width + 2 : width + 5] = ours[width + 2 : width + 5][::-1]
        layers = [self.checkpoint.head(index) for index in range(count)]
        by_row = sorted(zip(self.order, layers, strict=True), key=lambda head: head[0][1])
        return [
            np.concatenate(
                [
                    *(layer[part][ours] for _, layer in by_row),
                    *(layer[part][width + SCALARS :] for _, layer in by_row),
                ]
            )
            for part in (0, 1)
        ]

    def initial_state(self, batch: int, locations: int) -> State:
        """
        Return the state before the first step. No head is anywhere: all weightings are zero.

        Raises:
            ValueError: N is not that of the checkpoint, whose memory starts from its values.
        """
        if locations != self.checkpoint.locations:
            raise ValueError(f"there are {self.checkpoint.locations} locations, not {locations}")
        return LstmNtmState(
            self.memory.repeat(batch, 1, 1),
            self.memory.new_zeros(batch, len(self.order), locations),
            self.read_vector.repeat(batch, 1, 1),
            *self.controller.initial_state(batch),
        )

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Trace]:
        """
        Make one step: `x` [B, X] -> output logits [B, Y], the next state, what the heads did.

        The heads act one after another. One that reads after another wrote sees what it wrote.
        """
        memory, previous, read_before, *controller_state = state
        output, *controller_state = self.controller(
            torch.cat([x, read_before.flatten(1)], 1), *controller_state
        )
        trace = self._trace(output)
        weightings: dict[int, Tensor] = {}
        reads: list[Tensor] = []
        for kind, row in self.order:
            head = slice(row, row + 1)
            weighting = addressing.interpolate(
                _content_weighting(memory, trace.key[:, head], trace.strength[:, head]),
                previous[:, head],
                trace.gate[:, head],
            )
            weighting = addressing.shift_weighting(weighting, trace.shift[:, head])
            weightings[row] = _sharpen(weighting, trace.sharpening[:, head])
            if kind == "read":
                reads.append(addressing.read(memory, weightings[row]))
                continue
            writer = slice(row - self.checkpoint.reads, row - self.checkpoint.reads + 1)
            memory = addressing.write(
                memory,
                weightings[row],
                trace.erase_vector[:, writer],
                trace.add_vector[:, writer],
            )
        read_vector = torch.cat(reads, 1)
        after = torch.cat([weightings[row] for row in range(len(self.order))], 1)
        logits = self.output(torch.cat([output, read_vector.flatten(1)], 1))
        return logits, LstmNtmState(memory, after, read_vector, *controller_state), trace

    def _trace(self, controller_output: Tensor) -> Trace:
        """`controller_output` [B, C] -> what every head does in this step."""
        width, writes = self.checkpoint.width, self.checkpoint.writes
        preactivation = self.heads(controller_output)
        of_all, of_writing = torch.split(
            preactivation, [self.addressing_size, writes * 2 * width], 1
        )
        of_all = of_all.reshape(-1, len(self.order), sum(self.parts))
        of_writing = of_writing.reshape(-1, writes, 2 * width)
        key, strength, gate, shift, sharpening = torch.split(of_all, self.parts, 2)
        erase, add = torch.split(of_writing, width, 2)
        gate = torch.sigmoid(gate)
        if self.activations == "relu":
            key, strength, shift, sharpening, erase, add = map(
                torch.relu, (key, strength, shift, sharpening, erase, add)
            )
        else:
            strength, sharpening, erase = (
                _softplus(strength),
                _softplus(sharpening),
                erase.sigmoid(),
            )
            if self.activations == "softplus-shift":
                shift = _softplus(shift)
        return Trace(key, strength, gate, torch.softmax(shift, 2), 1 + sharpening, erase, add)


def spec_of(network: PytorchNtm, task: str) -> ModelSpec:
    """Return the spec of the network's graph."""
    checkpoint = network.checkpoint
    start = network.initial_state(1, checkpoint.locations)
    state = []
    for name, value in zip(start._fields, start, strict=True):
        shape: tuple[Dimension, ...] = tuple(value.shape[1:])
        initial = Initial("values", tuple(value.float().flatten().tolist()))
        if name == "weighting":
            initial = Initial("constant", (0.0,))
        if name in ("memory", "weighting"):
            shape = (*shape[:-1], "N")
        state.append(StateTensor(name, name, next_name(name), shape, initial))
    sizes = Sizes(
        checkpoint.inputs,
        checkpoint.outputs,
        checkpoint.controller_size,
        checkpoint.layers,
        checkpoint.reads,
        checkpoint.writes,
        checkpoint.width,
    )
    return ModelSpec(
        task=task,
        architecture=ARCHITECTURE,
        inputs=(vector("x", checkpoint.inputs),),
        outputs=(vector("y", checkpoint.outputs),),
        state=tuple(state),
        traces=tuple(traces(sizes)),
        read_heads=checkpoint.reads,
        write_heads=checkpoint.writes,
        default_locations=checkpoint.locations,
        fixed_locations=True,
    )


def _our_gates(rows: Tensor) -> Tensor:
    """Reorder rows of gates from input, forget, candidate, output to ours: candidate last."""
    entry, forget, candidate, output = torch.chunk(rows, 4)
    return torch.cat([entry, forget, output, candidate])


def _content_weighting(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """`memory` [B, M, N], `key` [B, 1, M], `strength` [B, 1, 1] -> [B, 1, N]."""
    memory_norm = torch.sqrt(memory.square().sum(1, keepdim=True)).clamp(min=LEAST_NORM)
    key_norm = torch.sqrt(key.square().sum(2, keepdim=True)).clamp(min=LEAST_NORM)
    return torch.softmax((key * (strength / key_norm)) @ memory / memory_norm, 2)


def _sharpen(weighting: Tensor, sharpening: Tensor) -> Tensor:
    """`weighting` [B, 1, N], `sharpening` [B, 1, 1] -> [B, 1, N]; the sum may be below 1."""
    # The exporter takes an addition of TINY for one of 0. It counts where all powers are small.
    powers = weighting**sharpening / TINY
    return powers / (powers.sum(2, keepdim=True) + 1)


def _softplus(x: Tensor) -> Tensor:
    """`log(1 + exp(x))`, written so that no runtime overflows."""
    return torch.relu(x) + torch.log(1 + torch.exp(-torch.abs(x)))
