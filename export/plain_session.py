"""onnxruntime as anybody would use it, without what the server does to a graph."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def plain_session(model: bytes | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """
    Load a serialised model, or a file, on the CPU.

    Whatever onnxruntime raises goes through: its errors share no base class other than Exception.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its errors are raised too
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
