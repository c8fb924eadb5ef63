"""The service level objectives. Rules, alerts and dashboards take their numbers from here."""

from __future__ import annotations

from service.telemetry.metrics import SECONDS

FAST_SECONDS = SECONDS[9]
"""A step is fast up to this time: 9.9 ms, the bound of a bucket, so that the count is exact."""

FAST_SHARE = 0.99
"""The objective for the share of fast steps."""

ANSWERED_SHARE = 0.999
"""The objective for the share of calls and stream operations without a fault of the server."""

FAULTS = "INTERNAL|MODEL_INVALID|NOT_STORED|SESSION_FAILED"
"""
The reasons of errors that are the server's fault. All others are a client's fault, or refusals.

NOT_STORED counts as a fault: the client is not served, whether the server or its store has failed.
"""
