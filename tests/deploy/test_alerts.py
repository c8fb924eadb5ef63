"""Every alert fires when it should and not otherwise, by Prometheus's own unit tests of rules."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.alert_cases import A, Case
from tests.deploy.gpu_cases import GPUS
from tests.deploy.store_cases import STORE
from tests.deploy.tools import PROMETHEUS, passes
from tests.deploy.watched import RULES, rules

pytestmark = PROMETHEUS


def steps(fast: str, made: str) -> dict[str, str]:
    """Return the series of fast steps and of all steps."""
    return {
        f"ntm_step_seconds_count{{{A}}}": made,
        f'ntm_step_seconds_bucket{{{A}, le="0.009918"}}': fast,
    }


def calls(faults: str, reason: str = "INTERNAL", count: str = "0+60000x2000") -> dict[str, str]:
    """Return the series of calls and stream operations, half of each, and of errors of a reason."""
    return {
        f'ntm_rpc_seconds_count{{{A}, method="Step"}}': count,
        f'ntm_stream_operations_total{{{A}, kind="step"}}': count,
        f'ntm_errors_total{{{A}, reason="{reason}"}}': faults,
    }


def refused(reason: str, counts: str) -> dict[str, str]:
    """Return the series of errors of a reason."""
    return {f'ntm_errors_total{{{A}, reason="{reason}"}}': counts}


def replica(**gauges: str) -> dict[str, str]:
    """Return the series of a replica's metrics without further labels."""
    return {f"{name}{{{A}}}": values for name, values in gauges.items()}


