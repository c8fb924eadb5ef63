"""Writes a report as Markdown, which the command prints and PROGRAM.md holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ntm_lab.decipher.agreement import Agreement
from ntm_lab.decipher.assumptions import Assumption
from ntm_lab.decipher.counterexamples import CounterExample
from ntm_lab.decipher.layout import block, sentence
from ntm_lab.decipher.layout import table as table
from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.measures import Measure
from ntm_lab.decipher.mechanism.words import mechanism_sections
from ntm_lab.decipher.mistakes import mistakes_text
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.report import SEQUENCES, Report
from ntm_lab.decipher.source import source
from ntm_lab.decipher.tables.markdown import table_sections
from ntm_tasks import TASKS, Size
from ntm_tasks.registry import PAPER

PAPERS_COPY = """\
initialise: move head to start location
while input delimiter not seen do
    receive input vector
    write input to head location
    increment head location by 1
end while
return head to start location
while true do
    read output vector from head location
    emit output
    increment head location by 1
end while"""
"""The program that the paper's authors read off pictures of the copy task (section 4.1)."""


def markdown(report: Report) -> str:
    """The text of the whole report."""
    return "\n\n".join(_sections(report)) + "\n"


def _sections(report: Report) -> Iterator[str]:
    model = report.model
    task = TASKS.get(model.task)
    options = f" --task {task.source}" if task and task.source else ""
    if report.in_range:
        if report.in_range.sequences != SEQUENCES:
            options += f" --sequences {report.in_range.sequences}"
        if report.locations != model.default_locations:
            options += f" --locations {report.locations}"
        if report.seed:
            options += f" --seed {report.seed}"
        if not report.seeks_mechanism:
            options += " --without-mechanism"
    yield f"# {model.name}: {report.verdict.partition(':')[0]}"
    yield f"{sentence(report.verdict)}"
    made_of = f"Model {model.content_hash}, {report.locations} memory locations"
    if report.in_range:
        again = f"seed {report.seed}. `ntm decipher {model.name}{options}` makes this again."
    else:
        again = "from recordings. `ntm decipher --recordings` with the same files makes this again."
    yield f"{made_of}, {again}"
    if not report.found:
        yield from _assumptions(report.assumptions)
    if report.table and report.table.candidate.divergence:
        yield from table_sections(report.table)
    if report.program:
        yield from _program(report.program, model.task)
    if report.in_range and not (report.table and report.table.found):
        yield from _agreements([report.in_range, *report.longer])
    if report.mistakes and report.program:
        yield mistakes_text(report.mistakes)
    if report.search:
        yield "## Counter-examples"
        yield _search(report)
    yield from _effects(report)
    if report.mechanism:
        yield from mechanism_sections(report.mechanism)
    yield from _hardenings(report)
    yield from _measures(report.measures)
    if model.task not in PAPER:
        yield (
            f"The paper has no task {model.task}, so that it claims nothing that could be measured "
            "of this network."
        )
    yield from _habits(report)


def _program(program: Program, task: str) -> Iterator[str]:
    yield "## The program"
    yield block("\n".join(line.text for line in listing(program)))
    if task == "copy":
        yield "The paper's, which its authors wrote down by looking at pictures:"
        yield block(PAPERS_COPY)
    yield "The same, to be run:"
    yield block(source(program), "python")


def _assumptions(assumptions: Sequence[Assumption]) -> Iterator[str]:
    if not assumptions:
        return
    yield "## What a program would take for granted"
    rows = [(each.text, "yes" if each.holds else "no", each.found) for each in assumptions]
    yield table(("assumption", "holds", "found"), rows)


def _agreements(agreements: Sequence[Agreement]) -> Iterator[str]:
    yield "## Does it do what the network does?"
    yield (
        "Bits are outputs above one half in the steps that count; a sequence is alike if all its "
        "bits are. The constant is the best answer that looks at nothing."
    )
    rows = [
        (
            each.sizes,
            f"{each.sequences:,}",
            f"{each.bits:,}",
            "-" if each.differing is None else f"{each.differing:,}",
            "-" if each.agreeing is None else f"{each.agreeing:,}",
            f"{each.constant_agreeing:,}",
            f"{each.network_wrong:,}",
            "-" if each.program_wrong is None else f"{each.program_wrong:,}",
        )
        for each in agreements
    ]
    names = (
        "size",
        "sequences",
        "bits",
        "bits program ≠ network",
        "sequences alike",
        "constant alike",
        "bits network ≠ target",
        "bits program ≠ target",
    )
    yield table(names, rows)


