"""Admission: checks requests against the server's limits, and changes no session."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from service.engine.durability import Durability, Policy
from service.engine.sessions import Session, Usage
from service.engine.work import Chunk, trace_width
from service.errors import CapacityExceeded, InvalidRequest
from service.settings import Settings
from service.spec import Array, ModelSpec, StateTensor, StepTensor, parts

MAX_INPUT_MAGNITUDE = 1e6
"""The largest magnitude of an input. Larger values are mistakes and could make a state infinite."""

_FEWEST_LOCATIONS = 3
"""
The least number of locations at which the shifts -1, 0 and +1 lead to three different locations.
"""

_ENVELOPE_BYTES = 16_384
"""An upper bound for a message's bytes besides outputs and traces: names, numbers, lengths."""


_SMALL_REPLY_BYTES = 32_768
"""Outputs up to this size fit into every message size that the settings allow."""


class Limits(NamedTuple):
    """What fits into one chunk and into one message, which each client is told with its session."""

    max_chunk_steps: int
    max_waiting_steps: int
    max_message_bytes: int
    max_reply_bytes: int
    """The largest size of the outputs and traces of a chunk."""
    max_replay_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits of a server with these settings."""
        size = settings.max_message_bytes
        # A chunk waits until all its steps are made. A step takes four bytes of a message or more.
        steps = min(settings.max_chunk_steps, settings.max_waiting_steps, size // 4)
        waiting = min(settings.max_waiting_steps, 2**63 - 1)  # what the API's field holds
        return cls(steps, waiting, size, size - _ENVELOPE_BYTES, settings.max_replay_bytes)


class Admission:
    """Checks requests against the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = Limits.of(settings)

    def locations(self, spec: ModelSpec, asked: int) -> int:
        """The locations of a session; `asked` is 0 for the model's default."""
        maximum = self._settings.max_locations
        if asked in (0, spec.default_locations):
            return spec.default_locations
        if not spec.has_memory:
            raise InvalidRequest(f"locations is {asked}, but this model has no memory; leave it 0")
        if spec.fixed_locations:
            raise InvalidRequest(
                f"locations is {asked}; the model's initial memory was learned for "
                f"{spec.default_locations}, so it works with those only"
            )
        if not _FEWEST_LOCATIONS <= asked <= maximum:
            raise InvalidRequest(
                f"locations is {asked}; this server takes {_FEWEST_LOCATIONS} to {maximum}",
                limit="max_locations",
            )
        return asked

    def idle_timeout_seconds(self, asked: float | None) -> float:
        """The idle timeout of a session; `asked` is None for the server's default."""
        if asked is None:
            return self._settings.default_idle_timeout_seconds
        maximum = self._settings.max_idle_timeout_seconds
        if not 0 < asked <= maximum:
            raise InvalidRequest(
                f"idle timeout is {asked} s; it must be above 0, at most {maximum}",
                limit="max_idle_timeout_seconds",
            )
        return asked

    def durability(self, asked: Durability | None, *, has_store: bool) -> Durability:
        """The durability of a session; `asked` is None for the server's default."""
        settings = self._settings
        every = settings.checkpoint_every_steps
        if asked is None:
            asked = Durability(Policy(settings.durability)) if has_store else Durability()
        if asked.policy is not Policy.NONE and not has_store:
            raise InvalidRequest(
                f"durability is {asked.policy.value}, but this server has no store; ask for none"
            )
        if asked.policy is Policy.ASYNCHRONOUS:
            return Durability(asked.policy, asked.every_steps or every)
        return Durability(asked.policy)

    def room(self, usage: Usage, usage_by_owner: Usage, new_bytes: int) -> None:
        """Raise CapacityExceeded if `new_bytes` more exceed the limits of an owner or of all."""
        settings = self._settings
        own_sessions, own_bytes = (
            settings.max_sessions_per_principal,
            settings.max_state_bytes_per_principal,
        )
        self._check_sessions(usage_by_owner, own_sessions, "max_sessions_per_principal")
        self._check_bytes(usage_by_owner, new_bytes, own_bytes, "max_state_bytes_per_principal")
        self._check_sessions(usage, settings.max_sessions, "max_sessions")
        self._check_bytes(usage, new_bytes, settings.max_state_bytes, "max_state_bytes")

    def _check_sessions(self, usage: Usage, maximum: int, limit: str) -> None:
        if maximum and usage.sessions >= maximum:
            raise CapacityExceeded(
                f"{usage.sessions} sessions are open, as many as {limit} allows; delete one or try "
                "again later",
                limit=limit,
            )

    def _check_bytes(self, usage: Usage, new_bytes: int, maximum: int, limit: str) -> None:
        if maximum and usage.state_bytes + new_bytes > maximum:
            raise CapacityExceeded(
                f"the session needs {new_bytes} bytes of state, and {usage.state_bytes} of "
                f"{maximum}, which is {limit}, are taken; use fewer locations or try again later",
                limit=limit,
            )

    def chunk(self, session: Session, chunk: Chunk) -> None:
        """
        Read the chunk's inputs and count its steps. Raises the error of a chunk to refuse.
        """
        spec = session.slab.network.spec
        chunk.inputs = self._read(chunk.content, spec)
        steps = len(chunk.inputs)
        settings = self._settings
        if chunk.selection.names or spec.output_record.itemsize * steps > _SMALL_REPLY_BYTES:
            self._check_reply_size(steps, chunk, spec, session.locations)
        if session.waiting_steps + steps > settings.max_waiting_steps:
            raise CapacityExceeded(
                f"{session.waiting_steps} steps of session {session.id!r} wait; with {steps} "
                f"more they exceed the {settings.max_waiting_steps} allowed; await some replies",
                limit="max_waiting_steps",
            )
        chunk.remaining = steps

    def _read(self, content: bytes | Array, spec: ModelSpec) -> Array:
        """The inputs as steps of the model, after a check of their values."""
        maximum = self._limits.max_chunk_steps
        record = spec.input_record
        size = len(content) if isinstance(content, bytes) else content.nbytes
        if size == 0 or size % record.itemsize:
            raise InvalidRequest(_no_steps(size, spec))
        inputs = np.frombuffer(content, record)
        if len(inputs) > maximum:
            raise InvalidRequest(
                f"a chunk of {len(inputs)} steps; the limit is {maximum}; split it",
                limit="max_chunk_steps",
            )
        for tensor, values in zip(spec.inputs, parts(inputs, spec.inputs), strict=True):
            if tensor.type == "float32":
                # One pass for nearly all chunks, and false for NaN: if the sum of squares is
                # within the limit, so is every value. If not, each value has to be looked at.
                wide = values.ravel().astype(np.float64)
                if wide.dot(wide) <= MAX_INPUT_MAGNITUDE:
                    continue
            _check_values(values, tensor, spec)
        return inputs

    def _check_reply_size(self, steps: int, chunk: Chunk, spec: ModelSpec, locations: int) -> None:
        """Set the size of the chunk's reply. Raises InvalidRequest if it is too large."""
        step_bytes = spec.output_record.itemsize
        for name in chunk.selection.names:
            tensor = spec.trace(name)
            if tensor is None:
                known = ", ".join(trace.name for trace in spec.traces) or "none"
                raise InvalidRequest(f"trace {name[:64]!r} is unknown; the model has: {known}")
            width, sparse = trace_width(tensor, locations, chunk.selection.top_k)
            step_bytes += 4 * tensor.heads * width * (2 if sparse else 1)
        maximum = self._limits.max_reply_bytes // step_bytes
        if steps > maximum:
            raise InvalidRequest(
                f"a reply for {steps} steps of {step_bytes} bytes each would exceed the "
                f"message size of {self._limits.max_message_bytes} bytes; send at most {maximum} "
                "steps in a chunk, or select fewer traces or a top_k",
                limit="max_message_bytes",
            )
        chunk.reply_bytes = steps * step_bytes


