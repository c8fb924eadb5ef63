"""Checkpoints, read and written by the client as the server does."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from ntm_client import (
    CheckpointDamaged,
    CheckpointForeign,
    CheckpointTooNew,
    Client,
    InvalidRequest,
)
from ntm_client.checkpoint import decode, encode
from ntm_client.values import Float32


def bits(steps: int, seed: int = 0) -> Float32:
    """Random inputs of the copy task, [steps, 9]."""
    return np.random.default_rng(seed).integers(0, 2, (steps, 9)).astype(np.float32)


@pytest.mark.parametrize("name", ["copy-ntm-lstm", "copy-ntm-ff", "copy-lstm"])
def test_what_the_server_wrote_is_written_again_byte_for_byte(shipped: Client, name: str) -> None:
    """
    Each tensor has its shape and the server's values, and encoding gives the server's bytes again.
    """
    with shipped.create_session(name) as session:
        session.step(bits(7))
        data = session.checkpoint()
        found = decode(data)

        assert encode(found) == data
        assert (found.content_hash, found.next_step) == (session.model.content_hash, 7)
        assert found.locations == session.locations
        assert list(found.state) == [tensor.name for tensor in session.model.state]
        if session.locations:
            memory = session.read_memory()
            assert found.tensor("memory", session.model).T.tobytes() == memory.memory.tobytes()
            weightings = np.concatenate([memory.read_weightings, memory.write_weightings])
            assert found.tensor("weighting", session.model).tobytes() == weightings.tobytes()


def test_no_bytes_are_no_checkpoint(shipped: Client) -> None:
    """A new session that was to go on from a checkpoint does not start anew unnoticed."""
    with pytest.raises(InvalidRequest, match="checkpoint holds no bytes"):
        shipped.create_session("copy-ntm-ff", checkpoint=b"")


def test_a_tensor_that_the_model_has_not_is_named(shipped: Client) -> None:
    """With those that it has."""
    with shipped.create_session("copy-lstm") as session:
        taken = decode(session.checkpoint())
        with pytest.raises(ValueError, match="copy-lstm has no state tensor 'memory'; it has "):
            taken.tensor("memory", session.model)


def test_a_session_goes_on_from_what_was_written(shipped: Client) -> None:
    """
    A session that is restored or opened from a written checkpoint gives the original's outputs.
    """
    inputs = bits(30)
    with shipped.create_session("copy-ntm-lstm", 20) as session:
        session.step(inputs[:11])
        data = encode(decode(session.checkpoint()))
        expected = session.step(inputs[11:]).array
        session.restore(data)
        assert session.next_step == 11
        assert session.step(inputs[11:]).array.tobytes() == expected.tobytes()
    with shipped.create_session("copy-ntm-lstm", checkpoint=data) as other:
        assert other.locations == 20
        assert other.step(inputs[11:]).array.tobytes() == expected.tobytes()


def test_a_changed_tensor_is_what_the_session_has(shipped: Client) -> None:
    """A changed tensor has its new values in the session, and the other tensors are unchanged."""
    with shipped.create_session("copy-ntm-ff", 10) as session:
        session.step(bits(5))
        before = decode(session.checkpoint())
        memory = before.tensor("memory", session.model)
        memory[:, [1, 2]] = memory[:, [2, 1]]
        session.restore(encode(before.changed(memory=memory)))
        after = decode(session.checkpoint())

    assert after.tensor("memory", session.model).tobytes() == memory.tobytes()
    assert after.state["weighting"].tobytes() == before.state["weighting"].tobytes()
    assert not np.array_equal(after.state["memory"], before.state["memory"])
    with pytest.raises(ValueError, match="no tensor 'memory' of 3 values"):
        before.changed(memory=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="no tensor 'tape'"):
        before.changed(tape=memory)


def with_checksum(body: bytes) -> bytes:
    """A body that is followed by its own checksum."""
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "0 bytes"),
        (lambda data: data[:30], "30 bytes"),
        (lambda data: b"PNG!" + data[4:], "b'PNG!'"),
        (lambda data: data[:4] + b"\x03" + data[5:], "layout version 3"),
        (lambda data: data[:-9], "cut short"),
        (lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], "checksum"),
        (lambda data: with_checksum(data[:-40]), "do not add up"),
        (lambda data: with_checksum(data[:-4] + b"more"), "4 bytes are left over"),
        (lambda data: with_checksum(data[:6] + b"\x09" + data[7:-4]), "do not add up"),
    ],
)
def test_damaged_bytes_are_refused(
    shipped: Client, damage: Callable[[bytes], bytes], said: str
) -> None:
    """Decoding damaged bytes raises an error that says what is wrong."""
    with shipped.create_session("copy-ntm-ff", 10) as session:
        data = session.checkpoint()

    with pytest.raises(CheckpointDamaged, match=said):
        decode(damage(data))


def test_the_servers_refusal_is_the_same_error(shipped: Client) -> None:
    """Client and server report damage by the same class of error."""
    with shipped.create_session("copy-ntm-ff", 10) as session:
        data = session.checkpoint()
        with pytest.raises(CheckpointDamaged, match="checksum"):
            session.restore(data[:-9])


def test_what_does_not_fit_has_errors_of_its_own(shipped: Client) -> None:
    """Another model's checkpoint, and one of a later format, are told apart from damaged ones."""
    with shipped.create_session("copy-ntm-ff", 10) as session:
        data = session.checkpoint()
        later = with_checksum(data[:4] + b"\xff\xff" + data[6:-4])
        with pytest.raises(CheckpointTooNew):
            session.restore(later)
    with pytest.raises(CheckpointForeign, match="is of model 'copy-ntm-ff'"):
        shipped.create_session("copy-ntm-lstm", checkpoint=data)
