"""Every argument of every public function with every odd value: a clear error, or it works."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ntm_client
from ntm.checkpoint import Checkpoint as Plain
from ntm_client import (
    AsyncClient,
    AsyncSession,
    Client,
    ClientClosed,
    Durability,
    InvalidArgument,
    InvalidRequest,
    NtmClientError,
    Resume,
    Session,
    StepIndexMismatch,
    Stream,
    StreamClosed,
    TokenNotSent,
    checkpoint,
    errors,
    tls,
    values,
)
from ntm_client.checkpoint import Checkpoint
from tests.client.conftest import Running
from tests.client.fake_server import ABORTED, FakeServer, refuse
from tests.e2e.calls import until


class Hostile:
    """An object that raises whatever it is asked."""

    def __array__(self, *_: object, **__: object) -> None:
        """Raise what numpy does not expect."""
        raise RuntimeError("this tensor needs a gradient")

    def __repr__(self) -> str:
        """Raise in the making of an error message."""
        raise RuntimeError("no words")


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    1.5,
    2**70,
    -math.inf,
    math.inf,
    math.nan,
    1 + 2j,
    np.int64(-3),
    np.float32(2),
    np.complex64(1j),
    "",
    "sync",
    "\ud800",
    "line\nbreak",
    "x" * 10_000,
    b"",
    b"\xff\xfe",
    bytearray(b"3"),
    [],
    ["x"],
    [None],
    [[1], [2, 3]],
    {},
    {"a": 1},
    object(),
    Hostile(),
    int,
    lambda: 5,
    timedelta(0),
    timedelta(-1),
    timedelta.max,
    Path("nowhere"),
    Durability("none"),
    Resume(),
    np.array([1j, 2, 3]),
    np.array(["1", "2", "3"]),
    np.array([1, None, 3], object),
    np.array([1, math.nan, 3]),
    np.array([1, 1e300, 3]),
    np.ma.masked_equal([1, 2, 3], 2),
    np.array([[[1.0]]]),
    np.array(["2026-01-01"] * 3, "datetime64[D]"),
    np.zeros((0, 3)),
]

INTERNAL = {"answer", "begin", "call", "call_by", "check_open", "explained", "run"}
"""Methods that the package's own parts call."""

CLOSING = {"close", "delete"}


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def methods(kind: type) -> list[str]:
    """The public methods of a class that take arguments."""
    return [
        name
        for name, function in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in INTERNAL and parameters(function)
    ]


def required(function: Callable[..., Any]) -> set[str]:
    """The arguments that have no default."""
    found = inspect.signature(function).parameters.values()
    return {each.name for each in found if each.default is inspect.Parameter.empty} - {"self"}


