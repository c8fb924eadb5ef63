"""The answers of a served model, through the client library."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ntm_client import Client
from ntm_tasks import Batch, Float32

SESSIONS_AT_ONCE = 8


class ServedModel:
    """Runs each sequence in a session of its own; see `evaluation.Answers`."""

    def __init__(self, client: Client, name: str) -> None:
        """`name` is a model of the client's server."""
        self._client = client
        self._name = name

    def __call__(self, batch: Batch, locations: int) -> Float32:
        """Run whole sequences; return the probabilities [T, B, Y]."""
        sequences = batch.inputs.transpose(1, 0, 2)
        with ThreadPoolExecutor(SESSIONS_AT_ONCE) as pool:
            answers = pool.map(lambda inputs: self._answer(inputs, locations), sequences)
            return np.stack(list(answers), axis=1)

    def _answer(self, inputs: Float32, locations: int) -> Float32:
        with self._client.create_session(self._name, locations or None) as session:
            outputs: Float32 = session.step(inputs).array
            return outputs
