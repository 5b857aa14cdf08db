"""Turns every setting left open into a value, with the reason for each choice.

A pure function of the settings, the model's description and the machine; nothing is decided later.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from quire.config.constraints import read_constraint_options
from quire.config.plugins import LOGITS_PROCESSORS, entry_points, load_general
from quire.config.profiling import read_profiler
from quire.config.schema import Settings
from quire.engine.choices import (
    Note,
    block_size_of,
    budget_of,
    caching_of,
    device_of,
    interval_of,
    longest_of,
    note_cache,
    reason_of,
    scheme_of,
)
from quire.engine.kvcache.limits import plan_layout, slabs_needed, useful_bytes, with_blocks
from quire.engine.ledger import Ledger, Needs, NotEnoughMemoryError, gib, proposal, shortage
from quire.hardware.cpu import Machine
from quire.models.cache_need import cache_groups
from quire.models.footprint import step_sizes
from quire.models.foreign.ask import left_to_torch
from quire.models.pooling import PoolingWish
from quire.models.registry import ModelDescription, describe
from quire.protocol.cache import CacheLayout
from quire.protocol.errors import SettingsError
from quire.quant.formats import CACHE_FORMATS, DTYPE_BYTES, PLAIN_CACHE
from quire.quant.schemes.cache import cache_storage
from quire.quant.schemes.checkpoint import Scheme

_DTYPE_ALIASES = {"float": "float32", "half": "float16"}

_DEFAULT_MAX_NUM_SEQS = 256
_ANY_SIZE = 1 << 62  # bytes of a cache whose number of slabs is chosen otherwise
_KERNELS = {
    True: "the native library that fits this processor best; QUIRE_CPU_ISA forces one",
    False: "another provider computes; the number of threads may fix bits",
}


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings:
    """Settings without a None, the cache they lead to, and a (setting, value, reason) line for each choice.

    kernels          the ISA of the native library that shall compute; None if another provider does.
    cache_dtype      the model's dtype, or a key of `ops.formats.CACHE_FORMATS`.
    available_bytes  what the ledger was compared with.
    """

    settings: Settings
    dtype: str
    cache_dtype: str
    device: str
    depth: int
    layout: CacheLayout
    adaptive_budget: bool
    fingerprint: str
    kernels: str | None
    table: list[tuple[str, str, str]]
    ledger: Ledger
    available_bytes: int

    @property
    def max_model_len(self) -> int:
        value = self.settings.model.max_model_len
        assert value is not None
        return value


def describe_model(settings: Settings) -> ModelDescription:
    """What the settings' model is, general plug-ins loaded before. Raises ModelLoadError."""
    load_general()
    return describe(
        settings.model.model,
        hf_overrides=settings.model.hf_overrides,
        generation_config=settings.model.generation_config,
        override_generation_config=settings.model.override_generation_config,
        load_format=settings.load.load_format,
        pooling=PoolingWish(
            runner=settings.model.runner,
            convert=settings.model.convert,
            config=settings.model.pooler_config,
        ),
        model_impl=settings.model.model_impl,
        trust_remote_code=settings.model.trust_remote_code,
    )


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """What was open and is not any more."""

    dtype: str
    cache_dtype: str
    device: Literal["cpu", "cuda"]
    max_model_len: int
    block_size: int
    interval: int | None
    max_num_seqs: int
    budget: int
    threads: int
    overlap: bool
    caching: bool
    scheme: Scheme
    activation_bits: int


def resolve(
    settings: Settings,
    description: ModelDescription,
    machine: Machine,
    *,
    with_front: bool = False,
) -> ResolvedSettings:
    """All choices in one place.

    with_front  whether a front in a process of its own shares the machine's memory.
    Raises SettingsError for a value that cannot work on this model or machine; where memory is short,
    it names a command that fits.
    """
    try:
        return _resolve(settings, description, machine, with_front)
    except NotEnoughMemoryError as error:
        dtype = _dtype(settings.model.dtype, description, _silent)
        longest = longest_of(settings.model.max_model_len, description, _silent)

        def attempt(tried: Settings) -> int:
            layout = _resolve(tried, description, machine, with_front).layout
            return layout.num_slabs * layout.slab_bytes

        advice = proposal(settings, dtype, longest, attempt)
        raise NotEnoughMemoryError(f"{error}; {advice}") from None


