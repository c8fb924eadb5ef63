"""Learns the rules that move a head in a phase, as a decision list, from where it was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from client.decipher.program import Condition, Move, Place, Rule

Integers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]

UNKNOWN = -1
"""Instead of a location: the head was spread, or the place is nowhere."""

FIRST_STEPS = 4
"""Rules may name so many first steps of a phase; with more, a list could recite what it saw."""

SHORT = 2
"""Rules may name phases of up to so many steps, for which a network may have a way of its own."""

REACH = 4
"""Rules may name locations up to so far from a place."""

NEAR = 2
"""Rules may ask whether a head is at most so far from a place."""

TOLERANCE = 0.005
"""A rule may be wrong in this part of the steps it covers: networks err, and blur, now and then."""


@dataclass(frozen=True, eq=False)
class Examples:
    """E steps in which a head was at one place, and what a rule may know in them."""

    locations: int
    """Of the memory, N."""
    previous: Integers
    """[E]: where it was before, or `UNKNOWN`."""
    location: Integers
    """[E]: where it went."""
    jumped: Bits
    """[E]: whether content led it there."""
    offset: Integers
    """[E]: step of the phase."""
    lengths: Mapping[int, Integers]
    """By earlier phase, [E]: its steps."""
    places: Mapping[Place, Integers]
    """[E] for each place without an offset: its location, or `UNKNOWN`."""


@dataclass(frozen=True, eq=False)
class _Choice:
    """Something that a rule may consist of, and where it is true."""

    conditions: tuple[Condition, ...]
    true: Bits


def learn(examples: Examples) -> tuple[Rule, ...]:
    """
    The shortest list found that moves the head as it was seen to; empty without examples.

    A greedy form of Rivest's decision lists (1987): while the last rule, which always holds, is
    wrong in more than a tolerable part of the steps, rules are put before it, each the one that is
    right in most of these and in all but a tolerable part of the others that it covers.
    """
    if not len(examples.location):
        return ()
    moves = list(_moves(examples))
    right = np.array([_right(move, examples) for move in moves])
    jumps = np.array([move.kind == "goto" for move in moves])
    faithful = right & (jumps[:, None] == examples.jumped)
    choices = list(_choices(examples))
    true = np.array([choice.true for choice in choices])
    lists = []
    for last in np.argsort(-right.sum(1), kind="stable")[:3]:
        lists.append(_list(int(last), moves, right, faithful, choices, true))
    best = min(lists, key=lambda found: (found.wrong, len(found.rules), -found.faithful))
    return best.rules


@dataclass(frozen=True)
class _List:
    rules: tuple[Rule, ...]
    wrong: int
    """Steps that it gets wrong, if that is more than is tolerable; else 0."""
    faithful: int
    """Steps in which it jumps or shifts as the head did."""


def _list(
    last: int,
    moves: Sequence[Move],
    right: Bits,
    faithful: Bits,
    choices: Sequence[_Choice],
    true: Bits,
) -> _List:
    """A list that ends in that move."""
    rest = np.ones(right.shape[1], np.bool_)
    rules: list[Rule] = []
    agree = 0
    while (rest & ~right[last]).sum() > TOLERANCE * right.shape[1]:
        # [choices, moves]: steps that a rule covers, gets right, and mends.
        covered = (true & rest).sum(1)[:, None]
        hits = (true & rest).astype(np.float32) @ right.T
        mended = (true & rest & ~right[last]).astype(np.float32) @ right.T
        loyal = (true & rest).astype(np.float32) @ faithful.T
        sound = hits >= (1 - TOLERANCE) * covered
        gain = np.where(sound & (mended > 0), mended, 0)
        if not gain.max():
            break
        ties = np.argwhere(gain == gain.max())
        choice, move = min(
            (tuple(tie) for tie in ties),
            key=lambda tie: (
                len(choices[tie[0]].conditions),
                -loyal[tie] / covered[tie[0], 0],
                _weight(moves[tie[1]]),
                tie,
            ),
        )
        rules.append(Rule(choices[choice].conditions, moves[move]))
        agree += int(loyal[choice, move])
        rest &= ~true[choice]
    wrong = int((rest & ~right[last]).sum())
    agree += int((rest & faithful[last]).sum())
    rules.append(Rule((), moves[last]))
    tolerable = wrong <= TOLERANCE * right.shape[1]
    return _List(tuple(rules), 0 if tolerable else wrong, agree)


def _weight(move: Move) -> int:
    """How much there is to say of a move."""
    return abs(move.amount) + (abs(move.place.offset) if move.place else 0)


def _moves(examples: Examples) -> Iterator[Move]:
    yield Move("hold")
    for amount in range(1, REACH + 1):
        yield Move("shift", amount)
        yield Move("shift", -amount)
    for place in examples.places:
        for offset in sorted(range(-REACH, REACH + 1), key=abs):
            yield Move("goto", place=place.after(offset))


def _right(move: Move, examples: Examples) -> Bits:
    if move.place is None:
        known = examples.previous != UNKNOWN
        target = examples.previous + move.amount
    else:
        start = examples.places[move.place.after(-move.place.offset)]
        known = start != UNKNOWN
        target = start + move.place.offset
    right: Bits = known & (target % examples.locations == examples.location)
    return right


def _choices(examples: Examples) -> Iterator[_Choice]:
    """One condition, or two that hold together; none that never holds."""
    single = [choice for choice in _single(examples) if choice.true.any()]
    yield from single
    for one, other in combinations(single, 2):
        both = one.true & other.true
        if both.any():
            yield _Choice(one.conditions + other.conditions, both)


def _single(examples: Examples) -> Iterator[_Choice]:
    for step in range(FIRST_STEPS):
        yield _Choice((Condition("step", step),), examples.offset == step)
    for phase, lengths in examples.lengths.items():
        for length in range(1, SHORT + 1):
            yield _Choice((Condition("length", length, phase),), lengths == length)
    for place, start in examples.places.items():
        for offset in sorted(range(-NEAR, NEAR + 1), key=abs):
            known = (start != UNKNOWN) & (examples.previous != UNKNOWN)
            there = known & ((start + offset) % examples.locations == examples.previous)
            yield _Choice((Condition("at", place=place.after(offset)),), there)
