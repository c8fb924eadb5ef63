"""
`decipher`: finds the program that a network runs, and measures how much of the network it explains.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from json import dumps
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from cyclopts import Parameter
from rich.console import Console

from ntm_client.blocking import Client
from ntm_client.errors import InvalidRequest
from ntm_client.values import Model
from ntm_lab import outputs
from ntm_lab.commands.options import (
    INPUT,
    LOCAL,
    OUTPUT_FOLDER,
    Locations,
    Seed,
    Sequences,
    ServerOptions,
    TaskSource,
    Text,
    output,
)
from ntm_lab.commands.tasks import check_task
from ntm_lab.decipher.markdown import markdown as as_markdown
from ntm_lab.decipher.overview import Timed, overview
from ntm_lab.decipher.report import SEQUENCES, Report, decipher_recordings
from ntm_lab.decipher.report import decipher as report_on
from ntm_lab.pictures import page
from ntm_lab.recordings.files import load
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TaskSequence
from ntm_tasks import load as load_task

PROGRAM_NAME = "PROGRAM.md"
OVERVIEW_NAME = "PROGRAMS.md"


class Files(NamedTuple):
    """The files that a report is written to besides standard output."""

    json: Path | None
    html: Path | None
    markdown: Path | None


def decipher(
    model: Text | None = None,
    /,
    *,
    recordings: Annotated[tuple[Path, ...], INPUT, Parameter(consume_multiple=True)] = (),
    all: Annotated[Path | None, OUTPUT_FOLDER] = None,  # noqa: A002 - the option's name
    sequences: Sequences = SEQUENCES,
    locations: Locations = None,
    seed: Seed = 0,
    without_mechanism: bool = False,
    task: TaskSource = None,
    json: Annotated[Path | None, output(".json")] = None,
    html: Annotated[Path | None, output(".html", ".htm")] = None,
    markdown: Annotated[Path | None, output(".md", ".txt")] = None,
    server: ServerOptions = LOCAL,
) -> int:
    """
    Find the program that a network runs, and measure how true it is.

    Args:
        model: Name of the model.
        recordings: Recordings of one model to find the program in instead, without a server.
        all: Write FOLDER/MODEL/PROGRAM.md for each model of the server that has a folder there, and
            FOLDER/PROGRAMS.md, a table of them. One whose model.onnx is not the server's is left
            out, and the exit status is 1.
        sequences: Fresh sequences to judge the program by.
        seed: Seed of all sequences.
        without_mechanism: Leave the search for a mechanism out, which takes most of the time.
        json: Also write all of it as JSON to this file.
        html: Also write a page of one sequence beside program and mechanism, the current lines
            marked.
        markdown: Also write what is printed to this file.
    """
    if sum((model is not None, bool(recordings), all is not None)) != 1:
        raise InvalidRequest("name one of: a model, --recordings, --all")
    if all and (json or markdown or html):
        raise InvalidRequest("--json, --markdown and --html are for one model, not for --all")
    if task and recordings:
        raise InvalidRequest("--task is of sequences to draw, not of --recordings")
    if recordings and (locations is not None or sequences != SEQUENCES or seed):
        raise InvalidRequest(
            "--sequences, --locations and --seed are of sequences to run, not of --recordings"
        )
    named = load_task(task) if task else None
    files = Files(json, html, markdown)
    if recordings:
        loaded = [load(path) for path in recordings]
        _show(decipher_recordings(loaded), lambda: loaded[0], files)
        return 0
    with server.connect() as client:
        ask = partial(
            _report,
            client,
            sequences=sequences,
            locations=locations,
            seed=seed,
            mechanism=not without_mechanism,
        )
        if model is not None:
            check_task(client.model(model), named)
            report = ask(model)
            _show(report, lambda: _recording(client, report), files)
            return 0
        assert all is not None
        models = [each for each in client.models() if (all / each.name).is_dir()]
        if not models:
            raise InvalidRequest(
                f"{all} has no folder with the name of a model of the server; name one that has, "
                "such as the folder models of a checkout"
            )
        others = {each.name: fault for each in models if (fault := _other_network(all, each))}
        found = [each for each in models if each.name not in others]
        for each in found:
            check_task(each)
        otherwise = [each.name for each in found if _has_other_heads(each)]
        names = [each.name for each in found if each.name not in otherwise]
        for name in otherwise:
            print(f"{name} is left out: its heads are not those of an NTM", file=sys.stderr)
        for name in names:
            outputs.check(all / name / PROGRAM_NAME)
        outputs.check(all / OVERVIEW_NAME)
        for name, fault in others.items():
            print(f"{name} is left out: {fault}", file=sys.stderr)
        timed = []
        for name in names:
            began = time.monotonic()
            report = ask(name)
            timed.append(Timed(report, time.monotonic() - began))
            outputs.write_text(all / name / PROGRAM_NAME, as_markdown(report))
            print(f"{name}: {report.verdict}", flush=True)
        if timed:
            outputs.write_text(all / OVERVIEW_NAME, overview(timed, otherwise))
        return 1 if others else 0


def _has_other_heads(model: Model) -> bool:
    """Whether a network's heads have no gate and shift, in whose words programs are written."""
    return model.read_heads > 0 and not {"read_gate", "read_shift"} <= {
        trace.name for trace in model.traces
    }


def _other_network(folder: Path, model: Model) -> str | None:
    """Why the network in a folder's folder of that name is not the server's; None if it is."""
    file = folder / model.name / "model.onnx"
    if not file.is_file():
        return f"there is no {file} to tell that it is the server's network"
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return None if digest == model.content_hash else f"{file} is not the server's network"


def _report(
    client: Client,
    model: str,
    *,
    sequences: int,
    locations: int | None,
    seed: int,
    mechanism: bool,
) -> Report:
    """Decipher a model; standard error has what is done now, a log's a line for each stage."""
    console = Console(stderr=True)
    # Nothing is printed meanwhile: rich would redirect it to standard error.
    with console.status(f"deciphering {model}") as status:

        def show(stage: str) -> None:
            status.update(f"deciphering {model}: {stage}")
            if not console.is_terminal:
                sys.stderr.write(f"{model}: {stage}\n")

        return report_on(
            client,
            model,
            sequences=sequences,
            locations=locations,
            seed=seed,
            mechanism=mechanism,
            progress=show,
        )


def _recording(client: Client, report: Report) -> Recording:
    """Record a random sequence of the task, as long as in training."""
    with client.create_session(report.model.name, report.locations) as session:
        return record_task(session, TaskSequence.draw(report.model.task, seed=report.seed))


def _show(report: Report, recording: Callable[[], Recording], files: Files) -> None:
    text = as_markdown(report)
    print(text, end="")
    if files.markdown:
        outputs.write_text(files.markdown, text)
    if files.json:
        facts = {"verdict": report.verdict, "found": report.found, "explained": report.explained}
        everything = {**facts, **asdict(report)}
        outputs.write_text(files.json, dumps(everything, default=_plain, indent=1))
    # The last, because the recording needs the server once more.
    if files.html:
        mechanism = report.mechanism if report.mechanism and report.mechanism.found else None
        page.save(recording(), files.html, report.program, mechanism)


def _plain(value: object) -> object:
    """Convert a value that JSON has no type for."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not for JSON")
