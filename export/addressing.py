"""How heads address, read and write the memory: equations 2 to 9 of the paper, as pure functions.

Shapes: B sequences, H heads (R that read, W that write), N locations of width M. The memory is
stored as [B, M, N], so that every broadcast runs along contiguous locations.
"""

from __future__ import annotations

import torch
from torch import Tensor

NORM_EPSILON = 1e-6
"""Added under the root of a norm, so that the cosine of a zero vector has a finite gradient."""

WEIGHTING_EPSILON = 1e-12
"""Added to a weighting before its logarithm."""


def content_weighting(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """
    Focus by content: w^c(i) = softmax_i(beta K[k, M(i)]), K the cosine (equations 5 and 6).

    `memory` [B, M, N], `key` [B, H, M], `strength` (beta) [B, H, 1] -> [B, H, N].
    """
    memory_norm = torch.sqrt(memory.square().sum(1, keepdim=True) + NORM_EPSILON)
    key_norm = torch.sqrt(key.square().sum(2, keepdim=True) + NORM_EPSILON)
    # The key is scaled before the product, because it is far smaller than the similarities.
    return torch.softmax((key * (strength / key_norm)) @ memory / memory_norm, 2)


def interpolate(content: Tensor, previous: Tensor, gate: Tensor) -> Tensor:
    """
    Choose between content and the previous weighting: g w^c + (1 - g) w_{t-1} (equation 7).

    `content` and `previous` [B, H, N], `gate` (g) [B, H, 1] -> [B, H, N].
    """
    return previous + gate * (content - previous)


def shift_weighting(weighting: Tensor, shift: Tensor) -> Tensor:
    """
    Rotate: w~(i) = s(-1) w(i + 1) + s(0) w(i) + s(+1) w(i - 1), indices modulo N (equation 8).

    `weighting` [B, H, N], `shift` [B, H, 3] in the order -1, 0, +1 -> [B, H, N]. All weight on
    shift +1 moves a weighting from location i to location i + 1.
    """
    backward, stay, forward = torch.split(shift, 1, 2)
    ring = torch.cat([weighting[:, :, -1:], weighting, weighting[:, :, :1]], 2)
    return backward * ring[:, :, 2:] + stay * weighting + forward * ring[:, :, :-2]


def sharpen(weighting: Tensor, sharpening: Tensor) -> Tensor:
    """
    Undo the blur of shifting: w(i) = w~(i)^gamma / sum_j w~(j)^gamma (equation 9).

    Computed as a softmax of logarithms, which neither underflows nor divides by zero.
    `weighting` [B, H, N], `sharpening` (gamma) [B, H, 1] -> [B, H, N].
    """
    return torch.softmax(sharpening * torch.log(weighting + WEIGHTING_EPSILON), 2)


def read(memory: Tensor, weighting: Tensor) -> Tensor:
    """
    Read r = sum_i w(i) M(i) (equation 2).

    `memory` [B, M, N], `weighting` [B, R, N] -> [B, R, M].
    """
    return torch.matmul(weighting, memory.mT)


def write(memory: Tensor, weighting: Tensor, erase_vector: Tensor, add_vector: Tensor) -> Tensor:
    """
    Let all heads erase, then all heads add (equations 3 and 4).

    M~(i) = M(i) prod_h [1 - w_h(i) e_h], then M(i) = M~(i) + sum_h w_h(i) a_h.
    `memory` [B, M, N], `weighting` [B, W, N], `erase_vector` and `add_vector` [B, W, M].
    """
    erase, add = erase_vector.mT, add_vector.mT
    if weighting.shape[1] == 1:
        # The same result with one pass less over the memory.
        return memory - weighting * (erase * memory - add)
    kept = 1 - erase[:, :, :1] * weighting[:, :1]
    for head in range(1, weighting.shape[1]):
        row = slice(head, head + 1)
        kept = kept * (1 - erase[:, :, row] * weighting[:, row])
    return memory * kept + add @ weighting
