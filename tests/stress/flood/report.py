"""What a flood may do to a server, and whether it did more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.stress.flood.trial import Trial

TIMES_BEFORE, LEAST_SECONDS = 10.0, 0.050
AFTER_TIMES_BEFORE, AFTER_LEAST_SECONDS = 3.0, 0.020
MAX_NEWCOMER_SECONDS = 1.0
MAX_MORE_BYTES = 512 << 20
MAX_MORE_FILES = 8

BOUNDS = f"""\
Bounds, for each attack on a fresh server:
  wrong      0: every step of the well-behaved session is answered, with the bits it gets alone
  during     p99 at most {TIMES_BEFORE:g} times that before, or {1e3 * LEAST_SECONDS:g} ms
  after      p99 at most {AFTER_TIMES_BEFORE:g} times that before, or \
{1e3 * AFTER_LEAST_SECONDS:g} ms
  newcomers  are told over gRPC and over HTTP that the server is well, within \
{MAX_NEWCOMER_SECONDS:g} s
  memory     at most {MAX_MORE_BYTES >> 20} MiB more than before at any time, besides the \
state of sessions
  files      at most {MAX_MORE_FILES} more open afterwards than before
  counted    every refusal that an attacker was told the reason of is in ntm_errors_total
Latencies are in ms, from when a step was due; attackers run at the lowest priority.
"""

_ROW = "{:<17} {:>8} {:>8} {:>17} {:>20} {:>17} {:>11} {:>5} {:>15} {:>11} {:>5}  {}"
HEAD = _ROW.format(
    "attack",
    "attempts",
    "answered",
    "before p50/99/max",
    "during p50/99/max",
    "after p50/99/max",
    "newcomers",
    "wrong",
    "MiB bef/max/aft",
    "files",
    "CPU",
    "bounds",
)


def p99(latencies: Sequence[float]) -> float:
    """Of latencies in order of size; not a number if there are none."""
    return latencies[int(0.99 * (len(latencies) - 1))] if latencies else math.nan


def row(name: str, trial: Trial) -> str:
    """The line of an attack."""
    newcomers = trial.newcomers
    return _ROW.format(
        name,
        sum(tally.attempts for tally in trial.tallies.values()),
        sum(tally.answered for tally in trial.tallies.values()),
        *map(_milliseconds, (trial.before, trial.during, trial.after)),
        f"{newcomers.grpc_seconds:.2f}/{newcomers.http_seconds:.2f}",
        trial.wrong,
        "/".join(str(count >> 20) for count in trial.resident_bytes),
        "/".join(map(str, trial.open_files)),
        f"{100 * trial.cpu_share:.0f}%",
        ", ".join(f"{fault} short" for fault in faults(trial)) or "ok",
    )


def refusals(trial: Trial) -> Iterator[str]:
    """A line for each way in which attempts were refused, and how often the server counted it."""
    for tally in trial.tallies.values():
        for reason, seen in tally.refused.most_common():
            if reason.isupper():
                yield f"    {reason}: {seen}, counted {trial.counted.get(reason, 0):.0f}"
            else:
                yield f"    {reason}: {seen}, below the service"


def faults(trial: Trial) -> Iterator[str]:
    """The names of the bounds that were not kept."""
    calm = p99(trial.before)
    if trial.wrong:
        yield "wrong"
    if not p99(trial.during) <= max(TIMES_BEFORE * calm, LEAST_SECONDS):
        yield "during"
    if not p99(trial.after) <= max(AFTER_TIMES_BEFORE * calm, AFTER_LEAST_SECONDS):
        yield "after"
    if max(trial.newcomers.grpc_seconds, trial.newcomers.http_seconds) > MAX_NEWCOMER_SECONDS:
        yield "newcomers"
    before_bytes, max_bytes, _ = trial.resident_bytes
    if max_bytes - before_bytes - trial.state_bytes > MAX_MORE_BYTES:
        yield "memory"
    if trial.open_files[2] - trial.open_files[0] > MAX_MORE_FILES:
        yield "files"
    seen = sum((tally.refused for tally in trial.tallies.values()), start=Counter[str]())
    if any(trial.counted.get(name, 0) < count for name, count in seen.items() if name.isupper()):
        yield "counted"


def _milliseconds(latencies: Sequence[float]) -> str:
    if not latencies:
        return "-"
    shown = (latencies[len(latencies) // 2], p99(latencies), latencies[-1])
    return "/".join(f"{1e3 * seconds:.1f}" for seconds in shown)
