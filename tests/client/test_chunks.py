"""How much fits into a message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm.v1 import ntm_pb2 as pb
from ntm_client.chunks import OwnLimits, Selection, steps_per_chunk
from ntm_client.conversion import model_from
from ntm_client.errors import InvalidRequest
from ntm_client.values import Limits
from tests.client.fake_server import MODELS
from tests.support.fake_session import FakeSession

SUMS = model_from(MODELS["sums"])


def test_no_trace_allows_the_chunk_steps() -> None:
    """Without traces, the setting `chunk_steps` decides the size of chunks."""
    assert steps_per_chunk(SUMS, Selection.of(SUMS, [], 8, 0), OwnLimits(), Limits()) == 256


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        (Limits(max_chunk_steps=7), 7),
        (Limits(max_waiting_steps=6), 6),
        (Limits(max_message_bytes=4096 + 5 * 12), 5),
        (Limits(max_reply_bytes=4 * 12), 4),
    ],
)
def test_every_limit_of_the_server_makes_chunks_smaller(limits: Limits, steps: int) -> None:
    """A chunk has as many steps as each of the server's limits allows."""
    untraced = Selection.of(SUMS, [], 8, 0)
    assert steps_per_chunk(SUMS, untraced, OwnLimits(), limits) == steps


def test_traces_over_many_locations_make_chunks_smaller() -> None:
    """Two dense weightings over 16,384 locations are 128 KiB a step, of nearly 4 MiB."""
    selection = Selection.of(SUMS, ["read_weighting", "write_weighting"], 16_384, 0)

    assert steps_per_chunk(SUMS, selection, OwnLimits(), Limits()) == 31


@given(
    names=st.lists(st.sampled_from(["read_weighting", "add_vector"]), unique=True),
    locations=st.integers(1, 300),
    top_k=st.integers(0, 400),
    room=st.integers(5000, 20_000),
)
def test_the_answer_fits(names: list[str], locations: int, top_k: int, room: int) -> None:
    """The encoded answer to the largest chunk is never larger than a message."""
    own = OwnLimits(chunk_steps=1000, max_message_bytes=room)
    selection = Selection.of(SUMS, names, locations, top_k)
    try:
        steps = steps_per_chunk(SUMS, selection, own, Limits())
    except InvalidRequest:
        assert selection.step_bytes() + 12 > room - 4096
        return
    reply = pb.Reply(
        session_id="0" * 32,
        first_step=2**60,
        next_step=2**60,
        outputs=bytes(4 * 3 * steps),
        traces=[pb.Trace(name=name, heads=1, width=locations, values=b"") for name in names],
    )

    assert reply.ByteSize() + steps * selection.step_bytes() <= room


def test_a_step_that_fits_in_no_message() -> None:
    """A step that fits into no message is refused, and the error says what to do."""
    selection = Selection.of(SUMS, ["read_weighting"], 2_000_000, 0)

    with pytest.raises(InvalidRequest, match=r"its reply 8000012, .* set top_k, or start the "):
        steps_per_chunk(SUMS, selection, OwnLimits(), Limits())
    with pytest.raises(InvalidRequest, match="set top_k, or raise max_message_bytes"):
        steps_per_chunk(SUMS, selection, OwnLimits(max_message_bytes=5000), Limits())


def test_top_k_is_no_negative_number() -> None:
    """The client refuses a negative top_k, because a message cannot hold it."""
    with pytest.raises(
        InvalidRequest, match="top_k must be a whole number from 0 to 4294967295, not -1"
    ):
        Selection.of(SUMS, [], 8, -1)


@pytest.mark.parametrize("wrong", [{"chunk_steps": 0}, {"max_message_bytes": 4096}])
def test_limits_that_allow_nothing(wrong: dict[str, int]) -> None:
    """A limit that would allow no step is a mistake of the program."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(OwnLimits(), **wrong)


def test_the_fake_copies() -> None:
    """The fake's copy model answers as the demo expects of a trained network."""
    session = FakeSession(pb.Session(model="copy", locations=4))
    inputs = np.zeros((5, 9), np.float32)
    inputs[0, 1] = inputs[1, 5] = inputs[2, 8] = 1
    outputs = np.stack([session.step(values)[0] for values in inputs])

    assert (inputs[:2, :8] == (outputs[3:] > 0.5)).all()
