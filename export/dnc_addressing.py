"""
How the heads of a Differentiable Neural Computer find their places, as pure functions.

The equations are those of Graves et al. 2016 (Nature 538, 471-476, Methods). Addressing by content,
reading and writing are as in `addressing`.

Shapes: B sequences, R read heads, one write head, N locations. What belongs to the write head keeps
an axis of length one, so that usage and precedence are [B, 1, N]. The link matrix is [B, N, N].
"""

from __future__ import annotations

import torch
from torch import Tensor

USAGE_STEPS = 1024
"""
Usages are put in order in steps of 1 / this; within a step, the location of the lower index counts
as less used.

Many locations are equally unused, except for roundings. Without the steps, roundings would choose
between these, and two runtimes would choose differently. It is a power of two, so that the order is
exact in float32 up to 16,384 locations.
"""

LEAST_USAGE = 1e-12
"""The least usage of which the logarithm is taken."""

LEAST_LOG = -40.0
"""The least logarithm of a product of usages: e ** -40 is 4e-18."""

LEAST_WEIGHT = 1e-12
"""
The least element of a weighting. It keeps denormal numbers, with which some processors are slow,
out of the link matrix: the product of three weights is larger than the least normal number.
"""


def usage_after(usage: Tensor, write: Tensor, read: Tensor, free_gate: Tensor) -> Tensor:
    """
    Count what was written as used, and free what was read: (u + w - u w) prod_r (1 - f_r w_r).

    `usage` (u) and `write` (w, the last write weighting) [B, 1, N], `read` (w_r, the last read
    weightings) [B, R, N], `free_gate` (f) [B, R, 1] -> [B, 1, N].
    """
    freed = free_gate * read
    retained = 1 - freed[:, :1]
    for head in range(1, read.shape[1]):
        retained = retained * (1 - freed[:, head : head + 1])
    return (usage + write - usage * write) * retained


def allocation(usage: Tensor) -> Tensor:
    """
    Weigh the locations to write to next: a(i) = (1 - u(i)) prod_j u(j), all j less used than i.

    The paper sorts the usages and multiplies along the order. Here each location compares itself
    with all others, which gives the same without a sort. `usage` [B, 1, N] -> [B, 1, N].
    """
    # Ranks are whole numbers. Their order has no gradient, as in the paper.
    rank = torch.round(usage.detach() * USAGE_STEPS) * usage.shape[2] + _places(usage)
    is_before = (rank - rank.mT).clamp(0, 1)
    taken = torch.log(usage.clamp(min=LEAST_USAGE)) @ is_before
    return (1 - usage) * torch.exp(taken.clamp(min=LEAST_LOG))


def write_weighting(
    allocated: Tensor, content: Tensor, allocation_gate: Tensor, write_gate: Tensor
) -> Tensor:
    """
    Choose where to write, and whether: g_w (g_a a + (1 - g_a) c).

    `allocated` (a) and `content` (c) [B, 1, N], both gates [B, 1, 1] -> [B, 1, N].
    """
    chosen = content + allocation_gate * (allocated - content)
    return (write_gate * chosen).clamp(min=LEAST_WEIGHT)


def link_after(link: Tensor, precedence: Tensor, write: Tensor) -> Tensor:
    """
    Note what was written after what: L(i, j) = (1 - w(i) - w(j)) L(i, j) + w(i) p(j), L(i, i) = 0.

    L(i, j) is near 1 if location i was written next after location j. `link` (L) [B, N, N],
    `precedence` (p, before this step) and `write` (w) [B, 1, N] -> [B, N, N].
    """
    places = _places(write)
    is_another = (places.mT - places).abs().clamp(max=1)
    return (1 - write.mT - write) * link + write.mT * precedence * is_another


def precedence_after(precedence: Tensor, write: Tensor) -> Tensor:
    """
    Note what was written last: (1 - sum_i w(i)) p + w.

    `precedence` (p) and `write` (w) [B, 1, N] -> [B, 1, N].
    """
    # A sum over the last axis: as a product, it has the same rounding in every row of a batch.
    total = write @ write.new_ones(write.shape[2], 1)
    return (1 - total) * precedence + write


def read_weighting(read: Tensor, link: Tensor, content: Tensor, mode: Tensor) -> Tensor:
    """
    Choose where to read: what was written before or after what was read, or by content.

    pi(1) b + pi(2) c + pi(3) f, where f = L w and b = L' w. `read` (w, the last weightings) and
    `content` (c) [B, R, N], `link` (L) [B, N, N], `mode` (pi) [B, R, 3] -> [B, R, N].
    """
    to_earlier, to_content, to_later = torch.split(mode, 1, 2)
    earlier, later = read @ link, read @ link.mT
    chosen = to_earlier * earlier + to_content * content + to_later * later
    return chosen.clamp(min=LEAST_WEIGHT)


def _places(like: Tensor) -> Tensor:
    """Return the indices of the locations, [1, N]."""
    return torch.arange(like.shape[2], dtype=like.dtype, device=like.device)[None]