def _resolve(
    settings: Settings, description: ModelDescription, machine: Machine, with_front: bool
) -> ResolvedSettings:
    table: list[tuple[str, str, str]] = []

    def note(name: str, value: object, reason: str) -> None:
        table.append((name, str(value), reason))

    read_profiler(settings.observability.profiler_config)  # raises for what cannot be
    read_constraint_options(settings.grammar)  # and so does this
    _check_one_device(settings.parallel.tensor_parallel_size)
    made = _choose(settings, description, machine, note)
    resolved = _settle(settings, made)
    program = description.spec.program
    if program is not None:
        note(
            "model_impl",
            "transformers",
            left_to_torch(program, with_embeds=settings.model.enable_prompt_embeds),
        )
    native = machine.is_native(made.device, settings.parallel.kernel_overrides)
    note("kernels", machine.kernels if native else "none", _KERNELS[native])
    needs = _needs(resolved, description, made, with_front, native)
    for group in needs.groups[-1:]:
        if group.kind == "recurrent":
            why = f"tokens for which one state of {gib(group.state_bytes)} is kept"
            note("mamba_block_size", group.block_size, why)
    available = machine.gpus[0].total_bytes if made.device == "cuda" else machine.available_bytes
    layout = _layout(settings, needs, made, available, note)
    ledger = needs.ledger(layout.num_slabs * layout.slab_bytes)
    if ledger.total_bytes > available:
        raise shortage(ledger, available)
    fingerprint = _fingerprint(resolved, machine, made.cache_dtype)
    note("system_fingerprint", fingerprint, "everything that fixes the bits of an answer")
    return ResolvedSettings(
        settings=resolved,
        dtype=made.dtype,
        cache_dtype=made.cache_dtype,
        device=made.device,
        depth=2 if made.overlap else 1,
        layout=layout,
        adaptive_budget=settings.scheduler.max_num_batched_tokens is None
        and made.device == "cpu"
        and not description.spec.sees_both_ways,
        fingerprint=fingerprint,
        kernels=machine.kernels if native else None,
        table=table,
        ledger=ledger,
        available_bytes=available,
    )


def _silent(name: str, value: object, reason: str) -> None:
    """A note that nobody reads."""


def _needs(
    settings: Settings,
    description: ModelDescription,
    made: _Choices,
    with_front: bool,
    native: bool,
) -> Needs:
    """`settings` are settled."""
    spec = description.spec.for_length(made.max_model_len)
    stored = CACHE_FORMATS.get(made.cache_dtype, PLAIN_CACHE)
    return Needs(
        spec=spec,
        groups=cache_groups(
            spec,
            block_size=made.block_size,
            dtype_bytes=stored.number_bytes(DTYPE_BYTES[made.dtype]),
            scale_bytes=stored.scale_bytes,
            max_model_len=made.max_model_len,
            interval=made.interval,
        ),
        cache_dtype=made.cache_dtype,
        sizes=step_sizes(settings, dtype_bytes=DTYPE_BYTES[made.dtype]),
        threads=made.threads,
        with_front=with_front,
        scheme=made.scheme,
        native=native,
    )


def _choose(
    settings: Settings, description: ModelDescription, machine: Machine, note: Note
) -> _Choices:
    cache, scheduler, parallel = settings.cache, settings.scheduler, settings.parallel
    dtype = _dtype(settings.model.dtype, description, note)
    device = device_of(parallel.device, machine, note)
    max_model_len = longest_of(settings.model.max_model_len, description, note)
    block_size = block_size_of(cache.block_size, device, note)
    cache_dtype = cache_storage(cache.kv_cache_dtype, dtype=dtype, device=device)
    note_cache(description, dtype, cache_dtype, note)
    max_num_seqs = _positive("max_num_seqs", scheduler.max_num_seqs) or _DEFAULT_MAX_NUM_SEQS
    note("max_num_seqs", max_num_seqs, reason_of(scheduler.max_num_seqs))
    given = _positive("max_num_batched_tokens", scheduler.max_num_batched_tokens)
    budget = budget_of(given, max_model_len, description, note)
    threads = _positive("threads", parallel.threads) or machine.physical_cores
    note("threads", threads, reason_of(parallel.threads, "physical cores this process may use"))
    wanted = scheduler.async_scheduling
    overlap = wanted if wanted is not None else device == "cuda"
    note("async_scheduling", overlap, reason_of(wanted, "pays where the device is not the CPU"))
    caching = caching_of(cache.enable_prefix_caching, description, note)
    scheme, activation_bits = scheme_of(settings.model, description, device, note)
    return _Choices(
        dtype=dtype,
        cache_dtype=cache_dtype,
        device=device,
        max_model_len=max_model_len,
        block_size=block_size,
        interval=interval_of(cache.mamba_block_size, block_size, max_model_len, caching),
        max_num_seqs=max_num_seqs,
        budget=budget,
        threads=threads,
        overlap=overlap,
        caching=caching,
        scheme=scheme,
        activation_bits=activation_bits,
    )


