"""Learns the rules that move a head in a phase, as a decision list, from where it was seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ntm_lab.decipher.episode import Bits, Integers
from ntm_lab.decipher.program import Condition, Move, Place, Rule

UNKNOWN = -1
"""Instead of a location: the head was spread, or the place is nowhere."""

FIRST_STEPS = 4
"""The first steps of a phase that rules may name; with more, a list could recite what it saw."""

SHORT = 2
"""The longest phase that rules may name, for which a network may have a way of its own."""

REACH = 4
"""Rules may name locations up to so far from a place."""

NEAR = 2
"""Rules may ask whether a head is at most so far from a place."""

TOLERANCE = 0.005
"""A rule may be wrong in this part of the steps it covers: networks err, and blur, now and then."""

LONGEST = 6
"""Rules of a list; what takes more to say is no rule."""


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
    """
    [E] for each place: its location, or `UNKNOWN`. Without an offset, but for ranks, each of whose
    offsets is a place of its own.
    """


def learn(examples: Examples) -> tuple[Rule, ...]:
    """
    The shortest list found that moves the head as it was seen to; empty without examples.

    A greedy form of Rivest's decision lists (1987): while the last rule, which always holds, is
    wrong in a step, a rule is put before it, the one that is right in most of such steps and in
    all but a tolerable part of the others that it covers.
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
    lists = [
        _list(int(last), possible, right, faithful, choices, np.array(held))
        for last in np.argsort(-right.sum(1), kind="stable")[:3]
    ]
    best = min(lists, key=lambda found: (found.wrong, len(found.rules), -found.faithful))
    return best.rules


@dataclass(frozen=True)
class _List:
    rules: tuple[Rule, ...]
    wrong: int
    """Steps that it gets wrong."""
    faithful: int
    """Steps in which it jumps or shifts as the head did."""


def _list(
    last: int,
    possible: Sequence[Move],
    right: Bits,
    faithful: Bits,
    choices: Sequence[tuple[Condition, ...]],
    true: Bits,
) -> _List:
    """A list that ends in that move."""
    rest = np.ones(right.shape[1], np.bool_)
    rules: list[Rule] = []
    agree = 0
    while len(rules) < LONGEST - 1 and (rest & ~right[last]).any():
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
                len(choices[tie[0]]),
                -loyal[tie] / covered[tie[0], 0],
                _weight(possible[tie[1]]),
                tie,
            ),
        )
        rules.append(Rule(choices[choice], possible[move]))
        agree += int(loyal[choice, move])
        rest &= ~true[choice]
    wrong = int((rest & ~right[last]).sum())
    agree += int((rest & faithful[last]).sum())
    rules.append(Rule((), possible[last]))
    return _List(tuple(rules), wrong, agree)


def _weight(move: Move) -> int:
    """How much there is to say of a move."""
    return abs(move.amount) + (abs(move.place.offset) if move.place else 0)


def moves(places: Iterable[Place], reach: int = REACH) -> Iterator[Move]:
    """Every move that a rule may make, given the places that it may name, simple ones first."""
    yield Move("hold")
    for amount in range(1, reach + 1):
        yield Move("shift", amount)
        yield Move("shift", -amount)
    for place in places:
        offsets = [0] if place.kind == "rank" else sorted(range(-reach, reach + 1), key=abs)
        for offset in offsets:
            yield Move("goto", place=place.after(offset))


def conditions(earlier: Iterable[int], places: Iterable[Place]) -> Iterator[tuple[Condition, ...]]:
    """Every condition, then every two, given the earlier phases and the places that it may name."""
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
