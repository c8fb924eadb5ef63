"""What a run has seen: faults, steps, outputs that differ, sessions lost, refusals, pauses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import Message

from ntm_client.errors import NtmClientError, StreamBroken
from ntm_client.resume import Resume
from ntm_client.retries import Outage, Retries
from ntm_client.values import Float32
from tests.stress.chaos.expected import Expected


@dataclass
class Tally:
    """Counts, and a sentence for each thing that must not be."""

    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """How sessions ended."""
    operations: Counter[str] = field(default_factory=Counter)
    """What was done to sessions between steps."""
    errors: Counter[str] = field(default_factory=Counter)
    """What walks that could not go on were told, by class."""
    sessions: int = 0
    steps: int = 0
    compared: int = 0
    """Outputs: numbers, not vectors."""
    mismatches: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    undeleted: list[str] = field(default_factory=list)
    """Sessions that were found after their deletion."""
    stale: list[str] = field(default_factory=list)
    """Sessions that a replica showed as they were before another one took them over."""
    set_right: int = 0
    """How often a client that had taken a session up had to ask for its next step again."""
    others: list[str] = field(default_factory=list)
    """What else must not be, such as a server that did not stop cleanly."""
    not_stored_at_stop: int = 0
    """Sessions that a replica could not store when it stopped, as where the store was down."""
    replayed_steps: int = 0
    resume_seconds: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """Errors of servers that clients met, by reason, whether they tried again or not."""

    def compare(self, expected: Expected, first: int, outputs: Float32, where: str) -> None:
        """Compare outputs of steps from that one on."""
        wanted = expected.outputs[first : first + len(outputs)]
        self.steps += len(outputs)
        self.compared += outputs.size
        if outputs.tobytes() != wanted.tobytes():
            step = first + int(np.flatnonzero((outputs != wanted).any(axis=1))[0])
            self.mismatches.append(f"session {expected.number} differs at step {step}, {where}")


class WatchedRetries(Retries):
    """As the client's own, and tells a tally of every failure."""

    def __init__(self, resume: Resume, tally: Tally) -> None:
        """Try again as `resume` says."""
        super().__init__(resume)
        self.reached = True  # the replicas are there, whatever the first attempt meets
        self._tally = tally

    def outage(self) -> Outage:
        """For a request that has not failed yet."""
        return _WatchedOutage(self, self._tally)


class _WatchedOutage(Outage):
    def __init__(self, retries: Retries, tally: Tally) -> None:
        super().__init__(retries)
        self._tally = tally

    def failed(self, error: NtmClientError, request: Message) -> None:
        # What ends a stream is counted once, however many operations are on it.
        if error.reason and not isinstance(error, StreamBroken):
            self._tally.refusals[error.reason] += 1
        super().failed(error, request)
