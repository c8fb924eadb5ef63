"""
Corrects a program that was learned step by step: adds rules that it lacks, drops needless ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from ntm_lab.decipher.comparison import compare, fails
from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Condition, Place, Program, Rule
from ntm_lab.decipher.rules import conditions, moves
from ntm_lab.decipher.watched import WatchedHead

MAX_MISPLACED = 0.01
"""
A rule is needless only if, without it, the program's heads are elsewhere than the network's in no
more than this part of the steps.
"""

MIN_CORRECTED = 2
"""
The fewest failing episodes that a new rule must correct. In a single one, the network itself may be
wrong.
"""

SCREENED = 4
"""
A new rule is tried on this many failing episodes first. If it corrects one, it is tried on all
episodes.
"""

ADDED_REACH = 1
"""
The largest shift of a rule that is added, and the largest distance from the place that it names.
"""


def refined(program: Program, episodes: Sequence[Episode], heads: Sequence[WatchedHead]) -> Program:
    """
    The program, corrected so that it explains these episodes from the inputs alone.

    Each rule was learned from where the network's heads were one step before. Where those heads are
    spread over several locations, a learned rule can be wrong or needless, or a rule is missing.
    """
    return pruned(anchored(corrected(program, episodes), episodes, heads), episodes, heads)


def anchored(
    program: Program, episodes: Sequence[Episode], heads: Sequence[WatchedHead]
) -> Program:
    """
    The program with its write head started so that it is where the network's is in most steps.

    A network's head may be spread in the first steps. Its location in later steps, where it is
    focused, shows where the program has to begin.
    """
    (write,) = (head for head in heads if head.kind == "write")
    offsets: Counter[int] = Counter()
    for index, episode in enumerate(episodes):
        machine = Machine(program, program.locations)
        for step in np.flatnonzero(write.relevant[index]):
            while machine.steps <= step:
                machine.step(episode.recording.inputs[machine.steps])
            offsets[
                int(write.seen[index][step + 1] - machine.pointers.write) % program.locations
            ] += 1
    if not offsets:
        return program
    ((offset, _),) = offsets.most_common(1)
    moved = replace(program, write_from=(program.write_from + offset) % program.locations)
    before, after = compare(program, episodes, heads), compare(moved, episodes, heads)
    better = after.wrong <= before.wrong and after.misplaced < before.misplaced
    return moved if better else program


def pruned(program: Program, episodes: Sequence[Episode], heads: Sequence[WatchedHead]) -> Program:
    """
    The program without the rules and conditions that it does not need for these episodes.

    The result has no more wrong bits. Its heads are elsewhere than the network's in at most
    `MAX_MISPLACED` of the steps more.
    """
    first = compare(program, episodes, heads)
    wrong, misplaced = first.wrong, first.misplaced + MAX_MISPLACED * first.steps
    again = True
    while again:
        again = False
        for simpler in _simpler(program):
            found = compare(simpler, episodes, heads, wrong)
            if found.wrong <= wrong and found.misplaced <= misplaced:
                program, wrong, again = simpler, found.wrong, True
                break
    return program


def corrected(program: Program, episodes: Sequence[Episode]) -> Program:
    """
    The program with added rules, each of which corrects some failing episodes.

    These rules are about short sequences. A network may treat them in a special way, and they are
    too few among the episodes to be learned from before.
    """
    failing = [episode for episode in episodes if fails(program, episode)]
    while len(failing) >= MIN_CORRECTED:
        passing = [episode for episode in episodes if episode not in failing]
        best, fewest = program, len(failing) - MIN_CORRECTED + 1
        for longer in _longer(program, failing):
            found = _failures(longer, failing[:SCREENED], passing, failing, fewest)
            if found < fewest:
                best, fewest = longer, found
        if best is program:
            break
        program = best
        failing = [episode for episode in episodes if fails(program, episode)]
    return program


def _failures(
    program: Program,
    screened: Sequence[Episode],
    passing: Sequence[Episode],
    failing: Sequence[Episode],
    maximum: int,
) -> int:
    """How many of the episodes fail; `maximum` as soon as the number is known to reach it."""
    if all(fails(program, episode) for episode in screened):
        return maximum
    count = 0
    for episode in (*passing, *failing):
        count += fails(program, episode)
        if count >= maximum:
            return maximum
    return count


def _longer(program: Program, failing: Sequence[Episode]) -> Iterator[Program]:
    """Each program with one rule more, for a short phase that a failing episode has."""
    for index, phase in enumerate(program.body):
        places = [Place("begin", earlier) for earlier in range(index + 1)]
        for head, rules in (("read", phase.read), ("write", phase.write)):
            if not rules:
                continue
            for choice in conditions(range(index), places):
                if not any(_occurs(condition, failing) for condition in choice):
                    continue
                for move in moves(places, ADDED_REACH):
                    yield _with(program, index, head, (Rule(choice, move), *rules))


def _occurs(condition: Condition, episodes: Sequence[Episode]) -> bool:
    """Whether a condition is about the length of a phase and holds in one of the episodes."""
    return condition.kind == "length" and any(
        episode.moments[-1].lengths[condition.phase] == condition.number for episode in episodes
    )


def _simpler(program: Program) -> Iterator[Program]:
    """Each program with one rule less, or one condition less, or one group of rules less."""
    yield from _started_elsewhere(program)
    for index, phase in enumerate(program.body):
        for head in ("read", "write"):
            rules = phase.read if head == "read" else phase.write
            yield from (_with(program, index, head, grouped) for grouped in _grouped(rules))
            for place, rule in enumerate(rules):
                fewer = (*rules[:place], *rules[place + 1 :])
                if rule.conditions or len(rules) == 1:
                    yield _with(program, index, head, fewer)
                if len(rule.conditions) < 2:
                    continue
                for condition in rule.conditions:
                    rest = tuple(other for other in rule.conditions if other != condition)
                    shorter = replace(rule, conditions=rest)
                    changed = (*rules[:place], shorter, *rules[place + 1 :])
                    yield _with(program, index, head, changed)


def _started_elsewhere(program: Program) -> Iterator[Program]:
    """
    Each program without a first step of its own: a head that starts elsewhere makes the move of the
    other steps in that one too.
    """
    for head in ("read", "write"):
        bodies = [phase.read if head == "read" else phase.write for phase in program.body]
        index = next((number for number, rules in enumerate(bodies) if rules), None)
        if index is None:
            continue
        first, rest = bodies[index][0], bodies[index][-1]
        if first.conditions != (Condition("step", 0),) or first.move.place or rest.move.place:
            continue
        earlier = first.move.amount - rest.move.amount
        if head == "read":
            moved = replace(program, read_from=program.read_from + earlier)
        else:
            moved = replace(program, write_from=program.write_from + earlier)
        yield _with(moved, index, head, bodies[index][1:])


def _grouped(rules: tuple[Rule, ...]) -> Iterator[tuple[Rule, ...]]:
    """Each order of the rules in which one more of them is beside one with the same move."""
    groups = _groups(rules)
    for old in range(len(rules) - 1):  # the last one holds always
        rest = (*rules[:old], *rules[old + 1 :])
        for new in range(len(rest)):
            order = (*rest[:new], rules[old], *rest[new:])
            if _groups(order) < groups:
                yield order


def _groups(rules: Sequence[Rule]) -> int:
    return sum(1 for _ in groupby(rules, key=lambda rule: rule.move))


def _with(program: Program, index: int, head: str, rules: tuple[Rule, ...]) -> Program:
    phase = program.body[index]
    changed = replace(phase, read=rules) if head == "read" else replace(phase, write=rules)
    return replace(program, body=(*program.body[:index], changed, *program.body[index + 1 :]))
