"""The dashboard of sessions: how many, how long they live, what they hold, how they end."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.durability import AWAKE, durability
from deploy.generate.dashboards.layout import Row, dashboard
from deploy.generate.dashboards.panels import Panel, lines, number
from deploy.generate.dashboards.queries import (
    INSTANCE,
    MODEL,
    Query,
    mean,
    quantile,
    quantiles,
    rate,
    total,
)

STATE = f"ntm_state_bytes{{{MODEL}}}"
SESSIONS = f"ntm_sessions{{{MODEL}}}"
LIMIT = f"ntm_sessions_limit{{{INSTANCE}}}"
STATE_LIMIT = f"ntm_state_limit_bytes{{{INSTANCE}}}"


def sessions() -> Dashboard:
    """From opening to closing."""
    return dashboard(
        "sessions",
        "How many sessions there are, how long they live, what they hold and how they end.",
        [
            Row("Now", list(now())),
            Row("Opened and closed", list(opened_and_closed())),
            Row("Life", list(life())),
            Row("State", list(state())),
            Row("Durability", list(durability())),
        ],
    )


def now() -> Iterator[Panel]:
    """What one number can say."""
    yield number("Open", "Sessions that are open now, awake or asleep.", "none", total(SESSIONS))
    yield number(
        "Limit",
        "Sessions that all replicas together may hold.",
        "none",
        total(LIMIT),
    )
    yield number(
        "Opened a minute",
        "Sessions opened a minute.",
        "none",
        f"60 * {total(rate('ntm_sessions_opened_total'))}",
        decimals=1,
    )
    yield number(
        "Waiting",
        "Sessions with a step that waits for a tick.",
        "none",
        total(f"ntm_waiting_sessions{{{INSTANCE}}}"),
    )
    yield number(
        "State", "Bytes of state of all sessions that are awake.", "bytes", total(STATE), decimals=1
    )
    yield number(
        "State of a session",
        "Mean bytes of state that a session holds while it is awake.",
        "bytes",
        f"{total(STATE)} / {AWAKE}",
        decimals=1,
    )


def opened_and_closed() -> Iterator[Panel]:
    """Comings and goings."""
    yield lines(
        "Open sessions by model",
        "Open sessions, awake or asleep, by model.",
        "none",
        Query(total(SESSIONS, "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Opened by model",
        "Sessions opened a second, by model.",
        "count:sessions/s",
        Query(total(rate("ntm_sessions_opened_total"), "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Closed by reason",
        "Sessions closed a second: deleted by a client, expired, failed with a run, or moved to "
        "another replica.",
        "count:sessions/s",
        Query(total(rate("ntm_sessions_closed_total"), "reason"), "{{reason}}"),
        stacked=True,
    )


def life() -> Iterator[Panel]:
    """What sessions do while they are open."""
    yield lines(
        "Lifetime",
        "From opening to closing, of sessions that closed.",
        "s",
        *quantiles("ntm_session_lifetime_seconds"),
    )
    yield lines(
        "Idle before expiry",
        "Time without a step of sessions that expired: the idle timeouts that clients chose.",
        "s",
        *quantiles("ntm_session_idle_seconds"),
    )
    yield lines(
        "Steps of a session",
        "Steps that a session had made when it closed.",
        "none",
        *quantiles("ntm_session_steps"),
    )
    yield lines(
        "Interval between steps",
        "From a session's last tick to its next chunk: how long clients think.",
        "s",
        *quantiles("ntm_step_interval_seconds"),
    )
    yield lines(
        "Median interval by model",
        "Half of the chunks came sooner after the session's last tick.",
        "s",
        Query(quantile("ntm_step_interval_seconds", 0.5, by="model"), "{{model}}"),
    )
    yield lines(
        "Mean steps of a session by model",
        "Steps that a session had made when it closed, by model.",
        "none",
        Query(mean("ntm_session_steps", by="model"), "{{model}}"),
    )


def state() -> Iterator[Panel]:
    """What sessions hold."""
    yield lines(
        "State by model",
        "Bytes of state of sessions that are awake, by model and by where they are.",
        "bytes",
        Query(total(STATE, "model, place"), "{{model}}, {{place}}"),
        stacked=True,
    )
    yield lines(
        "Slots",
        "Slots of the slabs: taken by sessions, and free for new ones without growing a slab.",
        "none",
        *(Query(total(f'ntm_slots{{{MODEL}, use="{use}"}}'), use) for use in ("taken", "free")),
        stacked=True,
    )
    yield lines(
        "State against the limit",
        "Bytes of state and the most that all replicas together may hold.",
        "bytes",
        Query(total(STATE), "state"),
        Query(total(STATE_LIMIT), "limit"),
    )
