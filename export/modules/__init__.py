"""From a PyTorch module of somebody's own to a folder that the server serves."""

from export.modules.folder import export_module
from export.modules.refusal import ModuleRefused

__all__ = ["ModuleRefused", "export_module"]
