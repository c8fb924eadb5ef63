"""Sessions of a model of several inputs and outputs of every type, in an engine."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from service import codec
from service.engine.checkpoint import decode, encode
from service.engine.durability import Durability, Policy
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.work import Chunk, Work
from service.errors import (
    CapacityExceeded,
    CheckpointDamaged,
    InvalidRequest,
    NtmError,
    SessionFailed,
)
from service.models.loading import load
from service.models.runtime import Network, content_hash
from service.models.version import Version
from service.session_ref import SessionRef
from service.settings import Settings
from service.spec import Array
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.devices import no_memory
from tests.support.driving import OWNER, run, submitted
from tests.support.rich_models import RICH, of_the_sign, rich

VERSION = Version("rich", content_hash(rich()))
SPEAKER = np.array([1, 2, 3], np.float32)


@pytest.fixture(scope="module")
def loaded() -> Network:
    """The model, after its batch check."""
    return load(rich(), "cpu", max_batch=8)


@pytest.fixture
def sessions(loaded: Network, clock: Clock) -> Lifecycle:
    """The sessions of a server that has a store."""
    metrics = Metrics(CollectorRegistry())
    return Lifecycle({VERSION: loaded}, Settings(), metrics, clock, clock, has_store=True)


@pytest.fixture
def engine(sessions: Lifecycle) -> Engine:
    """An engine of these sessions."""
    return Engine(sessions, Settings())


def opened(sessions: Lifecycle, speaker: Array = SPEAKER, **given: bytes) -> SessionRef:
    """A new session with this speaker."""
    values = {"speaker": speaker.tobytes(), **given}
    durability = Durability(Policy.ASYNCHRONOUS, 1)
    view = sessions.open(VERSION, 0, None, OWNER, None, durability, values)
    return SessionRef(view.id, OWNER, 0)


def chunk(
    ref: SessionRef, tokens: list[int], audio: float = 1, first_step: int | None = None
) -> Chunk:
    """Steps with these tokens, whose audio is the same number three times."""
    steps = np.zeros(len(tokens), RICH.input_record)
    steps["token"], steps["audio"] = tokens, audio
    return Chunk(ref, steps.tobytes(), first_step)


def made(engine: Engine, *works: Work) -> None:
    """Submit work and run it."""
    submitted(engine, *works)
    run(engine)


def outputs(work: Chunk) -> dict[str, Any]:
    """The outputs of a chunk by name, as lists."""
    assert work.error is None, work.error
    found: Array = work.outcome.outputs
    assert found.dtype.names is not None
    return {name: found[name].tolist() for name in found.dtype.names}


def test_a_chunk_of_records_gives_records(sessions: Lifecycle, engine: Engine) -> None:
    """Every type is computed in its type: score, parity, whole numbers and halves."""
    work = chunk(opened(sessions), [1, 2, 9])
    made(engine, work)

    assert outputs(work) == {
        "score": [[[4], [6], [8]], [[7], [9], [11]], [[28], [30], [32]]],
        "flag": [[True], [False], [True]],
        "counted": [[6, -6], [8, -4], [17, 5]],
        "loud": [[1.5, 1.5], [2.5, 2.5], [3.5, 3.5]],
    }
    assert len(work.outcome.outputs.tobytes()) == 3 * (12 + 1 + 16 + 4)


def test_sessions_of_one_batch_keep_their_own_state(sessions: Lifecycle, engine: Engine) -> None:
    """Five sessions with other speakers, tokens and lengths get what each gets alone."""
    refs = [opened(sessions, SPEAKER * number) for number in range(5)]
    works = [chunk(ref, [number] * (number + 1)) for number, ref in enumerate(refs)]
    made(engine, *works)

    for number, work in enumerate(works):
        found = outputs(work)
        row = [3 * number, 3 * number + 1, 3 * number + 2]
        score = [[number * (place + 1) + row[place]] for place in range(3)]
        assert found["score"] == [score] * (number + 1)
        assert found["counted"][-1] == [5 + number * (number + 1), -7 + number * (number + 1)]


def test_a_whole_number_out_of_range_costs_its_chunk_alone(
    sessions: Lifecycle, engine: Engine
) -> None:
    """The mates of its batch get their results, and its own session goes on at that step."""
    refs = [opened(sessions) for _ in range(4)]
    works = [chunk(ref, [1, 2, 3]) for ref in refs]
    works[2] = chunk(refs[2], [1, 99, 3])
    made(engine, *works)

    for number in (0, 1, 3):
        assert outputs(works[number])["counted"] == [[6, -6], [8, -4], [11, -1]]
    error = works[2].error
    assert isinstance(error, InvalidRequest)
    assert error.metadata == {"step": "1", "next_step": "1"}
    assert "cannot be run on step 1 of the chunk" in error.message
    after = chunk(refs[2], [4], first_step=1)
    made(engine, after)
    assert outputs(after)["counted"] == [[10, -2]]
    sessions.check_integrity()


def test_a_session_closed_while_it_waits_to_run_alone_is_passed_over(
    sessions: Lifecycle, engine: Engine
) -> None:
    """The others of the failed run still get their results."""
    refs = [opened(sessions) for _ in range(3)]
    works = [chunk(refs[0], [99]), *(chunk(ref, [1]) for ref in refs[1:])]
    submitted(engine, *works)
    turn = engine.schedule()
    assert turn is not None
    turn.run()
    engine.commit(turn)
    sessions.delete(refs[1])
    run(engine)

    assert isinstance(works[0].error, InvalidRequest)
    assert isinstance(works[1].error, NtmError)
    assert outputs(works[2])["counted"] == [[6, -6]]
    sessions.check_integrity()


def test_an_output_that_is_not_finite_closes_its_session_alone(
    sessions: Lifecycle, engine: Engine
) -> None:
    """Here a sum of halves that float16 cannot hold; the other outputs are whole numbers."""
    loud, quiet = opened(sessions), opened(sessions)
    works = [chunk(loud, [1, 1], audio=6e4), chunk(quiet, [1, 1])]
    made(engine, *works)

    assert isinstance(works[0].error, SessionFailed)
    assert outputs(works[1])["flag"] == [[True], [False]]


def test_a_state_that_no_output_shows_closes_its_session_alone(clock: Clock) -> None:
    """Outputs of bool are never infinite; the state behind them is looked at after each turn."""
    content = of_the_sign()
    version, settings = Version("sign", content_hash(content)), Settings()
    networks = {version: load(content, "cpu", max_batch=8)}
    lifecycle = Lifecycle(networks, settings, Metrics(CollectorRegistry()), clock, clock)
    signs = Engine(lifecycle, settings)
    refs = [SessionRef(lifecycle.open(version, 0, None, OWNER).id, OWNER, 0) for _ in range(3)]
    steps = [[[2, -2]] * 9, [[1e6, 1]] * 9, [[-1, 1]] * 9]
    works = [
        Chunk(ref, np.array(values, np.float32).tobytes(), None)
        for ref, values in zip(refs, steps, strict=True)
    ]
    made(signs, *works)

    assert isinstance(works[1].error, SessionFailed)
    assert works[0].outcome.outputs.tolist() == [[True, step % 2 == 1] for step in range(9)]
    assert works[2].outcome.outputs.tolist() == [[step % 2 == 1, True] for step in range(9)]
    lifecycle.check_integrity()
    assert len(lifecycle.sessions) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"",
            "a chunk is one or more steps of 20 each: audio float32[3], token int64",
        ),
        (bytes(19), "inputs are 19 bytes"),
        (
            np.array([([0, np.inf, 0], 1)], RICH.input_record).tobytes(),
            "input inf at step 0 of the chunk, input 'audio', channel 1: values must be finite",
        ),
        (
            np.array([([0, 0, 0], 1), ([0, 0, 2e6], 1)], RICH.input_record).tobytes(),
            "input 2000000.0 at step 1 of the chunk, input 'audio', channel 2",
        ),
    ],
)
def test_wrong_inputs_are_refused_with_their_place(
    sessions: Lifecycle, engine: Engine, content: bytes, words: str
) -> None:
    """The error says which value of which input, and the session goes on."""
    ref = opened(sessions)
    wrong, right = Chunk(ref, content, None), chunk(ref, [1])
    made(engine, wrong, right)

    assert isinstance(wrong.error, InvalidRequest)
    assert words in wrong.error.message
    assert outputs(right)["counted"] == [[6, -6]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "the model needs a value of 'speaker' for each session"),
        ({"speaker": bytes(8)}, "'speaker' has 8 bytes; it is float32 of shape [3], which has 12"),
        ({"speaker": b"\xff" * 12}, "'speaker' has elements that are not finite"),
        ({"speaker": bytes(12), "on": b"\2"}, "'on' has elements that are not 0 or 1"),
        ({"speaker": bytes(12), "off": b"\1"}, "'off' is unknown; the model has: count, on, level"),
    ],
)
def test_wrong_initial_values_open_no_session(
    sessions: Lifecycle, given: dict[str, bytes], words: str
) -> None:
    """The error says what the tensor needs, and no room is taken."""
    with pytest.raises(InvalidRequest) as refused:
        sessions.open(VERSION, 0, None, OWNER, None, None, given)

    assert words in refused.value.message
    assert len(sessions.sessions) == 0
    sessions.check_integrity()


def test_a_reset_gives_the_values_back_that_the_session_was_opened_with(
    sessions: Lifecycle, engine: Engine
) -> None:
    """Of constants, and of any other tensor of the state."""
    ref = opened(sessions, count=np.array([100, 200], "<i8").tobytes())
    first = chunk(ref, [1, 2])
    made(engine, first)
    sessions.reset(sessions.awake(ref))
    again = chunk(ref, [1, 2])
    made(engine, again)

    assert outputs(first)["counted"] == [[101, 201], [103, 203]]
    assert outputs(again) == outputs(first)


def test_a_checkpoint_has_every_tensor_in_its_type(sessions: Lifecycle, engine: Engine) -> None:
    """A session that is opened with it has the speaker too, also after a reset."""
    ref = opened(sessions)
    made(engine, chunk(ref, [1]))
    _, taken = sessions.checkpoint(sessions.awake(ref))
    view = sessions.open(VERSION, 0, None, OWNER, taken)
    other = SessionRef(view.id, OWNER, 0)
    on = chunk(ref, [2]), chunk(other, [2])
    made(engine, *on)
    sessions.reset(sessions.awake(other))
    again = chunk(other, [2])
    made(engine, again)

    assert {name: values.dtype.name for name, values in taken.state.items()} == {
        "count": "int64",
        "on": "bool",
        "level": "float16",
        "speaker": "float32",
    }
    assert outputs(on[0]) == outputs(on[1])
    assert outputs(again)["score"] == [[[7], [9], [11]]]
    assert outputs(again)["counted"] == [[7, -5]]
    with pytest.raises(InvalidRequest, match="give no initial values"):
        sessions.open(VERSION, 0, None, OWNER, taken, None, {"on": b"\1"})


def test_a_fork_has_the_values_that_were_given_to_its_origin(
    sessions: Lifecycle, engine: Engine
) -> None:
    """Also after a reset."""
    ref = opened(sessions)
    made(engine, chunk(ref, [1]))
    view = sessions.open(VERSION, 0, None, OWNER, is_begun=False)
    fork = SessionRef(view.id, OWNER, 0)
    sessions.fork(sessions.awake(ref), fork)
    sessions.reset(sessions.awake(fork))
    work = chunk(fork, [2])
    made(engine, work)

    assert outputs(work)["score"] == [[[7], [9], [11]]]


def test_values_that_are_given_count_against_the_bytes_of_state(
    loaded: Network, clock: Clock
) -> None:
    """
    They are kept beside the state: of 33 bytes, and the speaker's 12 at least. So they do of a
    session that is opened from a checkpoint or a record, of a fork, and until it sleeps or ends.
    """
    settings = Settings(max_state_bytes=200)
    metrics = Metrics(CollectorRegistry())
    sessions = Lifecycle({VERSION: loaded}, settings, metrics, clock, clock, has_store=True)
    engine, usage = Engine(sessions, settings), sessions.sessions.usage
    first = opened(sessions, count=np.array([1, 2], np.int64).tobytes())
    assert usage.state_bytes == 33 + 12 + 16
    view = sessions.open(VERSION, 0, None, OWNER, is_begun=False)
    fork = SessionRef(view.id, OWNER, 0)
    sessions.fork(sessions.awake(first), fork)
    assert usage.state_bytes == 2 * 61
    _, taken = sessions.checkpoint(sessions.awake(first))
    sessions.open(VERSION, 0, None, OWNER, taken)
    assert usage.state_bytes == 2 * 61 + 45

    with pytest.raises(CapacityExceeded, match="needs 45 bytes of state, and 167 of 200"):
        opened(sessions)
    made(engine, chunk(first, [1]))
    snapshot = next(each for each in engine.take_effects().snapshots if each.view.id == first.id)
    stored = codec.decode_record(codec.encode_record(snapshot))
    with pytest.raises(CapacityExceeded, match="needs 61 bytes"):
        sessions.adopt("ab" * 16, 5, stored)
    sessions.check_integrity()
    sessions.delete(fork)
    sessions.put_to_sleep(sessions.awake(first))
    assert usage.state_bytes == 45
    sessions.adopt(first.id, 5, stored)
    assert usage.state_bytes == 45 + 61
    sessions.check_integrity()


def test_a_session_of_a_checkpoint_keeps_no_more_than_was_given(sessions: Lifecycle) -> None:
    """Its values are copies, not views that would keep the bytes of the whole checkpoint."""
    _, taken = sessions.checkpoint(sessions.awake(opened(sessions)))
    view = sessions.open(VERSION, 0, None, OWNER, decode(encode(taken)))
    (speaker,) = sessions.awake(SessionRef(view.id, OWNER, 0)).given.values()

    assert speaker.base is None
    assert speaker.tolist() == SPEAKER.tolist()


def test_a_record_wakes_elsewhere_with_state_values_and_replays(
    loaded: Network, clock: Clock, sessions: Lifecycle, engine: Engine
) -> None:
    """The session goes on, answers its last chunk again, and can be reset."""
    ref = opened(sessions)
    work = chunk(ref, [1, 2], first_step=0)
    made(engine, work)
    (taken, *_) = engine.take_effects().snapshots
    stored = codec.decode_record(codec.encode_record(taken))
    metrics = Metrics(CollectorRegistry())
    replica = Lifecycle({VERSION: loaded}, Settings(), metrics, clock, clock, has_store=True)
    replica.adopt(ref.id, 5, stored)
    other = Engine(replica, Settings())
    again, on = chunk(ref, [1, 2], first_step=0), chunk(ref, [3], first_step=2)
    made(other, again, on)
    replica.reset(replica.awake(ref))
    reset = chunk(ref, [1, 2])
    made(other, reset)

    assert outputs(again) == outputs(work)
    assert outputs(on)["counted"] == [[11, -1]]
    assert outputs(reset) == outputs(work)


def test_a_record_with_a_wrong_initial_value_is_damaged(
    loaded: Network, clock: Clock, sessions: Lifecycle, engine: Engine
) -> None:
    """Nothing is opened."""
    ref = opened(sessions)
    made(engine, chunk(ref, [1]))
    (taken, *_) = engine.take_effects().snapshots
    taken.given = {"speaker": np.zeros(2, np.float32)}
    stored = codec.decode_record(codec.encode_record(taken))
    metrics = Metrics(CollectorRegistry())
    replica = Lifecycle({VERSION: loaded}, Settings(), metrics, clock, clock, has_store=True)

    with pytest.raises(CheckpointDamaged, match="'speaker' has 8 bytes"):
        replica.adopt(ref.id, 5, stored)
    assert len(replica.sessions) == 0


def test_a_run_without_memory_is_refused_where_states_are_written_after_it(
    engine: Engine, sessions: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session goes on at the same step; it is closed if the writing failed."""
    ref = opened(sessions)
    made(engine, chunk(ref, [1]))
    run_with_iobinding = onnxruntime.InferenceSession.run_with_iobinding

    def refused_at(number: int) -> Chunk:
        """A chunk, of whose runs the one with this number has no memory."""
        runs = count()

        def few(session: Any, *arguments: Any) -> Any:
            return (no_memory if next(runs) == number else run_with_iobinding)(session, *arguments)

        work = chunk(ref, [1, 2], first_step=1)
        with monkeypatch.context() as patched:
            patched.setattr(onnxruntime.InferenceSession, "run_with_iobinding", few)
            made(engine, work)
        return work

    work = refused_at(0)
    assert isinstance(work.error, CapacityExceeded)
    assert work.error.message.endswith("The session goes on at step 1")
    assert isinstance(refused_at(1).error, SessionFailed)
