"""Plain values that describe models and sessions, and the results of steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ntm.tensors import TYPES, Array, StepTensor, Type, record, vector
from ntm_client import arguments
from ntm_client.errors import InvalidArgument

Float32 = npt.NDArray[np.float32]
UInt32 = npt.NDArray[np.uint32]
Policy = Literal["none", "asynchronous", "synchronous"]
POLICIES: tuple[Policy, ...] = ("none", "asynchronous", "synchronous")


@dataclass(frozen=True)
class StateTensor:
    """A tensor of a session's state."""

    name: str
    shape: tuple[int, ...]
    """Shape for one session; -1 stands for the number of locations."""
    type: Type = "float32"
    given: bool = False
    """Whether `create_session` needs a value of it as `initial`."""
    constant: bool = False
    """Whether no step changes it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        return TYPES[self.type]


@dataclass(frozen=True)
class TraceTensor:
    """A trace that can be requested: a row of values for each of some heads."""

    name: str
    heads: int
    width: int
    """The number of values for a head and a step; -1 stands for the number of locations."""

    def width_at(self, locations: int, top_k: int = 0) -> int:
        """
        The number of values for a head and a step, in a session with `locations` memory locations.
        """
        if self.width >= 0:
            return self.width
        return min(top_k, locations) if top_k else locations


@dataclass(frozen=True)
class ModelVersion:
    """One content of a model's file."""

    content_hash: str
    """SHA-256 of the ONNX file, in hexadecimal."""
    current: bool
    """Whether new sessions are opened on this version."""
    loaded: bool
    """Whether its network is loaded. If not, its first session waits for the loading."""


@dataclass(frozen=True)
class Model:
    """A model that the server serves."""

    name: str
    content_hash: str
    """SHA-256 of the ONNX file, in hexadecimal; identifies the version that is described here."""
    task: str
    architecture: str
    input_width: int
    """The float32 values of a step's input; 0 if a step is more than one vector each way."""
    output_width: int
    state: tuple[StateTensor, ...]
    traces: tuple[TraceTensor, ...]
    read_heads: int
    write_heads: int
    default_locations: int
    """Memory locations of a session that does not choose; 0 for a network without memory."""
    fixed_locations: bool
    """Whether a session must have `default_locations`."""
    provider: str
    """The onnxruntime execution provider that runs it."""
    versions: tuple[ModelVersion, ...] = ()
    """The versions that the server has; the version for new sessions is the first."""
    inputs: tuple[StepTensor, ...] = ()
    """The tensors that a step takes; by default one vector of `input_width`."""
    outputs: tuple[StepTensor, ...] = ()
    """The tensors that a step gives; by default one vector of `output_width`."""
    batched: bool = True
    """Whether the server steps several sessions in one run of the network."""

    def __post_init__(self) -> None:
        for place, width in (("inputs", self.input_width), ("outputs", self.output_width)):
            if not getattr(self, place):
                object.__setattr__(self, place, (vector(place[:-1], width),))

    @cached_property
    def input_record(self) -> np.dtype[Any]:
        """The type of what a step takes, as `ntm.tensors.record` makes it."""
        return record(self.inputs)

    @cached_property
    def output_record(self) -> np.dtype[Any]:
        """The type of what a step gives, as `ntm.tensors.record` makes it."""
        return record(self.outputs)

    def trace(self, name: str) -> TraceTensor | None:
        """The trace with this name, or None."""
        return next((trace for trace in self.traces if trace.name == name), None)


@dataclass(frozen=True)
class Durability:
    """
    When the server writes a session to its store, from which the session goes on after a loss.

    `none`: only when it sleeps or the server stops. `asynchronous`: now and then, while replies
    come at once; a session that resumes makes the steps since then again. `synchronous`: before
    each reply.
    """

    policy: Policy
    every_steps: int = 0
    """
    With `asynchronous`, about how many steps lie between two writes; 0 for the server's default.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.policy, str) or self.policy not in POLICIES:
            raise arguments.wrong("the policy", "none, asynchronous or synchronous", self.policy)
        arguments.whole("every_steps", self.every_steps)
        if self.every_steps and self.policy != "asynchronous":
            raise InvalidArgument(
                f"every_steps is for the policy asynchronous, and is {self.every_steps} with "
                f"{self.policy}"
            )


@dataclass(frozen=True)
class Limits:
    """
    What a server takes in one chunk and in one message. The defaults are those of a server that is
    too old to say.
    """

    max_chunk_steps: int = 1024
    """The maximum number of steps in one chunk."""
    max_waiting_steps: int = 4096
    """The maximum number of steps of one session that wait or run."""
    max_message_bytes: int = 4 * 2**20
    """The maximum size of a message to the server."""
    max_reply_bytes: int = 4 * 2**20 - 16_384
    """The maximum size of the outputs and traces of one chunk."""
    max_replay_bytes: int = 65_536
    """The size of the last outputs and traces of a session that can be asked for again."""


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
    """The time at which the session expires if it makes no step, by the server's clock."""
    durability: Durability
    durable_step: int
    """Steps before this one are in the server's store."""
    epoch: int = 0
    """Grows whenever a replica takes the session over; 0 where there is no store."""
    limits: Limits = Limits()
    """What the replica that described the session takes."""
    expires_in: timedelta = timedelta()
    """
    The time that was left until `expire_time` when the server answered. The clock of this machine
    may differ from the server's.
    """
    replica: str = ""
    """Names the process that answered, until it ends; empty if its release is too old to say."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """
    The results of consecutive steps. For a step that was sent as one vector, the first axis is
    missing.
    """

    first_step: int
    """The index of the first step."""
    outputs: Array | dict[str, Array]
    """
    [steps, output_width] of a model that gives one vector; [steps, ...] of another that gives one
    tensor. If it gives several, a dict has them by name.
    """
    traces: dict[str, Float32]
    """[steps, heads, width], by name. With `top_k`, a weighting has only its largest elements."""
    locations: dict[str, UInt32]
    """
    [steps, heads, top_k], by name: with `top_k`, the locations of the elements of each weighting.
    """

    @property
    def array(self) -> Array:
        """
        The outputs of a model that gives one tensor: `outputs`, with the type of an array.

        Raises:
            InvalidArgument: the model gives several, which `outputs` has by name.
        """
        if isinstance(self.outputs, dict):
            names = ", ".join(map(repr, self.outputs))
            raise InvalidArgument(f"a step gives {names}; take each from `outputs` by its name")
        return self.outputs


@dataclass(frozen=True, eq=False)
class Memory:
    """A session's memory and the weightings of its heads."""

    next_step: int
    memory: Float32
    """[locations, width]"""
    read_weightings: Float32
    """[read heads, locations]"""
    write_weightings: Float32
    """[write heads, locations]"""
