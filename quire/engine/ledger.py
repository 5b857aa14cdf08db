"""The memory that an engine and its front will take, line by line, before any weight is read.

Arithmetic on the description, the formats and the cache's layout. What a decoder takes is
`models.footprint`; the choice of the cache's size is `engine.resolve`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from quire.config.schema import Settings
from quire.models import footprint
from quire.models.footprint import StepSizes
from quire.models.spec import DecoderSpec
from quire.protocol.cache import CacheGroup
from quire.protocol.errors import SettingsError
from quire.quant.schemes.checkpoint import CheckpointScheme, Scheme
from quire.quant.schemes.online import UNQUANTIZED

MIB = 1 << 20

ENGINE_BYTES = 162 * MIB
"""Python, torch and its matrix library with nothing loaded: 147 MiB of private memory after importing
the engine and 157 when it waits for requests (torch 2.13, x86-64)."""
KEPT_BYTES = 32 * MIB
"""Most that the allocator keeps of freed scratch, or of a layer that was read: larger pieces go back at
once. Of small scratch it was seen to keep as much again (64 sequences of a tiny model: 54 MiB where 27
were live)."""
THREAD_BYTES = 2 * MIB
"""Of each arithmetic thread beyond the first: stack and the matrix library's own buffers."""
FRONT_BYTES = 50 * MIB
"""Python, the HTTP server and the tokenizer's library: 38 MiB after import, 43 when it is ready,
45 to 51 under load."""
FRONT_INSIDE_BYTES = 16 * MIB
"""The same without a process of its own and without HTTP."""
VOCABULARY_BYTES = 880
"""Of one token in the front's tokenizer: seen were 870 at 64,000 tokens and 855 at 152,000."""
HELPER_BYTES = 30 * MIB
"""Of one process that tries constraints on outputs: 28 MiB of private memory with a vocabulary of 3,072."""
HELPER_VOCABULARY_BYTES = 760
"""Of one token in it: 740 at 150,000 tokens. A schema of 30 to 190 kB took 1 to 18 MiB more."""
NUM_HELPERS = 2
TOKEN_BYTES = 160
"""Of one known token of a running request: its ids in the engine and in the front, and its text."""
BLOCK_BYTES = 420
"""Of one cache block in the engine's accounts: key, references, places in the tables."""

_LADDER = (64, 16, 4, 1)  # sequences at once that are tried where memory is short
_SHORTEST = 16  # tokens; a shorter sequence is not proposed
_LONG_ENOUGH = 2048  # tokens; a proposal that keeps so many is not searched further


class NotEnoughMemoryError(SettingsError):
    """The ledger is larger than what is free."""