def attempts(function: Callable[..., Any], good: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Arguments of which one is odd, for each argument and odd value."""
    needed = {name: good[name] for name in required(function)}
    for name in parameters(function):
        for odd in ODD:
            yield {**needed, name: odd}


async def done(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Call a function, which works or raises an error of this package; nothing else."""
    try:
        result = function(**arguments)
        if inspect.isawaitable(result):
            await result
    except NtmClientError:
        pass
    except OSError:
        assert function is tls, "only tls says that it reads files"


GOOD: dict[str, Any] = {"model": "sums", "name": "sums", "inputs": [1, 2, 3], "checkpoint": b"0"}


@pytest.mark.parametrize("method", methods(Client))
async def test_methods_of_a_client(running: Running, method: str) -> None:
    """A blocking client's methods."""
    with Client(running.address, timeout_seconds=20, resume=None) as client:
        session = client.create_session("sums")
        good = {**GOOD, "session_id": session.id}
        for arguments in attempts(getattr(client, method), good):
            await done(getattr(client, method), arguments)


@pytest.mark.parametrize("method", methods(Session))
async def test_methods_of_a_session(running: Running, method: str) -> None:
    """A blocking client's session."""
    with Client(running.address, timeout_seconds=20) as client:
        session = client.create_session("sums")
        for arguments in attempts(getattr(session, method), GOOD):
            await done(getattr(session, method), arguments)


@pytest.mark.parametrize("method", methods(AsyncClient))
async def test_methods_of_an_asynchronous_client(running: Running, method: str) -> None:
    """An asynchronous client's methods."""
    async with AsyncClient(running.address, timeout_seconds=20, resume=None) as client:
        session = await client.create_session("sums")
        good = {**GOOD, "session_id": session.id}
        for arguments in attempts(getattr(client, method), good):
            await done(getattr(client, method), arguments)


@pytest.mark.parametrize("method", methods(AsyncSession))
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_methods_of_an_asynchronous_session(
    running: Running, method: str, is_streamed: bool
) -> None:
    """An asynchronous client's session, and one on a stream."""
    client = AsyncClient(running.address, timeout_seconds=20)
    async with client, client.stream() as stream:
        session = await (stream.open("sums") if is_streamed else client.create_session("sums"))
        for arguments in attempts(getattr(session, method), GOOD):
            await done(getattr(session, method), arguments)
        assert stream._operations is not None
        assert stream._operations.broken is None


@pytest.mark.parametrize("method", methods(Stream))
async def test_methods_of_a_stream(running: Running, method: str) -> None:
    """A stream's methods."""
    client = AsyncClient(running.address, timeout_seconds=20, resume=None)
    async with client, client.stream() as stream:
        session = await stream.open("sums")
        good = {**GOOD, "session_id": session.id}
        for arguments in attempts(getattr(stream, method), good):
            await done(getattr(stream, method), arguments)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_making_a_client(running: Running, kind: Any) -> None:
    """What a client is made of is wrong when it is made, or at the first call."""
    for arguments in attempts(kind.__init__, {}):
        given = {"target": running.address, "timeout_seconds": 20, "resume": None, **arguments}

        async def used(**given: Any) -> None:
            client = kind(**given)
            try:
                if given["target"] == running.address:
                    found = client.models()
                    await found if inspect.isawaitable(found) else None
            finally:
                closed = client.close()
                await closed if inspect.isawaitable(closed) else None

        await done(used, given)


CHECKPOINT = Checkpoint("ab" * 32, 4, 2, {"memory": np.zeros(8, np.float32)})


@pytest.mark.parametrize(
    ("function", "good"),
    [
        (Resume, {}),
        (Durability, {"policy": "asynchronous"}),
        (tls, {}),
        (checkpoint.decode, {"data": b"NTMC"}),
        (checkpoint.encode, {"checkpoint": CHECKPOINT}),
        (CHECKPOINT.tensor, {"name": "memory", "model": None}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
async def test_functions_without_a_client(function: Callable[..., Any], good: Any) -> None:
    """Settings and checkpoints."""
    for arguments in attempts(function, good):
        await done(function, arguments)


async def test_values_of_a_checkpoint() -> None:
    """New values of a tensor, and checkpoints that are put together by hand."""
    for odd in ODD:
        await done(CHECKPOINT.changed, {"memory": odd})
        for name in ("content_hash", "locations", "next_step", "state"):
            given = {**vars(CHECKPOINT), name: odd}
            await done(checkpoint.encode, {"checkpoint": Plain(**given)})


def test_every_public_function_is_tried() -> None:
    """The tests above name every public class and function of the package."""
    tried = {Client, Session, AsyncClient, AsyncSession, Stream, Resume, Durability, tls}
    tried.add(ntm_client.Tls)  # which `tls` makes
    plain = {each for each in vars(values).values() if isinstance(each, type)}
    public = {getattr(ntm_client, name) for name in ntm_client.__all__}
    failures = {each for each in public if isinstance(each, type) and issubclass(each, Exception)}
    assert public - tried - plain - failures == {ntm_client.Token}
    assert set(checkpoint.__all__) == {"Checkpoint", "decode", "encode"}


@pytest.mark.parametrize("module", [errors, values])
def test_everything_public_is_named_by_the_package(module: ModuleType) -> None:
    """Each error and each value can be imported from the package itself."""
    own = {
        name
        for name, each in vars(module).items()
        if inspect.isclass(each) and each.__module__ == module.__name__
    }
    assert own - set(ntm_client.__all__) == set()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"durability": "sync"}, "must be a Durability, such as .*'synchronous'.* not 'sync'"),
        ({"idle_timeout": -1}, r"idle_timeout must be a timedelta, such as .*, not -1"),
        ({"locations": -1}, "locations must be a whole number from 0 to 4294967295, not -1"),
        ({"model": None}, "model must be the name of a model, such as .*, not None"),
        ({"checkpoint": "saved"}, "checkpoint must be bytes, not 'saved'"),
    ],
)
def test_wrong_arguments_are_told_with_what_is_right(
    client: Client, arguments: dict[str, Any], told: str
) -> None:
    """The sentence names the argument, what it must be, and what it was."""
    with pytest.raises(InvalidArgument, match=told):
        client.create_session(**{"model": "sums", **arguments})


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([1j, 2, 3], "must be real numbers, not values of type complex128"),
        (["1", "2", "3"], "must be real numbers, not values of type <U1"),
        ([1, None, 3], "must be real numbers, not values of type object"),
        ([[1, 2, 3], [4, math.nan, 6]], r"the value at \[1, 1\] is nan"),
        ([1, 1e300, 3], r"must be finite as float32; the value at \[1\] is 1e\+300"),
        (np.ma.masked_equal([1, 2, 3], 2), "must have no masked values"),
        (Hostile(), "cannot be read as an array of numbers: this tensor needs a gradient"),
    ],
)
def test_inputs_that_numpy_would_change_are_refused(client: Client, inputs: Any, told: str) -> None:
    """Nothing is dropped or guessed, and no step is made."""
    session = client.create_session("sums")
    with pytest.raises(InvalidArgument, match=f"a step of sums takes 3 values; .* {told}"):
        session.step(inputs)
    assert session.describe().next_step == 0


