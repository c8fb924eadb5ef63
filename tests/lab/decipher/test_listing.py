"""A program as pseudo-code."""

from __future__ import annotations

from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.program import Program
from tests.lab.decipher.programs import COPY, HELD, RECALL, REPEAT, SORT


def text(program: Program) -> str:
    """All lines."""
    return "\n".join(line.text for line in listing(program))


def test_copy() -> None:
    """The listing of copy is as short as the paper's."""
    assert (
        text(COPY)
        == """\
start with read head 1 at location 0, write head 1 at location 0
phase 0, until input 3 is set, at each step:
    if it is step 0: the write head stays
    else the write head shifts +1
    write the input at the write head
phase 1, from the step 0 in which input 3 is set, at each step:
    if it is step 0: the read head stays
    else the read head shifts +1
    emit what the read head reads"""
    )


def test_repeat_names_its_places_and_its_count() -> None:
    """Places are named where they come about; rules with one move share a line."""
    lines = text(REPEAT).splitlines()
    naming = "at each step (the write head's first location is start 0):"
    assert lines[1] == f"phase 0, until input 3 is set, {naming}"
    assert lines[4:] == [
        "    write the input at the write head",
        "phase 1, from the step 0 in which input 3 is set, at each step (the write head's first "
        "location is start 1):",
        "    the write head shifts +1",
        "    if it is step 0 or it is at start 1 - 1: the read head goes to start 0",
        "    else the read head shifts +1",
        "    at step 1 write at the write head what was read one step ago",
        "    if this is step round(2 x + 1) times the steps of phase 0, x being what the flag "
        "showed: emit the mark, output 3 alone",
        "    else emit what the read head reads",
    ]


def test_places_that_content_leads_to() -> None:
    """A place found by content is described by what it holds."""
    assert (
        "goes by content to where the like of what ended phase 1 was stored before it - 2"
        in text(RECALL)
    )
    assert (
        "goes by content to what has the next largest input 3 of all that is stored, "
        "the largest at step 1" in text(SORT)
    )


def test_every_line_but_the_first_stands_for_something() -> None:
    """Every line except the first has keys, so that a step can mark the lines that it executed."""
    for program in (COPY, REPEAT, RECALL, SORT):
        first, *others = listing(program)
        assert not first.keys
        assert all(line.keys for line in others)


def test_a_phase_that_its_own_flag_ends_says_so() -> None:
    """Recall's second phase ends when the flag that began it comes once more."""
    phases = [line for line in text(RECALL).splitlines() if line.startswith("phase ")]

    assert phases == [
        "phase 0, from the step 0 in which input 3 is set, and again whenever it is set, "
        "until input 4 is set, at each step:",
        "phase 1, from the step 0 in which input 4 is set, until input 4 is set again, "
        "at each step:",
        "phase 2, from the step 0 in which input 4 is set, at each step:",
    ]


def test_a_phase_that_only_hears_says_so() -> None:
    """Of three phases the second has one line, and the first says which steps are written."""
    texts = [line.text for line in listing(HELD)]

    at = texts.index("    the heads stay, and nothing is written")
    assert texts[at - 1].startswith("phase 1, ")
    assert texts[at + 1].startswith("phase 2, ")
    assert "    write the input at the write head, from step 1 on" in texts[:at]
