"""PyTorch's own step of the same network, on the same device."""

from __future__ import annotations

import time

import torch

from bench.processes import MODEL
from bench.row import ROOT
from export.card import load
from export.to_onnx import ServedStep


def torch_steps_a_second(device: str, batch: int, seconds: float, *, compiled: bool) -> float:
    """Return the steps a second of PyTorch, over all sessions of a batch."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    served = ServedStep(load(ROOT / "models" / MODEL)).eval()
    with torch.no_grad():
        state = served.network.initial_state(batch, 128)
    served.to(device)
    state = type(state)(*(value.to(device) for value in state))
    step = torch.compile(served) if compiled else served
    x = torch.zeros(batch, 9, device=device)
    made, ends = -3, 0.0
    with torch.inference_mode():
        while made <= 0 or time.perf_counter() < ends:
            if made == 0:
                began = time.perf_counter()
                ends = began + seconds
            y, *after = step(x, state)
            y.cpu()
            state = type(state)(*after[: len(state)])
            made += 1
    return batch * made / (time.perf_counter() - began)
