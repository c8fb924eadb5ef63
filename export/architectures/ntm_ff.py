"""The Neural Turing Machine with a feedforward controller."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from export.layers import FeedforwardController
from export.network import Architecture, Network, Sizes
from export.ntm import OVER_LOCATIONS, Ntm, traces
from export.unrolled import logits_of


class FeedforwardNtmState(NamedTuple):
    """What the network carries from step to step."""

    memory: Tensor
    """[B, M, N]"""
    weighting: Tensor
    """[B, H, N]"""
    read_vector: Tensor
    """[B, R, M]"""


def build(sizes: Sizes, seed: int) -> Network:
    """Draw the parameters from a seed."""
    return Ntm(sizes, FeedforwardController, FeedforwardNtmState, seed)


ARCHITECTURE = Architecture(
    name="ntm-ff",
    title="NTM, feedforward",
    legend="NTM, feedforward controller",
    colour="tab:blue",
    build=build,
    over_locations=OVER_LOCATIONS,
    traces=traces,
    logits=logits_of,
)