def state_values(
    given: Mapping[str, bytes], spec: ModelSpec, locations: int, *, may_lack: bool = False
) -> dict[str, Array]:
    """
    The values that a client gives for state tensors when it opens a session, by name.

    Raises:
        InvalidRequest: there is no such tensor, its bytes are not its values, or a value is missing
            that the client has to give, unless `may_lack`.
    """
    tensors = {tensor.name: tensor for tensor in spec.state}
    found = {}
    for name, content in given.items():
        if name not in tensors:
            known = ", ".join(tensors) or "none"
            raise InvalidRequest(f"state tensor {name[:64]!r} is unknown; the model has: {known}")
        found[name] = _state_value(tensors[name], content, locations)
    missing = [name for name, each in tensors.items() if each.is_given and name not in given]
    if missing and not may_lack:
        raise InvalidRequest(
            f"the model needs a value of {', '.join(map(repr, missing))} for each session; give it "
            "as initial when you create the session"
        )
    return found


def _state_value(tensor: StateTensor, content: bytes, locations: int) -> Array:
    shape = tensor.shape_at(locations)
    size = math.prod(shape) * tensor.dtype.itemsize
    if len(content) != size:
        raise InvalidRequest(
            f"the initial value of {tensor.name!r} has {len(content)} bytes; it is {tensor.type} "
            f"of shape {list(shape)}, which has {size}"
        )
    value = np.frombuffer(content, tensor.dtype).reshape(shape)
    if not _are_sound(value):
        rule = "0 or 1" if tensor.type == "bool" else "finite"
        raise InvalidRequest(
            f"the initial value of {tensor.name!r} has elements that are not {rule}"
        )
    return value