@dataclass(frozen=True)
class Line:
    """One entry: bytes, and what they are in a few words."""

    name: str
    num_bytes: int
    note: str


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All memory that may be taken at once, a ceiling.

    loading_bytes  the peak while weights are read: they, one layer more, and the processes.
    helper_bytes   beside all this, from the first constraint on an output on: the processes that try them.
    """

    lines: tuple[Line, ...]
    loading_bytes: int
    helper_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return max(sum(line.num_bytes for line in self.lines), self.loading_bytes)

    def table(self, available_bytes: int) -> list[tuple[str, int, str]]:
        """(name, bytes, note) lines as they are printed, with their sum and what is free."""
        found = [(line.name, line.num_bytes, line.note) for line in self.lines]
        found.append(("total", self.total_bytes, "never exceeded by all processes together"))
        found.append(("loading peak", self.loading_bytes, "part of the total; one layer more"))
        if self.helper_bytes:
            note = "beside the total, once an output is constrained; 1 GiB more while a schema is tried"
            found.append(("grammar helpers", self.helper_bytes, note))
        found.append(("free", available_bytes, "at start, under every limit of this process"))
        return found


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a ledger is computed from, apart from the cache.

    scheme      what is made of the weights at load.
    with_front  whether a front process of its own belongs to the engine.
    native      whether the native library computes everything.
    cache_dtype  what keys and values are stored as.
    """

    spec: DecoderSpec
    groups: tuple[CacheGroup, ...]
    sizes: StepSizes
    threads: int
    with_front: bool
    scheme: Scheme = UNQUANTIZED
    native: bool = False
    cache_dtype: str = ""

    @property
    def _growing(self) -> list[CacheGroup]:
        return [group for group in self.groups if group.window is None] or list(self.groups)

    def account_bytes(self, cache_bytes: int) -> int:
        """Bytes that the tokens and blocks of a full cache take outside it, with the plans that find them."""
        tokens = cache_bytes // sum(group.bytes_per_token for group in self._growing)
        tokens = min(tokens, self.sizes.num_rows * self.sizes.max_model_len)
        blocks = sum(cache_bytes // group.block_bytes for group in self.groups)
        index = 0 if self.native else footprint.index_bytes_per_token(self.spec)
        per_token = TOKEN_BYTES + index
        return tokens * per_token + blocks * BLOCK_BYTES

    def ledger(self, cache_bytes: int) -> Ledger:
        """All lines for a cache of so many bytes."""
        spec, sizes = self.spec, self.sizes
        weights = footprint.weight_bytes(spec, sizes.dtype_bytes, self.scheme)
        positions = footprint.position_table_bytes(spec, sizes.max_model_len)
        loading = footprint.largest_layer_bytes(spec, sizes.dtype_bytes, self.scheme)
        if self.native:  # it stays the library's, for the largest operation so far
            scratch = footprint.native_scratch_bytes(spec, sizes, self.threads)
            scratch += footprint.recorded_bytes(spec, sizes) + min(loading, KEPT_BYTES)
        else:
            scratch = footprint.scratch_bytes(spec, sizes)
            scratch += min(scratch, KEPT_BYTES)
        engine = ENGINE_BYTES + THREAD_BYTES * (self.threads - 1)
        front = FRONT_BYTES if self.with_front else FRONT_INSIDE_BYTES
        front += VOCABULARY_BYTES * spec.vocab_size
        lines = [
            Line(f"weights: {name.replace('_', ' ')}", num_bytes, self._format_note(name))
            for name, num_bytes in weights.items()
        ]
        lines += [
            Line("position tables", positions, f"{sizes.max_model_len:,} positions"),
            Line("KV cache", cache_bytes, self.cache_dtype),
            Line(
                "activations",
                footprint.arena_bytes(spec, sizes),
                f"a step of {sizes.num_tokens:,} tokens, {sizes.num_rows:,} of them sampled",
            ),
            Line(
                "scratch",
                scratch,
                "inside the largest operation, and what is kept of it",
            ),
            Line(
                "rows and accounts",
                self._row_bytes() + self.account_bytes(cache_bytes),
                "token ids, block tables, prefix keys",
            ),
            Line("engine process", engine, f"torch; arithmetic threads: {self.threads}"),
            Line(
                "front process" if self.with_front else "front",
                front,
                f"tokenizer of {spec.vocab_size:,} tokens" + ", HTTP" * self.with_front,
            ),
        ]
        return Ledger(
            lines=tuple(lines),
            loading_bytes=sum(weights.values()) + positions + loading + engine + front,
            helper_bytes=NUM_HELPERS * (HELPER_BYTES + HELPER_VOCABULARY_BYTES * spec.vocab_size),
        )

    def _format_note(self, group: str) -> str:
        """What a group of weights is stored as, if not in the model's dtype."""
        if isinstance(self.scheme, CheckpointScheme):
            return f"as {self.scheme.method} keeps them" * (
                group in ("attention", "feed_forward", "recurrent")
            )
        format = self.scheme.format_of(group)
        return "" if format.bits is None else f"{format.name}, with scales"

    def _row_bytes(self) -> int:
        """Bytes of the worker's arrays, as in `worker.state`."""
        known = self.sizes.max_model_len + 1
        tables = sum(-(-known // group.block_size) + 2 for group in self.groups)
        return self.sizes.num_rows * 4 * (known + tables)

    def largest_cache(self, available_bytes: int, share: float) -> int:
        """The bytes of cache that `share` of what the other lines leave can hold; negative if nothing."""
        left = available_bytes - self.ledger(0).total_bytes
        if left <= 0:
            return left
        probe = 64 * MIB
        ratio = self.account_bytes(probe) / probe
        return int(left * share / (1.0 + ratio))


def shortage(ledger: Ledger, available_bytes: int) -> NotEnoughMemoryError:
    """The error for a ledger that does not fit, with its largest lines."""
    largest = sorted(ledger.lines, key=lambda line: -line.num_bytes)[:3]
    parts = ", ".join(f"{line.name} {gib(line.num_bytes)}" for line in largest)
    return NotEnoughMemoryError(
        f"{gib(ledger.total_bytes)} of memory are needed ({parts}), but {gib(available_bytes)} are free"
    )


def gib(num_bytes: int) -> str:
    """Bytes as text, two decimals."""
    return f"{num_bytes / 2**30:.2f} GiB"


def proposal(settings: Settings, dtype: str, max_model_len: int, attempt: Attempt) -> str:
    """A sentence with a command that fits, or with why there is none.

    attempt  the cache bytes that settings lead to; raises NotEnoughMemoryError if they do not fit.
    """
    best: tuple[int, Settings] | None = None
    for changed in _variants(settings, dtype):
        length = _longest(changed, max_model_len, attempt)
        if length and (best is None or length > best[0]):
            best = (length, _with(changed, "model", max_model_len=length))
        if best is not None and best[0] >= min(_LONG_ENOUGH, max_model_len):
            break
    if best is None:
        return "no setting makes it fit: use a smaller model or a larger machine"
    found = best[1]
    if settings.cache.kv_cache_memory_bytes is not None:
        found = _with(found, "cache", kv_cache_memory_bytes=attempt(found))
    return f"this fits: {_command(found, shows_length=best[0] < max_model_len)}"


Attempt = Callable[[Settings], int]


def _variants(settings: Settings, dtype: str) -> Iterator[Settings]:
    """Settings to try, the least changed first; the cache's size is left to be chosen."""
    settings = _with(settings, "cache", kv_cache_memory_bytes=None, num_gpu_blocks_override=None)
    dtypes = [dtype, "bfloat16"] if dtype == "float32" else [dtype]
    given = settings.scheduler.max_num_seqs
    counts = [given, *(count for count in _LADDER if given is None or count < given)]
    budget = settings.scheduler.max_num_batched_tokens
    for name in dtypes:
        for count in counts:
            tried = settings if name == dtype else _with(settings, "model", dtype=name)
            if count != given:
                fewer = 256 if budget is None else min(256, budget)
                tried = _with(tried, "scheduler", max_num_seqs=count, max_num_batched_tokens=fewer)
            yield tried


def _longest(settings: Settings, limit: int, attempt: Attempt) -> int:
    """The largest max_model_len up to `limit` that fits, in steps of _SHORTEST below it; 0 for none."""

    def fits(length: int) -> bool:
        try:
            attempt(_with(settings, "model", max_model_len=length))
        except NotEnoughMemoryError:
            return False
        return True

    if fits(limit):
        return limit
    if not fits(min(_SHORTEST, limit)):
        return 0
    low, high = 1, -(-limit // _SHORTEST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * _SHORTEST) else (low, middle)
    return low * _SHORTEST


def _with(settings: Settings, leaf: str, **values: Any) -> Settings:
    return replace(settings, **{leaf: replace(getattr(settings, leaf), **values)})


def _command(settings: Settings, *, shows_length: bool) -> str:
    """`quire serve` with everything that the ledger depends on and that is not left open."""
    model, scheduler, stored = settings.model, settings.scheduler, settings.cache.kv_cache_dtype
    flags = {
        "--dtype": None if model.dtype == "auto" else model.dtype,
        "--quantization": model.quantization,
        "--max-model-len": model.max_model_len if shows_length else None,
        "--max-num-seqs": scheduler.max_num_seqs,
        "--max-num-batched-tokens": scheduler.max_num_batched_tokens,
        "--kv-cache-dtype": None if stored == "auto" else stored,
        "--kv-cache-memory-bytes": settings.cache.kv_cache_memory_bytes,
    }
    words = [f"{name} {value}" for name, value in flags.items() if value is not None]
    return " ".join(["quire serve", model.model, *words])
