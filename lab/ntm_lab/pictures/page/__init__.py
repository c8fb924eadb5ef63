"""
A recording as one HTML page, in which a reader moves along time.

The page has all that it needs inside: styles, a script, and the recording as JSON with its arrays
in base64. It computes the memory of each step itself, by equations 3 and 4.
"""

from __future__ import annotations

import base64
import html
import json
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from ntm_client.errors import InvalidRequest
from ntm_client.values import Float32
from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.mechanism.study import Study
from ntm_lab.decipher.phases import moments
from ntm_lab.decipher.program import Program
from ntm_lab.outputs import write_text
from ntm_lab.recordings.contents import trace
from ntm_lab.recordings.instructions import instructions
from ntm_lab.recordings.recording import ADD_VECTOR, ERASE_VECTOR, Recording

MAX_BYTES = 64 << 20
"""The largest size of a recording's arrays. Browsers fail on much larger pages."""


def save(
    recording: Recording,
    path: Path,
    program: Program | None = None,
    mechanism: Study | None = None,
) -> None:
    """
    Write a recording as an HTML page. The page shows the program and the mechanism, if they are
    given, and which of their lines each step executes.

    Raises:
        InvalidRequest: the recording is too long for a page, or lacks a trace that the page shows.
        OSError: the file cannot be written.
    """
    write_text(path, page(recording, program, mechanism))


def page(
    recording: Recording, program: Program | None = None, mechanism: Study | None = None
) -> str:
    """The text of the page. Raises InvalidRequest as `save` does."""
    size = sum(values.nbytes for values in recording.traces.values())
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"a page holds up to {MAX_BYTES >> 20} MiB of traces, and these are {size >> 20} MiB: "
            "record fewer steps or fewer locations"
        )
    parts = resources.files(__name__)
    # Inside a script element only "<" could end it; JSON may write it in another way.
    data = _shown(recording, program, mechanism)
    shown = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return Template((parts / "page.html").read_text("utf-8")).substitute(
        title=html.escape(recording.title),
        style=(parts / "page.css").read_text("utf-8"),
        script=(parts / "page.js").read_text("utf-8"),
        recording=shown,
    )


def _shown(
    recording: Recording, program: Program | None, mechanism: Study | None
) -> dict[str, object]:
    """The data that the page's script reads."""
    model = recording.model
    codes = [_program(recording, program)] if program else []
    codes += [_mechanism(recording, mechanism)] if mechanism else []
    has_heads = recording.before is not None
    return {
        "about": f"{model.task}, {model.architecture}, content hash {model.content_hash[:12]}",
        "steps": len(recording.inputs),
        "locations": recording.locations,
        "window": recording.window().tolist(),
        "inputs": _packed(recording.inputs),
        "outputs": _packed(recording.outputs),
        "target": None if recording.target is None else _packed(recording.target),
        "counts": None if recording.mask is None else recording.mask.tolist(),
        "marks": {str(step): word for step, word in recording.marks.items()},
        "memory": _packed(recording.before.memory) if recording.before else None,
        "heads": [*_heads(recording, "read"), *_heads(recording, "write")] if has_heads else [],
        "words": [[instruction.words() for instruction in step] for step in instructions(recording)]
        if has_heads
        else [],
        "codes": codes,
    }


def _program(recording: Recording, program: Program) -> dict[str, object]:
    """The lines of a program, and the lines that it executes at each step of the recording."""
    machine = Machine(program, recording.locations)
    current = []
    for x in recording.inputs:
        machine.step(x)
        current.append(machine.lines)
    lines = [line.text for line in listing(program)]
    return {"title": "Program", "lines": lines, "current": current}


def _mechanism(recording: Recording, mechanism: Study) -> dict[str, object]:
    """The same of a mechanism."""
    steps = moments(mechanism.phases, recording.inputs)
    lines = mechanism.lines
    return {
        "title": "Mechanism",
        "lines": [line.text for line in lines],
        "current": [
            [index for index, line in enumerate(lines) if line.holds(moment)] for moment in steps
        ],
    }


def _heads(recording: Recording, kind: str) -> list[dict[str, object]]:
    weightings = trace(recording, f"{kind}_weighting")
    count = weightings.shape[1]
    writes = kind == "write"
    return [
        {
            "kind": kind,
            "name": f"{kind} head" + (f" {head + 1}" if count > 1 else ""),
            "short": kind[0].upper() + (str(head + 1) if count > 1 else ""),
            "weighting": _packed(weightings[:, head]),
            "erase": _packed(trace(recording, ERASE_VECTOR)[:, head]) if writes else None,
            "add": _packed(trace(recording, ADD_VECTOR)[:, head]) if writes else None,
        }
        for head in range(count)
    ]


def _packed(values: Float32) -> dict[str, object]:
    """Rows [rows, width] as the script's `matrix` reads them."""
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return {"width": values.shape[1], "values": base64.b64encode(data).decode("ascii")}
