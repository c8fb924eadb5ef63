"""Programs written by hand, and recordings of networks that would run exactly these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_client.values import Float32, Memory, Model, TraceTensor
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.phases import Opener, Phases
from ntm_lab.decipher.program import Condition, Marker, Move, Phase, Place, Program, Rule, StoreRule
from ntm_lab.recordings.recording import Recording

ON, BACK, HOLD = Rule((), Move("shift", 1)), Rule((), Move("shift", -1)), Rule((), Move("hold"))
FIRST = Condition("step", 0)
LOCATIONS = 16
WIDTH = 2
"""Values of a memory location in recordings."""


def two_phases(width: int) -> Phases:
    """So many inputs and then a flag, which begins the second phase."""
    return Phases(
        (width,), tuple(range(width)), (Opener(None, again=False), Opener(width, again=False))
    )


COPY = Program(
    model="copier",
    locations=LOCATIONS,
    input_width=4,
    output_width=3,
    phases=two_phases(3),
    read_head=0,
    write_head=0,
    read_from=0,
    write_from=0,
    delay=0,
    channels=((0, 0), (1, 1), (2, 2)),
    body=(
        Phase((), (Rule((FIRST,), Move("hold")), ON), StoreRule("input"), emits=False),
        Phase((Rule((FIRST,), Move("hold")), ON), (), None, emits=True),
    ),
    marker=None,
)
"""Emits from the step of the flag on."""

REPEAT = replace(
    COPY,
    output_width=4,
    body=(
        COPY.body[0],
        Phase(
            (
                Rule((FIRST,), Move("goto", place=Place("begin", 0))),
                Rule(
                    (Condition("at", place=Place("begin", 1, offset=-1)),),
                    Move("goto", place=Place("begin", 0)),
                ),
                ON,
            ),
            (ON,),
            StoreRule("read", first=1, end=2),
            emits=True,
        ),
    ),
    marker=Marker(output=3, phase=1, of_phase=0, slope=2.0, intercept=1.0, offset=0),
)
"""Repeats what it heard until the mark, after 2 x + 1 rounds."""

QUEUE = replace(
    REPEAT,
    body=(
        COPY.body[0],
        Phase(
            (Rule((FIRST,), Move("goto", place=Place("begin", 0))), ON),
            (
                Rule((Condition("step", 1),), Move("goto", place=Place("end", 0, offset=1))),
                Rule(
                    (Condition("at", place=Place("begin", 1, offset=-2)),),
                    Move("goto", place=Place("begin", 1, offset=-1)),
                ),
                ON,
            ),
            StoreRule("read"),
            emits=True,
        ),
    ),
)
"""Repeats what it heard by writing each vector again, behind the last. It needs two vectors."""

RECALL = replace(
    COPY,
    input_width=5,
    phases=Phases(
        (3, 4),
        (0, 1, 2),
        (Opener(3, again=True), Opener(4, again=False), Opener(4, again=False)),
    ),
    body=(
        Phase((), (BACK,), StoreRule("input"), emits=False),
        Phase((), (BACK,), StoreRule("input"), emits=False),
        Phase(
            (Rule((FIRST,), Move("goto", place=Place("match", 1, offset=-2))), BACK),
            (),
            None,
            emits=True,
        ),
    ),
)
"""Emits what followed the like of the last input of the query."""

HELD = replace(
    RECALL,
    body=(
        Phase((), (Rule((FIRST,), Move("hold")), BACK), StoreRule("input", first=1), emits=False),
        Phase((), (), None, emits=False),
        Phase(
            (Rule((FIRST,), Move("goto", place=Place("match", 1, offset=-1))), BACK),
            (),
            None,
            emits=True,
        ),
    ),
)
"""The same, on a tape without flags and without the query."""

SORT = replace(
    COPY,
    input_width=5,
    phases=two_phases(4),
    body=(
        Phase((), (ON,), StoreRule("input"), emits=False),
        Phase(
            (Rule((), Move("goto", place=Place("rank", channel=3, offset=-1))),),
            (),
            None,
            emits=True,
        ),
    ),
)
"""Emits from step 1 on, the vector whose input 3 is largest first."""

TURNED = replace(COPY, channels=((0, 2), (1, 0), (2, 1)))
"""Puts out another bit than `COPY` on each output."""

PROGRAMS = {
    "copy": COPY,
    "turned": TURNED,
    "repeat": REPEAT,
    "queue": QUEUE,
    "recall": RECALL,
    "held": HELD,
    "sort": SORT,
}


def sequence(program: Program, random: np.random.Generator) -> Float32:
    """Inputs [T, input width] of random length for one of these programs."""
    rounds = 1
    if program in (RECALL, HELD):
        items = int(random.integers(2, 4))
        bits = random.permuted(np.arange(8))[:items]
        heard = []
        for item in bits:
            heard += [[0, 0, 0, 1, 0], [*_three(int(item)), 0, 0]]
        asked = int(random.integers(items - 1))
        query = [[0, 0, 0, 0, 1], [*_three(int(bits[asked])), 0, 0], [0, 0, 0, 0, 1]]
        return np.array([*heard, *query], np.float32)
    length = int(random.integers(2 if program is QUEUE else 1, 6))
    width = program.input_width
    steps = np.zeros((2 * length + 1, width), np.float32)
    steps[:length, :3] = random.integers(0, 2, (length, 3))
    steps[length, -1] = 1
    if program is SORT:
        steps[:length, 3] = random.permutation(length) / 8 + 0.1
    if program in (REPEAT, QUEUE):
        times = int(random.integers(1, 4))
        steps[length, -1] = times
        rounds = 2 * times + 1
        silence = np.zeros((length * rounds - length, width), np.float32)
        steps = np.concatenate([steps, silence])
    return steps


def _three(number: int) -> list[int]:
    return [number >> 2 & 1, number >> 1 & 1, number & 1]


def recorded(program: Program, inputs: Float32) -> Recording:
    """What a network with sharp heads that runs the program would do with inputs [T, width]."""
    machine = Machine(program, program.locations)
    outputs, reads, writes, emits = [], [], [], []
    for x in inputs:
        outputs.append(machine.step(x))
        reads.append(machine.pointers.read)
        writes.append(machine.pointers.write)
        emits.append(any(key.endswith(("emit", "marker")) for key in machine.executed))
    steps = len(inputs)
    traces = {
        **_head("read", [program.read_from, *reads]),
        **_head("write", [program.write_from, *writes]),
        "erase_vector": np.ones((steps, 1, WIDTH), np.float32),
        "add_vector": np.ones((steps, 1, WIDTH), np.float32),
    }
    before = Memory(
        0,
        np.zeros((LOCATIONS, WIDTH), np.float32),
        np.eye(LOCATIONS, dtype=np.float32)[[program.read_from]],
        np.eye(LOCATIONS, dtype=np.float32)[[program.write_from]],
    )
    return Recording(
        _model(program),
        LOCATIONS,
        inputs,
        np.array(outputs, np.float32),
        traces,
        before,
        before,
        mask=np.array(emits, np.float32),
    )


def _head(kind: str, positions: list[int]) -> dict[str, Float32]:
    """The traces of a head that is at one place before the first step and after each."""
    steps = len(positions) - 1
    moved = np.diff(positions)
    moved = (moved + LOCATIONS // 2) % LOCATIONS - LOCATIONS // 2
    jumped = np.abs(moved) > 1
    shift = np.zeros((steps, 1, 3), np.float32)
    shift[np.arange(steps), 0, np.where(jumped, 0, moved) + 1] = 1
    return {
        f"{kind}_weighting": np.eye(LOCATIONS, dtype=np.float32)[positions[1:]][:, None],
        f"{kind}_key": np.zeros((steps, 1, WIDTH), np.float32),
        f"{kind}_strength": np.ones((steps, 1, 1), np.float32),
        f"{kind}_gate": jumped.astype(np.float32)[:, None, None],
        f"{kind}_shift": shift,
    }


def _model(program: Program) -> Model:
    widths = {"weighting": -1, "key": WIDTH, "strength": 1, "gate": 1, "shift": 3}
    traces = [
        TraceTensor(f"{kind}_{name}", 1, width)
        for kind in ("read", "write")
        for name, width in widths.items()
    ]
    traces += [TraceTensor("erase_vector", 1, WIDTH), TraceTensor("add_vector", 1, WIDTH)]
    return Model(
        name=program.model,
        content_hash="0" * 64,
        task="",
        architecture="by hand",
        input_width=program.input_width,
        output_width=program.output_width,
        state=(),
        traces=tuple(traces),
        read_heads=1,
        write_heads=1,
        default_locations=LOCATIONS,
        fixed_locations=False,
        provider="none",
    )