def _are_sound(values: Array) -> bool:
    """Whether floating values are finite, and the bytes of bool values 0 or 1."""
    if values.dtype.kind == "f":
        return bool(np.isfinite(values).all())
    return values.dtype.kind != "b" or bool((values.view(np.uint8) <= 1).all())


def _no_steps(size: int, spec: ModelSpec) -> str:
    """Why inputs of so many bytes are no steps."""
    if spec.input_width and not size % 4:
        return (
            f"inputs hold {size // 4} values; a chunk is one or more steps of {spec.input_width} "
            "each"
        )
    return (
        f"inputs are {size} bytes; a chunk is one or more steps of {spec.input_record.itemsize} "
        f"each: {', '.join(map(str, spec.inputs))}"
    )


def _check_values(values: Array, tensor: StepTensor, spec: ModelSpec) -> None:
    """Raise InvalidRequest for values of an input, [steps, ...], that no step may have."""
    if tensor.is_floating:
        # In float64, since no float16 is as large as the limit; false for NaN as well.
        allowed = np.abs(values.astype(np.float64)) <= MAX_INPUT_MAGNITUDE
        rule = f"values must be finite, of magnitude at most {MAX_INPUT_MAGNITUDE:g}"
    elif tensor.type == "bool":
        allowed = values.view(np.uint8) <= 1
        rule = "a bool is the byte 0 or 1"
    else:
        return
    if allowed.all():
        return
    step, channel = np.argwhere(~allowed.reshape(len(values), -1))[0]
    if tensor.type == "bool":
        values = values.view(np.uint8)  # which numpy would show as True
    shown = values.reshape(len(values), -1)[step, channel]
    place = "" if len(spec.inputs) == 1 else f"input {tensor.name!r}, "
    raise InvalidRequest(
        f"input {shown} at step {step} of the chunk, {place}channel {channel}: {rule}",
        step=step,
        channel=channel,
        **({} if len(spec.inputs) == 1 else {"input": tensor.name}),
    )
