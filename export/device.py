"""The device that a network is trained on: the CPU, or a GPU by CUDA."""

from __future__ import annotations

import torch
from torch import nn

CPU = torch.device("cpu")


def opened(name: str) -> torch.device:
    """
    Return the device `cpu` or `cuda` after it has computed something.

    Raises:
        ValueError: it cannot compute; the message has PyTorch's reason.
    """
    device = torch.device(name)
    try:
        torch.ones(1, device=device).sum().item()
    except (AssertionError, RuntimeError) as error:  # the first where PyTorch is built for CPUs
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"--device is {name}, but PyTorch {torch.__version__} cannot use it: {reason}. It "
            "needs an NVIDIA GPU, its driver, and a PyTorch built for CUDA; leave out --device to "
            "train on the CPU"
        ) from error
    return device


def device_of(network: nn.Module) -> torch.device:
    """Return the device that all parameters of a network are on."""
    return next(network.parameters()).device


def title_of(device: torch.device) -> str:
    """Return how cards name a device: `cpu`, or the name of the graphics card."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
