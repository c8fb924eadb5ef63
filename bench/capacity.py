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

from bench import arguments, capacity_tables, costs, envoy
from bench.__main__ import versions_of
from bench.row import ROOT, BenchmarkUnavailable, Options
from ntm_lab import outputs

PAGE = ROOT / "docs" / "capacity.md"
DATA = ROOT / "docs" / "capacity.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, unless `--only-write` is given, and write the page's tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    rounds = arguments.whole(1, arguments.MAX_ROUNDS)
    parser.add_argument("--rounds", type=rounds, default=3, help="default: %(default)s")
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
    parser.add_argument("--json", type=arguments.json, default=DATA, metavar="PATH")
    parser.add_argument("--page", type=arguments.output, default=PAGE, metavar="PATH")
    chosen = parser.parse_args(argv)
    try:  # before the measuring, which takes long
        page = chosen.page.read_text("utf-8")
        check(page)
        if chosen.only_write:
            data = json.loads(chosen.json.read_text("utf-8"))
            page = written(page, data)
    except OSError as why:
        parser.error(f"{why.filename}: {why.strerror}")
    except (ValueError, KeyError, TypeError) as why:
        parser.error(f"{chosen.page} cannot be written from {chosen.json}: {why!r}")
    if not chosen.only_write:
        try:
            program = envoy.found(chosen.envoy)
        except BenchmarkUnavailable as why:
            print(why, file=sys.stderr)
            return 2
        data = measure(Options(chosen.rounds), program)
        outputs.write_text(chosen.json, json.dumps(data, indent=2) + "\n")
        page = written(page, data)
    outputs.write_text(chosen.page, page)
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


def check(page: str) -> None:
    """Raise ValueError if the page lacks the place of a table."""
    for name in capacity_tables.TABLES:
        around(page, name)


def written(page: str, data: Mapping[str, Any]) -> str:
    """Return the page with each table replaced: the text between its begin and end comments."""
    for name, make in capacity_tables.TABLES.items():
        before, after = around(page, name)
        page = f"{before}\n{make(data)}\n{after}"
    return page


def around(page: str, name: str) -> tuple[str, str]:
    """Return the page up to the table of a name, and from its end on."""
    begin = f"<!-- {name}: written by python -m bench.capacity -->\n"
    end = f"<!-- /{name} -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no place for the table {name!r}: {begin}...{end}")
    return before + begin, end + after


if __name__ == "__main__":
    sys.exit(main())
