"""The dashboard of sessions: their number, lifetime, state, durability and end."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.durability import AWAKE, durability
from deploy.generate.dashboards.layout import PanelRow, dashboard
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
    return dashboard(
        "sessions",
        "Number, lifetime, state, durability and end of sessions.",
        [
            PanelRow("Now", list(now())),
            PanelRow("Opened and closed", list(opened_and_closed())),
            PanelRow("Life", list(life())),
            PanelRow("State", list(state())),
            PanelRow("Durability", list(durability())),
        ],
    )


def now() -> Iterator[Panel]:
    yield number("Open", "Open sessions, awake or asleep.", "none", total(SESSIONS))
    yield number(
        "Limit",
        "Maximum number of sessions of all replicas together.",
        "none",
        total(LIMIT),
    )
    yield number(
        "Opened a minute",
        "Sessions created a minute.",
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
        "State", "Bytes of state of all awake sessions.", "bytes", total(STATE), decimals=1
    )
    yield number(
        "State of a session",
        "Mean bytes of state of an awake session.",
        "bytes",
        f"{total(STATE)} / {AWAKE}",
        decimals=1,
    )


def opened_and_closed() -> Iterator[Panel]:
    yield lines(
        "Open sessions by model",
        "Open sessions, awake or asleep, by model.",
        "none",
        Query(total(SESSIONS, "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Opened by model",
        "Sessions created a second, by model.",
        "count:sessions/s",
        Query(total(rate("ntm_sessions_opened_total"), "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Closed by reason",
        "Sessions closed a second: deleted by a client, expired, failed, or moved to another "
        "replica.",
        "count:sessions/s",
        Query(total(rate("ntm_sessions_closed_total"), "reason"), "{{reason}}"),
        stacked=True,
    )


def life() -> Iterator[Panel]:
    yield lines(
        "Lifetime",
        "Time from creation to closing, of closed sessions.",
        "s",
        *quantiles("ntm_session_lifetime_seconds"),
    )
    yield lines(
        "Idle before expiry",
        "Time without a step of expired sessions: the idle timeouts that clients chose.",
        "s",
        *quantiles("ntm_session_idle_seconds"),
    )
    yield lines(
        "Steps of a session",
        "Steps that a session had made when it was closed.",
        "none",
        *quantiles("ntm_session_steps"),
    )
    yield lines(
        "Interval between steps",
        "Time from the last tick of a session to its next chunk.",
        "s",
        *quantiles("ntm_step_interval_seconds"),
    )
    yield lines(
        "Median interval by model",
        "Median time from the last tick of a session to its next chunk, by model.",
        "s",
        Query(quantile("ntm_step_interval_seconds", 0.5, by="model"), "{{model}}"),
    )
    yield lines(
        "Mean steps of a session by model",
        "Mean number of steps that a session had made when it was closed, by model.",
        "none",
        Query(mean("ntm_session_steps", by="model"), "{{model}}"),
    )


def state() -> Iterator[Panel]:
    yield lines(
        "State by model",
        "Bytes of state of awake sessions, by model and place.",
        "bytes",
        Query(total(STATE, "model, place"), "{{model}}, {{place}}"),
        stacked=True,
    )
    yield lines(
        "Slots",
        "Slots of the slabs: taken by sessions, and free.",
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
