"""When the keys of full blocks are told to the block pool, so that others can find them.

Which prefix may be used is `kvcache.manager`'s business.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Sequence as Many

from quire.engine.kvcache.block_pool import BlockPool
from quire.engine.kvcache.hashing import BlockHasher
from quire.engine.kvcache.kinds import CacheRules, Earlier, RecurrentState
from quire.engine.request import NEVER, Sequence


class Publisher:
    """Keys that are due and not told yet.

    first_keys  the first key of each sequence with such keys: whoever has none of these finds nothing.
    fresh       keys of recurrent states that were told since the caller last cleared it.
    findable    by group the keys that a plan may start from: those that are cached and not fresh.
    """

    def __init__(
        self, pool: BlockPool, rules: Many[CacheRules], hasher: BlockHasher, block_size: int
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._hasher = hasher
        self._block_size = block_size
        self._due: list[tuple[Sequence, list[list[int]], int, int]] = []
        self.first_keys: set[bytes] = set()
        self.fresh: set[bytes] = set()
        self.findable: list[Container[bytes]] = [
            Earlier(pool.cached(g), self.fresh)
            if isinstance(one, RecurrentState)
            else pool.cached(g)
            for g, one in enumerate(rules)
        ]

    def mark(self, sequence: Sequence, num_blocks: int) -> None:
        """Notes that the keys of the first `num_blocks` blocks are known to the pool."""
        sequence.published = num_blocks
        if sequence.request.writes_cache:
            sequence.publish_at = (num_blocks + 1) * self._block_size
        else:
            sequence.publish_at = NEVER

    def later(self, sequence: Sequence) -> None:
        """Notes the keys of full blocks whose tokens are planned and whose ids are known, for `publish`."""
        if sequence.computed < sequence.publish_at:
            return
        known = min(sequence.computed, len(sequence.token_ids)) // self._block_size
        first = sequence.published
        if known <= first:
            return
        keys = sequence.keys
        if not keys:
            self._hasher.extend(keys, sequence.request, sequence.token_ids, known)
        self.first_keys.add(keys[0])
        self._due.append((sequence, sequence.tables, first, known))
        # Only a request that writes the cache comes here.
        sequence.published = known
        sequence.publish_at = (known + 1) * self._block_size

    def publish(self) -> None:
        """Tells the pool what was noted."""
        if not self._due:
            return
        for sequence, _, _, known in self._due:
            if len(sequence.keys) < known:
                self._hasher.extend(sequence.keys, sequence.request, sequence.token_ids, known)
        for g, rules in enumerate(self._rules):
            step = rules.keys_per_block
            keys: list[bytes] = []
            blocks: list[int] = []
            for sequence, tables, first, known in self._due:
                # Blocks that end behind the first key, up to the last that ends with a known one.
                low, high = first // step, known // step
                blocks += tables[g][low:high]
                keys += sequence.keys[(low + 1) * step - 1 : high * step : step]
            self._pool.publish(g, blocks, keys)
            if isinstance(rules, RecurrentState):
                self.fresh.update(keys)
        self._due.clear()
        self.first_keys.clear()
