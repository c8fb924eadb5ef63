"""Checkpoints come back bit for bit or not at all."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntm.checkpoint import MAGIC, VERSION
from service.engine.checkpoint import Checkpoint, decode, encode, state_for
from service.errors import CheckpointDamaged, CheckpointForeign, CheckpointTooNew
from service.spec import Float32
from tests.support.tiny_models import LEDGER

HASH = "ab" * 32


def random_state(locations: int) -> dict[str, Float32]:
    """A state of the ledger's, by name, in one row."""
    generator = np.random.default_rng(locations)
    return {
        tensor.name: generator.normal(size=int(np.prod(tensor.shape_at(locations)))).astype(
            np.float32
        )
        for tensor in LEDGER.state
    }


CHECKPOINT = Checkpoint(HASH, 5, 2**40 + 3, random_state(5))


def sealed(body: bytes) -> bytes:
    """Append the right checksum to a body."""
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("locations", [3, 5, 128])
def test_a_checkpoint_comes_back_as_it_was(locations: int) -> None:
    """The hash, the locations, the step, and every bit of the state in the model's shapes."""
    written = Checkpoint(HASH, locations, 7, random_state(locations))
    read = decode(encode(written))

    assert (read.content_hash, read.locations, read.next_step) == (HASH, locations, 7)
    state = state_for(read, LEDGER, HASH)
    for tensor in LEDGER.state:
        assert state[tensor.name].shape == (1, *tensor.shape_at(locations))
        assert state[tensor.name].tobytes() == written.state[tensor.name].tobytes()


def test_it_takes_little_more_than_the_state() -> None:
    """A checkpoint has less than a hundred bytes, and a few for each tensor, besides the state."""
    names = sum(len(name) for name in CHECKPOINT.state)
    expected = 52 + 4 + names + 5 * len(CHECKPOINT.state) + LEDGER.state_bytes(5)
    assert len(encode(CHECKPOINT)) == expected


@given(st.integers(0, len(encode(CHECKPOINT)) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found(place: int, change: int) -> None:
    """
    A changed byte anywhere is damage, unless it makes the version later, which is refused as such.
    """
    data = bytearray(encode(CHECKPOINT))
    data[place] ^= change
    with pytest.raises((CheckpointDamaged, CheckpointTooNew)):
        decode(bytes(data))


@given(st.integers(0, len(encode(CHECKPOINT)) - 1))
def test_a_checkpoint_cut_short_is_found(length: int) -> None:
    """A checkpoint that is cut short at any length is refused as damaged."""
    with pytest.raises(CheckpointDamaged):
        decode(encode(CHECKPOINT)[:length])


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda x: MAGIC + x)))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    """Any bytes decode to a checkpoint or raise one of our errors."""
    head = encode(CHECKPOINT)[:52]
    for made in (data, sealed(data), sealed(head + data)):
        with suppress(CheckpointDamaged, CheckpointTooNew):
            decode(made)


def test_a_later_version_is_told_apart_from_damage() -> None:
    """A later version is refused as too new, whatever its checksum."""
    data = encode(CHECKPOINT)
    with pytest.raises(CheckpointTooNew, match=r"has layout version 3; .* on a newer server"):
        decode(data[:4] + struct.pack("<H", VERSION + 1) + data[6:])


def test_another_models_checkpoint_is_refused_with_both_hashes() -> None:
    """A checkpoint of another model is refused with both hashes."""
    with pytest.raises(CheckpointForeign) as refused:
        state_for(CHECKPOINT, LEDGER, "cd" * 32)
    assert refused.value.metadata == {"expected": "cd" * 32, "actual": HASH}


def test_values_that_are_not_finite_are_refused() -> None:
    """Values that are not finite are refused."""
    state = {**CHECKPOINT.state, "memory": np.full(10, np.nan, np.float32)}
    with pytest.raises(CheckpointDamaged, match="not finite"):
        decode(encode(replace(CHECKPOINT, state=state)))


def test_a_state_of_other_sizes_is_refused() -> None:
    """A state of other sizes is refused, even with the right model's hash."""
    with pytest.raises(CheckpointDamaged, match="the model needs"):
        state_for(replace(CHECKPOINT, locations=6), LEDGER, HASH)
