"""Models written as model repositories of Triton, whose ONNX backend steps them with state."""
