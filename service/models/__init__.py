"""From model files to loaded networks; the only place with onnx and onnxruntime."""
