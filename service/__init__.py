"""A gRPC server that holds the state of many recurrent sequences and steps them on onnxruntime."""

__version__ = "0.1.0"
