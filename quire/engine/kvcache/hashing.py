"""Keys of full cache blocks: a digest chain over everything that decides a block's content.

Who holds which block under a key is left to `kvcache.block_pool`.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import sha256

from quire.engine.request import Request, pack_ids
from quire.protocol.errors import SettingsError

HASH_ALGOS = ("sha256", "sha256_cbor")


class BlockHasher:
    """Makes the keys of one cache: SHA-256 over parent key, token ids and extra keys.

    `sha256` hashes the ids as little-endian int32; `sha256_cbor` hashes the CBOR array
    [parent, ids, extras], which other programs can reproduce without knowing our byte layout.
    Raises SettingsError for another algorithm.
    """

    def __init__(self, block_size: int, algo: str) -> None:
        if algo not in HASH_ALGOS:
            raise SettingsError(
                f"prefix_caching_hash_algo is {algo!r}; it must be one of {', '.join(HASH_ALGOS)}"
            )
        self._block_size = block_size
        self._is_raw = algo == "sha256"

    def extend(
        self, keys: list[bytes], request: Request, token_ids: list[int], num_blocks: int
    ) -> None:
        """Appends to `keys` until it covers the first `num_blocks` blocks of `token_ids`."""
        first = len(keys)
        if num_blocks <= first:
            return
        if not request.root_key:
            request.root_key = root_key(request)
        parent = keys[-1] if keys else request.root_key
        size = self._block_size
        extras = [b""] * (num_blocks - first)
        if request.source.media:
            extras = [media_extra(request, i * size, size) for i in range(first, num_blocks)]
        if request.source.embeds is not None:
            extras = [
                extra + embeds_extra(request, i * size, size)
                for i, extra in enumerate(extras, start=first)
            ]
        if not self._is_raw:
            _chain_cbor(keys, parent, token_ids[first * size : num_blocks * size], extras)
        elif num_blocks * size * 4 <= len(request.packed_prompt):
            _chain_raw(keys, parent, request.packed_prompt, first * size * 4, extras, size * 4)
        else:
            packed = pack_ids(token_ids[first * size : num_blocks * size])
            _chain_raw(keys, parent, packed, 0, extras, size * 4)


def root_key(request: Request) -> bytes:
    """Parent of the first block: the salt and the adapter, so that no two of them share a block."""
    salt = request.source.cache_salt
    adapter = request.source.adapter
    parts = b"quire block chain"
    if salt is not None:
        raw = salt.encode("utf-8", "surrogatepass")
        parts += b"s" + len(raw).to_bytes(8, "little") + raw
    if adapter is not None:
        parts += b"a" + b"%d,%d;" % (adapter.id, adapter.generation)
    return sha256(parts).digest()


def media_extra(request: Request, start: int, block_size: int) -> bytes:
    """Digests of the media whose span touches the block at token `start`, and where they lie."""
    parts = []
    for item in request.source.media:
        if item.offset < start + block_size and item.offset + item.length > start:
            head = b"%d,%d;" % (len(item.digest), item.offset - start)
            parts.append(head + item.digest)
    return b"".join(parts)


def embeds_extra(request: Request, start: int, block_size: int) -> bytes:
    """A digest of the embeddings that stand in the block at token `start`, and where; empty if none do."""
    places, embeds = request.source.embed_rows, request.source.embeds
    low, high = bisect_left(places, start), bisect_left(places, start + block_size)
    if embeds is None or low == high:
        return b""
    width = len(embeds.data) // len(places)
    where = pack_ids([place - start for place in places[low:high]])
    digest = sha256(embeds.dtype.encode() + where)
    digest.update(memoryview(embeds.data)[low * width : high * width])
    return b"e" + digest.digest()


def _chain_raw(
    keys: list[bytes], parent: bytes, packed: bytes, place: int, extras: list[bytes], width: int
) -> None:
    """One key for each of `extras`: `width` bytes of `packed` from byte `place` on, and so on."""
    append = keys.append
    for extra in extras:
        parent = sha256(parent + packed[place : place + width] + extra).digest()
        append(parent)
        place += width


def _chain_cbor(keys: list[bytes], parent: bytes, ids: list[int], extras: list[bytes]) -> None:
    """One key for each of `extras`, over as many ids each."""
    width = len(ids) // len(extras)
    for i, extra in enumerate(extras):
        body = b"".join(_cbor_head(0, token) for token in ids[i * width : (i + 1) * width])
        text = (
            _cbor_head(4, 3)
            + _cbor_head(2, len(parent))
            + parent
            + _cbor_head(4, width)
            + body
            + _cbor_head(2, len(extra))
            + extra
        )
        parent = sha256(text).digest()
        keys.append(parent)


def _cbor_head(major: int, value: int) -> bytes:
    """First bytes of a CBOR item in the shortest form. Source: RFC 8949, section 3."""
    if value < 24:
        return bytes((major << 5 | value,))
    for code, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << 8 * width:
            return bytes((major << 5 | code,)) + value.to_bytes(width, "big")
    raise OverflowError(f"{value} does not fit into a CBOR head")
