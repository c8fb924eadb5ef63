"""
Fits mechanisms to networks that run no program, and says what decipher would make of them.

A mechanism is a layer that is fitted to what a network's heads do, and some function of its memory
every network is. So a mechanism that does what an untrained network does is a true one, and tells
of no skill. Decipher does not look for it: it asks first for a program, or for a network that does
its task without a mistake in half of the sequences. Here it is looked for all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from bench import processes
from bench.confidence import CONFIDENCE, largest_share
from bench.control_networks import KINDS, Control, Kind
from bench.row import Options
from export.to_onnx import convert, spec_of
from ntm_client import Client
from ntm_lab.decipher.agreement import agree
from ntm_lab.decipher.interventions import change_sequences
from ntm_lab.decipher.layout import table
from ntm_lab.decipher.mechanism.busiest import busiest
from ntm_lab.decipher.mechanism.study import FOUND, study
from ntm_lab.decipher.phases import find_phases
from ntm_lab.decipher.report import EXACT_SEQUENCES
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from service.models.folder import MODEL_FILE

FITTED = 24
"""Sequences that a mechanism is fitted from, each in eleven ways; decipher takes up to 256."""

FRESH = 50
"""Sequences that it is judged by."""

CHANGED = 25
"""Sequences of these that are changed in each way."""

NAME = "control"
"""The name under which a control is served."""


@dataclass(frozen=True)
class MechanismJudgement:
    """What a mechanism that was fitted to a network is worth."""

    kind: Kind
    model: str
    seed: int
    exact: float
    """The part of the fresh sequences in which the network does its task without a mistake."""
    constant: float
    """The part in which the best constant answer has every bit of the network."""
    alike: float
    """The part in which the mechanism has every bit of the network."""
    changed: int
    """The bits that changes of the state altered in network or mechanism."""
    foretold: int
    """Of these, the bits that are the same in both afterwards."""
    seconds: float

    @property
    def alike_enough(self) -> bool:
        """Whether it would count as found, were it asked for."""
        return self.alike >= FOUND

    @property
    def told(self) -> bool:
        """Whether decipher would tell it as a mechanism. In a control that would be false."""
        return self.alike_enough and self.exact >= EXACT_SEQUENCES


def judge_mechanism(control: Control) -> MechanismJudgement | None:
    """
    Serve a network, fit a mechanism to it, and judge that.

    None if its sequences have no phases, or if it has no heads that could be moved.
    """
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        file = Path(folder, NAME, MODEL_FILE)
        file.parent.mkdir()
        spec = spec_of(control.network, control.configuration)
        onnx.save(convert(control.network, spec), str(file))
        flags = (f"--models-dir={folder}", f"--models={NAME}")
        with (
            processes.server(Options(), *flags) as served,
            Client(served.address) as client,
        ):
            found = _judged(control, ServedNetwork(client, NAME), begun)
    return found


def _judged(control: Control, network: ServedNetwork, begun: float) -> MechanismJudgement | None:
    task, seed = control.configuration.task, control.seed
    recordings = network.recordings(in_range(task, FITTED, seed, Stage.INDUCTION))
    phases = find_phases([recording.inputs for recording in recordings])
    heads = busiest(recordings)
    if phases is None or heads is None:
        return None
    fresh = in_range(task, FRESH, seed, Stage.AGREEMENT)
    alike = agree(None, network, fresh, "in range")
    changing = in_range(task, CHANGED, seed, Stage.CHANGES)
    made = change_sequences(heads, network, changing, seed)
    found = study(heads, phases, network, [("in range", fresh)], made, seed, FITTED)
    if found is None:
        return None
    return MechanismJudgement(
        control.kind,
        control.model,
        seed,
        alike.network_exact / FRESH,
        alike.constant_agreeing / FRESH,
        found.alike[0].agreeing / FRESH,
        sum(effect.either_changed for effect in found.effects),
        sum(effect.agreeing for effect in found.effects),
        time.perf_counter() - begun,
    )


def mechanism_section(found: Sequence[MechanismJudgement], exact: Sequence[float]) -> Iterator[str]:
    """
    The section of the report about mechanisms.

    `exact` has, of each control that other programs were looked for in, the part of the sequences
    in which it does its task without a mistake.
    """
    broken = [each for each in found if each.kind != "as it ships"]
    told = sum(each.told for each in broken)
    bound = largest_share(told, len(broken))
    skilled = sum(share >= EXACT_SEQUENCES for share in exact)
    alike = sum(each.alike_enough for each in broken)
    yield "## Mechanisms"
    yield (
        "A mechanism is a layer that is fitted to what a network's heads do. Every network, the "
        "untrained one too, is some function of its input and its memory, and may be fitted truly. "
        "Such a mechanism is right about the network, and tells of no skill. So *false* is here a "
        "mechanism that decipher would tell of a network without a skill. Decipher looks for one "
        "only if there is a program, or if the network does its task without a mistake in half of "
        f"the sequences. By this, a mechanism was told of {told} of {len(broken)} controls, a "
        f"share of at most {bound:.1%} with a confidence of {CONFIDENCE:.0%}. The condition itself "
        f"was met by {skilled} of {len(exact)} controls. Noise may leave a network much of its "
        "skill, and an LSTM has one without heads, and so without a mechanism."
    )
    yield (
        f"Without that condition, the fit itself was tried on all {len(broken)}, from {FITTED} "
        f"sequences and their changes. In {alike} of them it had every bit of the network in "
        f"{FOUND:.0%} of {FRESH} fresh sequences, so that likeness alone would have told a "
        "mechanism there. The last column has the part of the bits altered by changes of the state "
        "that it foretold."
    )
    rows = [
        (
            kind,
            f"{len(those)}",
            f"{sum(each.told for each in those)}",
            _range([each.exact for each in those]),
            _range([each.constant for each in those]),
            f"{sum(each.alike_enough for each in those)}",
            _range([each.alike for each in those]),
            _share(sum(each.foretold for each in those), sum(each.changed for each in those)),
        )
        for kind in (*KINDS, "as it ships")
        if (those := [each for each in found if each.kind == kind])
    ]
    names = (
        "networks",
        "number",
        "told",
        "sequences without a mistake",
        "constant alike",
        f"mechanisms alike in {FOUND:.0%}",
        "sequences alike",
        "foretold",
    )
    yield table(names, rows)


def _range(shares: Sequence[float]) -> str:
    return f"{min(shares):.0%} to {max(shares):.0%}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})" if whole else "-"
