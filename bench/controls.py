"""
Look for programs in networks that run none, and count the false ones: `python -m bench.controls`.

A control is what decipher must find nothing in: an untrained network, one with shuffled or noised
parameters, one trained on random targets, an LSTM without memory. Decipher's search for a program
of heads on a tape and its search for a table of counts are run on each. A control counts as false
as soon as a search finds a candidate, before the tests on fresh sequences that decipher makes.

On some of the controls, the search for a mechanism is run too.

To show that the same procedure finds programs where there are some, it is run on the models as they
ship too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import arguments
from bench.arguments import whole
from bench.confidence import CONFIDENCE, largest_share
from bench.control_mechanisms import MechanismJudgement, judge_mechanism, mechanism_section
from bench.control_networks import (
    KINDS,
    Control,
    Kind,
    control,
    controls,
    mechanism_controls,
    recorded,
    shipped,
)
from ntm_lab import outputs
from ntm_lab.decipher.induction import Candidate, induce
from ntm_lab.decipher.layout import table
from ntm_lab.decipher.report import RECORDINGS
from ntm_lab.decipher.samples import Stage, in_range
from ntm_lab.decipher.tables.induction import induce_table
from ntm_lab.decipher.tables.report import find_table
from ntm_lab.recordings.recording import Recording

EACH = 7
"""Seeds of each kind for each model, by default: 210 networks of ten models."""

COUNTING = 35
"""The same for each model of single bits, in which alone tables are looked for. In those beyond
`EACH`, nothing else is looked for, because a search for a program on a tape takes longest there."""

FEW = 32
"""Recordings from which a table is looked for first."""

HOPELESS = 0.5
"""If the best table in few recordings leaves more than this part unexplained, the search ends."""


@dataclass(frozen=True)
class Judgement:
    """What the searches found in a network."""

    kind: Kind
    model: str
    seed: int
    tape: bool | None
    """Whether a program of heads on a tape was found; None if it was not looked for."""
    table: bool | None
    """Whether a table of counts was found; None if it was not looked for."""
    explained: float
    """The part of the bits that the best program on a tape explains, in recordings held back."""
    reason: str
    """Why there is no program on a tape, or what it explains."""
    seconds: float
    exact: float = 0.0
    """The part of a few sequences in which the network does its task without a mistake."""

    @property
    def found(self) -> bool:
        """Whether any program was found."""
        return bool(self.tape or self.table)


def judge(network: Control, count: int = RECORDINGS, *, tape: bool = True) -> Judgement:
    """
    Look for both kinds of programs in `count` recordings of a network, or for tables alone.

    A table is looked for only if the network has one input and one output, and no program was
    found.
    """
    begun = time.perf_counter()
    sequences = in_range(network.configuration.task, count, 0, Stage.INDUCTION)
    few = recorded(network, sequences[:FEW])
    sizes = network.configuration.sizes
    looks_for_table = (sizes.input_width, sizes.output_width) == (1, 1)
    hopeful = looks_for_table and _is_hopeful(few)
    recordings = recorded(network, sequences) if tape or hopeful else few
    found = induce(recordings) if tape else Candidate(None, 0.0, 0.0, "only a table is looked for")
    table: bool | None = None
    if looks_for_table and found.program is None:
        table = hopeful and find_table(recordings).found
    return Judgement(
        network.kind,
        network.model,
        network.seed,
        found.program is not None if tape else None,
        table,
        found.explained,
        found.reason,
        time.perf_counter() - begun,
        exact_share(few),
    )


def exact_share(recordings: Sequence[Recording]) -> float:
    """The part of the recordings of a task in which every bit that counts is the target's."""
    exact = 0
    for each in recordings:
        assert each.mask is not None
        assert each.target is not None
        wrong = (each.outputs > 0.5) != (each.target > 0.5)
        exact += not wrong[each.mask > 0].any()
    return exact / len(recordings)


def _is_hopeful(few: Sequence[Recording]) -> bool:
    """Whether a table may come of more recordings than these."""
    found = induce_table(few)
    return found.divergence is not None and found.divergence.share <= HOPELESS


def report(
    found: Sequence[Judgement],
    real: Sequence[Judgement],
    mechanisms: Sequence[MechanismJudgement],
    command: str,
) -> str:
    """The report as Markdown."""
    return "\n\n".join(_sections(found, real, mechanisms, command)) + "\n"


