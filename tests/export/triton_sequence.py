"""
Steps a model repository of Triton as Triton does: by its configuration, and nothing else.

A program of its own, with tritonclient for the configuration's messages. States are paired by their
places in two sorted lists, as Triton pairs them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton
from tritonclient.grpc.model_config_pb2 import ModelConfig

TYPES = {
    triton.TYPE_BOOL: np.bool_,
    triton.TYPE_INT32: np.int32,
    triton.TYPE_INT64: np.int64,
    triton.TYPE_FP16: np.float16,
    triton.TYPE_FP32: np.float32,
}


def main(folder: Path, inputs: Path, outputs: Path) -> None:
    """Step every row of `inputs` [T, B, X], and write the outputs [T, B, Y] and what was read."""
    configuration = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), ModelConfig())
    states = configuration.sequence_batching.state
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "1" / configuration.default_model_filename,
        options,
        providers=["CPUExecutionProvider"],
    )
    (output,) = configuration.output
    (taken,) = configuration.input
    reshaped = taken.reshape.shape if taken.HasField("reshape") else None
    steps = np.load(inputs)
    lead = [steps.shape[1]] if configuration.max_batch_size else []
    kept = {}
    for each in states:
        (initial,) = each.initial_state
        content = (folder / "initial_state" / initial.data_file).read_bytes()
        one = np.frombuffer(content, TYPES[initial.data_type]).reshape(initial.dims)
        kept[each.input_name] = np.broadcast_to(one, [*lead, *each.dims])
    read = sorted(kept)
    written = sorted(each.output_name for each in states)
    made = []
    for step in steps:
        fed = step.reshape(*lead, *reshaped) if reshaped is not None else step
        y, *after = session.run([output.name, *written], {taken.name: fed, **kept})
        kept = dict(zip(read, after, strict=True))
        made.append(y.reshape(*lead, *output.dims))
    np.save(outputs, np.stack(made))
    described = {
        "name": configuration.name,
        "backend": configuration.backend,
        "max_batch_size": configuration.max_batch_size,
        "graph": [each.name for each in session.get_outputs()],
        "idle": configuration.sequence_batching.max_sequence_idle_microseconds,
    }
    sys.stdout.write(json.dumps(described))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
