"""Benchmarks: each a ratio of two things measured alternately in one run on one machine."""

import os

# Before anything imports onnxruntime, which would else write files into the home folder and report
# to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
