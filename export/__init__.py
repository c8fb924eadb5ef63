"""Train Neural Turing Machines in PyTorch and export them to ONNX; the only place with torch."""
