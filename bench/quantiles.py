"""Quantiles of measured times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the quantiles of times in seconds, by name, in microseconds."""
    found = np.quantile(seconds, list(QUANTILES.values())) * 1e6
    return {f"{name}, us": float(value) for name, value in zip(QUANTILES, found, strict=True)}
