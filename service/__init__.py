"""A gRPC server that holds the state of many recurrent sequences and steps them on onnxruntime."""

import os

# Before anything imports onnxruntime, which would else write files into the home folder and report
# to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
