"""Single choices that were left open: the device, lengths, the token budget of a step, how weights are kept.

Which of them are made when, and what follows from them, is `engine.resolve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from quire.config import env
from quire.config.schema import ModelConfig
from quire.hardware.cpu import Machine
from quire.models.registry import ModelDescription
from quire.models.spec import Compressed, Mla
from quire.protocol.errors import SettingsError
from quire.quant.schemes.checkpoint import Scheme, scheme_for

DEFAULT_TOKEN_BUDGET = 2048

Note = Callable[[str, object, str], None]
"""Writes (setting, value, reason) into the start table."""


def reason_of(value: object, otherwise: str = "default") -> str:
    """What the start table says of a choice that may have been given."""
    return "given" if value is not None else otherwise


def device_of(wanted: str, machine: Machine, note: Note) -> Literal["cpu", "cuda"]:
    """Where the model runs. Raises SettingsError for a GPU that is not there."""
    if wanted == "cuda" and machine.num_gpus == 0:
        raise SettingsError(
            "device is 'cuda', but this machine shows no NVIDIA GPU; use --device cpu"
        )
    name: Literal["cpu", "cuda"] = (
        "cuda" if wanted == "cuda" or (wanted == "auto" and machine.num_gpus) else "cpu"
    )
    note("device", name, "given" if wanted != "auto" else "the fastest this machine has")
    return name


def longest_of(wanted: int | None, description: ModelDescription, note: Note) -> int:
    """The longest sequence. Raises SettingsError for one that the model does not allow."""
    limit = description.max_model_len
    if wanted is None or wanted == -1:
        note("max_model_len", limit, "what the model was made for")
        return limit
    if not 1 <= wanted <= limit:
        raise SettingsError(f"max_model_len is {wanted}; this model allows 1 to {limit}")
    note("max_model_len", wanted, "given")
    return wanted


def note_cache(description: ModelDescription, dtype: str, cache_dtype: str, note: Note) -> None:
    """How the cache is stored, and whether the checkpoint's scales of keys and values are used if it has some.

    Raises SettingsError for fewer bits where entries stand for many tokens.
    """
    if cache_dtype != dtype and any(
        isinstance(one, Compressed) for one in description.spec.attentions
    ):
        raise SettingsError(
            f"kv_cache_dtype is {cache_dtype}; this model's compressed cache is kept in its dtype only: use auto"
        )
    note("kv_cache_dtype", cache_dtype, "the model's" if cache_dtype == dtype else "given")
    if not description.cache_scales:
        return
    if any(isinstance(one, Mla) for one in description.spec.attentions):
        note("kv_cache_scales", "not used", "a cache of latents has none")
    elif cache_dtype == "fp8":
        why = f"the checkpoint's, of {len(description.cache_scales)} layers"
        note("kv_cache_scales", "used", why)
    else:
        note("kv_cache_scales", "not used", "--kv-cache-dtype fp8 takes the checkpoint's")


def block_size_of(wanted: int | None, device: str, note: Note) -> int:
    """Tokens of a block. Raises SettingsError for a size that is no power of two from 8 to 256."""
    size = wanted if wanted is not None else (32 if device == "cpu" else 16)
    if not 8 <= size <= 256 or size & (size - 1):
        raise SettingsError(f"block_size is {size}; it must be a power of two from 8 to 256")
    note("block_size", size, reason_of(wanted, f"default of {device}"))
    return size


def interval_of(
    wanted: int | None, block_size: int, max_model_len: int, caching: bool
) -> int | None:
    """Tokens for which one recurrent state is kept; None leaves it to the model's numbers.

    Without prefix caching nobody comes back to a state, and one is enough.
    Raises SettingsError for a size that is no power of two times block_size.
    """
    if wanted is None and not caching:
        size = block_size
        while size <= max_model_len:
            size *= 2
        return size
    if wanted is None:
        return None
    blocks = wanted // block_size
    if wanted < block_size or wanted % block_size or blocks & (blocks - 1):
        raise SettingsError(
            f"mamba_block_size is {wanted}; it must be block_size {block_size} times a power of two"
        )
    return wanted


def caching_of(wanted: bool | None, description: ModelDescription, note: Note) -> bool:
    """Whether blocks are kept for later prompts that begin alike."""
    spec, why_not = description.spec, ""
    if spec.sees_both_ways:
        why_not = "tokens see those behind them"
    elif spec.encoder is not None:
        why_not = "a block's key does not tell what the encoder read"
    caching = wanted is not False and not why_not
    note("enable_prefix_caching", caching, why_not or reason_of(wanted))
    return caching


def budget_of(
    given: int | None, max_model_len: int, description: ModelDescription, note: Note
) -> int:
    """Tokens of a step. Raises SettingsError if a prompt that must run whole does not fit."""
    budget, why = given or DEFAULT_TOKEN_BUDGET, "default; follows the measured rate"
    if description.spec.sees_both_ways:
        why = "prompts run whole"
        if given is not None and given < max_model_len:
            raise SettingsError(
                f"max_num_batched_tokens is {given}, but prompts of this model run whole and have up to "
                f"{max_model_len} tokens; raise it, or lower --max-model-len"
            )
        budget = max(budget, max_model_len)
    elif description.spec.encoder is not None:
        limit = description.spec.encoder.limit(max_model_len)
        if given is not None and given < limit:
            raise SettingsError(
                f"max_num_batched_tokens is {given}, but this model's encoder reads a prompt whole, of up to "
                f"{limit} tokens; raise it, or lower --max-model-len"
            )
        budget = max(budget, limit)
    note("max_num_batched_tokens", budget, reason_of(given, why))
    return budget


def scheme_of(
    model: ModelConfig, description: ModelDescription, device: str, note: Note
) -> tuple[Scheme, int]:
    """How weights are kept, and the bits of the inputs of those that have 2 to 6, or of int8 if there are no others.

    Raises SettingsError for a name that is not known, a device that does not multiply it, or bits that are not 8 or
    16, or 8 where no weight meets them.
    """
    wanted, own = model.quantization, description.quantization
    bits, why = _activation_bits(model.activation_bits, own)
    try:
        exact = scheme_for(wanted, own, description.formats, device)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    short = exact.with_short_rows()
    if short == exact and model.activation_bits == 8:
        raise SettingsError(
            "activation_bits is 8, which inputs of integer weights of 2 to 8 bits on cpu may have, and this model has "
            "none there; leave it out, or for plain weights give --quantization int4 or int8"
        )
    is_there = exact.has_few_bits or (short != exact and model.activation_bits is not None)
    if not is_there:  # int8 has 16 unless it is told
        bits = 16
    scheme = short if bits == 8 else exact
    if own is not None:
        note("quantization", own, f"the checkpoint's: {scheme}")
    elif wanted is not None and device != "cpu":
        raise SettingsError(f"quantization {wanted!r} works on cpu only: give --device cpu")
    else:
        why_so = f"given: {scheme}" if wanted else "the checkpoint's own numbers"
        note("quantization", wanted, why_so)
    if is_there:
        note("activation_bits", bits, why)
    return scheme, bits


def _activation_bits(wanted: int | None, method: str | None) -> tuple[int, str]:
    """The bits and why."""
    if wanted is not None:
        if wanted not in (8, 16):
            raise SettingsError(f"activation_bits is {wanted}; it must be 8 or 16")
        return wanted, "given"
    is_given = env.read("VLLM_CPU_INT4_W4A8") is not None
    if is_given:
        return (8 if env.read_bool("VLLM_CPU_INT4_W4A8", True) else 16), "VLLM_CPU_INT4_W4A8"
    if method == "gguf":
        return 8, "as GGUF's own tools compute; 16 is closer to the numbers in the file"
    return 16, "8 is quicker, and less close to the numbers in the checkpoint"
