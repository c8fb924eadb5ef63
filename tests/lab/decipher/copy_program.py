"""A program that is written by hand, and known to be the one of a model that ships."""

from __future__ import annotations

from ntm_lab.decipher.phases import Opener, Phases
from ntm_lab.decipher.program import Condition, Move, Phase, Program, Rule, StoreRule

FIRST = Condition("step", number=0)


def copy_program(model: str = "copy-ntm-lstm") -> Program:
    """
    Store the vectors from location 0 on; at the delimiter go back there, read on, put out.

    What is put out was read in the step before. The memory has 128 locations.
    """
    return Program(
        model,
        locations=128,
        input_width=9,
        output_width=8,
        phases=Phases((8,), tuple(range(8)), (Opener(None, again=False), Opener(8, again=False))),
        read_head=0,
        write_head=0,
        read_from=0,
        write_from=0,
        delay=1,
        channels=tuple((channel, channel) for channel in range(8)),
        body=(
            Phase(
                read=(),
                write=(Rule((FIRST,), Move("hold")), Rule((), Move("shift", 1))),
                store=StoreRule("input"),
                emits=False,
            ),
            Phase(
                read=(Rule((FIRST,), Move("hold")), Rule((), Move("shift", 1))),
                write=(Rule((), Move("shift", 1)),),
                store=None,
                emits=True,
            ),
        ),
        marker=None,
    )
