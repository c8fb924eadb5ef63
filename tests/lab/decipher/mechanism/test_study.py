"""Mechanisms of the shipped networks, and how much they foretell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ntm_client import Client
from ntm_lab.decipher.interventions import INTERVENTION_KINDS, change_sequences
from ntm_lab.decipher.mechanism.study import Study, study
from ntm_lab.decipher.mechanism.words import mechanism_sections
from ntm_lab.decipher.phases import moments
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_tasks import TaskSequence
from tests.lab.decipher.copy_program import copy_program


@pytest.fixture(scope="module")
def copying(shipped: Client) -> Study:
    """The mechanism of a network that copies."""
    network = ServedNetwork(shipped, "copy-ntm-ff")
    program = replace(copy_program(), read_from=1, write_from=1)
    sequences = in_range("copy", 16, 0, Stage.CHANGES)
    made = change_sequences(program, network, sequences)
    judged = [("in range", sequences)]
    found = study(program, program.phases, network, judged, made, seed=0, count=16)
    assert found is not None
    return found


def test_a_mechanism_does_what_the_network_does(copying: Study) -> None:
    """Also where blends are read, because a change moved a head."""
    assert [(one.sequences, one.agreeing) for one in copying.alike] == [(16, 16)]
    assert [effect.kind for effect in copying.effects] == list(INTERVENTION_KINDS)
    for effect in copying.effects:
        assert effect.share > 0.85
        assert effect.network_changed > 10


def test_its_pseudo_code_says_where_the_heads_go(copying: Study) -> None:
    """The write head always goes on, the read head while vectors are due."""
    lines = [line.text for line in copying.lines]
    assert len(lines) <= 12
    assert lines[0] == "in every phase, at each step:"
    assert "write head 1 shifts +1" in lines[1]
    assert lines[2] == "phase 0, at each step:"
    assert not any("shifts" in line for line in lines[3:4])
    assert any("read head 1 shifts +1" in line for line in lines[4:])


def test_a_line_holds_in_the_steps_that_it_speaks_of(copying: Study) -> None:
    """In every step, one line says what each head does, and the lines of other phases do not."""
    inputs = TaskSequence.draw("copy", (5,), seed=1).inputs
    for moment in moments(copying.phases, inputs):
        now = [line.text for line in copying.lines if line.holds(moment)]
        for head in ("read head 1", "write head 1"):
            assert sum(head in line for line in now) == 1
        assert [line for line in now if line.startswith("phase")] == [
            next(
                line.text for line in copying.lines if line.text.startswith(f"phase {moment.phase}")
            )
        ]


def test_no_head_of_a_copying_network_is_idle(copying: Study) -> None:
    """It needs its only read head and its only write head."""
    assert copying.silence is None
    assert "without" not in " ".join(mechanism_sections(copying)).lower()


def test_a_network_without_heads_has_no_mechanism(shipped: Client) -> None:
    """Nor has one whose heads are not an NTM's."""
    program = copy_program()
    for name in ("copy-lstm", "copy-dnc"):
        network = ServedNetwork(shipped, name)
        assert study(program, program.phases, network, [], {}, seed=0, count=1) is None
