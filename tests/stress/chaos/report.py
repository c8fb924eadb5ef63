"""The table of a run."""

from __future__ import annotations

from tests.stress.chaos.tally import Tally
from tests.stress.chaos.world import quantile

_SHOWN = 10


def table(tally: Tally) -> str:
    """Faults by kind, work done, what must be 0, and how long sessions were interrupted."""
    rows: list[tuple[str, object]] = [
        *sorted((f"fault: {kind}", count) for kind, count in tally.faults.items()),
        ("sessions opened", tally.sessions),
        *sorted((f"sessions {kind}", count) for kind, count in tally.ends.items()),
        *sorted((f"sessions {kind}", count) for kind, count in tally.operations.items()),
        ("steps answered", tally.steps),
        ("steps made again", tally.replayed_steps),
        ("outputs compared", tally.compared),
        *sorted((f"refused: {reason}", n) for reason, n in tally.refusals.items()),
        *sorted((kind, count) for kind, count in tally.errors.items()),
        ("calls resumed", len(tally.resume_seconds)),
        ("time to resume p50, s", f"{quantile(tally.resume_seconds, 0.5):.2f}"),
        ("time to resume p99, s", f"{quantile(tally.resume_seconds, 0.99):.2f}"),
        ("sessions not stored at a stop", tally.not_stored_at_stop),
        ("sessions shown as they were before", len(tally.stale)),
        ("steps asked for again after a takeover", tally.set_right),
        ("sessions found after deletion", len(tally.undeleted)),
        ("mismatches", len(tally.mismatches)),
        ("losses", len(tally.losses)),
        ("other findings", len(tally.others)),
    ]
    lines = [f"{name:<44}{value!s:>10}" for name, value in rows]
    for title, sentences in findings(tally).items():
        lines += [f"{title}: {sentence}" for sentence in sentences[:_SHOWN]]
    return "\n".join(lines)


def findings(tally: Tally) -> dict[str, list[str]]:
    """A sentence for each thing that must not be, by kind."""
    return {
        "mismatch": tally.mismatches,
        "loss": tally.losses,
        "other": tally.others,
        "undeleted": tally.undeleted,
        "stale": tally.stale,
    }


def is_sound(tally: Tally) -> bool:
    """Whether nothing was that must not be."""
    return not (tally.mismatches or tally.losses or tally.others)