def _search(report: Report) -> str:
    assert report.search is not None
    search, names = report.search, TASKS[report.model.task].size_names
    sizes = "1 size" if search.sizes == 1 else f"{search.sizes} sizes"
    tried = f"{search.sequences:,} sequences of {sizes} were tried"
    if not search.found:
        return f"None: {tried}, and the program, on an endless tape, did what the network did."
    lines = [f"{tried[0].upper()}{tried[1:]}, the program on an endless tape."]
    lines += [f"- {_counter_example(example, names)}" for example in search.found]
    return "\n".join(lines)


def _counter_example(example: CounterExample, names: Sequence[str]) -> str:
    words = (
        f"{_named(example.size, names)} ({example.contents}): {example.differing:,} of "
        f"{example.bits:,} bits differ, from step {example.first_step} on."
    )
    if example.agreeing_size:
        words += f" At {_named(example.agreeing_size, names)} all agree."
    if not example.wraps_around:
        return words
    own, other = example.rings
    assert own.size is not None
    assert other.size is not None
    return (
        f"{words} The memory wraps around: the same program on a ring of {own.locations} locations "
        f"leaves the tape at {_named(own.size, names)}, on one of {other.locations} at "
        f"{_named(other.size, names)}, and so does the network with as many."
    )


def _effects(report: Report) -> Iterator[str]:
    if not report.effects:
        return
    yield "## Causes"
    yield (
        "The state of a running session was changed by checkpoint and restore, and the program's "
        "likewise. The last column has, of the bits that this changed in either, those in which "
        "both are the same afterwards."
    )
    rows = [
        (
            each.kind,
            f"{each.sequences:,}",
            f"{each.bits:,}",
            f"{each.network_changed:,}",
            f"{each.program_changed:,}",
            f"{each.agreeing:,} of {each.either_changed:,} ({each.share:.1%})",
        )
        for each in report.effects
    ]
    names = ("change", "sequences", "bits", "changed in the network", "in the program", "alike")
    yield table(names, rows)


def _hardenings(report: Report) -> Iterator[str]:
    if not report.hardenings:
        return
    yield "## With hard heads"
    yield (
        "After every step each head was put on one location: that of its largest weight, or where "
        "its gate, key and shift lead if each is made hard."
    )
    rows = [
        (
            "largest weight" if each.by == "weighting" else "hard gate, key and shift",
            f"{each.sequences:,}",
            f"{each.bits:,}",
            f"{each.soft_wrong:,}",
            f"{each.hard_wrong:,}",
            f"{each.changed:,}",
        )
        for each in report.hardenings
    ]
    yield table(
        ("location", "sequences", "bits", "wrong, soft heads", "wrong, hard heads", "changed"), rows
    )


def _measures(measures: Sequence[Measure]) -> Iterator[str]:
    if not measures:
        return
    yield "## What the paper saw in pictures"
    for each in measures:
        best, value = each.best
        words = f"**{each.name}**: {_value(value, each.unit)}, {best}"
        if each.baseline:
            words += f" (by chance {_value(each.baseline[best], each.unit)})"
        yield f"{words}. {each.definition} {each.note}".strip() + f" The paper: {each.paper}"
        if len(each.values) > 1:
            rows = [
                (
                    head,
                    _value(number, each.unit),
                    *([_value(each.baseline[head], each.unit)] if each.baseline else []),
                )
                for head, number in sorted(each.values.items(), key=lambda item: -item[1])
            ]
            yield table(("head", each.unit, *(["by chance"] if each.baseline else [])), rows)


def _habits(report: Report) -> Iterator[str]:
    if not report.habits:
        return
    yield "## What the heads do"
    rows = [
        (
            each.head,
            each.instruction,
            f"{each.share:.1%}",
            f"{each.focus:.2f}",
            f"{each.confidence:.2f}",
        )
        for each in report.habits
    ]
    yield table(("head", "instruction", "of all steps", "focus", "confidence"), rows)


def _named(size: Size, names: Sequence[str]) -> str:
    return " and ".join(f"{name} {number}" for name, number in zip(names, size, strict=True))


def _value(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "share" else f"{value:.2f} {unit}"
