"""Triton's configuration of a model, `config.pbtxt`."""

from __future__ import annotations

import json

from export.triton.graph import Carried, Port, TritonModel

IDLE_SECONDS = 300
"""How long Triton keeps a sequence without a step: our server's default. Triton's is a second."""

MAX_BATCH = 64
MAX_SEQUENCES = 1024
"""The most sequences at once; those that begin later wait until one ends."""

INITIAL_STATE = "initial_state"
"""The folder of the files with the states of a new sequence; its name is Triton's."""

_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "bool": "TYPE_BOOL",
}


def configuration(name: str, model: TritonModel) -> str:
    """Return the text of `config.pbtxt`, for a model of this name."""
    states = "\n".join(map(_state, model.state))
    return f"""\
# README.md says what Triton keeps of the model, and what is lost.
name: {_text(name)}
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: {MAX_BATCH if model.batched else 0}
{_ports("input", model.inputs)}
{_ports("output", model.outputs)}
instance_group [ {{ count: 1 }} ]
# Each run is small, and threads would wait for each other.
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
# Without this, GPUs multiply with 10 bits of a mantissa, and states drift.
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator [
      {{ name: "cuda" parameters {{ key: "use_tf32" value: "0" }} }}
    ]
  }}
}}
# Triton pairs the inputs and outputs of states by their places among all names, sorted: a state
# that is added or renamed must not change one order alone. No state is among the outputs above.
sequence_batching {{
  max_sequence_idle_microseconds: {IDLE_SECONDS * 1_000_000}
  oldest {{ max_candidate_sequences: {MAX_SEQUENCES} }}
{states}
}}
"""


def _ports(kind: str, ports: tuple[Port, ...]) -> str:
    return "\n".join(
        f"{kind} {{ name: {_text(port.name)} {_shape(port)}"
        f"{'' if port.shape else ' reshape { shape: [] }'} }}"
        for port in ports
    )


def _state(carried: Carried) -> str:
    shape = _shape(carried.input)
    return f"""\
  state {{
    input_name: {_text(carried.input.name)}
    output_name: {_text(carried.output)}
    {shape}
    initial_state {{ name: {_text(carried.name)} {shape} data_file: {_text(carried.file)} }}
  }}"""


def _shape(port: Port) -> str:
    return f"data_type: {_TYPES[port.type]} dims: [ {', '.join(map(str, port.dims))} ]"


def _text(value: str) -> str:
    """The value in quotation marks, as protobuf's text format reads it."""
    return json.dumps(value, ensure_ascii=False)
