"""Cases in which alerts on GPUs fire, and cases in which they do not."""

from __future__ import annotations

from tests.deploy.alert_cases import A, Case

XID = 'DCGM_FI_DEV_XID_ERRORS{job="dcgm", instance="d", Hostname="node-a", gpu="1"}'
"""The last error of a GPU, as the DCGM exporter has it."""


def memory(used: str) -> dict[str, str]:
    """Return the series of the memory in use of a GPU of 100 bytes, and of its memory."""
    return {
        f'ntm_gpu_memory_used_bytes{{{A}, gpu="0"}}': used,
        f'ntm_gpu_memory_total_bytes{{{A}, gpu="0"}}': "100x30",
    }


GPUS = [
    Case("NtmGpuMemoryFull", "nearly all is in use", "15m", 1, memory("96x30")),
    Case("NtmGpuMemoryFull", "it was for a moment", "15m", 0, memory("96x5 90x30")),
    Case("NtmGpuErrors", "one came", "110m", 1, {XID: "0x100 79x100"}),
    Case("NtmGpuErrors", "another came", "110m", 1, {XID: "79x100 48x100"}),
    Case("NtmGpuErrors", "the first one began the series", "25m", 1, {XID: "_x20 79x20"}),
    Case("NtmGpuErrors", "it is an hour old", "170m", 0, {XID: "0x100 79x100"}),
    Case("NtmGpuErrors", "there was none", "110m", 0, {XID: "0x200"}),
]
