"""Cases in which alerts on the store fire, and cases in which they do not."""

from __future__ import annotations

from tests.deploy.alert_cases import A, Case


def store(calls: str, errors: str, operation: str = "save") -> dict[str, str]:
    """Return the series of calls of the store, and of failed calls."""
    labels = f'{A}, operation="{operation}"'
    return {
        f"ntm_store_seconds_count{{{labels}}}": calls,
        f"ntm_store_errors_total{{{labels}}}": errors,
    }


def stored(fast: str, made: str) -> dict[str, str]:
    """Return the series of saves: within 0.25 s, within 1 s, and all."""
    return {
        f'ntm_store_seconds_bucket{{{A}, operation="save", le="{le}"}}': counts
        for le, counts in (("0.25", fast), ("1.0", made), ("+Inf", made))
    }


def undurable(steps: str, asleep: str) -> dict[str, str]:
    """Return the series of steps that are not stored, with 100 sessions, some of them asleep."""
    return {
        f"ntm_undurable_steps{{{A}}}": steps,
        f'ntm_sessions{{{A}, model="x"}}': "100x60",
        f'ntm_sessions_asleep{{{A}, model="x"}}': asleep,
    }


STORE = [
    Case(
        "NtmStoreUnavailable",
        "it answers nothing any more",
        "14m",
        1,
        store("0+60x30", "0x10 0+60x20"),
    ),
    Case(
        "NtmStoreUnavailable",
        "a fifth of what is asked has no answer",
        "14m",
        1,
        store("0+60x30", "0+12x30"),
    ),
    Case(
        "NtmStoreUnavailable",
        "it was gone for a moment",
        "14m",
        0,
        store("0+60x30", "0x10 60x20"),
    ),
    Case("NtmStoreUnavailable", "one of twenty is late", "14m", 0, store("0+60x30", "0+3x30")),
    Case("NtmStoreSlow", "two of a hundred take long", "25m", 1, stored("0+98x30", "0+100x30")),
    Case("NtmStoreSlow", "one of a thousand does", "25m", 0, stored("0+999x30", "0+1000x30")),
    Case(
        "NtmUndurableSteps",
        "there are more and more for each that is awake",
        "50m",
        1,
        undurable("0+1000x60", asleep="60x60"),
    ),
    Case(
        "NtmUndurableSteps",
        "no session sleeps, and each has few",
        "50m",
        0,
        undurable("0+1000x60", asleep="_x60"),
    ),
    Case(
        "NtmUndurableSteps",
        "there are many and no more than before",
        "50m",
        0,
        undurable("60000x60", asleep="0x60"),
    ),
    Case(
        "NtmUndurableSteps",
        "no session has ever slept",
        "50m",
        1,
        undurable("60000+1000x60", asleep="_x60"),
    ),
    Case(
        "NtmCheckpointsRefused",
        "sessions go to and fro",
        "20m",
        1,
        {f'ntm_checkpoints_total{{{A}, outcome="refused"}}': "0+12x30"},
    ),
    Case(
        "NtmCheckpointsRefused",
        "sessions were moved once",
        "20m",
        0,
        {f'ntm_checkpoints_total{{{A}, outcome="refused"}}': "0x10 100x20"},
    ),
]