def _sections(
    found: Sequence[Judgement],
    real: Sequence[Judgement],
    mechanisms: Sequence[MechanismJudgement],
    command: str,
) -> Iterator[str]:
    spent = [each.seconds for each in (*found, *real)] + [each.seconds for each in mechanisms]
    yield "# Networks that run no program"
    yield (
        f"Decipher's searches were run on {len(found)} networks in which they must find nothing: "
        f"{_bounded('a program of heads on a tape', [each.tape for each in found])}, and "
        f"{_bounded('a table of counts', [each.table for each in found])}. The bounds have a "
        f"confidence of {CONFIDENCE:.0%} (Clopper and Pearson, one-sided)."
    )
    yield (
        f"`{command}` writes this page; it took {sum(spent) / 60:.0f} minutes of a machine that "
        f"did other things too. Each search has {RECORDINGS} recordings. A network counts as false "
        "as soon as a search has a candidate, before decipher tests it on fresh sequences. Tables "
        "are looked for only in networks of one input and one output. Of these there are more of "
        "each kind, most of which are looked through for tables alone: a search for a program "
        "takes longest there."
    )
    rows = []
    for kind in KINDS:
        those = [each for each in found if each.kind == kind]
        if those:
            best = max(those, key=lambda each: each.explained)
            rows.append(
                (
                    kind,
                    f"{len(those)}",
                    _counted([each.tape for each in those]),
                    _counted([each.table for each in those]),
                    f"{max(best.explained, 0):.1%} ({best.model}, seed {best.seed})",
                )
            )
    names = ("networks", "number", "programs on a tape", "tables of counts", "explained at most")
    yield table(names, rows)
    yield (
        "*untrained*: the parameters are drawn anew. *shuffled*: the values of each matrix are "
        "permuted. *noised*: noise as large as its values is added to each matrix. *random "
        "targets*: trained for a short time on the task's inputs with random bits as answers. "
        "*LSTM*: the baselines, which have no memory. *Explained* is the part of the bits that "
        "count which the best program on a tape explains beyond a constant; 95 % are asked."
    )
    false = [each for each in found if each.found]
    if false:
        yield "## Where something was found"
        yield (
            "A network that does its task in spite of what was done to it is counted as false too. "
            "What was found in it can be right about it."
        )
        yield table(
            ("model", "networks", "seed", "why", "sequences that it does without a mistake"),
            [
                (each.model, each.kind, f"{each.seed}", each.reason, f"{each.exact:.0%}")
                for each in false
            ],
        )
    yield "## Why there is none"
    reasons = Counter(_short(each.reason) for each in found if each.tape is False)
    yield table(
        ("reason", "networks"), [(reason, f"{number}") for reason, number in reasons.most_common()]
    )
    if real:
        yield "## The same searches in the models that ship"
        yield (
            "They find programs where there are some. What decipher finds in the end is in each "
            "model's `PROGRAM.md`, and takes all of its tests."
        )
        yield table(
            ("model", "candidate", "why"),
            [
                (
                    each.model,
                    "program on a tape" if each.tape else "table of counts" if each.table else "-",
                    each.reason if not each.table else "a table of counts explains its predictions",
                )
                for each in real
            ],
        )
    if mechanisms:
        yield from mechanism_section(mechanisms, [each.exact for each in found])


def _bounded(what: str, found: Sequence[bool | None]) -> str:
    """How often something was found, and the bound on the share."""
    looked = [each for each in found if each is not None]
    bound = largest_share(sum(looked), len(looked))
    return f"{what} was found in {sum(looked)} of {len(looked)}, a share of at most {bound:.1%}"


def _counted(found: Sequence[bool | None]) -> str:
    looked = [each for each in found if each is not None]
    return f"{sum(looked)} of {len(looked)}" if looked else "-"


def _short(reason: str) -> str:
    """A reason without its numbers."""
    for start in ("the best program explains", "the outputs hardly vary"):
        if reason.startswith(start):
            return {"the best": "the best program explains too little"}.get(start[:8], start)
    return reason


def main(argv: Sequence[str] | None = None) -> int:
    """Judge the controls, print a line for each, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.controls", description=(__doc__ or "").partition("\n\n")[0].strip()
    )
    parser.add_argument("--models", default="models", help="default: %(default)s")
    add = parser.add_argument
    add("--each", type=whole(0, 1000), default=EACH, help="seeds of a kind for a model")
    help_ = "the same for a model of single bits; beyond --each, tables alone are looked for"
    add("--counting", type=whole(0, 1000), default=COUNTING, help=help_)
    add("--trained", type=whole(0, 100), default=1, help="trainings on random targets for a model")
    help_ = "fits of a mechanism to each kind of control for a model"
    add("--mechanisms", type=whole(0, 100), default=1, help=help_)
    add("--markdown", type=arguments.markdown, help="write the report to this file")
    chosen = parser.parse_args(argv)
    models = Path(chosen.models)
    found = []
    for each in controls(models, chosen.each, chosen.trained, chosen.counting):
        found.append(judge(each, tape=each.seed <= max(chosen.each, 1)))
        _say(found[-1])
    real = []
    for model in shipped(models, ("ntm-lstm", "ntm-ff")):
        real.append(judge(control(models, model, "as it ships", 0)))
        _say(real[-1])
    mechanisms = []
    for each in mechanism_controls(models, chosen.mechanisms):
        one = judge_mechanism(each)
        if one is not None:
            mechanisms.append(one)
            print(one, file=sys.stderr, flush=True)
    options = "".join(
        f" --{name} {value}"
        for name, value, default in (
            ("each", chosen.each, EACH),
            ("counting", chosen.counting, COUNTING),
            ("trained", chosen.trained, 1),
            ("mechanisms", chosen.mechanisms, 1),
        )
        if value != default
    )
    command = f"python -m bench.controls{options} --markdown {chosen.markdown or 'FILE'}"
    text = report(found, real, mechanisms, command)
    if chosen.markdown:
        outputs.write_text(chosen.markdown, text)
    else:
        print(text, end="")
    return 0


def _say(each: Judgement) -> None:
    verdict = "FOUND" if each.found else "none"
    print(
        f"{each.model}, {each.kind}, seed {each.seed}: {verdict}: {each.reason} "
        f"({each.seconds:.1f} s)",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
