"""Results of the shipped models do not depend on who else is served, or on how steps are sent."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntm.v1 import ntm_pb2 as pb
from service.models.runtime import Network
from service.spec import Float32
from tests.conftest import Clock, Running, Serve
from tests.e2e.calls import Stream, chunk, opened, outputs, stepped
from tests.support import driving
from tests.support.served import MODELS

SHIPPED = ["copy-ntm-ff", "copy-ntm-lstm"]


def copy_inputs(length: int, seed: int) -> Float32:
    """A copy sequence: vectors of 8 bits, a delimiter on the ninth channel, room for the answer."""
    inputs = np.zeros((2 * length + 1, 9), np.float32)
    inputs[:length, :8] = np.random.default_rng(seed).integers(0, 2, (length, 8))
    inputs[length, 8] = 1
    return inputs


def wrong_bits(inputs: Float32, answer: Float32) -> int:
    """How many bits of the answer to a copy sequence are wrong."""
    length = len(inputs) // 2
    return int(((answer[length + 1 :] > 0.5) != (inputs[:length, :8] > 0.5)).sum())


def stepped_alone(network: Network, inputs: Float32, locations: int) -> Float32:
    """The outputs of a session that has the engine for itself."""
    engine = driving.engine(network, Clock())
    session = driving.opened(engine, locations)
    work = driving.chunk(session, inputs)
    driving.stepped(engine, work)
    return np.asarray(work.outcome.outputs)


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Network:
    """Each shipped model, loaded on the CPU."""
    return Network((MODELS / request.param / "model.onnx").read_bytes(), "cpu")


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_batched_equals_alone_whatever_the_batch(shipped: Network, data: st.DataObject) -> None:
    """Any number of sessions, chunk lengths and memory sizes: each gets the bits it gets alone."""
    count = data.draw(st.integers(2, 70), "sessions")
    burst = data.draw(st.integers(1, 8), "burst")
    engine = driving.engine(shipped, Clock(), max_burst=burst)
    works, expected = [], []
    for number in range(count):
        length = data.draw(st.integers(1, 6), "length")
        locations = data.draw(st.sampled_from([16, 17, 128]), "locations")
        inputs = copy_inputs(length, number)
        work = driving.chunk(driving.opened(engine, locations), inputs)
        engine.submit(work)
        if data.draw(st.booleans(), "turn"):
            engine.turn()
        works.append(work)
        expected.append(stepped_alone(shipped, inputs, locations))
    driving.run(engine)
    for work, alone in zip(works, expected, strict=True):
        assert work.outcome.outputs.tobytes() == alone.tobytes()


@pytest.mark.parametrize("model", sorted(path.parent.name for path in MODELS.glob("*/*.onnx")))
def test_every_model_gives_in_a_batch_what_it_gives_alone(model: str) -> None:
    """Thirty-nine sessions of unlike lengths, stepped together, each bit for bit as alone."""
    network = Network((MODELS / model / "model.onnx").read_bytes(), "cpu")
    generator = np.random.default_rng(3)
    shape = (9, network.spec.input_width)
    inputs = [generator.integers(0, 2, shape).astype(np.float32)[: 1 + n % 9] for n in range(39)]
    engine = driving.engine(network, Clock())
    works = [driving.chunk(driving.opened(engine, 0), each) for each in inputs]
    driving.stepped(engine, *works)
    for work, each in zip(works, inputs, strict=True):
        assert work.outcome is not None
        assert work.outcome.outputs.tobytes() == stepped_alone(network, each, 0).tobytes()


@pytest.mark.slow
async def test_64_streaming_sessions_equal_the_same_sessions_alone(serve: Serve) -> None:
    """Different models, lengths, memory sizes and chunks, all at once, bit for bit."""
    async with serve(models_dir=MODELS, models=",".join(SHIPPED)) as running:
        plans = [
            (SHIPPED[n % 2], 3 + n, (24 + 8 * (n % 5), 128, 100)[n % 3], 1 + n % 7)
            for n in range(64)
        ]
        together = await asyncio.gather(
            *(streamed(running, *plan, seed) for seed, plan in enumerate(plans))
        )
        for seed, (model, length, locations, _) in enumerate(plans):
            session = await opened(running, model, locations)
            alone = await stepped(running, session, copy_inputs(length, seed))
            assert together[seed].tobytes() == alone.tobytes()


async def streamed(
    running: Running, model: str, length: int, locations: int, size: int, seed: int
) -> Float32:
    """The outputs of a copy sequence sent over a stream of its own in chunks of that size."""
    stream = Stream(running)
    session = await stream.opened(model, locations)
    inputs, parts = copy_inputs(length, seed), []
    for first in range(0, len(inputs), size):
        part = chunk(session, inputs[first : first + size], first)
        await stream.send(pb.Operation(step=part))
        outcome = await stream.next()
        assert outcome is not None
        parts.append(outputs(outcome.reply))
    await stream.rest()
    return np.concatenate(parts)


@pytest.mark.parametrize("model", SHIPPED)
async def test_traces_leave_the_outputs_of_a_network_as_they_are(serve: Serve, model: str) -> None:
    """Every trace at once, against none: the same bytes."""
    async with serve(models_dir=MODELS, models=model) as running:
        described = await running.stub.GetModel(pb.GetModelRequest(name=model))
        names = [trace.name for trace in described.model.traces]
        inputs = copy_inputs(10, 1)
        plain = await stepped(running, await opened(running, model), inputs)
        traced = await stepped(running, await opened(running, model), inputs, names=names)
        assert names
        assert plain.tobytes() == traced.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("model", SHIPPED)
async def test_a_thousand_vectors_are_copied_without_a_wrong_bit(serve: Serve, model: str) -> None:
    """Trained on 1 to 20 vectors with 128 locations, served with 1,024."""
    async with serve(models_dir=MODELS, models=model) as running:
        session = await opened(running, model, 1024)
        inputs = copy_inputs(1000, 7)
        parts = [
            await stepped(running, session, inputs[first : first + 500], first_step=first)
            for first in range(0, len(inputs), 500)
        ]
        assert wrong_bits(inputs, np.concatenate(parts)) == 0
