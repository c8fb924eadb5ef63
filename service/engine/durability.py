"""Durability: policies, snapshots on their way to the store, and sessions as a store has them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from service.engine.checkpoint import Checkpoint
from service.engine.replays import Replay
from service.engine.work import Work
from service.models.version import Version
from service.spec import Array

RENEW_SECONDS = 30.0
"""
The age at which the stored copy of a session in use is renewed.

The store drops a session some time after its idle timeout, counted from the last save. Without
renewal, a session that steps slowly would be dropped while it is in use.
"""


class Policy(Enum):
    """When a session's steps become durable."""

    NONE = "none"
    ASYNCHRONOUS = "asynchronous"
    SYNCHRONOUS = "synchronous"


@dataclass(frozen=True, slots=True)
class Durability:
    """A policy, and with `ASYNCHRONOUS` about how many steps lie between two checkpoints."""

    policy: Policy = Policy.NONE
    every_steps: int = 0


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it was at one moment, without its state."""

    id: str
    number: int
    model: str
    content_hash: str
    locations: int
    idle_timeout_seconds: float
    next_step: int
    state_bytes: int
    created_unix_seconds: float
    expires_unix_seconds: float
    durability: Durability
    durable_step: int
    epoch: int
    """The epoch in which this replica owns the session; 0 if there is no store."""


class Withheld(NamedTuple):
    """
    Work that is done. It is answered once the session is stored at this version or a later one.
    """

    work: Work
    version: int


@dataclass(eq=False, slots=True)
class Snapshot:
    """A session as it was at one moment, on its way to the store."""

    durable: Durable
    """
    The session's `Durable` at that moment. If the session was closed and taken over again
    meanwhile, the session now has another one.
    """
    view: SessionView
    owner: str
    checkpoint: Checkpoint
    replays: tuple[Replay, ...]
    given: Mapping[str, Array]
    """The values of state tensors that the client gave, by name."""
    version: int
    puts_to_sleep: bool = False
    """
    Whether the session leaves its slab once this is stored, unless it has made steps meanwhile.
    """


@dataclass(eq=False, slots=True)
class Durable:
    """Which state of a session is stored, and which is on its way to the store."""

    durability: Durability
    epoch: int = 1
    """The epoch in which this replica owns the session."""
    step: int = 0
    """Steps before this one are stored."""
    version: int = 0
    """Grows with every change of the state."""
    stored_version: int = -1
    stored_seconds: float = -math.inf
    """
    When it was last stored, by the engine's clock. For a session from another replica this is
    unknown.
    """
    under_way: Snapshot | None = None
    next: Snapshot | None = None
    """The latest snapshot that waits until the one under way has arrived; None if none waits."""
    withheld: deque[Withheld] = field(default_factory=deque)
    may_be_stored: bool = False
    """Whether the store may have anything of the session."""

    @property
    def is_clean(self) -> bool:
        """Whether the store has the session as it is."""
        return self.stored_version == self.version

    @property
    def is_covered(self) -> bool:
        """Whether the session's present state is stored or on its way."""
        latest = self.next or self.under_way
        return self.is_clean or (latest is not None and latest.version == self.version)

    def is_due(self, next_step: int, remaining: int, now_seconds: float) -> bool:
        """
        Whether the policy asks for a snapshot now, `remaining` steps before the end of a chunk.

        It never asks inside a chunk. A replica that continued from there would be ahead of the
        client, which has no answer yet.
        """
        if remaining:
            return False
        if self.durability.policy is Policy.ASYNCHRONOUS:
            is_old = now_seconds - self.stored_seconds >= RENEW_SECONDS
            has_gone_far = next_step - self.step >= self.durability.every_steps
            return self.under_way is None and (is_old or has_gone_far)
        return self.durability.policy is Policy.SYNCHRONOUS


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as it was read from a store."""

    owner: str
    version: Version
    idle_timeout_seconds: float
    created_unix_seconds: float
    durability: Durability
    checkpoint: Checkpoint
    replays: tuple[Replay, ...]
    """
    The replays of its last chunks, the oldest first. Outputs are still bytes, [steps, bytes].
    """
    given: Mapping[str, bytes] = field(default_factory=dict)
    """The values of state tensors that the client gave, by name."""
