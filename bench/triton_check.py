"""Check that Triton carries the state of each sequence; runs in Triton's environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime
from tritonclient import grpc

from service.spec import METADATA_KEY, Float32, ModelSpec

TOLERANCE = 1e-5


def main(address: str, model: str, graph: Path, sequences: Path) -> str | None:
    """Return how Triton's outputs for the sequences of a file differ, or None if they agree."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    spec = ModelSpec.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    inputs = [
        np.array([step[spec.input] for step in steps], np.float32)
        for steps in json.loads(sequences.read_text(encoding="utf-8"))["data"]
    ]
    served = _streamed(address, model, spec, inputs)
    apart = max(
        float(np.abs(outputs - _stepped(session, spec, steps)).max())
        for outputs, steps in zip(served, inputs, strict=True)
    )
    return None if apart <= TOLERANCE else f"Triton's outputs and onnxruntime's differ by {apart}"


def _streamed(
    address: str, model: str, spec: ModelSpec, inputs: Sequence[Float32]
) -> list[Float32]:
    """Return the outputs of all sequences, stepped together on one stream."""
    replies: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    outputs = [np.empty((len(steps), spec.output_width), np.float32) for steps in inputs]
    with grpc.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: replies.put((result, error)))
        for step in range(max(map(len, inputs))):
            running = [index for index, steps in enumerate(inputs) if step < len(steps)]
            for index in running:
                tensor = grpc.InferInput(spec.input, [1, spec.input_width], "FP32")
                tensor.set_data_from_numpy(inputs[index][step : step + 1])
                client.async_stream_infer(
                    model,
                    [tensor],
                    request_id=str(index),
                    sequence_id=index + 1,
                    sequence_start=step == 0,
                    sequence_end=step == len(inputs[index]) - 1,
                )
            for _ in running:
                result, error = replies.get(timeout=30)
                if error:
                    raise error
                outputs[int(result.get_response().id)][step] = result.as_numpy(spec.output)[0]
    return outputs


def _stepped(session: onnxruntime.InferenceSession, spec: ModelSpec, inputs: Float32) -> Float32:
    """Return the outputs of one sequence, computed by the plain graph."""
    states = [tensor.initial_value(spec.default_locations)[None] for tensor in spec.state]
    names = [spec.output, *(tensor.output for tensor in spec.state)]
    outputs = []
    for step in inputs:
        feeds = {tensor.input: state for tensor, state in zip(spec.state, states, strict=True)}
        output, *states = session.run(names, {spec.input: step[None], **feeds})
        outputs.append(output[0])
    return np.stack(outputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
