"""The Neural Turing Machine with an LSTM controller."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from export.layers import LstmController
from export.network import Architecture, Network, Sizes
from export.ntm import OVER_LOCATIONS, Ntm, traces
from export.unrolled import logits_of


class LstmNtmState(NamedTuple):
    """What the network carries from step to step."""

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


def build(sizes: Sizes, seed: int) -> Network:
    """Draw the parameters from a seed."""
    return Ntm(sizes, LstmController, LstmNtmState, seed)


ARCHITECTURE = Architecture(
    name="ntm-lstm",
    title="NTM, LSTM",
    legend="NTM, LSTM controller",
    colour="tab:green",
    build=build,
    over_locations=OVER_LOCATIONS,
    traces=traces,
    logits=logits_of,
)
