"""Rotary position embedding, in place, from a table of cosines and sines.

How the table is made (bases, scalings, lengths) is the layers' business.
"""

from __future__ import annotations

import torch

from quire.ops.registry import Provider, declare, register

ROPE = declare(
    "rope",
    "pure",
    "run(x [T,H,D] in place, positions [T], table [max_len,rot], interleaved): turns rot of D",
)


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
        positions  [T] int64, each below max_len; IndexError otherwise.
        table      [max_len, rot] float32: rot / 2 cosines, then rot / 2 sines.
        Pair i is (i, i + rot / 2), or (2i, 2i + 1) if interleaved. In float32, rounded once.
        Source: arXiv 2104.09864.
        """
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
