"""The row about training: our trainer against the loop of loudinthecloud/pytorch-ntm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, conv1d, cosine_similarity, softmax, softplus

from bench.row import Options, Row, alternated
from export.configurations import CONFIGURATIONS
from export.training import Run, denormals_as_zeros, update

SECONDS = 4.0
CONFIGURATION = "copy-ntm-lstm"
LOCATIONS, WIDTH, CELLS, BITS, LONGEST = 128, 20, 100, 8, 20


def train(options: Options) -> Row:
    """Compare training sequences a second on copy, with one thread and 128 locations."""
    torch.set_num_threads(1)
    run = Run.new(replace(CONFIGURATIONS[CONFIGURATION], locations=(LOCATIONS,)), seed=1)
    peer = PeerTraining()
    samples = alternated(
        options.rounds,
        {
            "ours, sequences/s": lambda: ours_a_second(run),
            "peer, sequences/s": lambda: sequences_a_second(peer.update),
        },
    )
    ours, theirs = (median(values) for values in samples.values())
    workload = (
        f"sequences/s on copy, N = {LOCATIONS}, our trainer / the loop of pytorch-ntm at its "
        "defaults, written anew for this benchmark"
    )
    return Row("train", workload, ours / theirs, 50, True, samples)


BENCHMARKS: dict[str, Callable[[Options], Row]] = {"train": train}


@denormals_as_zeros()
def ours_a_second(run: Run, seconds: float = SECONDS) -> float:
    """Return the sequences a second of our updates."""
    return run.configuration.batch * sequences_a_second(lambda: update(run), seconds)


def sequences_a_second(one: Callable[[], object], seconds: float = SECONDS) -> float:
    """Return the calls a second of a function."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        one()
        done += 1
    return done / (time.perf_counter() - started)


class PeerTraining:
    """
    The loop of pytorch-ntm, written anew from its structure and its defaults.

    Batch 1, one sequence at a time, step by step in Python; RMSprop; gradients clipped by value; an
    LSTM controller of 100; one product a head; shifts by a convolution for each sequence; lengths 1
    to 20 of 8 bits.
    """

    def __init__(self) -> None:
        """Draw the parameters and make the optimiser."""
        torch.manual_seed(0)
        self.controller = nn.LSTM(BITS + 1 + WIDTH, CELLS)
        self.read_head = nn.Linear(CELLS, WIDTH + 6)
        self.write_head = nn.Linear(CELLS, 3 * WIDTH + 6)
        self.output = nn.Linear(CELLS + WIDTH, BITS)
        self.memory = torch.rand(LOCATIONS, WIDTH) / 10
        parts = (self.controller, self.read_head, self.write_head, self.output)
        self.parameters = [parameter for part in parts for parameter in part.parameters()]
        self.optimiser = torch.optim.RMSprop(self.parameters, lr=1e-4, momentum=0.9, alpha=0.95)

    def update(self) -> None:
        """Make one update, from one sequence."""
        length = int(torch.randint(1, LONGEST + 1, ()))
        vectors = torch.randint(0, 2, (length, 1, BITS)).float()
        inputs = torch.zeros(2 * length + 1, 1, BITS + 1)
        inputs[:length, :, :BITS] = vectors
        inputs[length, :, BITS] = 1
        outputs = self._run(inputs)[length + 1 :]
        loss = binary_cross_entropy(torch.stack(outputs), vectors)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.clamp_(-10, 10)
        self.optimiser.step()

    def _run(self, inputs: Tensor) -> list[Tensor]:
        memory = self.memory.repeat(1, 1, 1)
        read = torch.zeros(1, WIDTH)
        read_weighting = write_weighting = torch.zeros(1, LOCATIONS)
        state = (torch.zeros(1, 1, CELLS), torch.zeros(1, 1, CELLS))
        outputs = []
        for x in inputs:
            hidden, state = self.controller(torch.cat([x, read], 1)[None], state)
            controlled = hidden[0]
            parameters = self.read_head(controlled)
            read_weighting = _addressed(parameters, memory, read_weighting)
            read = torch.matmul(read_weighting[:, None], memory)[:, 0]
            parameters = self.write_head(controlled)
            write_weighting = _addressed(parameters[:, : WIDTH + 6], memory, write_weighting)
            erase = torch.sigmoid(parameters[:, WIDTH + 6 : 2 * WIDTH + 6])
            add = parameters[:, 2 * WIDTH + 6 :]
            erased = torch.matmul(write_weighting[:, :, None], erase[:, None])
            added = torch.matmul(write_weighting[:, :, None], add[:, None])
            memory = memory * (1 - erased) + added
            outputs.append(torch.sigmoid(self.output(torch.cat([controlled, read], 1))))
        return outputs


def _addressed(parameters: Tensor, memory: Tensor, previous: Tensor) -> Tensor:
    """Return the next weighting [1, N] of a head: equations 5 to 9."""
    key, strength, gate, shift, sharpening = torch.split(parameters, [WIDTH, 1, 1, 3, 1], 1)
    similarity = cosine_similarity(memory + 1e-16, key[:, None] + 1e-16, dim=-1)
    content = softmax(softplus(strength) * similarity, 1)
    gated = torch.sigmoid(gate) * content + (1 - torch.sigmoid(gate)) * previous
    shifts = softmax(shift, 1)
    rotated = torch.zeros_like(gated)
    for sequence in range(len(gated)):
        ring = torch.cat([gated[sequence, -1:], gated[sequence], gated[sequence, :1]])
        rotated[sequence] = conv1d(ring[None, None], shifts[sequence][None, None])[0, 0]
    powers = rotated ** (1 + softplus(sharpening))
    return powers / (powers.sum(1, keepdim=True) + 1e-16)
