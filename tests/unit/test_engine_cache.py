"""Blocks, slabs, keys and the kinds of cache, without a scheduler.

Random use by whole requests is in `tests/engine/test_simulation.py`.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections import Counter
from typing import Any

import msgspec
import pytest

from quire.engine.kvcache.block_pool import BlockPool
from quire.engine.kvcache.hashing import BlockHasher, root_key
from quire.engine.kvcache.kinds import Chunks, FullAttention, SlidingWindow, rules_of
from quire.engine.kvcache.limits import slabs_needed
from quire.engine.kvcache.manager import COMING, CacheManager
from quire.engine.request import Request
from quire.protocol.cache import NULL_BLOCK, CacheGroup
from quire.protocol.errors import SettingsError
from quire.protocol.params import SamplingParams
from quire.protocol.request import AdapterRef, EngineRequest, MediaItem
from quire.protocol.step import BlockCopy
from tests.unit.scheduler_driver import FULL, layout_of, window_group

# Blocks.


def key(number: int) -> bytes:
    return b"key %d" % number


def test_blocks_are_given_until_none_is_left_and_all_or_nothing() -> None:
    pool = BlockPool(layout_of(num_slabs=4))
    first = pool.take(0, 3)
    assert first is not None and len(set(first)) == 3
    assert pool.take(0, 2) is None
    pool.check_invariants([Counter(first)])
    assert pool.has_available(0, 1) and not pool.has_available(0, 2)
    assert pool.blocks_in_use == 3 and pool.usage == 0.75


def test_a_block_goes_back_when_the_last_reference_does() -> None:
    pool = BlockPool(layout_of(num_slabs=1))
    (block,) = pool.take(0, 1) or ()
    pool.share(0, [block, NULL_BLOCK])
    pool.release(0, [block])
    assert pool.take(0, 1) is None
    pool.release(0, [NULL_BLOCK, block])
    assert pool.take(0, 1) == [block]


def test_giving_back_twice_is_noticed() -> None:
    pool = BlockPool(layout_of(num_slabs=1))
    blocks = pool.take(0, 1) or []
    pool.release(0, blocks)
    with pytest.raises(AssertionError, match="twice"):
        pool.release(0, blocks)


def test_cached_blocks_are_evicted_least_recently_used_first() -> None:
    pool = BlockPool(layout_of(num_slabs=4))
    blocks = pool.take(0, 4) or []
    pool.publish(0, blocks, [key(i) for i in range(4)])
    for i in (2, 0, 3, 1):
        pool.release(0, [blocks[i]])
    pool.share(0, [blocks[2]])
    pool.release(0, [blocks[2]])
    evicted = []
    for _ in range(4):
        pool.take(0, 1)
        evicted += [i for i in range(4) if key(i) not in pool.cached(0) and i not in evicted]
        pool.check_invariants()
    assert evicted == [0, 3, 1, 2]


def test_the_tail_of_a_chain_is_evicted_first() -> None:
    manager, (sequence,) = manager_with(1, num_slabs=4)
    assert manager.start(sequence, 0, 24)
    sequence.computed = 24
    manager.publish(sequence)
    keys = list(sequence.keys)
    manager.release(sequence)
    left = []
    for _ in range(4):
        manager.pool.take(0, 1)
        left.append([k in manager.pool.cached(0) for k in keys[:3]])
    assert left[0] == [True, True, True]
    assert left[1:] == [[True, True, False], [True, False, False], [False, False, False]]


def test_a_held_block_is_never_evicted() -> None:
    pool = BlockPool(layout_of(num_slabs=2))
    blocks = pool.take(0, 2) or []
    pool.publish(0, blocks, [key(0), key(1)])
    pool.release(0, blocks[:1])
    assert pool.take(0, 1) == blocks[:1]
    assert pool.take(0, 1) is None
    assert pool.cached(0) == {key(1): blocks[1]}


def test_the_first_block_of_a_key_stays_the_one_that_is_found() -> None:
    pool = BlockPool(layout_of(num_slabs=2))
    blocks = pool.take(0, 2) or []
    pool.publish(0, blocks, [key(7), key(7)])
    assert pool.cached(0) == {key(7): blocks[0]}
    pool.release(0, blocks)
    pool.check_invariants()


def test_a_withdrawn_key_is_not_found_and_its_block_is_free() -> None:
    pool = BlockPool(layout_of(num_slabs=2))
    blocks = pool.take(0, 2) or []
    pool.publish(0, blocks, [key(0), key(1)])
    pool.release(0, blocks[:1])
    for number in (0, 1, 2):
        pool.withdraw(0, key(number))
    assert not pool.cached(0)
    pool.check_invariants([Counter(blocks[1:])])
    pool.release(0, blocks[1:])
    assert len(pool._empty) == 2


def test_an_empty_slab_returns_and_serves_another_group() -> None:
    small = window_group(8)
    pool = BlockPool(layout_of(FULL, small, num_slabs=1))
    pair = pool.take(1, 2) or []
    assert pool.take(0, 1) is None
    pool.release(1, pair[:1])
    assert pool.take(0, 1) is None, "half of the slab is still held"
    pool.release(1, pair[1:])
    assert pool.take(0, 1) is not None
    pool.check_invariants()


def test_the_longest_idle_slab_of_another_group_is_taken() -> None:
    pool = BlockPool(layout_of(FULL, window_group(8), num_slabs=3))
    slabs = [pool.take(1, 2) or [] for _ in range(3)]
    for i, slab in enumerate(slabs):
        pool.publish(1, slab, [key(2 * i), key(2 * i + 1)])
    for i in (1, 0):
        pool.release(1, slabs[i])
    assert pool.take(0, 1) is not None
    assert key(2) not in pool.cached(1) and key(3) not in pool.cached(1)
    assert key(0) in pool.cached(1)
    pool.check_invariants()
    assert pool.take(0, 1) is not None
    assert set(pool.cached(1)) == {key(4), key(5)}
    assert pool.take(0, 1) is None, "the last slab is held"


def test_own_blocks_let_go_longer_ago_than_the_other_groups_are_evicted_first() -> None:
    pool = BlockPool(layout_of(FULL, window_group(8), num_slabs=2))
    own, other = pool.take(0, 1) or [], pool.take(1, 2) or []
    pool.publish(0, own, [key(0)])
    pool.publish(1, other, [key(1), key(2)])
    pool.release(0, own)
    pool.release(1, other)
    assert pool.take(0, 1) == own
    assert len(pool.cached(1)) == 2


def test_reset_forgets_all_keys_unless_blocks_are_held() -> None:
    pool = BlockPool(layout_of(num_slabs=2))
    blocks = pool.take(0, 2) or []
    pool.publish(0, blocks, [key(0), key(1)])
    pool.release(0, blocks[:1])
    assert not pool.reset() and len(pool.cached(0)) == 2
    pool.release(0, blocks[1:])
    assert pool.reset() and not pool.cached(0)
    pool.check_invariants([Counter()])


@pytest.mark.parametrize("seed", range(6))
def test_accounts_add_up_under_random_use(seed: int) -> None:
    rng = random.Random(seed)
    layout = layout_of(FULL, window_group(8), num_slabs=6, slab_bytes=rng.choice([32, 64, 96]))
    pool = BlockPool(layout)
    held: list[list[int]] = [[], []]
    for turn in range(400):
        g = rng.randrange(2)
        action = rng.randrange(5)
        if action == 0:
            held[g] += pool.take(g, rng.randint(1, 4)) or []
        elif action == 1 and held[g]:
            block = held[g].pop(rng.randrange(len(held[g])))
            pool.release(g, [block])
        elif action == 2 and held[g]:
            pool.publish(g, [rng.choice(held[g])], [key(turn)])
        elif action == 3 and pool.cached(g):
            block = pool.cached(g)[rng.choice(sorted(pool.cached(g)))]
            pool.share(g, [block])
            held[g].append(block)
        elif action == 4 and pool.cached(g) and rng.random() < 0.3:
            pool.withdraw(g, rng.choice(sorted(pool.cached(g))))
        pool.check_invariants([Counter(blocks) for blocks in held])


# Keys.


def request_of(prompt: list[int], **fields: Any) -> Request:
    params = fields.pop("params", SamplingParams())
    source = EngineRequest(request_id="r", prompt_token_ids=prompt, params=params, **fields)
    return Request(source, params, rank=0, number=0, max_model_len=1000, caching=True, now_s=0.0)


def keys_of(prompt: list[int], algo: str = "sha256", **fields: Any) -> list[bytes]:
    keys: list[bytes] = []
    hasher = BlockHasher(8, algo)
    hasher.extend(keys, request_of(prompt, **fields), prompt, len(prompt) // 8)
    return keys


def test_a_key_is_the_digest_of_parent_ids_and_extras() -> None:
    prompt = list(range(100, 116))
    first = hashlib.sha256(root_key(request_of(prompt)) + struct.pack("<8i", *prompt[:8])).digest()
    second = hashlib.sha256(first + struct.pack("<8i", *prompt[8:])).digest()
    assert keys_of(prompt) == [first, second]


def test_cbor_keys_hash_an_array_of_parent_ids_and_extras() -> None:
    prompt = [1, 23, 24, 255, 256, 65535, 65536, 2]
    ids = bytes.fromhex("88 01 17 1818 18ff 190100 19ffff 1a00010000 02")
    text = b"\x83\x58\x20" + root_key(request_of(prompt)) + ids + b"\x40"
    assert keys_of(prompt, "sha256_cbor") == [hashlib.sha256(text).digest()]


def test_keys_are_the_same_one_by_one_and_all_at_once() -> None:
    prompt = list(range(40))
    request = request_of(prompt)
    for algo in ("sha256", "sha256_cbor"):
        keys: list[bytes] = []
        for num_blocks in range(6):
            BlockHasher(8, algo).extend(keys, request, prompt, num_blocks)
        assert keys == keys_of(prompt, algo)


@pytest.mark.parametrize("algo", ["sha256", "sha256_cbor"])
def test_whatever_changes_the_content_changes_the_key(algo: str) -> None:
    prompt = list(range(24))
    plain = keys_of(prompt, algo)
    other_start = keys_of([99, *prompt[1:]], algo)
    assert not set(plain) & set(other_start), "the beginning decides on all blocks"
    variants: list[dict[str, Any]] = [
        {"cache_salt": "a"},
        {"cache_salt": "b"},
        {"cache_salt": ""},
        {"cache_salt": "\ud800"},
        {"adapter": AdapterRef(id=1)},
        {"adapter": AdapterRef(id=1, generation=1)},
        {"adapter": AdapterRef(id=11)},
    ]
    seen = set(plain)
    for fields in variants:
        keys = set(keys_of(prompt, algo, **fields))
        assert not keys & seen, fields
        seen |= keys


def test_media_change_the_keys_of_the_blocks_they_touch_and_of_those_behind() -> None:
    def item(digest: bytes, offset: int = 9, length: int = 3) -> tuple[MediaItem, ...]:
        return (MediaItem(modality="image", offset=offset, length=length, digest=digest),)

    prompt = [5] * 32
    plain, cat = keys_of(prompt), keys_of(prompt, media=item(b"cat"))
    assert cat[0] == plain[0] and not set(cat[1:]) & set(plain[1:])
    assert keys_of(prompt, media=item(b"cat")) == cat
    assert not set(keys_of(prompt, media=item(b"dog"))[1:]) & set(cat)
    assert keys_of(prompt, media=item(b"cat", 10))[1] != cat[1]
    assert keys_of(prompt, media=item(b"cat", 7, 1))[0] != plain[0]


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(SettingsError, match="md5"):
        BlockHasher(8, "md5")


# Kinds.


def oldest_seen(start: int, window: int | None, chunked: bool) -> int:
    """The first position that a query at `start` sees."""
    if window is None:
        return 0
    return start - start % window if chunked else max(0, start - window + 1)


def brute_hit(
    window: int | None, keys: list[bytes], cached: set[bytes], limit: int, *, chunked: bool = False
) -> int:
    """The longest prefix whose next token sees only cached tokens, by definition."""
    for hit in range(limit, 0, -1):
        start = hit * 8
        first = oldest_seen(start, window, chunked)
        if all(keys[p // 8] in cached for p in range(first, start)):
            return hit
    return 0


@pytest.mark.parametrize("window", [None, 1, 2, 8, 9, 10, 17, 24, 100])
def test_the_longest_hit_is_what_the_definition_says(window: int | None) -> None:
    rng = random.Random(window)
    rules = FullAttention(8) if window is None else SlidingWindow(8, window)
    keys = [key(i) for i in range(10)]
    for _ in range(200):
        cached = {k for k in keys if rng.random() < 0.6}
        limit = rng.randint(0, 10)
        assert rules.longest_hit(keys, cached, limit) == brute_hit(window, keys, cached, limit)


@pytest.mark.parametrize("window", [1, 2, 8, 9, 16, 17, 24, 32, 100])
def test_the_longest_hit_of_chunks_is_what_the_definition_says(window: int) -> None:
    rng = random.Random(window)
    rules = Chunks(8, window)
    keys = [key(i) for i in range(10)]
    for _ in range(200):
        cached = {k for k in keys if rng.random() < 0.6}
        limit = rng.randint(0, 10)
        wanted = brute_hit(window, keys, cached, limit, chunked=True)
        assert rules.longest_hit(keys, cached, limit) == wanted


@pytest.mark.parametrize("window", [1, 7, 8, 9, 20, 32])
def test_chunks_free_exactly_the_blocks_that_no_query_sees(window: int) -> None:
    rules = Chunks(8, window)
    for start in range(100):
        first = rules.first_needed(start)
        assert first * 8 <= oldest_seen(start, window, True) < (first + 1) * 8
        for count in range(1, 40):
            held = rules.blocks_needed(start + count) - first
            assert held <= rules.most_live(start + count, count)


@pytest.mark.parametrize("window", [1, 7, 8, 9, 20])
def test_a_window_frees_exactly_the_blocks_that_no_query_sees(window: int) -> None:
    rules = SlidingWindow(8, window)
    for start in range(60):
        first = rules.first_needed(start)
        assert first * 8 <= oldest_seen(start, window, False) < (first + 1) * 8
    assert FullAttention(8).first_needed(60) == 0


def test_kinds_that_are_not_served_are_refused() -> None:
    group = CacheGroup(kind="cross", layers=(0,), block_size=8, bytes_per_token=0)
    with pytest.raises(SettingsError, match="cross"):
        rules_of(group)
    with pytest.raises(SettingsError, match="window"):
        rules_of(window_group(0))
    assert isinstance(rules_of(msgspec.structs.replace(window_group(9), kind="chunked")), Chunks)


# Tables.


def manager_with(count: int, num_slabs: int = 64, *groups: CacheGroup) -> tuple[CacheManager, Any]:
    """A manager and sequences with 24 equal prompt tokens."""
    manager = CacheManager(
        layout_of(*groups, num_slabs=num_slabs),
        max_model_len=32,
        max_chunk=32,
        hash_algo="sha256",
    )
    return manager, [request_of(list(range(24))).make_sequence(0) for _ in range(count)]


def test_a_hit_must_be_usable_by_all_groups() -> None:
    manager, (first, second) = manager_with(2, 64, FULL, window_group(9))
    assert manager.start(first, 0, 24)
    first.computed = 24
    manager.publish(first)
    assert manager.match(second) == 2, "the last token is computed anew, so not the third block"
    manager.pool.withdraw(1, first.keys[1])
    assert manager.match(second) == 1
    manager.pool.withdraw(1, first.keys[0])
    assert manager.match(second) == 0
    assert first.keys[1] in manager.pool.cached(0)


def test_a_hit_behind_the_window_leaves_null_blocks() -> None:
    manager, (first, second) = manager_with(2, 64, FULL, window_group(8))
    manager.start(first, 0, 24)
    first.computed = 24
    manager.publish(first)
    assert manager.match(second) == 2
    assert manager.start(second, 2, 24)
    assert second.tables[0][:2] == first.tables[0][:2]
    assert second.tables[1][:2] == [NULL_BLOCK, first.tables[1][1]]
    assert second.tables[1][2] != first.tables[1][2]
    manager.check_invariants([first, second])


def test_a_start_that_does_not_fit_holds_nothing() -> None:
    manager, (first, second) = manager_with(2, 5)
    assert manager.start(first, 0, 24)
    assert not manager.start(second, 0, 24)
    assert second.tables == [] and second.capacity == 0
    manager.check_invariants([first, second])


def test_a_window_gives_its_blocks_back_while_the_sequence_grows() -> None:
    manager, (sequence,) = manager_with(1, 64, FULL, window_group(8))
    manager.start(sequence, 0, 8)
    for start in (8, 16, 24):
        sequence.computed = start
        manager.grow(sequence, start + 8)
    assert sequence.tables[1][:2] == [NULL_BLOCK, NULL_BLOCK]
    assert len(sequence.held_blocks(1)) == 2 and len(sequence.held_blocks(0)) == 4
    manager.check_invariants([sequence])


def test_a_length_that_does_not_fit_is_refused_with_the_longest_that_does() -> None:
    layout = layout_of(FULL, window_group(9), num_slabs=8)
    with pytest.raises(SettingsError, match="--max-model-len") as caught:
        CacheManager(layout, max_model_len=200, max_chunk=64, hash_algo="sha256")
    longest = int(str(caught.value).split("--max-model-len ")[1].split()[0])
    assert slabs_needed(layout, longest) <= 8 < slabs_needed(layout, longest + 1)
    CacheManager(layout, max_model_len=longest, max_chunk=64, hash_algo="sha256")


def test_groups_must_share_a_block_size() -> None:
    other = CacheGroup(kind="full", layers=(1,), block_size=16, bytes_per_token=2)
    with pytest.raises(SettingsError, match="block_size"):
        CacheManager(
            layout_of(FULL, other),
            max_model_len=8,
            max_chunk=8,
            hash_algo="sha256",
        )


# States.


def state_group(interval: int, state_bytes: int = 16) -> CacheGroup:
    """A group of recurrent layers with one state for `interval` tokens."""
    return CacheGroup(
        kind="recurrent",
        layers=(1,),
        block_size=interval,
        bytes_per_token=1,
        window=2,
        state_bytes=state_bytes,
    )


def test_a_hit_ends_where_a_state_was_kept() -> None:
    manager, (first, second) = manager_with(2, 64, FULL, state_group(16))
    assert manager.start(first, 0, 24)
    assert [len(table) for table in first.tables] == [3, 2]
    first.computed = 24
    manager.publish(first)
    assert manager.match(second) == COMING, "the plan that makes a state cannot start from it"
    manager.begin_plan()
    assert manager.match(second) == 2, "of three cached blocks two end with a state"
    assert manager.awaited_key(second, 0) == second.keys[1]
    assert manager.start(second, 2, 24)
    assert second.tables[1][0] == first.tables[1][0] and second.tables[1][1] != first.tables[1][1]
    manager.check_invariants([first, second])
    manager.pool.withdraw(1, first.keys[1])
    third = request_of(list(range(24))).make_sequence(0)
    assert manager.match(third) == 0


def test_forks_start_from_a_copy_of_the_state_before_the_last_token() -> None:
    manager, (leader, child) = manager_with(2, 64, FULL, state_group(16))
    leader.request.is_forked = False
    assert manager.known_length(leader, 0) == 23, "the leader stops before its last prompt token"
    assert manager.start(leader, 0, 23) and manager.known_length(leader, 23) == 24
    leader.computed = 24
    copies: list[BlockCopy] = []
    kept = manager.keep_states(leader, copies)
    assert kept is not None and copies == [BlockCopy(1, leader.tables[1][1], kept[0][1])]
    manager.fork(leader, child, kept)
    manager.release_sources(kept)
    assert child.tables[1] == [NULL_BLOCK, kept[0][1]] and child.tables[0] == leader.tables[0]
    manager.check_invariants([leader, child])


def test_intervals_of_states_are_whole_blocks() -> None:
    with pytest.raises(SettingsError, match="interval"):
        CacheManager(
            layout_of(FULL, state_group(12)), max_model_len=8, max_chunk=8, hash_algo="sha256"
        )
