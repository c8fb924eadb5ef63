"""
Write the recording rules and alerts of the objectives: `python -m deploy.generate.rules`.

Each alert has a long window, so that short disturbances do not fire it, and a short window, so that
it ends soon after its cause (Google's SRE workbook, chapter 5, "multiwindow, multi-burn-rate"). The
budget is the share that may miss the objective; a burn rate of 1 spends it in exactly 30 days.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.generate.objectives import ANSWERED_SHARE, FAST_SECONDS, FAST_SHARE, FAULTS
from ntm_lab.outputs import write_text

FILE = Path(__file__).parents[1] / "prometheus" / "rules" / "objectives.yml"

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

LEAST_RATE = 1
"""Below this rate of steps or calls a second, no alert pages."""


@dataclass(frozen=True)
class Objective:
    """One objective: its budget, what counts against it, and the words of its alerts."""

    record: str
    alerts: dict[str, str]  # by severity
    budget: float
    missed: str
    all: str
    what: str


@dataclass(frozen=True)
class Burn:
    """The burn rate at which an alert fires; `windows` are the long and the short one."""

    severity: str
    rate: float
    windows: tuple[str, str]
    minutes: int


STEPS = "sum by (job) (rate(ntm_step_seconds_count[$window]))"
FAST = f'sum by (job) (rate(ntm_step_seconds_bucket{{le="{FAST_SECONDS!r}"}}[$window]))'
CALLS = (
    'sum by (job) (rate({__name__=~"ntm_rpc_seconds_count|ntm_stream_operations_total"}[$window]))'
)
FAILED = f'sum by (job) (rate(ntm_errors_total{{reason=~"{FAULTS}"}}[$window]))'

OBJECTIVES = (
    Objective(
        record="ntm:slow_steps",
        alerts={"page": "NtmStepsSlow", "ticket": "NtmSlowStepsAddUp"},
        budget=1 - FAST_SHARE,
        missed=f"{STEPS} - {FAST}",
        all=STEPS,
        what=f"of steps took longer than {FAST_SECONDS * 1000:.1f} ms",
    ),
    Objective(
        record="ntm:failed_calls",
        alerts={"page": "NtmCallsFail", "ticket": "NtmFailedCallsAddUp"},
        budget=1 - ANSWERED_SHARE,
        missed=f"{FAILED} or 0 * {CALLS}",  # a reason has no counter until its first error
        all=CALLS,
        what="of calls and stream operations failed by a fault of the server",
    ),
)

BURNS = (
    Burn("page", 14.4, ("1h", "5m"), 2),
    Burn("page", 6, ("6h", "30m"), 15),
    Burn("ticket", 3, ("1d", "2h"), 60),
    Burn("ticket", 1, ("3d", "6h"), 180),
)

HEAD = """\
# Written by `python -m deploy.generate.rules` from deploy/generate/objectives.py; edit those.
groups:
"""

RECORDING = """\
      - record: {record}
        expr: {expr}
"""

ALERT = """\
      - alert: {alert}
        expr: >-
          {record}:ratio_rate{long} > {limit:g} and {record}:ratio_rate{short} > {limit:g}{guard}
        for: {minutes}m
        labels:
          severity: {severity}
          window: {long}
        annotations:
          summary: "{{{{ $value | humanizePercentage }}}} {what} in the last {long}"
          description: >-
            The objective allows {budget:.1%}. At this rate, the budget for 30 days lasts
            {days:.2g} days or less.
          runbook_url: docs/runbook.md#{anchor}
"""


def recordings(objective: Objective) -> str:
    """Return the group that records the share that missed the objective, over every window."""
    ratio = f"({objective.missed}) / {objective.all}"
    recorded = {f"{objective.record}:ratio_rate{w}": ratio.replace("$window", w) for w in WINDOWS}
    recorded[f"{objective.record}:all_rate5m"] = objective.all.replace("$window", "5m")
    rules = [RECORDING.format(record=record, expr=expr) for record, expr in recorded.items()]
    return f"  - name: {objective.record}:recorded\n    rules:\n" + "".join(rules)


def alerts(objective: Objective) -> str:
    """Return the group of the objective's alerts."""
    rules = []
    for burn in BURNS:
        alert = objective.alerts[burn.severity]
        guard = f"\n          and {objective.record}:all_rate5m > {LEAST_RATE}"
        rules.append(
            ALERT.format(
                alert=alert,
                record=objective.record,
                long=burn.windows[0],
                short=burn.windows[1],
                limit=burn.rate * objective.budget,
                guard=guard if burn.severity == "page" else "",
                minutes=burn.minutes,
                severity=burn.severity,
                what=objective.what,
                budget=objective.budget,
                days=30 / burn.rate,
                anchor=alert.lower(),
            )
        )
    return f"  - name: {objective.record}:alerts\n    rules:\n" + "".join(rules)


def text() -> str:
    """Return the content of the file."""
    return HEAD + "".join(recordings(each) + alerts(each) for each in OBJECTIVES)


if __name__ == "__main__":
    write_text(FILE, text())
