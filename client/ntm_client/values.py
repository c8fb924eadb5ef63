"""What a client is told of models and sessions, and what steps give it, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
UInt32 = npt.NDArray[np.uint32]
Policy = Literal["none", "asynchronous", "synchronous"]


@dataclass(frozen=True)
class StateTensor:
    """A tensor of a session's state."""

    name: str
    shape: tuple[int, ...]
    """Shape for one session; -1 stands for the number of locations."""


@dataclass(frozen=True)
class TraceTensor:
    """Something that can be traced: a row of values for each of some heads."""

    name: str
    heads: int
    width: int
    """Values for a head and step; -1 stands for the number of locations."""

    def width_at(self, locations: int, top_k: int = 0) -> int:
        """Values for a head and step in a session of that many locations; see `Session.step`."""
        if self.width >= 0:
            return self.width
        return min(top_k, locations) if top_k else locations


@dataclass(frozen=True)
class ModelVersion:
    """One content of a model's file."""

    content_hash: str
    """SHA-256 of the ONNX file, in hexadecimal."""
    current: bool
    """Whether it is the one for new sessions."""
    loaded: bool
    """Whether its network is loaded; otherwise its first session waits for that."""


@dataclass(frozen=True)
class Model:
    """A network that is served."""

    name: str
    content_hash: str
    """SHA-256 of the ONNX file, in hexadecimal: identifies the version that is described."""
    task: str
    architecture: str
    input_width: int
    output_width: int
    state: tuple[StateTensor, ...]
    traces: tuple[TraceTensor, ...]
    read_heads: int
    write_heads: int
    default_locations: int
    """Memory locations of a session that asks for none; 0 for a network without memory."""
    fixed_locations: bool
    """Whether a session must have `default_locations`."""
    provider: str
    """The onnxruntime execution provider that runs it."""
    versions: tuple[ModelVersion, ...] = ()
    """Those of its versions that the server has, the one for new sessions first."""

    def trace(self, name: str) -> TraceTensor | None:
        """The trace of that name, or None."""
        return next((trace for trace in self.traces if trace.name == name), None)


@dataclass(frozen=True)
class Durability:
    """
    When the server writes a session to its store, from which it goes on after a loss.

    `none`: only when it sleeps or the server stops. `asynchronous`: now and then, while replies
    come at once; a session that resumes makes the steps since then again. `synchronous`: before
    each reply.
    """

    policy: Policy
    every_steps: int = 0
    """With `asynchronous`, steps between two writings, about; 0 for the server's default."""

    def __post_init__(self) -> None:
        if self.policy not in ("none", "asynchronous", "synchronous"):
            raise ValueError(
                f"the policy must be none, asynchronous or synchronous, not {self.policy!r}"
            )
        if self.every_steps < 0 or (self.every_steps and self.policy != "asynchronous"):
            raise ValueError(
                f"every_steps is for the policy asynchronous and at least 0, not "
                f"{self.every_steps} with {self.policy}"
            )


@dataclass(frozen=True)
class SessionInfo:
    """A session as the server describes it at one moment."""

    id: str
    model: str
    content_hash: str
    locations: int
    idle_timeout: timedelta
    next_step: int
    state_bytes: int
    create_time: datetime
    expire_time: datetime
    """When it expires if nothing is sent."""
    durability: Durability
    durable_step: int
    """Steps before this one are in the server's store."""
    epoch: int = 0
    """Grows whenever a replica takes the session over; 0 where there is no store."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """What consecutive steps gave. For a step sent as one vector the first axis is missing."""

    first_step: int
    """Index of the first of them."""
    outputs: Float32
    """[steps, output_width]"""
    traces: dict[str, Float32]
    """By name, [steps, heads, width]; with `top_k`, a weighting has only its largest elements."""
    locations: dict[str, UInt32]
    """With `top_k`, where the elements of each weighting are, [steps, heads, top_k]."""


@dataclass(frozen=True, eq=False)
class Memory:
    """A session's memory, and where its heads are."""

    next_step: int
    memory: Float32
    """[locations, width]"""
    read_weightings: Float32
    """[read heads, locations]"""
    write_weightings: Float32
    """[write heads, locations]"""
