"""Prints a program as Python that needs no other module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.program import Condition, Marker, Move, Phase, Place, Program, Rule, StoreRule

CLOCK = """\
        shown = [channel for channel, number in enumerate(x) if number]
        flag = shown[0] if len(shown) == 1 and shown[0] in FLAGS else None
        opens, again = OPENERS[phase + 1] if phase + 1 < len(OPENERS) else (None, False)
        if step < 0:
            step = 0
            values[0] = x[flag] if flag is not None else 0.0
        elif flag is not None and flag == opens:
            phase, step = phase + 1, 0
            values[phase] = x[flag]
        elif flag is not None and OPENERS[phase] == (flag, True):
            step = 0
        else:
            step += 1
        lengths[phase] += 1
"""

MATCH = """\
def match(memory, written, count, inputs):
    \"\"\"Find the last input among `count` writes; of several, the longest run alike.\"\"\"
    latest = {location: index for index, location in enumerate(written)}
    best, longest = None, 0
    for index in range(count - 1, -1, -1):
        length = 0
        while length < len(inputs) and length <= index:
            location = written[index - length]
            if latest[location] != index - length:  # it was written over
                break
            if memory.get(location) != inputs[-1 - length]:
                break
            length += 1
        if length > longest:
            best, longest = written[index], length
    return best


"""

RANK = """\
def rank(memory, channel, number):
    \"\"\"Find the largest value of a channel in memory at number 0, then the next.\"\"\"
    stored = [location for location in memory if memory[location] is not None]
    order = sorted(stored, key=lambda location: -memory[location][channel])
    return order[number] if 0 <= number < len(order) else None


"""


def source(program: Program) -> str:
    """
    The text of Python that defines `run(inputs, locations)`, which yields an output for each input.

    The text needs nothing but Python, and computes what `Machine` computes.
    """
    return "\n".join(_source(program)) + "\n"


def _source(program: Program) -> Iterator[str]:
    openers = [(opener.channel, opener.again) for opener in program.phases.openers]
    count = len(openers)
    places = [rule.move.place for phase in program.body for rule in (*phase.read, *phase.write)]
    kinds = {place.kind for place in places if place is not None}
    # A name is anybody's, and must not end the text that it stands in.
    name = program.model.encode("unicode_escape").decode().replace('"', '\\"')
    yield f'"""What {name} does.'
    yield ""
    yield from (f"    {line.text}" for line in listing(program))
    yield '"""'
    yield ""
    yield f"FLAGS = {program.phases.flags!r}"
    yield f"OPENERS = {openers!r}"
    yield '"""The flag that begins each phase, and whether it begins the same one again."""'
    yield ""
    yield ""
    if kinds & {"match"}:
        yield MATCH.rstrip("\n") + "\n\n"
    if kinds & {"rank"}:
        yield RANK.rstrip("\n") + "\n\n"
    yield f"def run(inputs, locations={program.locations}):"
    widths = f"{program.output_width} bits for each row of {program.input_width} numbers"
    yield f'    """Yield {widths}.'
    yield ""
    yield "    With locations=None the memory is an endless tape, else a ring of so many locations."
    yield '    """'
    yield "    memory = {}"
    yield f"    read_head, write_head = {program.read_from}, {program.write_from}"
    yield f"    phase, step, lengths, values = 0, -1, [0] * {count}, [0.0] * {count}"
    yield f"    start = [None] * {count}"
    if "end" in kinds:
        yield f"    end = [None] * {count}"
    if "match" in kinds:
        yield f"    written, before, heard = [], [0] * {count}, [[] for _ in range({count})]"
    yield "    last = content = None"
    yield "    for row in inputs:"
    yield "        x = [float(number) for number in row]"
    yield CLOCK.rstrip()
    if "match" in kinds:
        yield "        if not heard[phase]:"
        yield "            before[phase] = len(written)"
        yield "        heard[phase].append(x)"
    yield from _bodies(program, "write")
    yield "        write_head = write_head if locations is None else write_head % locations"
    yield "        if start[phase] is None:"
    yield "            start[phase] = write_head"
    if "end" in kinds:
        yield "        end[phase] = write_head"
    yield from _bodies(program, "read")
    yield "        read_head = read_head if locations is None else read_head % locations"
    yield "        last, content = content, memory.get(read_head)"
    yield from _stores(program.body, written="match" in kinds)
    yield from _output(program)


