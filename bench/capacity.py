"""`python -m bench.capacity`: measure unit costs and write the tables of docs/capacity.md."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import capacity_tables, costs, envoy
from bench.__main__ import versions_of
from bench.row import ROOT, BenchmarkUnavailable, Options

PAGE = ROOT / "docs" / "capacity.md"
DATA = ROOT / "docs" / "capacity.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, unless `--only-write` is given, and write the page's tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--envoy",
        default="envoy",
        metavar="PROGRAM",
        help="Envoy: a path, or a name on PATH; default: %(default)s",
    )
    parser.add_argument(
        "--only-write",
        action="store_true",
        help="measure nothing; write the tables from the costs in --json",
    )
    parser.add_argument("--json", type=Path, default=DATA, metavar="PATH")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="PATH")
    chosen = parser.parse_args(arguments)
    if not chosen.only_write:
        try:
            program = envoy.found(chosen.envoy)
        except BenchmarkUnavailable as why:
            print(why, file=sys.stderr)
            return 2
        measured = measure(Options(chosen.rounds), program)
        chosen.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    data = json.loads(chosen.json.read_text("utf-8"))
    chosen.page.write_text(written(chosen.page.read_text("utf-8"), data), encoding="utf-8")
    print(f"{chosen.json}, {chosen.page}")
    return 0


def measure(options: Options, envoy_program: Path) -> dict[str, Any]:
    """Return everything that the page's tables are made from."""
    begun = time.monotonic()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rounds": options.rounds,
        "versions": versions_of(options),
        "costs": costs.measured(options, envoy_program),
        "minutes": (time.monotonic() - begun) / 60,
    }


def written(page: str, data: Mapping[str, Any]) -> str:
    """Return the page with each table replaced: the text between its begin and end comments."""
    for name, make in capacity_tables.TABLES.items():
        begin, end = (
            f"<!-- {name}: written by python -m bench.capacity -->\n",
            f"<!-- /{name} -->\n",
        )
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no place for the table {name!r}: {begin}...{end}")
        page = f"{before}{begin}\n{make(data)}\n{end}{after}"
    return page


if __name__ == "__main__":
    sys.exit(main())
