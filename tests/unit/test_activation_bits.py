"""To how many bits inputs are rounded: what was asked for, what GGUF and vLLM's variable mean, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.config.schema import ModelConfig
from quire.engine.choices import scheme_of
from quire.protocol.errors import SettingsError
from quire.quant.formats import Format, FormatTable, parse

Q4_0 = Format("int4", 32, half_scales=True)
FILE = {"a.weight": Q4_0, "b.weight": parse("q4_k:64+q6_k:32"), "c.weight": parse("int8_k")}


def chosen(
    method: str | None = "gguf", kept: dict[str, Format] | None = None, **settings: Any
) -> tuple[dict[str, str], int, list[tuple[str, object, str]]]:
    """The names of formats, the bits, and the lines of the start table."""
    description: Any = SimpleNamespace(
        quantization=method, formats=FormatTable(FILE if kept is None else kept)
    )
    lines: list[tuple[str, object, str]] = []
    device = settings.pop("device", "cpu")
    scheme, bits = scheme_of(
        ModelConfig(**settings), description, device, lambda *line: lines.append(line)
    )
    formats: Any = scheme.layers
    kinds = getattr(formats, "by_name", {"layers": formats})
    return {name: format.name for name, format in kinds.items()}, bits, lines


def test_gguf_has_eight_bits_where_weights_have_two_to_six() -> None:
    names, bits, lines = chosen()
    assert names == {
        "a.weight": "int4_g32_half_parts8",
        "b.weight": "q4_k:64+q6_k:32_parts8",
        "c.weight": "int8_k",
    }
    assert bits == 8
    assert ("activation_bits", 8) in [line[:2] for line in lines]


def test_sixteen_are_there_for_the_asking() -> None:
    names, bits, lines = chosen(activation_bits=16)
    assert names["a.weight"] == "int4_g32_half"
    assert (bits, lines[-1]) == (16, ("activation_bits", 16, "given"))


def test_other_checkpoints_have_sixteen_unless_asked() -> None:
    kept = {"a.weight": Format("int4", 128)}
    assert chosen("gptq", kept)[:2] == ({"a.weight": "int4_g128"}, 16)
    assert chosen("gptq", kept, activation_bits=8)[:2] == ({"a.weight": "int4_g128_parts8"}, 8)
    assert chosen(None, quantization="int4", activation_bits=8)[0] == {"layers": "int4_g64_parts8"}


@pytest.mark.parametrize(("word", "bits"), [("1", 8), ("0", 16)])
def test_the_variable_of_vllm_is_followed(
    word: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_INT4_W4A8", word)
    assert chosen()[1] == bits
    assert chosen("gptq", {"a.weight": Format("int4", 128)})[1] == bits
    assert chosen(activation_bits=24 - bits)[1] == 24 - bits


def test_it_says_nothing_where_no_weight_has_few_bits() -> None:
    names, bits, lines = chosen("gguf", {"a.weight": Format("int8", 32)})
    assert (names, bits) == ({"a.weight": "int8_g32"}, 16)
    assert "activation_bits" not in [line[0] for line in lines]


def test_int8_has_eight_bits_only_if_told_and_where_no_weight_has_fewer() -> None:
    q8_0 = {"a.weight": Format("int8", 32)}
    assert chosen("gguf", q8_0, activation_bits=8)[:2] == ({"a.weight": "int8_g32_parts8"}, 8)
    names, bits, lines = chosen("gptq", {"a.weight": parse("int8_g128_zp")}, activation_bits=8)
    assert (names, bits) == ({"a.weight": "int8_g128_zp_parts8"}, 8)
    assert ("activation_bits", 8, "given") in lines
    assert chosen(None, quantization="int8", activation_bits=8)[0] == {"layers": "int8_parts8"}
    assert chosen(None, quantization="int8_g128")[:2] == ({"layers": "int8_g128"}, 16)
    mixed = {**FILE, "d.weight": Format("int8", 32)}
    assert chosen("gguf", mixed, activation_bits=8)[0]["d.weight"] == "int8_g32"


def test_the_variable_of_vllm_leaves_int8_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_INT4_W4A8", "1")
    assert chosen("gptq", {"a.weight": Format("int8", 128)})[:2] == ({"a.weight": "int8_g128"}, 16)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"activation_bits": 4}, "activation_bits is 4; it must be 8 or 16"),
        ({"activation_bits": 8, "kept": {}}, "this model has none there"),
        ({"activation_bits": 8, "kept": {}, "method": None}, "give --quantization int4 or int8"),
        (
            {"activation_bits": 8, "kept": {}, "method": None, "quantization": "int8_w8a8"},
            "this model has none there",
        ),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        chosen(**settings)


@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_answers_with_eight_bits_are_the_same_alone_and_in_company(quantization: str) -> None:
    prompts = ["What is the capital of France?", "Count from one to ten.", "Say hello."] * 6
    params = SamplingParams(temperature=0.0, max_tokens=12, logprobs=2)
    prints = []
    for bits in (8, 16):
        llm = LLM(
            model="quire/models/demo",
            quantization=quantization,
            activation_bits=bits,
            kv_cache_memory_bytes=64 << 20,
            enable_prefix_caching=False,
            use_tqdm_on_load=False,
        )
        together = llm.generate(prompts, params, use_tqdm=False)
        alone = [llm.generate([prompt], params, use_tqdm=False)[0] for prompt in prompts[:3]]
        for one, other in zip(alone, together, strict=False):
            assert one.outputs[0].token_ids == other.outputs[0].token_ids
            assert one.outputs[0].cumulative_logprob == other.outputs[0].cumulative_logprob
        prints.append([output.outputs[0].cumulative_logprob for output in alone])
    assert prints[0] != prints[1]