async def test_a_closed_client_says_so(running: Running) -> None:
    """A closed client, its sessions and its streams refuse every call with one sentence."""
    with Client(running.address) as client:
        session = client.create_session("sums")
    for call in (client.models, session.describe, lambda: session.step([1, 2, 3])):
        with pytest.raises(ClientClosed, match="is closed; make another"):
            call()
    async with AsyncClient(running.address) as asynchronous, asynchronous.stream() as stream:
        ours, streamed = await asynchronous.create_session("sums"), await stream.open("sums")
    entering = asynchronous.stream().__aenter__
    for ask in (asynchronous.models, ours.describe, entering, streamed.describe):
        with pytest.raises(ClientClosed, match="is closed; make another"):
            await ask()
    with pytest.raises((ClientClosed, StreamClosed)):
        await streamed.step([1, 2, 3])


@pytest.mark.parametrize(
    ("replica", "method", "told"),
    [("", "Step", "was closed before the server"), ("one", "StreamSteps", "is closed; make")],
)
async def test_a_client_that_is_closed_under_a_call_says_so(
    running: Running, fake: FakeServer, replica: str, method: str, told: str
) -> None:
    """The step that was under way, as a call or on a shared stream, ends with the same error."""
    fake.replica = replica
    fake.released.clear()
    client = Client(running.address)
    session = client.create_session("sums")
    stepping = asyncio.create_task(asyncio.to_thread(session.step, [1, 2, 3]))
    await until(lambda: fake.calls(method) == 1)
    await asyncio.to_thread(client.close)
    with pytest.raises(ClientClosed, match=told):
        await stepping


def test_an_asynchronous_client_belongs_to_a_loop(running: Running) -> None:
    """Made outside of a loop, or used in another one, it says what to do."""
    with pytest.raises(InvalidRequest, match="made where an event loop runs"):
        AsyncClient(running.address)

    async def made() -> AsyncClient:
        return AsyncClient(running.address)

    with asyncio.Runner() as runner:
        client = runner.run(made())
        with asyncio.Runner() as other, pytest.raises(InvalidRequest, match="another event loop"):
            other.run(client.models())
        runner.run(client.close())


async def test_a_stream_is_entered_once(async_client: AsyncClient) -> None:
    """A second `async with` of the same stream is refused, and the first goes on."""
    async with async_client.stream() as stream:
        with pytest.raises(InvalidRequest, match="the stream is entered already"):
            await stream.__aenter__()
        session = await stream.open("sums")
        assert (await session.step([1, 2, 3])).array.tolist() == [1, 2, 3]


def test_a_session_in_the_place_of_an_id_is_refused(client: Client, running: Running) -> None:
    """A session, also of another client, is not an id; its id is what is meant."""
    with Client(running.address) as other:
        session = other.create_session("sums")
    with pytest.raises(InvalidArgument, match=r"as text, such as session\.id, not <Session"):
        client.session(session)  # type: ignore[arg-type] # that is what is tried


@pytest.mark.parametrize("token", [None, b"tok", 5, object()])
def test_a_function_for_the_token_returns_text(running: Running, token: Any) -> None:
    """Anything else is refused, without its value."""
    with Client(running.address, token=lambda: token) as client, pytest.raises(TokenNotSent):
        client.models()


def test_steps_of_another_client_are_told_with_advice(client: Client, fake: FakeServer) -> None:
    """The error says how to go on from the server's step."""
    session = client.create_session("sums")
    fake.failures.append(refuse(ABORTED, "STEP_INDEX_MISMATCH", "at step 7", expected="7"))
    with pytest.raises(StepIndexMismatch, match="`describe` sets next_step to 7, to go on from"):
        session.step([1, 2, 3])
