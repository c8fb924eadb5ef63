"""Where a network that ships keeps its counts, and whether they are the cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntm_client import Client
from ntm_lab.decipher.markdown import markdown
from ntm_lab.decipher.overview import Timed, overview
from ntm_lab.decipher.report import decipher
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_lab.decipher.tables.causes import KINDS, table_effects
from ntm_lab.decipher.tables.induction import induce_table
from ntm_lab.decipher.tables.places import Places, find_places
from ntm_lab.decipher.tables.table import CountTable
from ntm_lab.recordings.recording import Recording

MODEL = "ngrams-ntm-ff"


@pytest.fixture(scope="module")
def watched(shipped: Client) -> list[Recording]:
    """Recordings of a network that predicts N-grams."""
    return ServedNetwork(shipped, MODEL).recordings(in_range("ngrams", 48, 0, Stage.INDUCTION))


@pytest.fixture(scope="module")
def table(watched: list[Recording]) -> CountTable:
    """Its table."""
    found = induce_table(watched).table
    assert found is not None
    return found


@pytest.fixture(scope="module")
def places(watched: list[Recording], table: CountTable) -> Places:
    """The places of its counts."""
    return find_places(table, watched)


def test_the_network_counts_by_five_bits(table: CountTable) -> None:
    """Its formula is nearly that of equation 10."""
    assert table.window == 5
    assert abs(table.zeros - 0.5) < 0.03
    assert abs(table.ones - 0.5) < 0.03


def test_every_context_has_its_location(places: Places) -> None:
    """What was read there explains the prediction; most contexts have a location of their own."""
    first = [place.locations[0][0] for place in places.places if place.locations]

    assert places.located > 0.9
    assert len(set(first)) >= 24
    for place, shares in zip(places.places, places.shares, strict=True):
        if place.locations:
            assert place.explained >= 0.9
            assert shares.sum() == pytest.approx(1)
            assert sum(share for _, share in place.locations) >= 0.95


def test_what_is_added_is_what_counting_asks(places: Places) -> None:
    """It is written one step later, and what a bit adds shrinks with the counts."""
    assert int(np.argmax(places.written)) == 1
    assert places.written[1] > 0.9
    empty = places.added[0]
    assert empty.counts == (0, 0)
    assert empty.by_one == pytest.approx(empty.counted_one, abs=0.15)
    assert empty.by_zero == pytest.approx(empty.counted_zero, abs=0.15)
    assert abs(places.added[3].by_one) < 0.6 * empty.by_one


def test_reads_of_other_sequences_explain_nothing(
    watched: list[Recording], table: CountTable
) -> None:
    """A control: with the traces of another sequence, no location has any counts."""
    others = [*watched[1:], watched[0]]
    mixed = [
        replace(each, traces=other.traces) for each, other in zip(watched, others, strict=True)
    ]
    assert find_places(table, mixed).located == 0


def test_counts_that_are_moved_are_the_cause(
    shipped: Client, table: CountTable, places: Places
) -> None:
    """The network predicts from counts that are put into its memory, as the table does."""
    network = ServedNetwork(shipped, MODEL)
    some = in_range("ngrams", 10, 0, Stage.CHANGES)
    effects = {each.kind: each for each in table_effects(table, places, network, some)}

    assert tuple(effects) == KINDS
    everything = effects["all of memory"]
    assert everything.network_changed > 10
    assert everything.left < 0.1 * everything.network_changed
    assert everything.foretold > 0.9
    assert effects["one context"].foretold_inside > 0.7

    # Elsewhere they are not.
    turned = [*places.places[11:], *places.places[:11]]
    moved = [
        replace(place, locations=other.locations)
        for place, other in zip(places.places, turned, strict=True)
    ]
    elsewhere = replace(places, places=tuple(moved))
    wrong = {each.kind: each for each in table_effects(table, elsewhere, network, some)}
    assert wrong["one context"].foretold_inside < 0.3


def test_the_report_has_the_table(shipped: Client) -> None:
    """A reader finds the formula, the location of a context, and what a bit adds."""
    report = decipher(shipped, MODEL, sequences=10)
    text = markdown(report)

    assert report.found
    assert report.program is None
    assert report.verdict.startswith("program found: a table of counts by the last 5 bits, 0.")
    assert "The counts of context 01101 are in locations " in text
    assert "### What does a 0 add, and a 1?" in text
    assert "(equation 10)" in text
    assert "## Does it do what the network does?" not in text
    assert report.table is not None
    assert report.table.fresh is not None
    apart = report.table.fresh
    row = f" a table of counts | 5     | {apart.table:.2f} bits apart ({apart.share:.1%}) | "
    assert row in overview([Timed(report, 1.0)])
