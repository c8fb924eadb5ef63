"""Rules that are learned from where a head was seen."""

from __future__ import annotations

import numpy as np

from ntm_lab.decipher.program import Condition, Move, Place, Rule
from ntm_lab.decipher.rules import UNKNOWN, Examples, learn

BEGIN = Place("begin", 0)


def examples(previous: list[int], location: list[int], jumped: list[bool]) -> Examples:
    """Steps 0, 1, 2, ... of one phase, in a ring of eight; the phase before began at location 5."""
    count = len(location)
    return Examples(
        8,
        np.array(previous),
        np.array(location),
        np.array(jumped),
        np.arange(count),
        {0: np.full(count, 3)},
        {BEGIN: np.full(count, 5)},
    )


def test_one_move_is_one_rule() -> None:
    """A head that makes one kind of move has one rule, also across the end of the ring."""
    found = learn(examples([5, 6, 7, 0], [6, 7, 0, 1], [False] * 4))

    assert found == (Rule((), Move("shift", 1)),)


def test_an_exception_comes_before_the_rule() -> None:
    """A head that was nowhere cannot have shifted: it went to a place."""
    found = learn(examples([UNKNOWN, 5, 6, 7], [5, 6, 7, 0], [True, False, False, False]))

    assert found == (
        Rule((Condition("step", 0),), Move("goto", place=BEGIN)),
        Rule((), Move("shift", 1)),
    )


def test_a_jump_is_a_jump_where_both_would_do() -> None:
    """The exception could be a hold, but the head was seen to be led there by content."""
    jumped = learn(examples([5, 5, 6, 7], [5, 6, 7, 0], [True, False, False, False]))
    held = learn(examples([5, 5, 6, 7], [5, 6, 7, 0], [False] * 4))

    assert jumped[0].move == Move("goto", place=BEGIN)
    assert held[0].move == Move("hold")


def test_a_rule_that_would_be_wrong_elsewhere_is_not_taken() -> None:
    """At its second location the head once goes on and once goes back: no place decides that."""
    found = learn(examples([5, 6, 5, 6, 7, 0], [6, 5, 6, 7, 0, 1], [False] * 6))

    assert found == (
        Rule((Condition("step", 1),), found[0].move),
        Rule((), Move("shift", 1)),
    )


def test_a_rule_may_be_wrong_once_in_a_hundred_steps() -> None:
    """Networks make mistakes: one first step of a hundred is another one; two are not forgiven."""

    def found(mistakes: int) -> tuple[Rule, ...]:
        offset = np.repeat([0, 1], 100)
        location = np.repeat([4, 6], 100)
        location[:mistakes] = 5
        return learn(
            Examples(
                8,
                np.full(200, 5),
                location,
                np.zeros(200, np.bool_),
                offset,
                {0: np.full(200, 3)},
                {BEGIN: np.full(200, 2)},
            )
        )

    first = Rule((Condition("step", 0),), Move("shift", -1))
    assert found(1) == (first, Rule((), Move("shift", 1)))
    assert found(2) == (Rule((), Move("shift", 1)),)


def test_a_rule_must_hold_wherever_it_applies() -> None:
    """At location 6 most exceptions are seen, but as many steps that are none."""
    previous = [6, 6, 6, 6, 6, 6, 6, 0, 1]
    found = learn(examples(previous, [5, 5, 5, 7, 7, 7, 7, 1, 2], [False] * 9))

    conditions = [condition.kind for rule in found for condition in rule.conditions]
    assert conditions == ["step"] * 3
    assert found[-1] == Rule((), Move("shift", 1))


def test_nothing_is_learned_of_nothing() -> None:
    """Without examples there is no rule."""
    assert learn(examples([], [], [])) == ()
