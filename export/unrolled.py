"""
The fast path of training: NTMs and the LSTM over whole sequences, with a backward pass by hand.

It computes the same function as the network's steps one after another. PyTorch computes the matrix
products; `kernels.py` and `access.py` compute everything between them. The gradient of a product's
parameters is summed over all steps in one product. The kernels are compiled for CPUs; on any other
device the steps run one after another, and autograd goes back through them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from export import access, kernels
from export.access import HeadTape
from export.arena import Arena
from export.baseline import LstmBaseline
from export.kernels import Array
from export.layers import LstmController
from export.network import Network, State, stepped
from export.ntm import Ntm


def logits_of(network: Network, inputs: Tensor, state: State, arena: Arena) -> Tensor:
    """
    Run `inputs` [T, B, X] from a state: logits [T, B, Y], for PyTorch to differentiate.

    What the steps compute stays in the arena for the backward pass. Do not call this again with the
    same arena before the backward pass.

    Raises:
        TypeError: the network is neither an NTM nor the LSTM.
    """
    if not isinstance(network, Ntm | LstmBaseline):
        raise TypeError(f"there is no fast path for {type(network).__name__}")
    if inputs.device.type != "cpu":
        return stepped(network, inputs, state, arena)
    arena.clear()
    controller = network.controller if isinstance(network, Ntm) else network.lstm
    is_lstm = isinstance(controller, LstmController)
    products = controller.products()
    read_heads = 0
    if isinstance(network, Ntm):
        products.append(network.heads.layer)
        read_heads = network.read_heads
    layout = _Layout(len(products) - bool(read_heads), is_lstm, read_heads)
    parameters = [tensor for product in products for tensor in (product.weight, product.bias)]
    features = _Unrolled.apply(layout, arena, inputs, *state, *parameters)  # type: ignore[no-untyped-call]  # torch does not annotate it
    logits: Tensor = network.output(features.flatten(0, 1))
    return logits.reshape(*inputs.shape[:2], -1)


class _Layout(NamedTuple):
    """The meaning of the tensors given to `_Unrolled`."""

    layers: int
    is_lstm: bool
    read_heads: int
    """0 where there is no memory."""


class _Unrolled(torch.autograd.Function):
    """
    All steps without the product of the output.

    Its arguments are the inputs, the state, then weight and bias of every layer and of the heads.
    Its result [T, B, C + R M] is the input of the output layer: the controller's output and the
    read vectors.
    """

    @staticmethod
    def forward(
        ctx: Any, layout: _Layout, arena: Arena, inputs: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.tape = _Tape(layout, arena, inputs, tensors)
        features: Tensor = ctx.tape.features
        return features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_features: Tensor) -> tuple[Tensor | None, ...]:
        """Go back through all steps. The inputs get no gradient."""
        return (None, None, None, *ctx.tape.back(d_features.contiguous()))


class _Tape:
    """Everything that the steps computed. Row `t` of a layer is its input in step `t`."""

    def __init__(
        self, layout: _Layout, arena: Arena, inputs: Tensor, tensors: tuple[Tensor, ...]
    ) -> None:
        self.layout = layout
        self.arena = arena
        self.steps, self.batch, self.input_width = inputs.shape
        layers, is_lstm, read_heads = layout
        rest = list(tensors)
        if read_heads:
            memory, weighting, read_vector = rest[:3]
            self.read_width = read_vector[0].numel()
            del rest[:3]
        else:
            self.read_width = 0
        hidden, cell = rest[:2] if is_lstm else (None, None)
        rest = rest[2 * is_lstm :]
        self.weights, biases = rest[::2], rest[1::2]
        size = self.weights[0].shape[1] // (4 if is_lstm else 1)
        self.size = size
        lower = [self.input_width + self.read_width] + [size] * (layers - 1)
        self.lower = lower
        """The widths of each layer's input without its own last output."""
        self.seen = [
            arena.take(self.steps + 1, self.batch, width + size * is_lstm) for width in lower
        ]
        self.seen[0][:-1, :, : self.input_width] = inputs
        self.features = arena.take(self.steps, self.batch, size + self.read_width)
        above = [*(seen[:-1, :, :size] for seen in self.seen[1:]), self.features[:, :, :size]]
        self.above = above
        """The destination of each layer's output."""
        if hidden is not None and cell is not None:
            self.gates = [arena.take(self.steps, self.batch, 4 * size) for _ in lower]
            self.cells = [arena.take(self.steps + 1, self.batch, size) for _ in lower]
            for layer, width in enumerate(lower):
                self.seen[layer][0, :, width:] = hidden[:, layer]
                self.cells[layer][0] = cell[:, layer]
        if read_heads:
            self.seen[0][0, :, self.input_width : lower[0]] = read_vector.flatten(1)
            self.memory = _empty_memory(arena, self.steps, memory, weighting, biases[-1].numel())
            self.memory.memory[0] = memory.numpy()
            self.memory.weighting[0] = weighting.numpy()
        for t in range(self.steps):
            self._step(t, biases)

    def _step(self, t: int, biases: list[Tensor]) -> None:
        for layer, width in enumerate(self.lower):
            seen, above = self.seen[layer], self.above[layer][t]
            weight, bias = self.weights[layer], biases[layer]
            if self.layout.is_lstm:
                gates, cells = self.gates[layer][t], self.cells[layer].numpy()
                torch.addmm(bias, seen[t], weight, out=gates)
                kernels.lstm_cell(
                    gates.numpy(), cells[t], cells[t + 1],
                    above.numpy(), seen[t + 1, :, width:].numpy(),
                )  # fmt: skip
            else:
                torch.addmm(bias, seen[t], weight, out=above).tanh_()
        if self.layout.read_heads:
            parameters = torch.from_numpy(self.memory.parameters[t])
            torch.addmm(biases[-1], self.above[-1][t], self.weights[-1], out=parameters)
            access.access(
                t,
                self.layout.read_heads,
                self.memory,
                self.features[t, :, self.size :].numpy(),
                self.seen[0][t + 1, :, self.input_width : self.lower[0]].numpy(),
            )

    def back(self, d_features: Tensor) -> list[Tensor | None]:
        """Return the gradients of the state and the parameters, given that of the features."""
        layers, is_lstm, read_heads = self.layout
        d_seen = [torch.zeros_like(seen[0]) for seen in self.seen]
        d_cells = [torch.zeros(self.batch, self.size) for _ in range(layers * is_lstm)]
        d_products = [
            self.arena.take(self.steps, self.batch, weight.shape[1]) for weight in self.weights
        ]
        transposed = [weight.t() for weight in self.weights]
        if read_heads:
            d_memory = np.zeros_like(self.memory.memory[0])
            d_weighting = np.zeros_like(self.memory.weighting[0])
        for t in reversed(range(self.steps)):
            d_out = d_features[t, :, : self.size]
            if read_heads:
                d_read = (
                    d_features[t, :, self.size :] + d_seen[0][:, self.input_width : self.lower[0]]
                )
                d_heads = d_products[-1][t]
                access.access_back(
                    t, read_heads, self.memory, d_read.numpy(),
                    d_memory, d_weighting, d_heads.numpy(),
                )  # fmt: skip
                d_out = torch.addmm(d_out, d_heads, transposed[-1])
            for layer in reversed(range(layers)):
                d_product = d_products[layer][t]
                if is_lstm:
                    cells = self.cells[layer].numpy()
                    d_out = d_out + d_seen[layer][:, self.lower[layer] :]
                    kernels.lstm_cell_back(
                        self.gates[layer][t].numpy(), cells[t], cells[t + 1],
                        d_out.numpy(), d_cells[layer].numpy(), d_product.numpy(),
                    )  # fmt: skip
                else:
                    torch.mul(d_out, 1 - self.above[layer][t].square(), out=d_product)
                torch.mm(d_product, transposed[layer], out=d_seen[layer])
                d_out = d_seen[layer][:, : self.size]
        gradients: list[Tensor | None] = []
        if read_heads:
            gradients += [torch.from_numpy(d_memory), torch.from_numpy(d_weighting), None]
        if is_lstm:
            d_hidden = [d[:, width:] for d, width in zip(d_seen, self.lower, strict=True)]
            gradients += [torch.stack(d_hidden, 1), torch.stack(d_cells, 1)]
        factors = [seen[:-1] for seen in self.seen]
        if read_heads:
            factors.append(self.above[-1])
        for factor, d_product in zip(factors, d_products, strict=True):
            flat = d_product.flatten(0, 1)
            gradients += [factor.flatten(0, 1).t() @ flat, flat.sum(0)]
        return gradients


def _empty_memory(
    arena: Arena, steps: int, memory: Tensor, weighting: Tensor, parameters: int
) -> HeadTape:
    """Take the entries of all steps, for a memory [B, M, N] and a weighting [B, H, N]."""
    batch, locations = len(memory), memory.shape[2]

    def empty(count: int, *shape: int) -> Array:
        array: Array = arena.take(count, *shape).numpy()
        return array

    return HeadTape(
        memory=empty(steps + 1, *memory.shape),
        weighting=empty(steps + 1, *weighting.shape),
        similarity=empty(steps, *weighting.shape),
        content=empty(steps, *weighting.shape),
        shifted=empty(steps, *weighting.shape),
        inverse_norm=empty(steps, batch, locations),
        parameters=empty(steps, batch, parameters),
        activations=empty(steps, batch, parameters),
    )
