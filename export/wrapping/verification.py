"""
Verify a rewritten graph beside its file, and find out whether sessions can share a run.

The file is stepped on plain onnxruntime as its own program would. The graph carries its own state
beside it, and all outputs and states must agree in every step. Then the graph steps rows among
others: what a row gets may not depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from export.comparison import VerificationFailed
from export.plain_session import plain_session
from export.wrapping.description import Description
from export.wrapping.original import Arrays, Original
from export.wrapping.refusal import FileRefused
from service.errors import one_line
from service.spec import Array, StateTensor

STEPS = 100
"""Steps of the comparison with the file."""

ROWS = 4
"""Sessions that are compared with the file."""

BATCHES = (2, 3, 4, 7, 8, 64)
"""Sizes of batches in which a row is compared with the same row alone."""

PACKED_BATCHES = (4, 8, 64)
"""
Sizes of batches in which it is compared with itself among copies in the first of these sizes, as a
server fills the batch of a session that is alone.
"""

BATCH_STEPS = 20
"""Steps of each comparison of batches."""

CLOSE = 1e-2
"""How far results of batches of different sizes may be from each other."""


class Comparison(NamedTuple):
    """How far a graph is from its file, over all steps of all sessions that were compared."""

    sessions: int
    steps: int
    output_difference: float
    """The largest of all outputs; relative for values beyond 1."""
    state_difference: float
    """The same of all states. Each side carries its own from step to step."""
    same_bits: bool
    """Whether all outputs and states have the file's bits."""


class BatchComparison(NamedTuple):
    """How far a row among others is from the same row alone."""

    batch: int
    difference: float
    """The largest of all outputs and states; relative for values beyond 1."""
    same_bits: bool
    """Whether all outputs and states have the bits of the row alone."""
    same_bits_as_copies: bool | None
    """Whether they have those of the row among copies of it; None where that was not compared."""
    error: str = ""
    """What onnxruntime says, if it cannot step such a batch."""


