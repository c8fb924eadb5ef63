"""Learns the rules of a head in a phase, as a decision list, from its recorded locations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ntm_lab.decipher.episode import Bits, Integers
from ntm_lab.decipher.program import Condition, Move, Place, Rule

UNKNOWN = -1
"""Stands for a location where there is none: the head was spread, or no location fits the place."""

FIRST_STEPS = 4
"""
Rules may name this many first steps of a phase. With more, a list of rules could repeat the
examples instead of explaining them.
"""

SHORT = 2
"""Rules may name phases of up to this length. Networks may treat such short phases specially."""

REACH = 4
"""The largest distance from a place to a location that a rule moves to."""

NEAR = 2
"""The largest distance from a place to a location that a condition names."""

TOLERANCE = 0.015
"""
A rule may be wrong in this part of the steps that it covers, because networks make mistakes too.
"""

LONGEST = 6
"""The largest number of rules in a list."""


@dataclass(frozen=True, eq=False)
class Examples:
    """E steps in which a head was at one location, and what rules may use to explain its moves."""

    locations: int
    """The number of memory locations, N."""
    previous: Integers
    """[E]: the head's location before the step, or `UNKNOWN`."""
    location: Integers
    """[E]: the head's location after the step."""
    jumped: Bits
    """[E]: whether the head jumped there by content."""
    offset: Integers
    """[E]: the index of the step in its phase."""
    lengths: Mapping[int, Integers]
    """For each earlier phase, [E]: its number of steps."""
    places: Mapping[Place, Integers]
    """
    For each place, [E]: its location, or `UNKNOWN`. Places have no offset, except ranks, of which
    each offset is a place of its own.
    """


def learn(examples: Examples) -> tuple[Rule, ...]:
    """
    The list of rules that explains the examples best, and is short; empty without examples.

    This is a greedy form of Rivest's decision lists (1987). The list begins with one rule that
    always holds. As long as that last rule is wrong in some steps, another rule is put before it:
    the rule that is right in most of these steps and wrong in at most `TOLERANCE` of all steps that
    it covers.
    """
    if not len(examples.location):
        return ()
    possible = list(moves(examples.places))
    right = np.array([_right(move, examples) for move in possible])
    jumps = np.array([move.kind == "goto" for move in possible])
    faithful = right & (jumps[:, None] == examples.jumped)
    choices = []
    held = []
    for choice in conditions(examples.lengths, examples.places):
        true = np.logical_and.reduce([_true(condition, examples) for condition in choice])
        if true.any():
            choices.append(choice)
            held.append(true)
    # A head that goes nowhere in particular may have no condition that ever holds.
    true_in = np.array(held, np.bool_).reshape(len(held), right.shape[1])
    lists = [
        _list(int(last), possible, right, faithful, choices, true_in)
        for last in np.argsort(-right.sum(1), kind="stable")[:3]
    ]
    best = min(lists, key=lambda found: (found.wrong, len(found.rules), -found.faithful))
    return best.rules


@dataclass(frozen=True)
class _List:
    rules: tuple[Rule, ...]
    wrong: int
    """The number of examples that the list explains wrongly."""
    faithful: int
    """
    The number of examples in which the list jumps where the head jumped, and shifts where it
    shifted.
    """


def _list(
    last: int,
    possible: Sequence[Move],
    right: Bits,
    faithful: Bits,
    choices: Sequence[tuple[Condition, ...]],
    true: Bits,
) -> _List:
    """Build the list whose last rule makes the move `possible[last]`."""
    rest = np.ones(right.shape[1], np.bool_)
    rules: list[Rule] = []
    agree = 0
    while len(rules) < LONGEST - 1 and (rest & ~right[last]).any():
        # [choices, moves]: steps that a rule covers, gets right, and mends.
        covered = (true & rest).sum(1)[:, None]
        hits = (true & rest).astype(np.float32) @ right.T
        corrected = (true & rest & ~right[last]).astype(np.float32) @ right.T
        faithful_hits = (true & rest).astype(np.float32) @ faithful.T
        sound = hits >= (1 - TOLERANCE) * covered
        gain = np.where(sound & (corrected > 0), corrected, 0)
        if not gain.any():
            break
        ties = np.argwhere(gain == gain.max())
        choice, move = min(
            (tuple(tie) for tie in ties),
            key=lambda tie: (
                len(choices[tie[0]]),
                -faithful_hits[tie] / covered[tie[0], 0],
                _weight(possible[tie[1]]),
                tie,
            ),
        )
        rules.append(Rule(choices[choice], possible[move]))
        agree += int(faithful_hits[choice, move])
        rest &= ~true[choice]
    wrong = int((rest & ~right[last]).sum())
    agree += int((rest & faithful[last]).sum())
    rules.append(Rule((), possible[last]))
    return _List(tuple(rules), wrong, agree)


def _weight(move: Move) -> int:
    """The size of a move's numbers: simpler moves have less."""
    return abs(move.amount) + (abs(move.place.offset) if move.place else 0)


def moves(places: Iterable[Place], reach: int = REACH) -> Iterator[Move]:
    """
    Every move that a rule may make, given the places that it may name; simple moves come first.
    """
    yield Move("hold")
    for amount in range(1, reach + 1):
        yield Move("shift", amount)
        yield Move("shift", -amount)
    for place in places:
        offsets = [0] if place.kind == "rank" else sorted(range(-reach, reach + 1), key=abs)
        for offset in offsets:
            yield Move("goto", place=place.after(offset))


def conditions(earlier: Iterable[int], places: Iterable[Place]) -> Iterator[tuple[Condition, ...]]:
    """Every single condition, then every pair, given the earlier phases and the places to name."""
    single = [Condition("step", step) for step in range(FIRST_STEPS)]
    for phase in earlier:
        single += [Condition("length", length, phase) for length in range(1, SHORT + 1)]
    for place in places:
        if place.kind != "begin":
            continue
        offsets = sorted(range(-NEAR, NEAR + 1), key=abs)
        single += [Condition("at", place=place.after(offset)) for offset in offsets]
    yield from ((condition,) for condition in single)
    yield from combinations(single, 2)


def _right(move: Move, examples: Examples) -> Bits:
    if move.place is None:
        known = examples.previous != UNKNOWN
        target = examples.previous + move.amount
    else:
        offset = 0 if move.place.kind == "rank" else move.place.offset
        start = examples.places[move.place.after(-offset)]
        known = start != UNKNOWN
        target = start + offset
    right: Bits = known & (target % examples.locations == examples.location)
    return right


def _true(condition: Condition, examples: Examples) -> Bits:
    true: Bits
    if condition.kind == "step":
        true = examples.offset == condition.number
    elif condition.kind == "length":
        true = examples.lengths[condition.phase] == condition.number
    else:
        assert condition.place is not None
        start = examples.places[condition.place.after(-condition.place.offset)]
        known = (start != UNKNOWN) & (examples.previous != UNKNOWN)
        location = (start + condition.place.offset) % examples.locations
        true = known & (location == examples.previous)
    return true
