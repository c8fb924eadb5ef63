"""Prove and measure the GPU's path: `python -m bench.gpu --minutes 8 --report gpu.json`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import arguments
from bench.gpu.pieces import PIECES
from bench.row import ROOT
from ntm_lab import outputs
from service.models import runtime

LENIENCE = 3
"""A piece is killed after this many times its share of the time."""

LAST_WORDS = 2_000
"""The characters of a failed piece's errors that are kept."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the pieces one after another, and keep what each saw.

    Return 1 if one failed, was ended or was not begun, and 2 if the device cannot be used.
    """
    chosen = _parser().parse_args(argv)
    if chosen.piece:
        _one(chosen.piece, chosen.device, chosen.seconds)
        return 0
    try:
        device = "cuda" if "CUDA" in runtime.provider(chosen.device) else "cpu"
    except RuntimeError as reason:
        print(reason, file=sys.stderr)
        return 2
    if device == "cpu":
        print("There is no GPU here, or --device is cpu: the pieces run on the CPU.", flush=True)
    report: dict[str, Any] = {"device": device, "minutes": chosen.minutes, "pieces": {}}
    ends = time.monotonic() + 60 * chosen.minutes
    names = chosen.pieces or list(PIECES)
    for number, name in enumerate(names):
        left = ends - time.monotonic()
        shares = sum(PIECES[each][1] for each in names[number:])
        seconds = max(1.0, left * PIECES[name][1] / shares)
        print(f"{name}: begins, for about {seconds:.0f} s", flush=True)
        piece: dict[str, Any] = {"status": "not begun: no time left", "seen": []}
        report["pieces"][name] = piece
        if left > 0:
            for status, finding in _watched(name, device, seconds, min(left, LENIENCE * seconds)):
                piece["status"] = status
                piece["seen"] += [] if finding is None else [finding]
                outputs.write_text(chosen.report, json.dumps(report, indent=1) + "\n")
                if finding is not None:
                    print("   ", json.dumps(finding), flush=True)
        print(f"{name}: {piece['status'].strip()}", flush=True)
        outputs.write_text(chosen.report, json.dumps(report, indent=1) + "\n")
    return int(any(piece["status"] != "done" for piece in report["pieces"].values()))


def _watched(
    name: str, device: str, seconds: float, limit: float
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """
    The status of a piece, each time with what it saw since; killed at its limit.

    What torch.compile writes is for this piece alone: a library that is cut short, because a piece
    was killed while it was written, would fail every later one.
    """
    command = [sys.executable, "-m", "bench.gpu", f"--piece={name}", f"--device={device}"]
    command.append(f"--seconds={seconds:.0f}")
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as compiled,
    ):
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": compiled},
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            start_new_session=True,  # to end what it has started, too
        ) as process:
            timer = threading.Timer(limit, _kill, (process,))
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    yield "under way", json.loads(line)
                status = process.wait()
            finally:
                timer.cancel()
                _kill(process)
        errors.seek(0)
        words = errors.read()[-LAST_WORDS:]
    if status == 0:
        yield "done", None
    elif status == -signal.SIGKILL:
        yield f"stopped after {limit:.0f} s", None
    else:
        yield f"failed with status {status}: {words}", None


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and what it has started, as far as they are not at their end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _one(name: str, device: str, seconds: float) -> None:
    """Run a piece in this process; a line of JSON for each finding."""
    for finding in PIECES[name][0](device, seconds):
        print(json.dumps(finding), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    minutes = arguments.number(0.1, 600)
    told = "time for all pieces, each of which gets a share"
    parser.add_argument("--minutes", type=minutes, default=8.0, help=f"{told} (default: 8)")
    report = Path("build/gpu.json")
    told = f"file for what the pieces saw (default: {report})"
    parser.add_argument("--report", type=arguments.json, default=report, help=told)
    told = "auto takes the GPU if CUDA works"
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help=told)
    parser.add_argument("--pieces", nargs="+", choices=list(PIECES), help="only these")
    parser.add_argument("--piece", choices=list(PIECES), help=argparse.SUPPRESS)
    seconds = arguments.number(0, 36_000)
    parser.add_argument("--seconds", type=seconds, default=30.0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; the report has what was seen until then", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
