"""Prints a program as pseudo-code, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ntm_lab.decipher.program import Condition, Marker, Move, Phase, Place, Program, Rule, StoreRule


@dataclass(frozen=True)
class Line:
    """A line of pseudo-code, and the parts of the program that it stands for."""

    text: str
    keys: frozenset[str]
    """
    The names of these parts, as in `Machine.executed`; empty for a line before the first step.
    """


def listing(program: Program) -> tuple[Line, ...]:
    """The program as pseudo-code in the style of the paper, about heads and locations."""
    return tuple(_lines(program))


def executed_lines(lines: Sequence[Line], executed: Sequence[str]) -> tuple[int, ...]:
    """The indices of the lines that a step executed, given its `Machine.executed`."""
    return tuple(index for index, line in enumerate(lines) if line.keys & set(executed))


def _lines(program: Program) -> Iterator[Line]:
    heads = f"read head {program.read_head + 1} at location {program.read_from}"
    heads += f", write head {program.write_head + 1} at location {program.write_from}"
    yield Line(f"start with {heads}", frozenset())
    for index, phase in enumerate(program.body):
        yield Line(_opening(program, index), frozenset({f"{index}"}))
        if phase.does_nothing:
            yield _line("the heads stay, and nothing is written", f"{index}")
        yield from _moves(index, "write", phase.write)
        yield from _moves(index, "read", phase.read)
        if phase.store is not None:
            yield _line(_stored(phase.store), f"{index}.store")
        if program.marker is not None and program.marker.phase == index:
            yield _line(_marked(program.marker), f"{index}.marker")
        if phase.emits:
            yield _line(_emitted(program, phase), f"{index}.emit")


def _line(text: str, *keys: str) -> Line:
    return Line(f"    {text}", frozenset(keys))


def _named(program: Program, index: int) -> str:
    """The names that rules have for the write head's first and last location in a phase."""
    places: list[Place | None] = []
    for phase in program.body:
        for rule in (*phase.read, *phase.write):
            places += [rule.move.place, *(condition.place for condition in rule.conditions)]
    kinds = {place.kind for place in places if place is not None and place.phase == index}
    first = [f"first location is start {index}"] if "begin" in kinds else []
    last = [f"last is end {index}"] if "end" in kinds else []
    return f" (the write head's {', its '.join(first + last)})" if first + last else ""


def _opening(program: Program, index: int) -> str:
    openers = program.phases.openers
    opener = openers[index]
    parts = [f"phase {index}"]
    if opener.channel is not None:
        parts.append(f"from the step 0 in which input {opener.channel} is set")
        if opener.again:
            parts.append("and again whenever it is set")
    if index + 1 < len(openers):
        ending = openers[index + 1].channel
        repeated = " again" if ending == opener.channel else ""
        parts.append(f"until input {ending} is set{repeated}")
    return f"{', '.join(parts)}, at each step{_named(program, index)}:"


def _moves(index: int, head: str, rules: Sequence[Rule]) -> Iterator[Line]:
    """Lines for the rules of a head. Neighbouring rules with the same move share a line."""
    if len(rules) == 1 and rules[0].move.kind == "hold":
        return
    first = 0
    for move, group in groupby(rules, key=lambda rule: rule.move):
        same = list(group)
        keys = [f"{index}.{head}.{first + number}" for number in range(len(same))]
        text = f"the {head} head {_moved(move)}"
        last = first + len(same) == len(rules)
        if not last:
            text = f"if {' or '.join(_all_of(rule.conditions) for rule in same)}: {text}"
        elif first:
            text = f"else {text}"
        if first:
            text = text if text.startswith("else") else f"else {text}"
        yield _line(text, *keys)
        first += len(same)


def _all_of(conditions: Sequence[Condition]) -> str:
    return " and ".join(_held(condition) for condition in conditions)


def _held(condition: Condition) -> str:
    if condition.kind == "step":
        return f"it is step {condition.number}"
    if condition.kind == "length":
        return f"phase {condition.phase} had {_steps(condition.number)}"
    assert condition.place is not None
    return f"it is at {place_text(condition.place)}"


def _steps(number: int) -> str:
    return f"{number} step" if number == 1 else f"{number} steps"


def _moved(move: Move) -> str:
    if move.place is not None:
        how = "" if move.place.kind in ("begin", "end") else "by content "
        return f"goes {how}to {place_text(move.place)}"
    return f"shifts {move.amount:+d}" if move.amount else "stays"


def place_text(place: Place) -> str:
    """A place in words."""
    if place.kind == "rank":
        return (
            f"what has the next largest input {place.channel} of all that is stored, "
            f"the largest at step {-place.offset}"
        )
    offset = f" {'+' if place.offset > 0 else '-'} {abs(place.offset)}" if place.offset else ""
    if place.kind == "match":
        return f"where the like of what ended phase {place.phase} was stored before it{offset}"
    return f"{'start' if place.kind == 'begin' else 'end'} {place.phase}{offset}"


def _stored(store: StoreRule) -> str:
    text = "write the input at the write head"
    if store.source == "read":
        text = "write at the write head what was read one step ago"
    if store.end is None:
        return f"{text}, from step {store.first} on" if store.first else text
    last = store.end - 1
    if store.first == last:
        return f"at step {last} {text}"
    return f"at steps {store.first} to {last} {text}"


def _marked(marker: Marker) -> str:
    times, shown = f"{marker.intercept:g}", ""
    if marker.slope:
        sign = "-" if marker.intercept < 0 else "+"
        times = f"round({marker.slope:.4g} x {sign} {abs(marker.intercept):.4g})"
        shown = ", x being what the flag showed"
    steps = f"{times} times the steps of phase {marker.of_phase}"
    plus = f", plus {marker.offset}" if marker.offset else ""
    return f"if this is step {steps}{plus}{shown}: emit the mark, output {marker.output} alone"


def _emitted(program: Program, phase: Phase) -> str:
    read = "read one step ago" if program.delay else "reads"
    marked = program.marker is not None and program.body.index(phase) == program.marker.phase
    return f"{'else ' if marked else ''}emit what the read head {read}"
