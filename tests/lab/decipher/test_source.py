"""A program as Python that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ntm_client.values import Float32
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.source import source
from tests.lab.decipher.programs import PROGRAMS, sequence

Inputs = list[list[float]] | Float32


def compiled(program: Program) -> Callable[[Inputs, int | None], Iterator[list[int]]]:
    """The `run` of its source."""
    names: dict[str, Any] = {"__builtins__": __builtins__}
    exec(compile(source(program), "program", "exec"), names)  # noqa: S102 - that it runs is the point
    run: Callable[[Inputs, int | None], Iterator[list[int]]] = names["run"]
    return run


def noise(program: Program, random: np.random.Generator) -> Float32:
    """Inputs of any length, with flags at any time."""
    steps = int(random.integers(1, 40))
    inputs = random.integers(0, 2, (steps, program.input_width)) * random.random((steps, 1))
    inputs[random.random(steps) < 0.3] = 0
    for flag in program.phases.flags:
        here = random.random(steps) < 0.1
        inputs[here] = 0
        inputs[here, flag] = random.integers(1, 3, here.sum())
    return inputs.astype(np.float32)


@pytest.mark.parametrize("locations", [None, 3, 16])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_source_does_what_the_machine_does(name: str, locations: int | None) -> None:
    """On proper sequences and on noise, in a small and a large ring and on an endless tape."""
    program, random = PROGRAMS[name], np.random.default_rng(5)
    run = compiled(program)
    for draw in (sequence, noise):
        for _ in range(60):
            inputs = draw(program, random)
            outputs = Machine(program, locations).run(inputs)
            assert list(run(inputs.tolist(), locations)) == outputs.tolist()
            assert list(run(inputs, locations)) == outputs.tolist()


def test_the_source_is_explained_by_the_listing() -> None:
    """Its docstring has the pseudo-code."""
    assert "        if it is step 0: the write head stays\n" in source(PROGRAMS["copy"])


def test_a_name_is_a_name_and_no_code() -> None:
    """Whatever a model is called, its program is all that runs."""
    named = replace(PROGRAMS["copy"], model='x"""\nraise SystemExit\n"""\\')
    inputs = sequence(named, np.random.default_rng(1))

    outputs = list(compiled(named)(inputs, 16))

    np.testing.assert_array_equal(outputs, Machine(named, 16).run(inputs))
