"""Changes of a running session and of a program, and whether both then do the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_client import Client, checkpoint
from ntm_lab.decipher.agreement import agree
from ntm_lab.decipher.interventions import (
    INTERVENTION_KINDS,
    Effect,
    Intervention,
    foretold,
    intervene,
)
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Move, Program, Rule
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range, of_size
from tests.lab.decipher.copy_program import FIRST, copy_program


def mirrored(program: Program) -> Program:
    """The copying program, downwards."""
    downwards = (Rule((FIRST,), Move("hold")), Rule((), Move("shift", -1)))
    storing, reading = program.body
    return replace(
        program,
        body=(replace(storing, write=downwards), replace(reading, read=downwards)),
    )


def served_program() -> Program:
    """The program that copies where the heads of copy-ntm-lstm do: from location 0 downwards."""
    return mirrored(copy_program())


def test_the_program_tells_what_a_change_will_do(shipped: Client) -> None:
    """Of the bits that a change of the memory or the read head changes, it is right about most."""
    sequences = in_range("copy", 24, 0, Stage.CHANGES)
    effects = intervene(served_program(), ServedNetwork(shipped, "copy-ntm-lstm"), sequences)

    assert [effect.kind for effect in effects] == list(INTERVENTION_KINDS)
    for effect in effects[:3]:
        assert effect.share > 0.9
        assert min(effect.network_changed, effect.program_changed) > 30
        assert effect.either_changed >= effect.network_changed
    assert effects[2].sequences == 24


def test_a_program_that_only_looks_right_is_found_out(shipped: Client) -> None:
    """
    It stores upwards what the network stores downwards, and gives the same bits.

    What is done to a location then does something else to each.
    """
    upwards = copy_program()
    network = ServedNetwork(shipped, "copy-ntm-lstm")
    sequences = of_size("copy", (12,), 10, seed=0)
    swapping = next(
        effect for effect in intervene(upwards, network, sequences) if effect.kind == "swap"
    )

    assert agree(upwards, network, sequences, "12").differing == 0
    assert swapping.program_changed > 0
    assert swapping.share < 0.3


def test_bits_that_nothing_changes_are_not_counted(shipped: Client) -> None:
    """In sequences of one vector there are no two locations to exchange."""
    sequences = of_size("copy", (1,), 4, seed=0)
    effects = intervene(copy_program(), ServedNetwork(shipped, "copy-ntm-ff"), sequences)

    assert [effect.sequences for effect in effects] == [0, 0, 4, 4]
    assert (effects[0].bits, effects[0].share) == (0, 0)
    assert Effect("swap", 1, 80, 10, 12, 16, 4).share == 0.25


def test_a_change_without_an_effect_is_no_miss_in_words() -> None:
    """It is not listed as foretold in 0 % of the bits."""
    effects = [Effect("overwrite", 9, 90, 8, 6, 8, 6), Effect("swap", 9, 90, 0, 0, 0, 0)]

    assert foretold(effects) == "overwrite 75.0%, swap changes nothing"


def test_a_session_is_changed_where_it_is_said(shipped: Client) -> None:
    """
    A change alters a session's memory or the weighting of the program's head, and nothing else.
    """
    program = replace(copy_program(), read_head=2, write_head=1)
    with shipped.create_session("priority-sort-ntm-ff", 16) as session:
        inputs = of_size("priority-sort", (5,), 1, seed=0)[0].inputs
        session.step(inputs)
        data = session.checkpoint()
        before = checkpoint.decode(data)

        def changed(change: Intervention) -> dict[str, np.ndarray]:
            session.restore(data)
            change.to_session(session, program)
            after = checkpoint.decode(session.checkpoint())
            return {
                name: after.tensor(name, session.model)
                for name, values in after.state.items()
                if not np.array_equal(values, before.state[name])
            }

        memory, weighting = (before.tensor(name, session.model) for name in ("memory", "weighting"))
        swapped = changed(Intervention("swap", 0, 3, 5))
        assert set(swapped) == {"memory"}
        assert np.array_equal(swapped["memory"][:, [3, 5]], memory[:, [5, 3]])
        assert np.array_equal(swapped["memory"][:, 6:], memory[:, 6:])
        copied = changed(Intervention("overwrite", 0, 3, 5))["memory"]
        assert np.array_equal(copied[:, 3], memory[:, 5])
        assert np.array_equal(copied[:, 4:], memory[:, 4:])
        for kind, row in (("move the read head", 2), ("move the write head", 4 + 1)):
            moved = changed(Intervention(kind, 0, 2))["weighting"]  # type: ignore[arg-type] # one of KINDS
            assert np.array_equal(moved[row, 2:], weighting[row, :-2])
            others = [other for other in range(8) if other != row]
            assert np.array_equal(moved[others], weighting[others])


def test_a_machine_is_changed_likewise() -> None:
    """
    A change of a machine swaps or overwrites its locations and moves its heads round the ring.
    """
    machine = Machine(copy_program(), 8)
    (sequence,) = of_size("copy", (4,), 1, seed=0)
    machine.run(sequence.inputs[:4])
    held = dict(machine.memory)

    Intervention("swap", 4, 0, 3).to_machine(machine)
    assert np.array_equal(machine.memory[0], held[3])
    assert np.array_equal(machine.memory[3], held[0])
    Intervention("overwrite", 4, 1, 2).to_machine(machine)
    assert np.array_equal(machine.memory[1], held[2])
    Intervention("move the read head", 4, -2).to_machine(machine)
    Intervention("move the write head", 4, 6).to_machine(machine)
    assert (machine.pointers.read, machine.pointers.write) == (6, (3 + 6) % 8)
