"""A sequence of Triton's client outlives the servers that it runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from service.spec import Float32
from tests.stress.balancers.balancing import ENVOY, balancing
from tests.stress.balancers.replicas import MODEL, Replica, replicas
from tests.stress.balancers.test_envoy import asked

STEPS = 60
KILLED_AT = (20, 40)
"""The steps at which the replica with the sequence is killed."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(ENVOY.path is None, reason=f"envoy is not installed: {ENVOY.install}"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Three replicas that share a store."""
    with replicas(tmp_path_factory.mktemp("replicas")) as started:
        yield started


def step(client: Any, sequence: str, number: int, inputs: Float32) -> bytes:
    """The output of a step, which is asked for again until a replica answers."""
    tensor = triton.InferInput("x", [1, inputs.shape[1]], "FP32")
    tensor.set_data_from_numpy(inputs[number : number + 1])
    while True:
        try:
            answer = client.infer(
                MODEL,
                [tensor],
                sequence_id=sequence,
                sequence_start=number == 0,
                sequence_end=number == STEPS - 1,
                parameters={"first_step": number},
                headers={"x-session-id": sequence},
                client_timeout=20,
            )
        except InferenceServerException as error:
            if error.status() not in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND"):
                raise
        else:
            outputs: Float32 = answer.as_numpy("y")
            return outputs.tobytes()


def test_a_killed_server_changes_no_bit_of_a_sequence(site: list[Replica], tmp_path: Path) -> None:
    """Its replica is killed twice while a step is under way; Envoy leads it to another one."""
    inputs = np.random.default_rng(3).normal(size=(STEPS, 9)).astype(np.float32)
    with (
        balancing(ENVOY, site, tmp_path) as address,
        grpc.insecure_channel(address) as channel,
        triton.InferenceServerClient(address) as client,
    ):
        expected = [step(client, "alone", number, inputs) for number in range(STEPS)]
        made = []
        for number in range(STEPS):
            if number in KILLED_AT:
                ((where, _),) = asked(channel, ["disturbed"])
                replica = next(each for each in site if each.address == where)
                killing = threading.Thread(target=replica.kill)
                killing.start()
                made.append(step(client, "disturbed", number, inputs))
                killing.join()
                replica.start()
                replica.wait()
            else:
                made.append(step(client, "disturbed", number, inputs))
    assert made == expected
