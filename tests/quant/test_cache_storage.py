"""`--kv-cache-dtype`: the forms there are, their bytes by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quire.config.options import options
from quire.config.schema import CacheConfig, ModelConfig, Settings
from quire.engine.ledger import NotEnoughMemoryError
from quire.engine.resolve import ResolvedSettings, describe_model, resolve
from quire.hardware.cpu import Machine, read_machine
from quire.ops.cpu.structs import CACHE_FORMATS as NUMBERED
from quire.ops.formats import CACHE_FORMATS
from quire.protocol.errors import SettingsError
from quire.quant.schemes.cache import STORED, cache_storage

DEMO = "quire/models/demo"


def resolved(name: str, machine: Machine | None = None, **cache: int) -> ResolvedSettings:
    settings = Settings(
        model=ModelConfig(model=DEMO, dtype="bfloat16"),
        cache=CacheConfig(kv_cache_dtype=name, **cache),  # type: ignore[arg-type]
    )
    return resolve(settings, describe_model(settings), machine or read_machine())


def test_the_setting_offers_every_form() -> None:
    choices = options(server=False)["kv_cache_dtype"].choices
    assert choices == ("auto", "float32", "bfloat16", "float16", *STORED)
    assert set(STORED.values()) | {"plain"} == set(CACHE_FORMATS) == set(NUMBERED)


def test_what_is_not_stored_is_refused() -> None:
    assert cache_storage("auto", dtype="float16", device="cuda") == "float16"
    assert cache_storage("bfloat16", dtype="bfloat16", device="cpu") == "bfloat16"
    assert cache_storage("fp8_e4m3", dtype="float32", device="cpu") == "fp8"
    with pytest.raises(SettingsError, match=r"'float32' is not the model's bfloat16.*use auto"):
        resolved("float32")
    with pytest.raises(SettingsError, match=r"'fp8_inc' is not stored .* auto, fp8, fp8_e4m3"):
        cache_storage("fp8_inc", dtype="bfloat16", device="cpu")
    with pytest.raises(SettingsError, match="'int8' works on cpu only"):
        cache_storage("int8", dtype="bfloat16", device="cuda")


def test_bytes_by_hand() -> None:
    found = {name: resolved(name) for name in ("auto", *STORED)}
    spec = describe_model(found["auto"].settings).spec
    mixer = spec.layers[0].mixer
    heads = len(spec.layers) * mixer.num_kv_heads
    each = {"auto": 4 * mixer.head_size, "fp8": 2 * mixer.head_size}
    for name, one in found.items():
        (group,) = one.layout.groups
        per_head = each["auto"] if name == "auto" else each["fp8"]
        scales = 8 if STORED.get(name, name).endswith("per_token_head") else 0
        assert group.bytes_per_token == heads * (per_head + scales), name
        (line,) = [line for line in one.ledger.lines if line.name == "KV cache"]
        assert line.num_bytes == one.layout.num_slabs * one.layout.slab_bytes
        assert line.note == one.cache_dtype == STORED.get(name, "bfloat16")
        assert ("kv_cache_dtype", one.cache_dtype) in [row[:2] for row in one.table]


def test_a_budget_holds_about_twice_the_tokens() -> None:
    def tokens(name: str) -> int:
        layout = resolved(name, kv_cache_memory_bytes=64 << 20).layout
        (group,) = layout.groups
        return layout.max_blocks(0) * group.block_size

    assert tokens("fp8") == 2 * tokens("auto")
    assert 1.7 * tokens("auto") < tokens("int8") < 2 * tokens("auto")


def test_every_form_has_a_fingerprint_of_its_own() -> None:
    found = {name: resolved(name).fingerprint for name in ("auto", *STORED)}
    assert len(set(found.values())) == len(CACHE_FORMATS)
    assert found["int8"] == found["int8_per_token_head"]
    assert found["fp8"] == found["fp8_e4m3"]


def test_a_proposal_keeps_the_form() -> None:
    small = replace(read_machine(), available_bytes=400 << 20)
    with pytest.raises(NotEnoughMemoryError, match="--kv-cache-dtype int8"):
        resolved("int8", small, kv_cache_memory_bytes=8 << 30)