class Graph:
    """A rewritten graph on plain onnxruntime."""

    def __init__(
        self, content: bytes, description: Description, states: Sequence[StateTensor]
    ) -> None:
        """Load a serialised model."""
        try:
            self._session = plain_session(content)
        except Exception as error:  # onnxruntime's errors share no other base class
            raise VerificationFailed(
                f"onnxruntime cannot load the rewritten graph: {one_line(error)}"
            ) from error
        self._outputs = [each.name for each in description.outputs]
        self._states = [(each.name, each.input, each.output) for each in states]

    def step(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[Arrays, Arrays]:
        """
        Make a step of arrays [B, ...]; return the outputs, and the next states by name.

        Whatever onnxruntime raises goes through.
        """
        after = [output for _, _, output in self._states if output]
        feeds = {**inputs, **{source: states[name] for name, source, _ in self._states}}
        found = dict(
            zip(
                (*self._outputs, *after),
                self._session.run([*self._outputs, *after], feeds),
                strict=True,
            )
        )
        following = {
            name: found[output] if output else states[name] for name, _, output in self._states
        }
        return {name: found[name] for name in self._outputs}, following


class Draws:
    """What sessions are stepped with: the same values for the same session, in every call."""

    def __init__(self, description: Description, states: Sequence[StateTensor]) -> None:
        """Draw for the inputs of a description, and for the states that clients give."""
        self._description = description
        self._states = states

    def inputs(self, session: int, steps: int) -> list[Arrays]:
        """Return the inputs of a session's steps."""
        generator = np.random.default_rng((session, 0))
        return [
            {
                each.name: _drawn(generator, each.shape, each.tensor.dtype, each.draw)
                for each in self._description.inputs
            }
            for _ in range(steps)
        ]

    def start(self, session: int) -> Arrays:
        """Return the states that a session starts with."""
        generator = np.random.default_rng((session, 1))
        return {
            each.name: _drawn(generator, each.shape_at(0), each.dtype, None)
            if each.is_given
            else each.initial_value(0)
            for each in self._states
        }


def _drawn(
    generator: np.random.Generator,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    limits: tuple[float, float] | None,
) -> Array:
    if dtype.kind == "f":
        if limits is None:
            return generator.standard_normal(shape, np.float32).astype(dtype)
        return generator.uniform(*limits, shape).astype(dtype)
    lowest, highest = limits or (0, 1)
    return generator.integers(math.ceil(lowest), math.floor(highest) + 1, shape).astype(dtype)


def compare(original: Original, graph: Graph, draws: Draws, largest: float) -> Comparison:
    """
    Step sessions through a file and its rewritten graph, each carrying its own state.

    Raises:
        VerificationFailed: outputs or states differ by more than `largest`.
        FileRefused: the file itself gives values that are not finite.
    """
    differences = np.zeros(2)
    same_bits = True
    for session in range(ROWS):
        expected_states = draws.start(session)
        states = _batch([expected_states])
        for at, x in enumerate(draws.inputs(session, STEPS)):
            expected, expected_states = original.step(x, expected_states)
            _check_finite(at, {**expected, **expected_states})
            try:
                found, states = graph.step(_batch([x]), states)
            except Exception as error:  # onnxruntime's errors share no other base class
                raise VerificationFailed(
                    f"onnxruntime cannot step the rewritten graph: {one_line(error)}"
                ) from error
            for place, here, there in ((0, found, expected), (1, states, expected_states)):
                there = _batch([there])
                # A difference that is not a number has to fail, and stays one here.
                differences[place] = np.maximum(differences[place], distance(here, there))
                same_bits &= _same_bits(here, there)
    output, state = differences.tolist()
    if not differences.max() <= largest:
        raise VerificationFailed(
            f"the rewritten graph differs from its file: outputs by {output:.3g} and states by "
            f"{state:.3g} in {STEPS} steps; {largest:.1g} is allowed"
        )
    return Comparison(ROWS, STEPS, output, state, same_bits)


def compare_batches(graph: Graph, draws: Draws) -> list[BatchComparison]:
    """Step sessions alone, among others and among copies of themselves; compare what they get."""
    sessions = range(max(PACKED_BATCHES[:-1]))
    inputs = [draws.inputs(session, BATCH_STEPS) for session in sessions]
    starts = [draws.start(session) for session in sessions]

    def stepped(rows: Sequence[int]) -> list[Arrays]:
        """Return all that a batch of these sessions gets, step by step."""
        states = _batch([starts[row] for row in rows])
        made = []
        for at in range(BATCH_STEPS):
            outputs, states = graph.step(_batch([inputs[row][at] for row in rows]), states)
            made.append({**outputs, **states})
        return made

    alone = [stepped([session]) for session in sessions]
    copies: list[list[Arrays]] = []
    compared = []
    for batch in BATCHES:
        # Each batch has a session in another row.
        rows = [(at + batch) % len(sessions) for at in range(batch)]
        try:
            mixed = stepped(rows)
            found = [_against(mixed, at, alone[row], 0) for at, row in enumerate(rows)]
            among_copies = None
            if batch in PACKED_BATCHES:
                copies = copies or [stepped([row] * batch) for row in sessions]
                among_copies = all(
                    _against(mixed, at, copies[row], 0)[1] for at, row in enumerate(rows)
                )
        except Exception as error:  # onnxruntime's errors share no other base class
            compared.append(BatchComparison(batch, math.inf, False, False, one_line(error)))
            continue
        worst = max((difference for difference, _ in found), key=lambda d: (math.isnan(d), d))
        same = all(each for _, each in found)
        compared.append(BatchComparison(batch, worst, same, among_copies))
    return compared


def can_batch(compared: Iterable[BatchComparison]) -> bool:
    """
    Whether what a row gets does not depend on the others of its batch.

    A server fills its batches, also that of a session that is alone, to whole packets. Among those
    bits have to be equal. Other batches may have other roundings.
    """
    return all(
        each.difference <= CLOSE and each.same_bits_as_copies is not False for each in compared
    )


def table(found: Comparison, batches: Iterable[BatchComparison]) -> str:
    """Return the comparisons as text."""
    lines = [
        f"beside the file, {found.sessions} sessions of {found.steps} steps: outputs differ by "
        f"{found.output_difference:.1e}, states by {found.state_difference:.1e}"
        + ("; the same bits" if found.same_bits else ""),
        f"{'batch':>5} {'from alone':>10}  bits as alone, as among copies",
    ]
    for each in batches:
        told = each.error[:100] or (
            ("yes" if each.same_bits else "no")
            + {None: "", True: ", yes", False: ", no"}[each.same_bits_as_copies]
        )
        lines.append(f"{each.batch:>5} {each.difference:>10.1e}  {told}")
    return "\n".join(lines)


def _batch(rows: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _against(
    here: Sequence[Arrays], row: int, there: Sequence[Arrays], other: int
) -> tuple[float, bool]:
    """Compare a row of each step with a row of another run: difference, and whether bits agree."""
    worst, same = 0.0, True
    for a, b in zip(here, there, strict=True):
        one = {name: value[row] for name, value in a.items()}
        two = {name: value[other] for name, value in b.items()}
        worst = float(np.maximum(worst, distance(one, two)))
        same &= _same_bits(one, two)
    return worst, same


def distance(found: Arrays, expected: Arrays) -> float:
    """Return the largest difference, relative beyond 1; infinite where shapes differ."""
    worst = 0.0
    for name, value in expected.items():
        if found[name].shape != value.shape:
            return math.inf
        wide = [each.astype(np.float64) for each in (found[name], value)]
        relative = np.abs(wide[0] - wide[1]) / np.maximum(1, np.abs(wide[1]))
        worst = float(np.maximum(worst, relative.max(initial=0)))
    return worst


def _same_bits(found: Arrays, expected: Arrays) -> bool:
    return all(found[name].tobytes() == value.tobytes() for name, value in expected.items())


def _check_finite(step: int, values: Arrays) -> None:
    for name, value in values.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise FileRefused(
                f"{name!r} is infinite or NaN after {step + 1} steps of the file itself with "
                "random inputs; give the range of its inputs, as draw = [LOWEST, HIGHEST]"
            )
