"""What the service promises its clients: the one place for the objectives' figures."""

from __future__ import annotations

from service.telemetry.metrics import SECONDS

FAST_SECONDS = SECONDS[9]
"""A step is fast up to here: 9.9 ms, the bound of a bucket, so that fast steps are counted."""

FAST_SHARE = 0.99
"""Of all steps, the share that is to be fast."""

ANSWERED_SHARE = 0.999
"""Of all calls and operations of streams, the share that is to meet no fault of the server."""

FAULTS = "INTERNAL|MODEL_INVALID|NOT_STORED|SESSION_FAILED"
"""
The reasons of errors that are the service's own; all others are a client's, or a refusal.

NOT_STORED is among them: whether its server or its store has failed, the client is not served.
"""
