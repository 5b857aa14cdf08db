"""Rotary position embedding, in place, from a table of cosines and sines; with head norms before it.

How the table is made (bases, scalings, lengths) is the layers' business.
"""

from __future__ import annotations

import torch

from quire.ops.norm import rms_norm
from quire.ops.registry import Provider, declare, register

ROPE = declare(
    "rope",
    "pure",
    "run(x [T,H,D] in place, positions [T], table [max_len,rot], interleaved): turns rot of D",
)
QK_ROPE = declare(
    "qk_rope",
    "pure",
    "run(x [T,H+K,D] in place, q_weight [D], k_weight [D], positions, table, num_q_heads, eps, "
    "interleaved): rms_norm of each head, then rope",
)


def rope(
    x: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """Turns x [T, H, D] in place by the angles of its positions [T]; returns x."""
    rot = table.shape[1]
    half = rot // 2
    angles = table.index_select(0, positions).unsqueeze(1)  # [T, 1, rot]
    cos, sin = angles[..., :half], angles[..., half:]
    if interleaved:
        first, second = x[..., 0:rot:2], x[..., 1:rot:2]
    else:
        first, second = x[..., :half], x[..., half:rot]
    a = first.to(torch.float32, copy=True)  # [T, H, rot / 2]
    b = second.to(torch.float32, copy=True)
    first.copy_(a * cos - b * sin)
    second.copy_(b * cos + a * sin)
    return x


@register
class RopeReference(Provider):
    op = "rope"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        table: torch.Tensor,
        *,
        interleaved: bool = False,
    ) -> torch.Tensor:
        """Rotates pairs of the first `rot` elements of each head by their angles, in place.

        x          [T, H, D], may be a strided view; returned.
        positions  [T] int64, each below max_len; another raises IndexError, or makes NaN of what
                   is turned where a provider does not look at positions.
        table      [max_len, rot] float32: rot / 2 cosines, then rot / 2 sines.
        Pair i is (i, i + rot / 2), or (2i, 2i + 1) if interleaved. In float32, rounded once.
        Source: arXiv 2104.09864.
        """
        return rope(x, positions, table, interleaved)


@register
class QkRopeReference(Provider):
    op = "qk_rope"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        positions: torch.Tensor,
        table: torch.Tensor,
        *,
        num_q_heads: int,
        eps: float,
        interleaved: bool = False,
    ) -> torch.Tensor:
        """Norms each query head by q_weight, each key head by k_weight, then turns all, in place.

        x [T, H + K, D], the first num_q_heads of them queries, may be a strided view; returned.
        Weights [D]; positions, table and interleaved as for `rope`. Equal bit for bit to
        `rms_norm` of both parts and `rope`, with a rounding after each.
        """
        for part, weight in ((x[:, :num_q_heads], q_weight), (x[:, num_q_heads:], k_weight)):
            rms_norm(part, weight, eps, part)
        return rope(x, positions, table, interleaved)
