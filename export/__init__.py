"""Train Neural Turing Machines in PyTorch and export them to ONNX; the only place with torch."""

import os

# Before anything imports onnxruntime, which would else write files into the home folder and report
# to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
