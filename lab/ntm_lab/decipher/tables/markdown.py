"""Writes what was found out about a table of counts as sections of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ntm_lab.decipher.layout import block, table
from ntm_lab.decipher.tables.causes import TableEffect
from ntm_lab.decipher.tables.induction import WINDOWS, Divergence, TableCandidate
from ntm_lab.decipher.tables.places import Place, Places
from ntm_lab.decipher.tables.report import TableReport
from ntm_lab.decipher.tables.table import CountTable, formula, listing, source

CELLS = 5
"""The formula is shown for up to this many of each count."""


def table_sections(report: TableReport) -> Iterator[str]:
    """The sections, in their order; one that says what is missing if no table was found."""
    found, places = report.table, report.places
    if found is None or places is None:
        yield "## A table of counts"
        yield f"None: {report.verdict}."
        yield from _windows(report.candidate)
        return
    yield "## The program: a table of counts"
    yield block("\n".join(listing(found)))
    yield from _windows(report.candidate)
    yield from _formula(found)
    yield "The same, to be run:"
    yield block(source(found), "python")
    yield from _places(places)
    yield from _added(found, places)
    yield from _divergences(report)
    yield from _causes(report.effects)


def _windows(candidate: TableCandidate) -> Iterator[str]:
    if not candidate.by_window:
        return
    yield (
        "The number of bits was found by trying these. A table's distance from the network is the "
        "divergence of their predictions, in bits a sequence, in recordings that the table was not "
        "fitted to:"
    )
    rows = [("distance", *(f"{each:.2f}" for each in candidate.by_window))]
    yield table(("bits of a context", *(str(window) for window in WINDOWS)), rows)


def _formula(found: CountTable) -> Iterator[str]:
    yield (
        f"The probability of a 1 is {formula(found)}, fitted to the network's predictions. The "
        "paper's best predictor has 1/2 and 1 in the place of the two numbers (equation 10)."
    )
    every = np.stack(np.meshgrid(range(CELLS), range(CELLS), indexing="ij"), -1)
    own = found.probabilities(every)
    ideal = CountTable(found.model, found.window, 0.5, 0.5).probabilities(every)
    rows = [
        (
            f"N0 = {zeros}",
            *(f"{own[zeros, ones]:.3f} ({ideal[zeros, ones]:.3f})" for ones in range(CELLS)),
        )
        for zeros in range(CELLS)
    ]
    yield "This table's probability of a 1, and in brackets that of equation 10:"
    yield table(("counts", *(f"N1 = {ones}" for ones in range(CELLS))), rows)


def _places(places: Places) -> Iterator[str]:
    yield "### In which location is which context?"
    when = "one step before it predicts" if places.delay else "in the step that predicts"
    found = [place for place in places.places if place.locations]
    example = places.places[len(places.places) * 13 // 32]
    words = (
        f"Read head {places.read_head + 1} reads the counts {when}. The log-odds of the prediction "
        "are a linear function of what it read; *explained* is the part of their variance in "
        "recordings that the function was not learned from. A location's share is the part of the "
        f"variance that comes from it. Of {len(places.places)} contexts, {len(found)} were found."
    )
    if example.locations:
        words += f" The counts of context {example.context} are in {_where(example)}."
    yield words
    rows = [
        (
            place.context,
            ", ".join(f"{location} ({share:.0%})" for location, share in place.locations)
            or "not found",
            f"{max(place.explained, 0):.1%}",
        )
        for place in places.places
    ]
    yield table(("context, oldest bit first", "locations (share)", "explained"), rows)
    shared = _shared(found)
    if shared:
        yield shared


def _where(place: Place) -> str:
    names = [f"{location}" for location, _ in place.locations]
    if len(names) == 1:
        return f"location {names[0]}"
    return f"locations {', '.join(names[:-1])} and {names[-1]}"


def _shared(found: Sequence[Place]) -> str:
    """What is in locations that are the first of several contexts; empty if there is none."""
    by_location: dict[int, list[str]] = {}
    for place in found:
        by_location.setdefault(place.locations[0][0], []).append(place.context)
    shared = {where: each for where, each in by_location.items() if len(each) > 1}
    if not shared:
        return ""
    listed = "; ".join(f"{where}: {', '.join(each)}" for where, each in sorted(shared.items()))
    return (
        "A location has several values, and can hold the counts of several contexts. Locations "
        f"that are the first of more than one: {listed}."
    )


def _added(found: CountTable, places: Places) -> Iterator[str]:
    if not places.added:
        return
    yield "### What does a 0 add, and a 1?"
    late = int(np.argmax(places.written))
    when = "in the step of the prediction" if late == 0 else f"{late} steps after the prediction"
    if late == 1:
        when = "one step after the prediction, when the bit that followed is known"
    yield (
        f"The counts are written {when}: {places.written[late]:.0%} of the change that memory sees "
        "in these steps. What is added to the log-odds that the location holds depends on what was "
        "counted before. It is measured in memory, where a head was on one location; *counted* is "
        "what one more 0 or 1 adds by the formula above."
    )
    rows = [
        (
            f"N0 = {each.counts[0]}, N1 = {each.counts[1]}",
            f"{each.cases:,}",
            f"{each.by_zero:+.2f}",
            f"{each.counted_zero:+.2f}",
            f"{each.by_one:+.2f}",
            f"{each.counted_one:+.2f}",
        )
        for each in places.added
    ]
    yield table(("before", "cases", "a 0 adds", "counted", "a 1 adds", "counted"), rows)


def _divergences(report: TableReport) -> Iterator[str]:
    if report.fresh is None:
        return
    yield "### Does it predict what the network predicts?"
    yield (
        "Divergences from the network's predictions, in bits a sequence. What there is to explain "
        "is how far the network is from a guess of one half, and from the best constant for each "
        "context, which counts nothing; the table's part of the smaller one may be a tenth."
    )
    rows = [_divergence(*each) for each in (("in range", report.fresh), *report.longer)]
    names = ("size", "sequences", "steps", "table", "guess of 1/2", "constants", "part")
    yield table(names, rows)


def _divergence(sizes: str, each: Divergence) -> tuple[str, ...]:
    return (
        sizes,
        f"{each.sequences:,}",
        f"{each.steps:.0f}",
        f"{each.table:.2f}",
        f"{each.uniform:.2f}",
        f"{each.constant:.2f}",
        f"{each.share:.1%}",
    )


def _causes(effects: Sequence[TableEffect]) -> Iterator[str]:
    if not effects:
        return
    yield "### Is it the cause?"
    yield (
        "The locations of a context, or all of memory, were copied into a running session from "
        "another sequence's session, or from its own at an earlier step; the table got the counts "
        "of the same. *Changed* is how far the network's predictions after this differ from those "
        "without it, *left* how far they differ from the table's, in bits a sequence. *Foretold* "
        "is the part of the change of the log-odds that the table foretold, in all steps after the "
        "change and in those of the contexts that the table says are changed."
    )
    rows = [
        (
            each.kind,
            f"{each.sequences:,}",
            f"{each.network_changed:.2f}",
            f"{each.left:.2f}",
            f"{each.foretold:.1%}",
            f"{each.foretold_inside:.1%}",
        )
        for each in effects
    ]
    names = ("change", "sequences", "changed", "left", "foretold", "in its contexts")
    yield table(names, rows)