def _bodies(program: Program, head: str) -> Iterator[str]:
    """The moves of one head in every phase."""
    word = "if"
    for index, phase in enumerate(program.body):
        rules = phase.write if head == "write" else phase.read
        if rules:
            yield f"        {word} phase == {index}:"
            # In a phase's first step the write head moves before the phase has a start.
            unknown = index if head == "write" else None
            yield from (f"            {line}" for line in _rules(rules, f"{head}_head", unknown))
            word = "elif"


def _rules(rules: Sequence[Rule], head: str, unknown: int | None) -> Iterator[str]:
    word = "if"
    for rule in rules:
        moves = list(_moved(rule.move, head, unknown))
        if rule.conditions:
            held = (_held(condition, head, unknown) for condition in rule.conditions)
            yield f"{word} {' and '.join(held)}:"
            yield from (f"    {line}" for line in moves)
            word = "elif"
        elif word == "if":
            yield from moves
        else:
            yield "else:"
            yield from (f"    {line}" for line in moves)


def _held(condition: Condition, head: str, unknown: int | None) -> str:
    if condition.kind == "step":
        return f"step == {condition.number}"
    if condition.kind == "length":
        return f"lengths[{condition.phase}] == {condition.number}"
    assert condition.place is not None
    place = _location(condition.place)
    distance = f"{head} - ({place})"
    held = f"(({distance}) % locations if locations is not None else {distance}) == 0"
    started = f"start[{condition.place.phase}] is not None and "
    return (started if condition.place.phase == unknown else "") + held


def _moved(move: Move, head: str, unknown: int | None) -> Iterator[str]:
    place = move.place
    if place is None:
        yield f"{head} += {move.amount}" if move.amount else "pass"
    elif place.kind == "begin":
        stays = f"{head} if start[{place.phase}] is None else "
        yield f"{head} = {stays if place.phase == unknown else ''}{_location(place)}"
    elif place.kind == "end":
        yield f"{head} = {_location(place)}"
    else:
        if place.kind == "rank":
            yield f"found = rank(memory, {place.channel}, step{_plus(place.offset)})"
        else:
            run = f"written, before[{place.phase}], heard[{place.phase}]"
            yield f"found = match(memory, {run})"
        offset = _plus(place.offset) if place.kind == "match" else ""
        yield f"{head} = {head} if found is None else found{offset}"


def _location(place: Place) -> str:
    name = "start" if place.kind == "begin" else "end"
    return f"{name}[{place.phase}]{_plus(place.offset)}"


def _plus(offset: int) -> str:
    return f" {'-' if offset < 0 else '+'} {abs(offset)}" if offset else ""


def _stores(body: Sequence[Phase], written: bool) -> Iterator[str]:
    word = "if"
    for index, phase in enumerate(body):
        if phase.store is not None:
            content = "x" if phase.store.source == "input" else "last"
            yield f"        {word} phase == {index}{_during(phase.store)}:"
            yield f"            memory[write_head] = {content}"
            if written:
                yield "            written.append(write_head)"
            word = "elif"


def _during(store: StoreRule) -> str:
    first = f" and step >= {store.first}" if store.first else ""
    return first if store.end is None else f"{first} and step < {store.end}"


def _output(program: Program) -> Iterator[str]:
    emitting = tuple(index for index, phase in enumerate(program.body) if phase.emits)
    content = "last" if program.delay else "content"
    pairs = ", ".join(f"({to}, {source})" for to, source in program.channels)
    yield f"        output = [0] * {program.output_width}"
    word = "if"
    if program.marker is not None:
        yield f"        if {_marked(program.marker)}:"
        yield f"            output[{program.marker.output}] = 1"
        word = "elif"
    yield f"        {word} phase in {emitting!r} and {content} is not None:"
    yield f"            for to, channel in ({pairs},):"
    yield f"                output[to] = int({content}[channel] > 0.5)"
    yield "        yield output"


def _marked(marker: Marker) -> str:
    times = f"round({marker.slope!r} * values[{marker.phase}] + {marker.intercept!r})"
    due = f"lengths[{marker.of_phase}] * {times} + {marker.offset}"
    return f"phase == {marker.phase} and step == {due}"
