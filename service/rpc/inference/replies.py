"""Answers of the protocol."""

from __future__ import annotations

from service.engine.work import Chunk
from service.inference.v2 import inference_pb2 as pb
from service.rpc.inference.requests import DATATYPES, Asked
from service.spec import ModelSpec, parts


def encode(asked: Asked, chunk: Chunk, spec: ModelSpec, version: str) -> pb.ModelInferResponse:
    """The answer to a request whose chunk is made, of a model with this spec."""
    outcome = chunk.outcome
    steps = len(outcome.outputs)
    response = pb.ModelInferResponse(
        model_name=asked.model, model_version=version, id=asked.request_id
    )
    parameters = response.parameters
    parameters["next_step"].int64_param = outcome.first_step + steps
    if chunk.epoch:
        parameters["durable_step"].int64_param = chunk.durable_step
        parameters["epoch"].int64_param = chunk.epoch
    made = {
        tensor.name: (DATATYPES[tensor.type], tensor.shape, values)
        for tensor, values in zip(spec.outputs, parts(outcome.outputs, spec.outputs), strict=True)
    }
    for rows in outcome.traces:
        made.setdefault(rows.name, (DATATYPES["float32"], rows.values.shape[1:], rows.values))
    axes = (1, steps) if asked.is_chunk else (1,)
    for name in asked.wanted:
        kind, shape, values = made[name]
        response.outputs.add(name=name, datatype=kind, shape=(*axes, *shape))
        response.raw_output_contents.append(values.tobytes())
    return response
