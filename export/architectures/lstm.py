"""The LSTM that the paper compares the Neural Turing Machine with."""

from __future__ import annotations

from export.baseline import LstmBaseline
from export.network import Architecture
from export.unrolled import logits_of

ARCHITECTURE = Architecture(
    name="lstm", title="LSTM", colour="tab:orange", build=LstmBaseline, logits=logits_of
)
