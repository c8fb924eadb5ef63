"""Panels of GPUs as NVIDIA's DCGM exporter reports them, where an operator has it."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.generate.dashboards.panels import Panel, lines
from deploy.generate.dashboards.queries import Query

GPU = "{{Hostname}}, GPU {{gpu}}"


def gpus() -> Iterator[Panel]:
    """All GPUs of all nodes: the exporter does not know our replicas."""
    yield lines(
        "GPUs busy",
        "Share of the time in which a GPU was busy, for all processes.",
        "percent",
        Query("DCGM_FI_DEV_GPU_UTIL", GPU),
        maximum=100,
        span=12,
    )
    yield lines(
        "Memory of the GPUs",
        "Used and free memory of each GPU.",
        "mbytes",
        Query("DCGM_FI_DEV_FB_USED", f"{GPU}, used"),
        Query("DCGM_FI_DEV_FB_FREE", f"{GPU}, free"),
        span=12,
    )
    yield lines(
        "Power of the GPUs",
        "Power that each GPU draws.",
        "watt",
        Query("DCGM_FI_DEV_POWER_USAGE", GPU),
        span=12,
    )
    yield lines(
        "Last Xid errors",
        "Number of the driver's last error on each GPU. It stays until the exporter restarts; 0 or "
        "no data without an error.",
        "none",
        Query("DCGM_FI_DEV_XID_ERRORS", GPU),
        span=12,
    )
