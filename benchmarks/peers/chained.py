"""A checkpoint that has learned nothing and whose greedy answers are nevertheless certain.

Any weights make likely tokens that are nearly equal, so answers of two engines part where either rounds. Here
tokens stand in chains, and a token's embedding is its predecessor's turned by a fixed rotation. The feed-forward
part of each layer turns the residual stream by angles of its own, and only all of them together are that rotation.
Each chain has a twin with nearly the same embeddings, so that the next token of the twin is always nearly as likely.
Attention and a part of the gates are random: what they add depends on the whole context and moves the margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.peers.checkpoints import Shape

CHAIN = 128
"""Tokens of a chain, after which it begins again."""
LIKENESS = 0.97
"""Cosine of a token's embedding and its twin's."""
SIZE = 0.05
"""Of a number of an embedding."""
CONSTANT = 8.0
"""How many times larger the first number of each embedding is: the same for all, it holds the gates open."""
OPEN, SPREAD = 3.0, 0.3
"""Mean of what gates get, and its standard deviation."""
ANGLE = 0.5
"""Standard deviation of the angles, in radians, by which a layer turns."""
ATTENTION = 0.2
"""Size of what attention to a single token would add, where an embedding has 1."""


def chained_tensors(
    shape: Shape, names: Iterator[tuple[str, tuple[int, ...]]], generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a dense checkpoint with tied embeddings, float32, in the order of `names`.

    Raises ValueError if the vocabulary is no whole number of chains.
    """
    if shape.num_vocab % CHAIN:
        raise ValueError(f"a vocabulary of {shape.num_vocab} is no multiple of {CHAIN}")
    turned = shape.width - 2  # all but the constant number and the last one, which is zero
    inside = slice(1, 1 + turned)
    stream = SIZE * ((CONSTANT**2 + turned) / shape.width) ** 0.5  # of a layer's input
    basis = torch.linalg.qr(torch.randn(turned, turned, generator=generator))[0]
    whole = torch.randint(1, CHAIN, (turned // 2,), generator=generator) * (2 * torch.pi / CHAIN)
    angles = torch.randn(shape.num_layers, turned // 2, generator=generator) * ANGLE
    missing = torch.remainder(whole - angles.sum(0) + torch.pi, 2 * torch.pi) - torch.pi
    angles += missing / shape.num_layers
    frame = torch.linalg.qr(torch.randn(shape.feed_forward, turned, generator=generator))[0]
    opened = torch.nn.functional.silu(OPEN + SPREAD * torch.randn(100_000, generator=generator))
    for name, size in names:
        if len(size) == 1:
            weight = torch.ones(size)
        elif "embed_tokens" in name:
            weight = _embeddings(shape, basis, whole, generator)
        elif "mlp" not in name:
            weight = torch.randn(size, generator=generator) * size[1] ** -0.5
            weight *= SIZE * ATTENTION if "o_proj" in name else 1.0
        elif "gate_proj" in name:
            weight = torch.randn(size, generator=generator) * SPREAD * turned**-0.5
            weight[:, 0] = OPEN * stream / (SIZE * CONSTANT)
        elif "up_proj" in name:
            order = torch.randperm(len(frame), generator=generator)
            frame = frame[order] * torch.randn(len(frame), 1, generator=generator).sign()
            weight = torch.zeros(size)
            weight[:, inside] = frame
        else:
            turn = basis @ _by_angles(angles[int(name.split(".")[2])], basis.T)
            weight = torch.zeros(size)
            weight[inside] = (turn - torch.eye(turned)) @ frame.T * (stream / opened.mean())
        yield name, weight


def _by_angles(angles: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x [2 * angles, n], two neighbouring rows turned by each angle."""
    even, odd = x[::2], x[1::2]
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    return torch.stack([cos * even - sin * odd, sin * even + cos * odd], dim=1).flatten(0, 1)


def _embeddings(
    shape: Shape, basis: torch.Tensor, angles: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """[vocabulary, width]: chains of tokens that are anywhere in it, every second one the twin of the one before."""
    chains = shape.num_vocab // CHAIN
    places = torch.randperm(shape.num_vocab, generator=generator).view(CHAIN, chains)
    first = torch.randn(len(basis), chains, generator=generator)
    other = first[:, 1::2]
    first[:, 1::2] = (
        LIKENESS * first[:, ::2][:, : other.shape[1]] + (1 - LIKENESS**2) ** 0.5 * other
    )
    first *= len(basis) ** 0.5 / first.norm(dim=0)
    weight = torch.zeros(shape.num_vocab, shape.width)
    weight[:, 0] = CONSTANT
    for step in range(CHAIN):
        weight[places[step], 1 : 1 + len(basis)] = (basis @ _by_angles(step * angles, first)).T
    return weight * SIZE
