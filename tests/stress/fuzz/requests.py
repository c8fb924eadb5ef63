"""What a hostile client sends: calls of every method, their requests altered and damaged."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import strategies as st

from ntm.v1 import ntm_pb2 as pb
from tests.stress.fuzz.alterations import altered
from tests.stress.fuzz.edits import damaged

STREAM = "StreamSteps"

SESSIONS = ("a" * 32, "b" * 32)
"""Stand in requests for the ids of the open sessions, which are as long: of each model one."""

_NAMES = ("ledger", "copy-ntm-ff", *SESSIONS, "0" * 32, "read_weighting", "add_vector", "")
_TOKENS = ("0", "1", "-1", "9" * 19, "9" * 20, "१", "1e3", " 1", "1\0")
_WIDTHS = (2, 9)
"""Input widths of the two models."""

_NUMBERS = (0.0, -0.0, 1.0, 1e6, -1e6, 1.1e6, 1e38, -1e38, 1e-45)
_NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


class Call(NamedTuple):
    """One call: its method, and its messages as they travel: several for a stream, else one."""

    method: str
    messages: Sequence[bytes]


def _steps(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


_value = st.sampled_from(_NUMBERS + _NOT_FINITE) | st.floats(width=32)
_inputs = st.one_of(
    # Whole steps of either model, all alike but for one value anywhere.
    st.builds(
        lambda steps, width, value, odd, place: _steps(
            [odd if index == place else value for index in range(steps * width)]
        ),
        st.integers(0, 40),
        st.sampled_from(_WIDTHS),
        st.sampled_from(_NUMBERS),
        _value,
        st.integers(0, 100),
    ),
    st.lists(_value, max_size=20).map(_steps),
    st.binary(max_size=80),
)


def _real() -> Mapping[str, tuple[Message, ...]]:
    """Requests as a client sends them, by method."""
    chunks = [
        pb.Chunk(session_id=session, inputs=_steps([1.0] * width * 3), first_step=0)
        for session, width in zip(SESSIONS, _WIDTHS, strict=True)
    ]
    chunks[1].traces.names.extend(["read_weighting", "add_vector"])
    chunks[1].traces.top_k = 3
    opening = pb.CreateSessionRequest(
        model="ledger", locations=20, idle_timeout=Duration(seconds=7, nanos=5)
    )
    again = pb.CreateSessionRequest(model="ledger", session_id="0123456789abcdef" * 2)
    operations = [
        pb.Operation(tag=1, open=opening),
        *(pb.Operation(tag=2, step=chunk) for chunk in chunks),
        pb.Operation(tag=3, close=SESSIONS[0]),
    ]
    named = SESSIONS[1]
    return {
        "ListModels": (pb.ListModelsRequest(),),
        "GetModel": (pb.GetModelRequest(name="ledger"),),
        "CreateSession": (opening, again),
        "GetSession": (pb.GetSessionRequest(session_id=named),),
        "ListSessions": (
            pb.ListSessionsRequest(page_size=1),
            *(pb.ListSessionsRequest(page_token=token) for token in _TOKENS),
        ),
        "ResetSession": (pb.ResetSessionRequest(session_id=named),),
        "DeleteSession": (pb.DeleteSessionRequest(session_id=named),),
        "ReadMemory": (pb.ReadMemoryRequest(session_id=named),),
        "Step": tuple(pb.StepRequest(chunk=chunk) for chunk in chunks),
        STREAM: (
            pb.StreamStepsRequest(operations=operations),
            *(pb.StreamStepsRequest(operations=[operation]) for operation in operations),
        ),
    }


REAL = _real()


def _request(method: str) -> st.SearchStrategy[bytes]:
    messages = altered(st.sampled_from(REAL[method]), (*_NAMES, *_TOKENS), _inputs)
    return damaged(messages.map(lambda message: message.SerializeToString()))


def _calls(methods: Sequence[str], maximum: int) -> st.SearchStrategy[list[Call]]:
    calls = [
        st.builds(Call, st.just(method), st.lists(_request(method), min_size=1, max_size=maximum))
        for method in methods
    ]
    return st.lists(st.one_of(calls), min_size=1, max_size=3)


unary_calls = _calls([method for method in REAL if method != STREAM], maximum=1)
"""A few calls at once."""

streams = _calls([STREAM], maximum=4)
"""A few streams at once, of a few messages each."""
