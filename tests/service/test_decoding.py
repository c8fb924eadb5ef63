"""Requests are decoded only if that costs no more than their bytes."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from service import decoding
from service.decoding import MAX_PARTS
from service.errors import InvalidRequest
from service.inference.v2 import inference_pb2


def test_bytes_of_another_message_are_an_invalid_request() -> None:
    """The words have their number, and what may be wrong."""
    with pytest.raises(InvalidRequest, match="a request of 2 bytes cannot be decoded"):
        decoding.request(pb.StepRequest, b"\xff\xff")


def test_large_requests_are_decoded_as_they_are() -> None:
    """A megabyte of inputs, alone and in many operations, some of which have parts themselves."""
    chunk = pb.Chunk(session_id="a" * 32, inputs=bytes(1 << 20))
    step = pb.StepRequest(chunk=chunk)
    assert decoding.request(pb.StepRequest, step.SerializeToString()) == step
    opening = pb.CreateSessionRequest(initial=[pb.TensorValue(name="h", data=bytes(300_000))])
    operations = [pb.Operation(tag=1)] * (MAX_PARTS - 1) + [pb.Operation(open=opening)]
    stream = pb.StreamStepsRequest(operations=operations)
    assert decoding.request(pb.StreamStepsRequest, stream.SerializeToString()) == stream


MANY = MAX_PARTS + 1

FLOODS = {
    "operations": pb.StreamStepsRequest(operations=[pb.Operation()] * MANY),
    "initial": pb.CreateSessionRequest(initial=[pb.TensorValue()] * MANY),
    "initial of an operation": pb.StreamStepsRequest(
        operations=[pb.Operation(open=pb.CreateSessionRequest(initial=[pb.TensorValue()] * MANY))]
    ),
    "inputs": inference_pb2.ModelInferRequest(
        inputs=[inference_pb2.ModelInferRequest.InferInputTensor()] * MANY
    ),
}


@pytest.mark.parametrize("request_", FLOODS.values(), ids=FLOODS)
def test_messages_of_too_many_parts_are_refused(request_: Message) -> None:
    """Wherever the parts are; the words have the field and the number."""
    with pytest.raises(InvalidRequest, match=rf"has {MANY} \w+; send at most {MAX_PARTS}"):
        decoding.request(type(request_), request_.SerializeToString())


def test_entries_of_a_map_are_parts_too() -> None:
    """Also those of one key, of which one would be left."""
    entry = b"\x22\x00"  # field 4, parameters, without key and value
    with pytest.raises(InvalidRequest, match="ModelInferRequest has 65537 parameters"):
        decoding.request(inference_pb2.ModelInferRequest, entry * MANY)
