"""Inputs, outputs and states of each type, from the client to the network and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ntm.tensors import TYPES, Array, Type
from ntm.v1 import ntm_pb2 as pb
from ntm_client import AsyncClient, InvalidArgument
from tests.conftest import Running, Serve
from tests.e2e.calls import opened, reason
from tests.e2e.test_rpcs import refused
from tests.e2e.versions import put
from tests.support.rich_models import of_type

STEPS: dict[Type, list[list[Any]]] = {
    "float32": [[0.1, -1e6, 0], [3, 1e-3, 1]],
    "float16": [[0.1, -65000, 0], [3, 1e-3, 1]],
    "int64": [[2**53, -(2**63), 0], [1, 2**62, -1]],
    "int32": [[2**31 - 2, -(2**31), 0], [-1, 5, -1]],
    "bool": [[True, False, True], [False, True, True]],
}
"""Two steps of each type, with values that another type would not hold."""

GIVEN: dict[Type, list[list[Any]]] = {
    "float32": [[np.float32(1) + np.float32(0.1), -999999, 1], [np.float32(4.1), -999999, 2]],
    "float16": [[1.0996, -64992, 1], [4.1, -64992, 2]],
    "int64": [[2**53 + 1, 1 - 2**63, 1], [2**53 + 2, 1 - 2**62, 0]],
    "int32": [[2**31 - 1, 1 - 2**31, 1], [2**31 - 2, 6 - 2**31, 0]],
    "bool": [[False, True, False], [False, False, True]],
}
"""Their running sums from 1 on, to the type's precision."""

WRONG: list[tuple[Type, Any, str]] = [
    ("bool", [[0, 2, 1]], r"'x' must be whole numbers from 0 to 1; the value at \[0, 1\] is 2"),
    ("bool", [[0.0, 1.0, 1.0]], "'x' must be bool, not values of type float64: convert them first"),
    ("int32", [[1, 2**31, 1]], r"numbers from -2147483648 to 2147483647; the value at \[0, 1\] is"),
    ("int32", [[1.5, 1, 1]], "'x' must be int32, not values of type float64"),
    ("int64", [["1", "2", "3"]], "'x' must be int64, not values of type <U1"),
    ("int64", np.array([[1, 2**63, 1]], np.uint64), r"at \[0, 1\] is 9223372036854775808"),
    ("int64", [[1, 2**63, 1]], "'x' must be int64, not values of type float64"),
    ("float16", [[1, 70000, 1]], r"'x' must be finite as float16; the value at \[0, 1\] is 70000"),
    ("float16", [[1, np.nan, 1]], "'x' must be finite"),
    *(
        (each, [[1, 1]], rf"takes x {each}\[3\]; 'x' has the shape \[1, 2\]")
        for each in list(STEPS)[1:]
    ),
    ("float32", [[1, 1]], "a step of float32 takes 3 values; the inputs have the shape 1 x 2"),
]


@pytest.fixture
async def running(serve: Serve, tmp_path: Path) -> AsyncIterator[Running]:
    """A server of a model of each type."""
    for type_ in get_args(Type):
        put(tmp_path, of_type(type_), type_)
    async with serve(models_dir=tmp_path) as server:
        yield server


@pytest.mark.parametrize("type_", get_args(Type))
async def test_steps_of_a_type_come_back_in_it(running: Running, type_: Type) -> None:
    """Values at the type's limits, several steps or one, and the state after a checkpoint."""
    async with AsyncClient(running.address) as client, client.stream() as stream:
        session = await client.create_session(type_)
        both = (await session.step(STEPS[type_])).array
        other = await stream.open(type_)
        first = (await other.step(STEPS[type_][0])).array
        restored = await client.create_session(type_, checkpoint=await other.checkpoint())
        second = (await restored.step({"x": STEPS[type_][1]})).array

    expected = np.array(GIVEN[type_], TYPES[type_])
    for found, wanted in ((both, expected), (first, expected[0]), (second, expected[1])):
        assert found.dtype == TYPES[type_]
        if TYPES[type_].kind == "f":
            np.testing.assert_array_max_ulp(found, wanted, 1, TYPES[type_])
        else:
            assert found.tolist() == wanted.tolist()
    assert both[1].tobytes() == second.tobytes()


@pytest.mark.parametrize(("type_", "inputs", "words"), WRONG)
async def test_wrong_values_are_refused_by_the_client(
    running: Running, type_: Type, inputs: Any, words: str
) -> None:
    """Of a wrong type, too large or of another shape; the session goes on."""
    async with AsyncClient(running.address) as client:
        session = await client.create_session(type_)
        with pytest.raises(InvalidArgument, match=words):
            await session.step(inputs)
        made: Array = (await session.step(np.zeros((1, 3), TYPES[type_]))).array

    assert made.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("type_", "content", "words"),
    [
        ("bool", bytes([0, 2, 1]), "input 2 at step 0 of the chunk, channel 1: a bool is the byte"),
        ("bool", bytes(4), "inputs are 4 bytes; a chunk is one or more steps of 3 each: x bool[3]"),
        ("int32", bytes(16), "inputs are 16 bytes; a chunk is one or more steps of 12 each"),
        ("int64", bytes(12), "inputs are 12 bytes; a chunk is one or more steps of 24 each"),
        ("float16", np.array([1, np.nan, 1], "<f2").tobytes(), "input nan at step 0 of the chunk"),
        ("float16", np.array([1, 1, -np.inf], "<f2").tobytes(), "input -inf at step 0 of the chu"),
    ],
)
async def test_wrong_bytes_are_refused_by_the_server(
    running: Running, type_: Type, content: bytes, words: str
) -> None:
    """Whatever client sends them, with the place; the session goes on."""
    session = await opened(running, type_)

    def step(content: bytes) -> Any:
        chunk = pb.Chunk(session_id=session, inputs=content)
        return running.stub.Step(pb.StepRequest(chunk=chunk))

    error = await refused(step(content))
    assert reason(error) == "INVALID_REQUEST"
    assert words in str(error.details())
    reply = (await step(np.zeros((2, 3), TYPES[type_]).tobytes())).reply
    assert np.frombuffer(reply.outputs, TYPES[type_]).tolist() == [1] * 6
