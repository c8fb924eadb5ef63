"""What a program takes for granted, and what is said where it does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ntm_client import Client
from ntm_lab.decipher.assumptions import assumptions, missing_traces
from ntm_lab.decipher.markdown import markdown
from ntm_lab.decipher.report import decipher, decipher_recordings
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range


def test_all_of_it_holds_of_a_network_that_copies(shipped: Client) -> None:
    """The flag is found without being told, heads are sharp, and outputs repeat inputs."""
    network = ServedNetwork(shipped, "copy-ntm-ff")
    found = assumptions(network.recordings(in_range("copy", 16, 0, Stage.INDUCTION)))

    assert all(each.holds for each in found)
    assert found[1].found == "flags: input 8; phases: 2"
    assert found[-1].found == "8 of 8 outputs do"


def test_a_network_that_counts_repeats_no_input(shipped: Client) -> None:
    """Its write head is spread too, so that there is no tape."""
    network = ServedNetwork(shipped, "ngrams-ntm-ff")
    found = assumptions(network.recordings(in_range("ngrams", 8, 0, Stage.INDUCTION)))
    failed = [each.text for each in found if not each.holds]

    assert "each output repeats an input in 90% of the steps" in failed
    assert "write head 1 is at one location in 90% of the steps" in failed


@pytest.mark.parametrize(("reads", "writes"), [(1, 1), (1, 0), (0, 0)])
def test_a_network_that_traces_only_weightings_lacks_the_rest(
    shipped: Client, reads: int, writes: int
) -> None:
    """However many heads it says that it has."""
    model = shipped.model("copy-ntm-ff")
    traced = [each for each in model.traces if each.name.endswith("weighting")]
    model = replace(model, traces=tuple(traced), read_heads=reads, write_heads=writes)

    assert "erase_vector" in missing_traces(model)
    assert missing_traces(shipped.model("copy-lstm")) == ()


def test_heads_that_are_not_an_ntms_are_reported_on(shipped: Client) -> None:
    """
    The report says which traces are missing, and still compares network and target. One on
    recordings says the same.
    """
    report = decipher(shipped, "copy-dnc", sequences=5)
    network = ServedNetwork(shipped, "copy-dnc")
    recorded = decipher_recordings(network.recordings(in_range("copy", 6, 0, Stage.INDUCTION)))

    assert not report.found
    assert report.verdict == (
        "no program found: the network's heads are not an NTM's: no read_gate, read_shift, "
        "write_shift"
    )
    assert recorded.verdict == report.verdict
    assert recorded.assumptions == report.assumptions
    assert report.in_range is not None
    assert (report.habits, report.measures, report.hardenings) == ((), (), ())
    assert "it has no read_gate, read_shift, write_shift" in markdown(report)
    assert not assumptions(
        ServedNetwork(shipped, "copy-lstm").recordings(in_range("copy", 4, 0, Stage.INDUCTION))
    )
