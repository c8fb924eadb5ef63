"""The optimiser of the paper: RMSProp as in Graves 2013 (arXiv 1308.0850)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

DECAY = 0.95
"""The decay of the running means of the gradient and of its square."""

MOMENTUM = 0.9

FLOOR = 1e-4
"""Added to the variance under the root, so that no gradient is multiplied by more than 100."""


class RmsProp(torch.optim.Optimizer):
    """
    Divides a gradient by the root of its running variance plus a floor.

    n <- 0.95 n + 0.05 g^2; m <- 0.95 m + 0.05 g; d <- 0.9 d - lr g / sqrt(n - m^2 + 1e-4);
    w <- w + d. PyTorch's RMSprop adds the floor outside the root, which makes the steps of small
    gradients far longer.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is needed
        """Update every parameter that has a gradient, in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    for name in ("square", "mean", "move"):
                        state[name] = torch.zeros_like(parameter)
                square, mean, move = state["square"], state["mean"], state["move"]
                square.mul_(DECAY).addcmul_(gradient, gradient, value=1 - DECAY)
                mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
                # Rounding can make the variance of large, nearly constant gradients negative.
                root = torch.sqrt((square - mean.square()).clamp(min=0) + FLOOR)
                move.mul_(MOMENTUM).addcdiv_(gradient, root, value=-group["lr"])
                parameter.add_(move)
