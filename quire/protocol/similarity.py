"""How well two pooled texts fit each other: cosine of embeddings, or the best token for each token.

In float64 and in a fixed order, so that a score depends on its two texts alone.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence

from quire.protocol.pooled_results import Numbers


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; 0 if one has no length. Raises ValueError for two sizes."""
    if len(first) != len(second):
        raise ValueError(f"embeddings of {len(first)} and {len(second)} numbers cannot be compared")
    product = math.fsum(a * b for a, b in zip(first, second, strict=True))
    sizes = math.fsum(a * a for a in first) * math.fsum(b * b for b in second)
    return product / math.sqrt(sizes) if sizes > 0 else 0.0


def product(first: Sequence[float], second: Sequence[float]) -> float:
    """The sum of the products of two vectors' numbers. Raises ValueError for two sizes."""
    return math.fsum(a * b for a, b in zip(first, second, strict=True))


def late_interaction(query: Numbers, document: Numbers) -> float:
    """The sum, over the query's tokens, of the best product with a token of the document. [n, N] each.

    Source: arXiv 2004.12832.
    """
    np = importlib.import_module("numpy")  # the front needs it for nothing else
    sides = [
        np.frombuffer(one.raw, dtype="<f4").reshape(one.shape).astype(np.float64)
        for one in (query, document)
    ]
    if not len(sides[1]) or not len(sides[0]):
        return 0.0
    # Row by row: a product of matrices may round by its shape.
    return math.fsum(float((sides[1] * row).sum(axis=1).max()) for row in sides[0])
