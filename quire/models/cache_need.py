"""What a description needs of the cache: groups of layers, their bytes, the interval of states.

Follows from the description alone, before any weight is read; blocks are `engine.kvcache`'s business.
"""

from __future__ import annotations

from quire.models.compressed import Compressed, Kept
from quire.models.recurrent import Recurrent
from quire.models.spec import Attention, DecoderSpec
from quire.protocol.cache import CacheGroup, CacheKind

LONGEST_INTERVAL = 1024
"""Tokens for which one state is kept at most, unless somebody asks for more."""


def cache_groups(
    spec: DecoderSpec,
    *,
    block_size: int,
    dtype_bytes: int,
    scale_bytes: int = 0,
    max_model_len: int | None = None,
    interval: int | None = None,
) -> tuple[CacheGroup, ...]:
    """What mixers keep, grouped by kind of cache, window and bytes per token, in order of their first one.

    All recurrent ones are one group, the last. Those that look at what others cached are in none.

    dtype_bytes    of one stored key or value number; scale_bytes of a token's scales of one kv head.
    max_model_len  longest sequence in tokens; a window at least as long is full attention.
    interval       tokens for which one state is kept; None is `default_interval`.
    """
    if max_model_len is not None:
        spec = spec.for_length(max_model_len)
    if spec.sees_both_ways:
        # Nothing is kept for a later step: every layer writes over what the one before it wrote.
        both = [one for one in spec.attentions if not isinstance(one, Compressed)]
        sizes = [one.cache_bytes_per_token(dtype_bytes, scale_bytes) for one in both]
        layers = tuple(range(len(spec.mixers)))
        return (
            CacheGroup(
                kind="full", layers=layers, block_size=block_size, bytes_per_token=max(sizes)
            ),
        )
    members: dict[tuple[CacheKind, int | None, int], list[int]] = {}
    recurrent: list[int] = []
    for number, mixer in enumerate(spec.cached):
        if isinstance(mixer, Recurrent):
            recurrent.append(number)
            continue
        if isinstance(mixer, Attention) and mixer.shares is not None:
            continue
        assert not isinstance(mixer, Compressed)
        if isinstance(mixer, Kept):
            num_bytes = -(-mixer.block_bytes(block_size, dtype_bytes, scale_bytes) // block_size)
        else:
            num_bytes = mixer.cache_bytes_per_token(dtype_bytes, scale_bytes)
        members.setdefault((mixer.cache_kind(), mixer.window, num_bytes), []).append(number)
    groups = [
        CacheGroup(
            kind=kind,
            layers=tuple(layers),
            block_size=block_size,
            bytes_per_token=num_bytes * len(layers),
            window=window,
        )
        if kind != "cross"
        else _cross_group(spec, layers, num_bytes, block_size, dtype_bytes, max_model_len)
        for (kind, window, num_bytes), layers in members.items()
    ]
    if recurrent:
        groups.append(_state_group(spec, groups, recurrent, block_size, interval))
    return tuple(groups)


def _cross_group(
    spec: DecoderSpec,
    layers: list[int],
    num_bytes: int,
    block_size: int,
    dtype_bytes: int,
    max_model_len: int | None,
) -> CacheGroup:
    """Keys and values of what the encoder gave; before they are there, its layers use the place in turn."""
    assert spec.encoder is not None, "a layer looks at an encoder that is not there"
    own = [one for layer in spec.encoder.layers for one in layer.attentions]
    both = [one for one in own if not isinstance(one, Compressed)]
    in_turn = max(one.cache_bytes_per_token(dtype_bytes) for one in both)
    limit = spec.encoder.max_len
    return CacheGroup(
        kind="cross",
        layers=tuple(layers),
        block_size=block_size,
        bytes_per_token=max(num_bytes * len(layers), in_turn),
        max_tokens=limit if max_model_len is None else spec.encoder.limit(max_model_len),
    )


def default_interval(state_bytes: int, bytes_per_token: int, block_size: int) -> int:
    """Tokens for which one state is kept: it takes no more than their keys and values, if it can be.

    A power of two from block_size on, and at most LONGEST_INTERVAL.
    """
    interval = block_size
    while interval < LONGEST_INTERVAL and interval * bytes_per_token < state_bytes:
        interval *= 2
    return interval


def _state_group(
    spec: DecoderSpec,
    others: list[CacheGroup],
    layers: list[int],
    block_size: int,
    interval: int | None,
) -> CacheGroup:
    mixers = [mixer for mixer in spec.mixers if isinstance(mixer, Recurrent)]
    state_bytes = sum(mixer.state_bytes for mixer in mixers)
    if interval is None:
        per_token = sum(group.bytes_per_token for group in others)
        interval = default_interval(state_bytes, per_token, block_size)
    return CacheGroup(
        kind="recurrent",
        layers=tuple(layers),
        block_size=interval,
        bytes_per_token=-(-state_bytes // interval),
        window=2,
        state_bytes=state_bytes,
    )