def _settle(settings: Settings, made: _Choices) -> Settings:
    return Settings(
        model=replace(
            settings.model,
            dtype=made.dtype,
            max_model_len=made.max_model_len,
            activation_bits=made.activation_bits,
        ),
        load=settings.load,
        cache=replace(
            settings.cache, block_size=made.block_size, enable_prefix_caching=made.caching
        ),
        scheduler=replace(
            settings.scheduler,
            max_num_seqs=made.max_num_seqs,
            max_num_batched_tokens=made.budget,
            async_scheduling=made.overlap,
        ),
        parallel=replace(settings.parallel, threads=made.threads, device=made.device),
        observability=settings.observability,
        parsers=settings.parsers,
    )


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise SettingsError(f"{name} is {value}; it must be at least 1")
    return value


def _check_one_device(tensor_parallel_size: int) -> None:
    if tensor_parallel_size != 1:
        raise SettingsError(
            f"tensor_parallel_size is {tensor_parallel_size}; this version runs on one device: use 1"
        )


def _dtype(wanted: str, description: ModelDescription, note: Note) -> str:
    name = _DTYPE_ALIASES.get(wanted, wanted)
    if name == "auto":
        stored = description.checkpoint_dtype
        name = "float32" if stored == "float32" else "bfloat16"
        wider = "; bfloat16 has the range of float32" if stored == "float16" else ""
        note("dtype", name, f"the checkpoint is in {stored}{wider}")
    elif name in DTYPE_BYTES:
        note("dtype", name, "given")
    else:
        raise SettingsError(
            f"dtype {wanted!r} is not computed by this version; use float32, bfloat16 or float16"
        )
    return name


def _layout(
    settings: Settings, needs: Needs, made: _Choices, available: int, note: Note
) -> CacheLayout:
    """The cache as it was asked for, or as large as it can be used and fits."""
    cache, share = settings.cache, settings.cache.gpu_memory_utilization
    if not 0.0 < share <= 1.0:
        raise SettingsError(f"gpu_memory_utilization is {share}; it must be above 0 and at most 1")
    given = cache.kv_cache_memory_bytes
    if given is not None:
        note("kv_cache_memory_bytes", given, "given")
    num_blocks = _positive("num_gpu_blocks_override", cache.num_gpu_blocks_override)
    if num_blocks is not None:
        note("num_gpu_blocks_override", num_blocks, "given")
        return with_blocks(
            plan_layout(needs.groups, _ANY_SIZE if given is None else given), num_blocks
        )
    if given is not None:
        return plan_layout(needs.groups, given)
    return _default_layout(share, needs, made, available, note)


def _default_layout(
    share: float, needs: Needs, made: _Choices, available: int, note: Note
) -> CacheLayout:
    """What all sequences can use, but at most `share` of what the rest of the ledger leaves.

    Raises NotEnoughMemoryError if the longest sequence does not fit.
    """
    useful = useful_bytes(needs.groups, made.max_num_seqs, made.max_model_len)
    if needs.spec.sees_both_ways:  # nothing outlives a step, and a sequence has one open block
        tokens = (made.budget + made.max_num_seqs * made.block_size) * 2
        useful = min(useful, tokens * needs.groups[0].bytes_per_token)
    most = needs.largest_cache(available, share)
    layout = plan_layout(needs.groups, _ANY_SIZE)
    num_slabs = min(useful, max(most, 0)) // layout.slab_bytes
    # Slabs of several groups round up: one sequence of the greatest length must fit anyway.
    fewest = slabs_needed(layout, made.max_model_len)
    if fewest * layout.slab_bytes > most:
        if needs.ledger(fewest * layout.slab_bytes).total_bytes > available:
            raise shortage(needs.ledger(fewest * layout.slab_bytes), available)
        why = f"one sequence of {made.max_model_len} tokens; {gib(available)} are free"
    elif useful <= most:
        why = "all that max_num_seqs x max_model_len can use"
    else:
        why = f"{share:.0%} of what is free"
    layout = msgspec.structs.replace(layout, num_slabs=max(num_slabs, fewest))
    note("kv_cache_memory_bytes", layout.num_slabs * layout.slab_bytes, why)
    return layout


def _fingerprint(settings: Settings, machine: Machine, cache_dtype: str) -> str:
    """A short digest of what may fix the bits: nothing else may."""
    parallel = settings.parallel
    native = machine.is_native(parallel.device, parallel.kernel_overrides)
    parts = (
        settings.model.dtype,
        settings.model.quantization,
        settings.model.activation_bits,
        cache_dtype,
        settings.model.max_model_len,
        parallel.device,
        None if native else parallel.threads,  # sums of torch may follow it
        machine.kernels if native else None,
        sorted(parallel.kernel_overrides.items()),
        parallel.fast_math,
        parallel.tensor_parallel_size,
        machine.isa,
        *settings.model.logits_processors,
        *map(repr, sorted(settings.model.pooler_config.items())),
        *(name for name, _ in entry_points(LOGITS_PROCESSORS)),
    )
    return "fp_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
