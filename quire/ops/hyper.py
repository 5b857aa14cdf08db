"""Residual streams that layers read and write by shares made of the streams themselves.

Computed in float32 in one order for each element, and rounded once. Source: arXiv 2512.24880.
"""

from __future__ import annotations

import torch

from quire.ops.registry import Provider, declare, register

STREAM_SHARES = declare(
    "stream_shares",
    "pure",
    "run(x [T,W] in place, scale, base [W], count, rounds, eps, most): shares to read, to write and to mix streams by",
)
READ_STREAMS = declare(
    "read_streams", "pure", "run(x [T,S,C], shares [T,W]) -> [T,C], sum over s of shares[s] * x[s]"
)
WRITE_STREAMS = declare(
    "write_streams",
    "pure",
    "run(x [T,S,C] in place, made [T,C], shares [T,W]): x[s] = write[s] * made + x[s] or sum of mix[i,s] * x[i]",
)


@register
class StreamSharesReference(Provider):
    op = "stream_shares"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        scale: torch.Tensor,
        base: torch.Tensor,
        *,
        count: int,
        rounds: int,
        eps: float,
        most: float = 2.0,
    ) -> torch.Tensor:
        """Makes shares of x [T, W] in place, W = S to read by, or S + S + S * S to read, to write and to mix by.

        x float32, contiguous; scale [1] or [3] of the parts, base [W]; y = scale * x + base.
        Without mixing W = S + S, and eps is added to what is written by too.
        read = sigmoid(y) + eps; write = most * sigmoid(y); mix = softmax of the rows of y [S, S] + eps, with columns,
        then `rounds` - 1 times rows and columns, divided by their sums + eps.
        """
        x[:, :count] = _sigmoid(x[:, :count] * scale[0] + base[:count]) + eps
        if x.shape[1] == count:
            return x
        middle = slice(count, 2 * count)
        x[:, middle] = _sigmoid(x[:, middle] * scale[1] + base[middle]) * most
        if x.shape[1] == 2 * count:
            x[:, middle] += eps
            return x
        mix = (x[:, 2 * count :] * scale[2] + base[2 * count :]).view(-1, count, count)
        powers = torch.exp(mix - mix.amax(dim=-1, keepdim=True))
        mix = powers / _sum(powers, -1) + eps
        mix = mix / (_sum(mix, -2) + eps)
        for _ in range(rounds - 1):
            mix = mix / (_sum(mix, -1) + eps)
            mix = mix / (_sum(mix, -2) + eps)
        x[:, 2 * count :] = mix.flatten(1)
        return x


@register
class ReadStreamsReference(Provider):
    op = "read_streams"
    name = "reference"

    def run(self, x: torch.Tensor, shares: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C], the sum over streams x [T, S, C] of their shares, the first S of [T, W] float32."""
        total = x[:, 0].to(torch.float32) * shares[:, :1]
        for stream in range(1, x.shape[1]):
            total += x[:, stream].to(torch.float32) * shares[:, stream : stream + 1]
        return out.copy_(total)


@register
class WriteStreamsReference(Provider):
    op = "write_streams"
    name = "reference"

    def run(self, x: torch.Tensor, made: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """x[s] = write[s] * made + the sum over i of mix[i, s] * x[i], for streams x [T, S, C] in place.

        made [T, C]; shares [T, S + S + S * S] float32 as `stream_shares` makes them; of [T, S + S] x[s] stays whole.
        """
        count = x.shape[1]
        wide, new = x.to(torch.float32, copy=True), made.to(torch.float32)
        mix = shares[:, 2 * count :]
        for stream in range(count):
            total = new * shares[:, count + stream, None]
            if not mix.shape[1]:
                total += wide[:, stream]
            for source in range(count if mix.shape[1] else 0):
                total += wide[:, source] * mix[:, source * count + stream, None]
            x[:, stream].copy_(total)
        return x


def _sum(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The sum along an axis, which stays with size 1, its numbers in order."""
    first, *others = x.unbind(dim)
    total = first.clone()
    for one in others:
        total += one
    return total.unsqueeze(dim)


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1.0 / (torch.exp(-x) + 1.0)
