"""Texts longer than a model reads: cut into pieces, and their embeddings joined.

Only with enable_chunked_processing; who sends the pieces is the caller's business.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from quire.protocol.checks import refuse
from quire.protocol.pooled_results import Numbers, PoolingOutput, PoolingRequestOutput
from quire.protocol.pooler import Pooler
from quire.protocol.request import TensorRef


def pieces_of(ids: Sequence[int], pooler: Pooler, max_model_len: int) -> list[list[int]]:
    """The ids in pieces of at most `max_model_len`. Raises InvalidRequestError beyond max_embed_len."""
    most = pooler.max_embed_len
    if most is not None and len(ids) > most:
        refuse(
            "input",
            f"the text has {len(ids)} tokens; max_embed_len is {most}: send less, or raise it in --pooler-config",
        )
    return [list(ids[at : at + max_model_len]) for at in range(0, len(ids), max_model_len)]


def joined(
    request_id: str, parts: Sequence[PoolingRequestOutput[PoolingOutput]], *, unit_length: bool
) -> PoolingRequestOutput[PoolingOutput]:
    """One embedding of several: their mean, weighted by their tokens, of length 1 again if it was."""
    weights = [len(part.prompt_token_ids) for part in parts]
    rows = [part.outputs.numbers.flat() for part in parts]
    total = sum(weights)
    mean = [
        math.fsum(weight * value for weight, value in zip(weights, column, strict=True)) / total
        for column in zip(*rows, strict=True)
    ]
    if unit_length:
        length = math.sqrt(math.fsum(one * one for one in mean)) or 1.0
        mean = [one / length for one in mean]
    numbers = array("f", mean)
    if array("H", [1]).tobytes() != b"\x01\x00":
        numbers.byteswap()
    return PoolingRequestOutput(
        request_id=request_id,
        outputs=PoolingOutput(
            Numbers(TensorRef(dtype="float32", shape=(len(mean),), data=numbers.tobytes()))
        ),
        prompt_token_ids=[token for part in parts for token in part.prompt_token_ids],
        num_cached_tokens=sum(part.num_cached_tokens for part in parts),
        finished=True,
        error=next((part.error for part in parts if part.error is not None), None),
    )
