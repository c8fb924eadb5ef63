"""Writes what was found out about several networks as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ntm_lab.decipher.agreement import Agreement
from ntm_lab.decipher.interventions import foretold
from ntm_lab.decipher.layout import table
from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.mechanism.study import Study
from ntm_lab.decipher.report import Report
from ntm_lab.decipher.tables.report import TableReport
from ntm_lab.decipher.tables.table import listing as table_listing

HEAD = (
    "network",
    "what was found",
    "lines",
    "alike in range",
    "alike beyond",
    "changes foretold",
    "seconds",
)


class Timed(NamedTuple):
    """A report, and how long it took."""

    report: Report
    seconds: float


def overview(found: Sequence[Timed], others: Sequence[str] = ()) -> str:
    """
    The text: a table with a row for each program, table of counts and mechanism.

    `others` are the names of networks that were left out, for their heads are not those of an NTM.
    """
    rows = [
        row
        for report, seconds in found
        if report.model.read_heads
        for row in _rows(report, f"{seconds:,.0f}")
    ]
    headless = [report.model.name for report, _ in found if not report.model.read_heads]
    text = (
        "# Programs\n\n"
        "Written by `ntm decipher --all`, with a report on each network beside it. *Alike* is the "
        "number of sequences in which every bit is the network's; of a table of counts, how far "
        "its predictions are from the network's. *Changes foretold* is the share of the bits "
        "changed by an intervention in a running session that changed alike; of a table, of the "
        "change in log-odds. *Seconds* are those of the whole report, on a machine that may "
        "have had other work.\n"
    )
    if rows:
        text += f"\n{table(HEAD, rows)}\n"
    if headless:
        text += f"\nWithout heads, and so without a program: {', '.join(headless)}.\n"
    if others:
        text += f"\nLeft out, for their heads are not those of an NTM: {', '.join(others)}.\n"
    return text


def _rows(report: Report, seconds: str) -> Iterator[tuple[str, ...]]:
    names = iter((report.model.name, ""))
    times = iter((seconds, ""))
    if report.table is not None and report.table.found:
        yield next(names), *_table(report.table), next(times)
    elif report.program is not None:
        lines = str(len(listing(report.program)))
        alike = _agreeing([report.in_range]), _agreeing(report.longer)
        causes = foretold(report.effects)
        yield next(names), "a program on a tape", lines, *alike, causes, next(times)
    else:
        yield next(names), "no program", "-", "-", "-", "-", next(times)
    if report.mechanism is not None:
        yield next(names), *_mechanism(report.mechanism), next(times)


def _table(found: TableReport) -> tuple[str, ...]:
    assert found.table is not None
    assert found.fresh is not None
    return (
        "a table of counts",
        str(len(table_listing(found.table))),
        f"{found.fresh.table:.2f} bits apart ({found.fresh.share:.1%})",
        ", ".join(f"{size}: {each.share:.1%} apart" for size, each in found.longer) or "-",
        ", ".join(f"{each.kind} {each.foretold_inside:.1%}" for each in found.effects),
    )


def _mechanism(study: Study) -> tuple[str, ...]:
    first, *longer = study.alike
    return (
        "a mechanism" if study.found else "no mechanism; the best",
        str(len(study.lines)) if study.found else "-",
        f"{first.agreeing:,} of {first.sequences:,}",
        _of(sum(one.agreeing for one in longer), sum(one.sequences for one in longer)),
        foretold(study.effects),
    )


def _agreeing(every: Sequence[Agreement | None]) -> str:
    known = [one for one in every if one is not None]
    return _of(sum(one.agreeing or 0 for one in known), sum(one.sequences for one in known))


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" if whole else "-"
