"""Answers of the protocol."""

from __future__ import annotations

from functools import lru_cache

from service.engine.work import Chunk
from service.inference.v2 import inference_pb2 as pb
from service.rpc.inference import models
from service.rpc.inference.requests import DATATYPES, MAX_FORMS, Asked, Form
from service.spec import parts


def write(asked: Asked, chunk: Chunk, response: pb.ModelInferResponse) -> None:
    """Write the answer to a request whose chunk is made."""
    form, outcome = asked.form, chunk.outcome
    response.MergeFromString(_outline(form))
    response.id = asked.request_id
    parameters = response.parameters
    parameters["next_step"].int64_param = outcome.first_step + form.steps
    if chunk.epoch:
        parameters["durable_step"].int64_param = chunk.durable_step
        parameters["epoch"].int64_param = chunk.epoch
    outputs = form.spec.outputs
    made = {
        tensor.name: values
        for tensor, values in zip(outputs, parts(outcome.outputs, outputs), strict=True)
    }
    for rows in outcome.traces:
        made.setdefault(rows.name, rows.values)
    for name in form.wanted:
        response.raw_output_contents.append(made[name].tobytes())
    for rows in outcome.traces:
        output = response.outputs[form.wanted.index(rows.name)]
        output.shape.extend(rows.values.shape[1:])


@lru_cache(MAX_FORMS)
def _outline(form: Form) -> bytes:
    """What all answers to requests of a form have; the shapes of traces lack heads and width."""
    response = pb.ModelInferResponse(
        model_name=form.model, model_version=models.number(form.version)
    )
    outputs = {tensor.name: tensor for tensor in form.spec.outputs}
    axes = (1, form.steps) if form.is_chunk else (1,)
    for name in form.wanted:
        tensor = outputs.get(name)
        response.outputs.add(
            name=name,
            datatype=DATATYPES[tensor.type if tensor else "float32"],
            shape=(*axes, *(tensor.shape if tensor else ())),
        )
    return response.SerializeToString()
