"""What differs between kinds of cache: which blocks a sequence needs and which prefix is usable.

Knows positions and keys only; the blocks themselves are counted in `kvcache.block_pool`. Keys are
those of the cache's smallest blocks; a kind with larger ones looks at the key where its block ends.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from quire.protocol.cache import CacheGroup
from quire.protocol.errors import SettingsError


class FullAttention:
    """Every token stays visible: a block lives as long as its sequence."""

    keys_per_block = 1

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def blocks_needed(self, end: int) -> int:
        """Entries that a table must have for the first `end` tokens."""
        return -(-end // self.block_size)

    def first_needed(self, start: int) -> int:
        """Index of the first block that a query at position `start` or later can see."""
        return 0

    def most_live(self, end: int, chunk: int) -> int:
        """Most blocks held at once while `end` tokens are computed, `chunk` at most in a step."""
        return self.blocks_needed(end)

    def longest_hit(self, keys: Sequence[bytes], cached: Container[bytes], limit: int) -> int:
        """Blocks of the longest usable cached prefix, at most `limit`."""
        holds = cached.__contains__
        for i in range(limit):
            if not holds(keys[i]):
                return i
        return limit


class Encoded(FullAttention):
    """What an encoder read, all of it from the first token on: its blocks do not follow the sequence's length."""

    def __init__(self, block_size: int, max_tokens: int) -> None:
        super().__init__(block_size)
        self.max_tokens = max_tokens

    def blocks_needed(self, end: int) -> int:
        """Entries that the longest text needs."""
        return -(-self.max_tokens // self.block_size)


class SlidingWindow:
    """A query sees `window` tokens, itself included; blocks behind the window are given back."""

    keys_per_block = 1

    def __init__(self, block_size: int, window: int) -> None:
        self.block_size = block_size
        self.window = window

    def blocks_needed(self, end: int) -> int:
        """Entries that a table must have for the first `end` tokens."""
        return -(-end // self.block_size)

    def first_needed(self, start: int) -> int:
        """Index of the first block that a query at position `start` or later can see."""
        behind = start - self.window + 1
        return behind // self.block_size if behind > 0 else 0

    def most_live(self, end: int, chunk: int) -> int:
        """Most blocks held at once while `end` tokens are computed, `chunk` at most in a step."""
        seen = self.window - 1 + min(chunk, end)
        return min(self.blocks_needed(end), self.blocks_needed(seen) + 1)

    def longest_hit(self, keys: Sequence[bytes], cached: Container[bytes], limit: int) -> int:
        """Blocks of the longest usable cached prefix, at most `limit`.

        A prefix is usable when the blocks that its next token sees are cached; earlier ones are
        not looked at.
        """
        wanted = -(-(self.window - 1) // self.block_size)
        if wanted == 0:
            return limit
        run = 0
        for i in range(limit - 1, -1, -1):
            if keys[i] in cached:
                run += 1
                if run == wanted:
                    return i + run
            else:
                run = 0
        return run


class RecurrentState(SlidingWindow):
    """A token needs the state after the one before it, and nothing else that is cached.

    So a block, which holds the last state of its interval, is needed while that interval lasts and
    for the first token of the next one; a prefix is usable if it ends where a cached block does.
    """

    def __init__(self, interval: int, key_size: int) -> None:
        super().__init__(interval, window=2)
        self.keys_per_block = interval // key_size

    def longest_hit(self, keys: Sequence[bytes], cached: Container[bytes], limit: int) -> int:
        """Keys of the longest usable cached prefix, at most `limit`."""
        step = self.keys_per_block
        for end in range(limit - limit % step, 0, -step):
            if keys[end - 1] in cached:
                return end
        return 0


class Chunks(SlidingWindow):
    """A query sees its own stretch of `window` tokens; blocks before the stretch are given back."""

    def first_needed(self, start: int) -> int:
        """Index of the first block that a query at position `start` or later can see."""
        return start // self.window * self.window // self.block_size

    def longest_hit(self, keys: Sequence[bytes], cached: Container[bytes], limit: int) -> int:
        """Blocks of the longest usable cached prefix, at most `limit`.

        A prefix is usable when the blocks of the stretch in which it ends are cached.
        """
        run = best = 0
        for i in range(1, limit + 1):
            run = run + 1 if keys[i - 1] in cached else 0
            if run >= i - self.first_needed(i * self.block_size):
                best = i
        return best


CacheRules = FullAttention | SlidingWindow


def common_hit(
    rules: Sequence[CacheRules],
    keys: Sequence[bytes],
    cached: Sequence[Container[bytes]],
    limit: int,
) -> int:
    """Keys of the longest cached prefix that every group can use, at most `limit`."""
    hit, settled = limit, 0
    while settled < len(rules) and hit:
        for one, holds in zip(rules, cached, strict=True):
            usable = one.longest_hit(keys, holds, hit)
            settled = settled + 1 if usable == hit else 1
            hit = usable
            if settled == len(rules):
                break
    return hit


class Earlier:
    """What is cached and not in `fresh`."""

    def __init__(self, cached: Container[bytes], fresh: Container[bytes]) -> None:
        self._cached, self._fresh = cached, fresh

    def __contains__(self, key: object) -> bool:
        return key in self._cached and key not in self._fresh


_WHOLE = ("full", "mla", "index", "blocks")
_WINDOWED = {"sliding_window": SlidingWindow, "chunked": Chunks}


def rules_of(group: CacheGroup, key_size: int = 0) -> CacheRules:
    """The rules of a group's kind. Raises SettingsError for kinds that are not served.

    key_size  tokens of a key, if it is not the group's own block size.
    """
    if group.kind in _WHOLE:
        return FullAttention(group.block_size)
    if group.kind == "cross":
        if group.max_tokens < 1:
            raise SettingsError(
                f"a cross cache has max_tokens {group.max_tokens}; it must be at least 1 token"
            )
        return Encoded(group.block_size, group.max_tokens)
    if group.kind == "recurrent":
        return RecurrentState(group.block_size, key_size or group.block_size)
    windowed = _WINDOWED.get(group.kind)
    if windowed is None:
        known = ", ".join((*_WHOLE, "cross", "recurrent", *_WINDOWED))
        raise SettingsError(f"cache kind {group.kind!r} is not served; known kinds: {known}")
    if group.window is None or group.window < 1:
        raise SettingsError(
            f"a {group.kind} cache has window {group.window}; it must be at least 1 token"
        )
    return windowed(group.block_size, group.window)
