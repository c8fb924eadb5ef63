"""Triton's model: steps the sequences of a batch together; keeps states by correlation id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

from service.spec import METADATA_KEY, Float32, ModelSpec

START, END = 1, 2
"""Triton's flags of a sequence's first and last request."""


class TritonPythonModel:
    """The class that Triton's Python backend loads: a network and the states of its sequences."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the step graph beside this file."""
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # as our server has it
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._spec = ModelSpec.from_json(metadata[METADATA_KEY])
        self._outputs = [self._spec.output, *(tensor.output for tensor in self._spec.state)]
        self._initial = [
            tensor.initial_value(self._spec.default_locations) for tensor in self._spec.state
        ]
        self._states: dict[int, list[Float32]] = {}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Make one step of the sequence of each request."""
        sequences = [request.correlation_id() for request in requests]
        for request, sequence in zip(requests, sequences, strict=True):
            if request.flags() & START:
                self._states[sequence] = self._initial
        output, *states = self._session.run(self._outputs, self._feeds(requests, sequences))
        for row, (request, sequence) in enumerate(zip(requests, sequences, strict=True)):
            if request.flags() & END:
                del self._states[sequence]
            else:
                self._states[sequence] = [state[row] for state in states]
        return [
            triton.InferenceResponse([triton.Tensor(self._spec.output, output[row : row + 1])])
            for row in range(len(requests))
        ]

    def _feeds(self, requests: Sequence[Any], sequences: Sequence[int]) -> dict[str, Float32]:
        """Return the inputs of the graph: a row for each request."""
        name = self._spec.input
        inputs = [triton.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
        feeds = {name: np.concatenate(inputs)}
        for index, tensor in enumerate(self._spec.state):
            feeds[tensor.input] = np.stack([self._states[one][index] for one in sequences])
        return feeds
