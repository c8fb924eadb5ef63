"""From somebody's ONNX file, and a description of how to step it, to a folder that is served."""

from export.wrapping.folder import wrap_file
from export.wrapping.refusal import FileRefused

__all__ = ["FileRefused", "wrap_file"]
