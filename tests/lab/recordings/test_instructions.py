"""What heads did, in words, from how they were addressed (equations 3 to 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ntm_client import InvalidRequest
from ntm_client.values import Float32, Memory
from ntm_lab.recordings.contents import contents
from ntm_lab.recordings.instructions import Instruction, instructions
from ntm_lab.recordings.recording import Recording
from tests.lab.decipher.programs import COPY, recorded

LOCATIONS, WIDTH = 8, 4
VALUES = np.eye(WIDTH, dtype=np.float32)
STAY, ON, BACK = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Doing:
    """How a head is addressed in a step, and what it writes."""

    shift: tuple[float, float, float] = STAY
    gate: float = 0.0
    key: int = 0
    """Which of `VALUES` it asks for."""
    erase: float = 0.0
    add: int | None = None
    """Which of `VALUES` it adds."""


def played(reads: list[Doing], writes: list[Doing]) -> Recording:
    """What two heads that begin at location 2 would do, in a memory of zeros."""
    memory = np.zeros((LOCATIONS, WIDTH), np.float32)
    first = np.eye(LOCATIONS, dtype=np.float32)[[2]]
    before = Memory(0, memory, first, first)
    weightings = {"read": first[0], "write": first[0]}
    traces: dict[str, list[Float32]] = {}
    for pair in zip(reads, writes, strict=True):
        for kind, doing in zip(("read", "write"), pair, strict=True):
            weightings[kind] = addressed(memory, weightings[kind], doing)
            for name, value in {
                "weighting": weightings[kind],
                "key": VALUES[doing.key],
                "strength": [50.0],
                "gate": [doing.gate],
                "shift": doing.shift,
            }.items():
                traces.setdefault(f"{kind}_{name}", []).append(np.array([value], np.float32))
        erase = np.full(WIDTH, pair[1].erase, np.float32)
        add = np.zeros(WIDTH, np.float32) if pair[1].add is None else VALUES[pair[1].add]
        traces.setdefault("erase_vector", []).append(erase[None])
        traces.setdefault("add_vector", []).append(add[None])
        weighting = weightings["write"][:, None]
        memory = memory * (1 - weighting * erase) + weighting * add
    plain = recorded(COPY, np.ones((len(reads), 4), np.float32))
    return replace(
        plain,
        locations=LOCATIONS,
        before=before,
        after=replace(before, memory=memory),
        traces={name: np.stack(values) for name, values in traces.items()},
    )


def addressed(memory: Float32, previous: Float32, doing: Doing) -> Float32:
    """Equations 5 to 8; the sharpening is 1."""
    lengths = np.sqrt((memory**2).sum(1) + 1e-6)
    scores = np.exp(50 * (memory @ VALUES[doing.key]) / lengths)
    gated = doing.gate * scores / scores.sum() + (1 - doing.gate) * previous
    moved = [part * np.roll(gated, by) for part, by in zip(doing.shift, (-1, 0, 1), strict=True)]
    weighting: Float32 = np.sum(moved, 0, np.float32)
    return weighting


REST = Doing()
WROTE = [
    Doing(erase=1, add=0),
    Doing(ON, erase=1, add=1),
    Doing(ON, gate=1, key=0, erase=1, add=2),
    Doing(BACK),
]


def of_write_head() -> list[Instruction]:
    """What the write head of those steps did."""
    return [row[1] for row in instructions(played([REST] * 4, WROTE))]


def test_a_head_holds_shifts_and_jumps() -> None:
    """An instruction is hold, shift or jump, by the way that carried most weight."""
    moves = [(i.move, i.previous, i.target, i.shift, i.location) for i in of_write_head()]

    assert moves == [
        ("hold", 2, 2, 0, 2),
        ("shift", 2, 2, 1, 3),
        ("jump", 3, 2, 1, 3),
        ("shift", 3, 3, -1, 2),
    ]


def test_a_head_writes_overwrites_or_is_idle() -> None:
    """A head writes to an unwritten location, overwrites a written one, or is idle."""
    assert [i.access for i in of_write_head()] == ["write", "write", "overwrite", "idle"]


def test_instructions_are_told_in_words() -> None:
    """Each says where, how, what and how sharply."""
    assert [i.words() for i in of_write_head()] == [
        "hold location 2, write; focus 1.00",
        "shift +1 to location 3, write; focus 1.00",
        "content jump to location 2, then shift +1, overwrite; focus 1.00",
        "shift -1 to location 2, idle; focus 1.00",
    ]


def test_sizes_and_similarity_are_told() -> None:
    """What was asked for is there; the erase vector is all ones, one of four values is added."""
    jump = of_write_head()[2]

    assert jump.similarity == pytest.approx(1, abs=1e-4)
    assert (jump.erase, jump.add) == (1, 0.25)
    assert jump.confidence == pytest.approx(1, abs=1e-4)


def test_reading_what_was_never_written_is_idle() -> None:
    """The read head is at the place that the write head fills in the first step."""
    reads = [REST, REST, Doing(BACK), REST]

    found = [row[0].access for row in instructions(played(reads, WROTE))]
    assert found == ["idle", "read", "idle", "idle"]


def test_a_head_without_a_majority_is_spread() -> None:
    """Its place is then hardly a place, and it says so."""
    reads = [REST, Doing((0.3, 0.4, 0.3)), REST, REST]
    found = instructions(played(reads, WROTE))[1][0]

    assert found.spread
    assert found.words() == "spread, most of all by hold location 2, read; focus 0.40"
    assert found.confidence == pytest.approx(0.4)


def test_two_ways_to_one_place_share_the_confidence() -> None:
    """Content brings 0.6 of the weight to where the head would have stayed with 0.4."""
    reads = [REST, Doing(gate=0.6, key=0), REST, REST]
    found = instructions(played(reads, WROTE))[1][0]

    assert (found.move, found.location) == ("jump", 2)
    assert found.focus == pytest.approx(1)
    assert found.confidence == pytest.approx(0.6, abs=1e-4)


def test_content_that_gets_less_weight_is_no_jump() -> None:
    """0.3 of the weight goes to what is asked for, at 3; the head itself stays with 0.7."""
    reads = [REST, REST, Doing(gate=0.3, key=1), REST]
    found = instructions(played(reads, WROTE))[2][0]

    assert (found.move, found.location) == ("hold", 2)
    assert found.focus == pytest.approx(0.7, abs=1e-4)
    assert found.confidence == pytest.approx(0.7, abs=1e-3)


def test_writes_explain_the_memory() -> None:
    """Erasing and adding as traced leads from the memory before to the memory after."""
    made = played([REST] * 4, WROTE)
    assert made.after is not None

    np.testing.assert_allclose(contents(made)[-1], made.after.memory, atol=1e-6)
    assert len(contents(made)) == 5


def test_recordings_without_what_is_needed_are_refused() -> None:
    """Recordings without a memory or a needed trace are refused."""
    made = played([REST] * 4, WROTE)
    fewer = {name: values for name, values in made.traces.items() if name != "read_gate"}

    with pytest.raises(InvalidRequest, match="copier has no memory to decipher"):
        instructions(replace(made, before=None))
    with pytest.raises(InvalidRequest, match="copier has no trace 'read_gate'"):
        instructions(replace(made, traces=fewer))
