"""What a hostile client sends: calls of every method, their requests altered and damaged."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import strategies as st

from ntm.v1 import ntm_pb2 as pb
from service.inference.v2 import inference_pb2
from tests.stress.fuzz.alterations import altered
from tests.stress.fuzz.edits import damaged

STREAM = "StreamSteps"
INFER = "/inference.GRPCInferenceService/"
"""What the names of the methods of the Open Inference Protocol begin with."""

INFER_STREAM = f"{INFER}ModelStreamInfer"

SESSIONS = ("a" * 32, "b" * 32)
"""Stand in requests for the ids of the open sessions, which are as long: of each model one."""

_NAMES = ("ledger", "copy-ntm-ff", *SESSIONS, "0" * 32, "read_weighting", "add_vector", "")
_WORDS = (
    "x",
    "y",
    "memory",
    "FP32",
    "INT64",
    "sequence_id",
    "sequence_start",
    "locations",
    "triton_x",
)
"""Names that mean something in the Open Inference Protocol."""

_TOKENS = ("0", "1", "-1", "9" * 19, "9" * 20, "१", "1e3", " 1", "1\0")
_WIDTHS = (2, 9)
"""Input widths of the two models."""

_NUMBERS = (0.0, -0.0, 1.0, 1e6, -1e6, 1.1e6, 1e38, -1e38, 1e-45)
_NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


class Call(NamedTuple):
    """
    One call: its method, by the whole path if it is none of our own API's, and its messages as they
    travel: several for a stream, else one.
    """

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


def _real() -> dict[str, tuple[Message, ...]]:
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


def _inferences() -> dict[str, tuple[Message, ...]]:
    """Requests as a client of Triton sends them, by method."""
    infer = []
    for model, name, width in (("ledger", "x", 2), ("copy-ntm-ff", "x", 9)):
        for is_start, is_end, steps in ((True, False, 1), (False, True, 3)):
            request = inference_pb2.ModelInferRequest(model_name=model, id="7")
            request.parameters["sequence_id"].int64_param = 3
            request.parameters["sequence_start"].bool_param = is_start
            request.parameters["sequence_end"].bool_param = is_end
            request.parameters["first_step"].int64_param = 0
            request.inputs.add(name=name, datatype="FP32", shape=[1, steps, width])
            request.raw_input_contents.append(_steps([1.0] * width * steps))
            request.outputs.add(name="y")
            infer.append(request)
    typed = inference_pb2.ModelInferRequest()
    typed.CopyFrom(infer[0])
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    typed.parameters["sequence_id"].string_param = "three"
    named = {"name": "ledger"}
    return {
        "ModelInfer": (*infer, typed),
        "ModelStreamInfer": (*infer, typed),
        "ModelReady": (inference_pb2.ModelReadyRequest(**named),),
        "ModelMetadata": (inference_pb2.ModelMetadataRequest(**named),),
        "ModelConfig": (inference_pb2.ModelConfigRequest(**named),),
        "ModelStatistics": (inference_pb2.ModelStatisticsRequest(**named),),
        "RepositoryIndex": (inference_pb2.RepositoryIndexRequest(),),
    }


REAL = _real() | {INFER + method: real for method, real in _inferences().items()}


def _request(method: str) -> st.SearchStrategy[bytes]:
    messages = altered(st.sampled_from(REAL[method]), (*_NAMES, *_WORDS, *_TOKENS), _inputs)
    return damaged(messages.map(lambda message: message.SerializeToString()))


def _calls(methods: Sequence[str], maximum: int) -> st.SearchStrategy[list[Call]]:
    calls = [
        st.builds(Call, st.just(method), st.lists(_request(method), min_size=1, max_size=maximum))
        for method in methods
    ]
    return st.lists(st.one_of(calls), min_size=1, max_size=3)


unary_calls = _calls([name for name in REAL if name != STREAM and INFER not in name], maximum=1)
"""A few calls at once."""

streams = _calls([STREAM], maximum=4)
"""A few streams at once, of a few messages each."""

inferences = _calls([name for name in REAL if INFER in name and name != INFER_STREAM], maximum=1)
"""A few calls of the Open Inference Protocol at once."""

infer_streams = _calls([INFER_STREAM], maximum=6)
"""A few streams of it at once, of a few messages each."""