DAY = 86400
CASES = [
    *STORE,
    *GPUS,
    Case("NtmReplicaDown", "it does not answer", "3m", 1, replica(up="1 0x10")),
    Case("NtmReplicaDown", "it missed one scrape", "3m", 0, replica(up="1 0 1x10")),
    Case("NtmNoReplica", "there is no target", "6m", 1, {'up{job="prometheus"}': "1x20"}),
    Case("NtmNoReplica", "a target is down", "20m", 0, replica(up="0x20")),
    Case(
        "NtmReplicaNotServing",
        "it is up and serves nobody",
        "6m",
        1,
        replica(ntm_serving="0x20", ntm_draining="0x20"),
    ),
    Case(
        "NtmReplicaNotServing",
        "it was told to stop",
        "20m",
        0,
        replica(ntm_serving="0x20", ntm_draining="1x20"),
    ),
    Case(
        "NtmReplicaRestarts",
        "it starts again and again",
        "20m",
        1,
        replica(process_start_time_seconds="1x4 2x4 3x4 4x20"),
    ),
    Case(
        "NtmReplicaRestarts",
        "it was restarted twice",
        "20m",
        0,
        replica(process_start_time_seconds="1x4 2x4 3x20"),
    ),
    Case("NtmDrainStuck", "it does not stop", "4m", 1, replica(ntm_draining="0 1x10")),
    Case("NtmDrainStuck", "it stops", "4m", 0, replica(ntm_draining="0 1x1 stale")),
    Case(
        "NtmRunsSaturated",
        "one thread is always busy",
        "25m",
        1,
        replica(ntm_tick_seconds_sum="0+57x30", ntm_run_threads="1x30"),
    ),
    Case(
        "NtmRunsSaturated",
        "two threads share as much",
        "25m",
        0,
        replica(ntm_tick_seconds_sum="0+57x30", ntm_run_threads="2x30"),
    ),
    Case(
        "NtmSessionsNearLimit",
        "models together fill it",
        "10m",
        1,
        {
            f'ntm_sessions{{{A}, model="x"}}': "50x10",
            f'ntm_sessions{{{A}, model="y"}}': "45x10",
            **replica(ntm_sessions_limit="100x10"),
        },
    ),
    Case(
        "NtmSessionsNearLimit",
        "there is room",
        "10m",
        0,
        {f'ntm_sessions{{{A}, model="x"}}': "85x10", **replica(ntm_sessions_limit="100x10")},
    ),
    Case(
        "NtmStateNearLimit",
        "the slabs hold nearly all they may",
        "10m",
        1,
        {
            f'ntm_state_bytes{{{A}, model="x", place="slab"}}': "95x10",
            **replica(ntm_state_limit_bytes="100x10"),
        },
    ),
    Case(
        "NtmStateNearLimit",
        "what is elsewhere does not count",
        "10m",
        0,
        {
            f'ntm_state_bytes{{{A}, model="x", place="slab"}}': "60x10",
            f'ntm_state_bytes{{{A}, model="x", place="store"}}': "60x10",
            **replica(ntm_state_limit_bytes="100x10"),
        },
    ),
    Case(
        "NtmEventLoopLate",
        "two of a hundred timers are late",
        "20m",
        1,
        {
            f'ntm_event_loop_lag_seconds_bucket{{{A}, le="0.1"}}': "0+98x30",
            f'ntm_event_loop_lag_seconds_bucket{{{A}, le="0.2"}}': "0+100x30",
            f'ntm_event_loop_lag_seconds_bucket{{{A}, le="+Inf"}}': "0+100x30",
        },
    ),
    Case(
        "NtmEventLoopLate",
        "one of a thousand is",
        "20m",
        0,
        {
            f'ntm_event_loop_lag_seconds_bucket{{{A}, le="0.1"}}': "0+999x30",
            f'ntm_event_loop_lag_seconds_bucket{{{A}, le="0.2"}}': "0+1000x30",
            f'ntm_event_loop_lag_seconds_bucket{{{A}, le="+Inf"}}': "0+1000x30",
        },
    ),
    Case(
        "NtmFilesNearLimit",
        "nearly all are open",
        "10m",
        1,
        replica(process_open_fds="90x10", process_max_fds="100x10"),
    ),
    Case(
        "NtmFilesNearLimit",
        "half are open",
        "10m",
        0,
        replica(process_open_fds="50x10", process_max_fds="100x10"),
    ),
    Case(
        "NtmCapacityRefusals",
        "clients are turned away all the time",
        "12m",
        1,
        refused("CAPACITY_EXCEEDED", "0+60x20"),
    ),
    Case(
        "NtmCapacityRefusals",
        "a few were turned away once",
        "12m",
        0,
        refused("CAPACITY_EXCEEDED", "0x5 10x20"),
    ),
    Case(
        "NtmRunsFail",
        "the first run failed",
        "6m",
        1,
        {f'ntm_failed_runs_total{{{A}, model="x"}}': "_x5 1x30"},
    ),
    Case(
        "NtmRunsFail",
        "another run failed",
        "16m",
        1,
        {f'ntm_failed_runs_total{{{A}, model="x"}}': "1x14 2x30"},
    ),
    Case(
        "NtmRunsFail",
        "runs failed long ago",
        "40m",
        0,
        {f'ntm_failed_runs_total{{{A}, model="x"}}': "_x5 1x60"},
    ),
    Case(
        "NtmReloadsFail",
        "a file of a new model is broken",
        "6m",
        1,
        {f'ntm_model_reloads_total{{{A}, model="x", outcome="failed"}}': "_x5 1x30"},
    ),
    Case(
        "NtmReloadsFail",
        "one more file is broken",
        "16m",
        1,
        {f'ntm_model_reloads_total{{{A}, model="x", outcome="failed"}}': "1x14 2x30"},
    ),
    Case(
        "NtmReloadsFail",
        "files are taken over, and one was broken long ago",
        "80m",
        0,
        {
            f'ntm_model_reloads_total{{{A}, model="x", outcome="failed"}}': "_x5 1x90",
            f'ntm_model_reloads_total{{{A}, model="x", outcome="taken"}}': "0+1x90",
        },
    ),
    Case(
        "NtmVersionMissing",
        "sessions of an old version come again and again",
        "12m",
        1,
        refused("MODEL_VERSION_UNKNOWN", "0+12x20"),
    ),
    Case(
        "NtmVersionMissing",
        "a client asked for a version that there is not",
        "12m",
        0,
        refused("MODEL_VERSION_UNKNOWN", "0x5 5x20"),
    ),
    Case(
        "NtmSessionsUnknown",
        "clients go on with lost sessions",
        "12m",
        1,
        refused("SESSION_UNKNOWN", "0+120x20"),
    ),
    Case(
        "NtmSessionsUnknown",
        "a client is mistaken now and then",
        "12m",
        0,
        refused("SESSION_UNKNOWN", "0+30x20"),
    ),
    Case(
        "NtmAuthenticationFails",
        "somebody tries credentials",
        "12m",
        1,
        refused("UNAUTHENTICATED", "0+120x20"),
    ),
    Case(
        "NtmAuthenticationFails",
        "somebody mistyped one",
        "12m",
        0,
        refused("UNAUTHENTICATED", "0+30x20"),
    ),
    Case(
        "NtmCertificateExpiresSoon",
        "ten days are left",
        "90m",
        1,
        replica(ntm_certificate_expiry_timestamp_seconds=f"{10 * DAY}x90"),
    ),
    Case(
        "NtmCertificateExpiresSoon",
        "a month is left",
        "90m",
        0,
        replica(ntm_certificate_expiry_timestamp_seconds=f"{30 * DAY}x90"),
    ),
    Case(
        "NtmCertificateExpires",
        "a day is left",
        "5m",
        1,
        replica(ntm_certificate_expiry_timestamp_seconds=f"{DAY}x10"),
    ),
    Case(
        "NtmCertificateExpires",
        "ten days are left",
        "5m",
        0,
        replica(ntm_certificate_expiry_timestamp_seconds=f"{10 * DAY}x10"),
    ),
    # Two alerts may fire by one name: each has windows of its own.
    Case("NtmStepsSlow", "a fifth of steps is slow", "10m", 1, steps("0+48000x60", "0+60000x60")),
    Case("NtmStepsSlow", "a tenth is for hours", "5h", 1, steps("0+54000x400", "0+60000x400")),
    Case("NtmStepsSlow", "few are", "5h", 0, steps("0+59700x400", "0+60000x400")),
    Case(
        "NtmStepsSlow",
        "they were slow and are no more",
        "75m",
        0,
        steps("0+48000x30 1500000+60000x60", "0+60000x100"),
    ),
    Case("NtmStepsSlow", "all are, but there are few", "60m", 0, steps("0x100", "0+30x100")),
    Case(
        "NtmSlowStepsAddUp",
        "5 % are slow for a day",
        "26h",
        2,
        steps("0+1710000x60", "0+1800000x60"),
        every="30m",
    ),
    Case(
        "NtmSlowStepsAddUp",
        "2 % are slow for days",
        "80h",
        1,
        steps("0+1764000x180", "0+1800000x180"),
        every="30m",
    ),
    Case(
        "NtmSlowStepsAddUp",
        "half a percent is",
        "80h",
        0,
        steps("0+1791000x180", "0+1800000x180"),
        every="30m",
    ),
    Case("NtmCallsFail", "a twentieth fails", "10m", 1, calls("0+6000x60")),
    Case("NtmCallsFail", "a hundredth fails for hours", "5h", 1, calls("0+1200x400")),
    Case("NtmCallsFail", "one in two thousand does", "5h", 0, calls("0+60x400")),
    Case(
        "NtmCallsFail",
        "clients make mistakes",
        "5h",
        0,
        calls("0+6000x400", reason="INVALID_REQUEST"),
    ),
    Case("NtmCallsFail", "half of few does", "60m", 0, calls("0+20x100", count="0+20x100")),
    Case(
        "NtmFailedCallsAddUp",
        "half a percent fails for a day",
        "26h",
        2,
        calls("0+1800x60", count="0+180000x60"),
        every="30m",
    ),
    Case(
        "NtmFailedCallsAddUp",
        "one in five hundred fails for days",
        "80h",
        1,
        calls("0+720x180", count="0+180000x180"),
        every="30m",
    ),
    Case(
        "NtmFailedCallsAddUp",
        "one in two thousand does",
        "80h",
        0,
        calls("0+180x180", count="0+180000x180"),
        every="30m",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_when_it_should(case: Case, tmp_path: Path) -> None:
    """The number of alerts that fire after the time is the one of the case."""
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    test = {
        "interval": case.every,
        "input_series": [
            {"series": series, "values": values} for series, values in case.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"count({firing}) or vector(0)",
                "eval_time": case.after,
                "exp_samples": [{"labels": "{}", "value": case.fires}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    rule_file = next(file for file in RULES if f"alert: {case.alert}\n" in file.read_text())
    groups = yaml.safe_load(rule_file.read_text())["groups"]
    whole = {
        "rule_files": [str(rule_file)],
        # Else at random: alerts may then look for what has not been recorded yet.
        "group_eval_order": [group["name"] for group in groups],
        "evaluation_interval": case.every,
        "tests": [test],
    }
    file.write_text(yaml.safe_dump(whole))

    passes(["promtool", "test", "rules", file])


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    """Each alert has a case in which it fires and a case in which it does not."""
    names = {rule["alert"] for rule in rules("alert")}

    assert {case.alert for case in CASES if case.fires} == names
    assert {case.alert for case in CASES if not case.fires} == names
