"""`decipher`: finds the program that a network runs, and says how true it is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ntm_client.blocking import Client
from ntm_client.errors import InvalidRequest
from ntm_lab.commands.parsing import Subparsers, add_command, add_locations, connect, positive
from ntm_lab.decipher.markdown import markdown
from ntm_lab.decipher.report import Report, decipher, decipher_recordings
from ntm_lab.pictures import page
from ntm_lab.recordings.files import load
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TaskSequence

EXAMPLES = """\
  ntm decipher copy-ntm-lstm
  ntm decipher copy-ntm-lstm --sequences 100 --json program.json
  ntm decipher repeat-copy-ntm-lstm --html program.html
  ntm decipher --recordings *.npz
  ntm decipher --all models
"""

PROGRAM_NAME = "PROGRAM.md"


def add_to(subparsers: Subparsers) -> None:
    """The arguments of the command."""
    summary = "find the program that a network runs, and measure how true it is"
    parser = add_command(subparsers, "decipher", run, summary, EXAMPLES)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", metavar="MODEL", help="name of the model")
    what.add_argument(
        "--recordings",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="recordings of one model to find it in instead, without a server",
    )
    what.add_argument(
        "--all",
        type=Path,
        metavar="FOLDER",
        help=f"write FOLDER/MODEL/{PROGRAM_NAME} for each model of the server that has a folder "
        "there",
    )
    parser.add_argument(
        "--sequences",
        type=positive,
        default=1000,
        metavar="S",
        help="fresh sequences to judge it by (default: %(default)s)",
    )
    add_locations(parser)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of all sequences (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write all of it as JSON")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="PATH",
        help="also write a page of one sequence beside the program, the current line marked",
    )
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="also write what is printed")


def run(arguments: argparse.Namespace) -> int:
    """0 when done, whatever was found."""
    if arguments.recordings:
        recordings = [load(path) for path in arguments.recordings]
        _show(decipher_recordings(recordings), lambda: recordings[0], arguments)
        return 0
    with connect(arguments) as client:
        if arguments.all is None:
            report = _deciphered(client, arguments.model, arguments)
            _show(report, lambda: _recording(client, report), arguments)
            return 0
        if arguments.json or arguments.markdown or arguments.html:
            raise InvalidRequest("--json, --markdown and --html are for one model, not for --all")
        for model in client.models():
            folder = arguments.all / model.name
            if folder.is_dir():
                report = _deciphered(client, model.name, arguments)
                (folder / PROGRAM_NAME).write_text(markdown(report))
                print(f"{model.name}: {report.verdict}", flush=True)
    return 0


def _deciphered(client: Client, model: str, arguments: argparse.Namespace) -> Report:
    return decipher(
        client,
        model,
        sequences=arguments.sequences,
        locations=arguments.locations,
        seed=arguments.seed,
    )


def _recording(client: Client, report: Report) -> Recording:
    """A sequence as long as in training."""
    with client.create_session(report.model.name, report.locations) as session:
        return record_task(session, TaskSequence.draw(report.model.task, seed=report.seed))


def _show(
    report: Report, recording: Callable[[], Recording], arguments: argparse.Namespace
) -> None:
    text = markdown(report)
    print(text, end="")
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.html:
        page.save(recording(), arguments.html, report.program)
    if arguments.json:
        facts = {"verdict": report.verdict, "found": report.found, "explained": report.explained}
        arguments.json.write_text(json.dumps({**facts, **asdict(report)}, default=_plain, indent=1))


def _plain(value: object) -> object:
    """What JSON has for a value that it does not know."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not for JSON")
