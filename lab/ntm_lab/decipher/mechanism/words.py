"""Writes what is known of a mechanism as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from ntm_lab.decipher.interventions import foretold
from ntm_lab.decipher.layout import table
from ntm_lab.decipher.mechanism.study import Study


def mechanism_sections(study: Study) -> Iterator[str]:
    """The mechanism, its agreement with the network, and the causes that it foretells."""
    yield "## The mechanism"
    if not study.found:
        one = study.alike[0]
        yield (
            f"None was found: the best has every bit alike in {one.agreeing:,} of "
            f"{one.sequences:,} fresh sequences. When the state of running sessions was changed, "
            "it foretold these parts of the bits that changed: "
            f"{foretold(study.effects)}."
        )
        return
    yield (
        "This has the network's own memory and soft heads, and finds its place by content where "
        "the network does. K is a key that is the same in every sequence."
    )
    code = "\n".join(line.text for line in study.lines)
    yield f"```\n{code}\n```"
    yield (
        f"The lines are a summary. What is run has {study.coefficients:,} coefficients besides: "
        "one layer of hyperbolic tangents, of the inputs and of what was read, gives keys, gates, "
        "shifts, what is erased and added, and the outputs. It was fitted to the traces of "
        "sequences that are not among those below."
    )
    rows = [(one.sizes, f"{one.sequences:,}", f"{one.agreeing:,}") for one in study.alike]
    yield table(("size", "sequences", "sequences alike"), rows)
    if study.silence:
        silent = study.silence
        yield (
            f"Without {', '.join(silent.heads)} the mechanism does the same. In the network, what "
            f"these heads wrote was left out and what they read was forgotten after every step of "
            f"{silent.sequences} sequences: {silent.changed:,} of {silent.bits:,} bits changed."
        )
    yield "The state of running sessions was changed, and the mechanism's likewise:"
    yield table(
        ("change", "changed in the network", "in the mechanism", "alike"),
        [
            (
                each.kind,
                f"{each.network_changed:,}",
                f"{each.program_changed:,}",
                f"{each.agreeing:,} of {each.either_changed:,} ({each.share:.1%})",
            )
            for each in study.effects
        ],
    )
