"""Answers of the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ntm.v1 import ntm_pb2
from service.inference.v2 import inference_pb2 as pb
from service.rpc.inference.requests import DATATYPES, Asked
from service.spec import ModelSpec, parts, record


def encode(
    asked: Asked, reply: ntm_pb2.Reply, spec: ModelSpec, version: str
) -> pb.ModelInferResponse:
    """The answer to a request from the reply of our own API, of a model with this spec."""
    response = pb.ModelInferResponse(
        model_name=asked.model, model_version=version, id=asked.request_id
    )
    parameters = response.parameters
    parameters["next_step"].int64_param = reply.next_step
    if reply.epoch:
        parameters["durable_step"].int64_param = reply.durable_step
        parameters["epoch"].int64_param = reply.epoch
    steps = reply.next_step - reply.first_step
    made = {name: (kind, shape, content) for name, kind, shape, content in _tensors(reply, spec)}
    for name in asked.wanted:
        kind, shape, content = made[name]
        sizes = (1, steps, *shape) if asked.is_chunk else (1, *shape)
        response.outputs.add(name=name, datatype=kind, shape=sizes)
        response.raw_output_contents.append(content)
    return response


def _tensors(
    reply: ntm_pb2.Reply, spec: ModelSpec
) -> Iterator[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, type, shape for one step, and content of each tensor of a reply."""
    if len(spec.outputs) == 1:
        contents = [reply.outputs]
    else:
        records = np.frombuffer(reply.outputs, record(spec.outputs))
        contents = [each.tobytes() for each in parts(records, spec.outputs)]
    for trace in reply.traces:
        yield trace.name, DATATYPES["float32"], (trace.heads, trace.width), trace.values
    for tensor, content in zip(spec.outputs, contents, strict=True):
        yield tensor.name, DATATYPES[tensor.type], tensor.shape, content
