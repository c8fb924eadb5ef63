"""The targets, guided by coverage: `python -m tests.stress.fuzz [NAME ...] --seconds N`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from typing import NamedTuple

from bench.arguments import whole
from tests.stress.fuzz.findings import FINDING
from tests.stress.fuzz.targets import TARGETS

_ROW = "{:<10} {:>12} {:>14} {:>8} {:>10} {:>9}"


class Outcome(NamedTuple):
    """What came of one target."""

    executions: int
    executions_per_second: int
    corpus: int
    peak_megabytes: int
    findings: list[dict[str, str]]


def main() -> int:
    """Fuzz the targets one after another, each in a process of its own; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=whole(1, 86_400), default=60, help="for each target [60]")
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=1, help="of libFuzzer's choices [1]"
    )
    arguments = parser.parse_args()
    names = arguments.names or list(TARGETS)
    if unknown := sorted(set(names) - set(TARGETS)):
        parser.error(f"no targets: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        parser.error("atheris is not installed; it comes with the group `dev`, on Linux")
    print(_ROW.format("target", "executions", "executions/s", "corpus", "peak MiB", "findings"))
    found = 0
    for name in names:
        outcome = fuzz(name, arguments.seconds, arguments.seed)
        print(_ROW.format(name, *outcome[:-1], len(outcome.findings)), flush=True)
        for finding in outcome.findings:
            print("  " + "\n  ".join(f"{key}: {value}" for key, value in finding.items()))
        found += len(outcome.findings)
    return 1 if found else 0


def fuzz(name: str, seconds: int, seed: int) -> Outcome:
    """Fuzz one target for so many seconds."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.stress.fuzz.guided", name, str(seconds), str(seed)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    findings = [
        json.loads(line.removeprefix(FINDING))
        for line in run.stdout.splitlines()
        if line.startswith(FINDING)
    ]
    if run.returncode:
        findings.append({"place": f"the process ended with {run.returncode}", "error": run.stderr})
    return Outcome(
        _statistic(run.stderr, r"stat::number_of_executed_units:\s*(\d+)"),
        _statistic(run.stderr, r"stat::average_exec_per_sec:\s*(\d+)"),
        _statistic(run.stderr, r".*corp: (\d+)/"),
        _statistic(run.stderr, r"stat::peak_rss_mb:\s*(\d+)"),
        findings,
    )


def _statistic(output: str, pattern: str) -> int:
    """The last number that libFuzzer printed of something."""
    numbers: list[str] = re.findall(pattern, output)
    return int(numbers[-1]) if numbers else 0


if __name__ == "__main__":
    sys.exit(main())
