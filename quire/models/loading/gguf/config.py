"""Settings of a GGUF file as the config.json that the same model has elsewhere.

What the settings mean for a model is in `models.architectures`; tensors are `gguf.names`', families `gguf.families`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.models.loading.gguf.adjusted import adjusted, shortest
from quire.models.loading.gguf.families import FAMILIES
from quire.models.loading.gguf.family import Family
from quire.models.loading.gguf.header import GgufHeader
from quire.models.loading.gguf.own_configs import OWN
from quire.models.loading.gguf.pooling import classes_of, has_classes
from quire.protocol.errors import ModelLoadError

_SHARED = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
}
_WITHOUT_EFFECT = (
    "vocab_size", "rope.dimension_count", "attention.value_length", "rope.scaling.finetuned",
    "rope.scaling.attn_factor", "rope.scaling.original_context_length", "attention.causal",
    "expert_shared_count", "rope.scaling.type", "rope.scaling.factor", "rope.freq_base",
    "attention.key_length", "attention.head_count_kv", "rope.dimension_sections",
    "attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "expert_gating_func",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "tensor_data_layout",
    "pooling_type", "classifier.output_labels",
    "dense_2_feat_in", "dense_2_feat_out", "dense_3_feat_in", "dense_3_feat_out",
)  # fmt: skip
"""Read here, or said by the tensors' shapes too."""
_FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


def family_of(header: GgufHeader) -> Family:
    """The family of a file. Raises ModelLoadError, with those there are, for another."""
    name = header.values.get("general.architecture")
    if name not in FAMILIES:
        raise ModelLoadError(
            f"{header.path}: the architecture {name!r} is not read from GGUF files by this version; "
            f"known are {', '.join(FAMILIES)}. Take the model's safetensors files"
        )
    return FAMILIES[str(name)]


def config_of(header: GgufHeader, floats: Callable[[str], list[float]]) -> dict[str, Any]:
    """The config.json of a file.

    floats  the numbers of a tensor of type F32 by its name.
    Raises ModelLoadError for a setting that is missing, of another kind, or not known.
    """
    family, read = family_of(header), _Values(header)
    has_experts = bool(read.get("expert_count"))
    name = str(header.values["general.architecture"])
    config: dict[str, Any] = {
        **classes_of(header, family, read),
        "architectures": [family.with_experts if has_experts and family.with_experts else family.architecture],
        "model_type": family.model_type or name,
        "quantization_config": {"quant_method": "gguf"},
        "vocab_size": _rows(header, "token_embd.weight"),
        **family.constants,
    }  # fmt: skip
    if has_classes(header, family):
        stem = family.architecture.removesuffix("Model").removesuffix("ForCausalLM")
        config["architectures"] = [f"{stem}ForSequenceClassification"]
    if name in OWN:
        config |= OWN[name](header, read)
    else:
        _like_llama(config, header, read, floats)
    for setting in _WITHOUT_EFFECT:
        read.each(setting)
    read.refuse_unread()
    return config


def _like_llama(
    config: dict[str, Any],
    header: GgufHeader,
    read: _Values,
    floats: Callable[[str], list[float]],
) -> None:
    """Keys in Llama's spelling, or as the row of the family has them."""
    family, name = family_of(header), str(header.values["general.architecture"])
    has_experts = bool(read.get("expert_count"))
    heads, width = read.integer("attention.head_count"), read.integer("embedding_length")
    head_size = read.get("attention.key_length") or width // heads
    for key, setting in _SHARED.items():
        value = read.of_layers(setting)
        if family.renamed.get(key, key):
            config[family.renamed.get(key, key)] = value
    if family.eps:
        rms, layer = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
        is_rms = family.eps == "rms_norm_eps"
        config[family.eps] = read.needed(rms if is_rms or read.get(layer) is None else layer)
    for key, setting in family.keys.items():
        value = read.get(setting)
        if setting.endswith("sliding_window") and not value:
            continue
        if value is not None and (has_experts or "expert" not in setting):
            config[key] = value
    ends = {tensor.split(".", 2)[-1] for tensor in header.tensors if tensor.startswith("blk.")}
    config |= {key: end in ends for key, end in family.flags.items()}
    kv_heads = read.each("attention.head_count_kv") and read.of_layers("attention.head_count_kv")
    config["num_key_value_heads"] = kv_heads or heads
    if family.head_dim:
        config["head_dim"] = head_size
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["rope_theta"] = read.get("rope.freq_base") or 10_000.0
    turned = read.get("rope.dimension_count") or head_size
    if turned != head_size:
        config["partial_rotary_factor"] = turned / head_size
    scaling = _scaling(header, read, floats, family)
    if scaling is not None:
        config["rope_scaling"] = scaling
    _of_family(header, config, head_size)
    adjusted(name, config, header, read)


def _of_family(header: GgufHeader, config: dict[str, Any], head_size: int) -> None:
    """What one family's config.json says otherwise than the others'."""
    name = str(header.values["general.architecture"])
    if name in ("gemma2", "gemma3", "gemma-embedding"):
        # The largest of both have heads that are not as wide as width over heads, which they scale by.
        largest = {"gemma2": 46, "gemma3": 62}.get(name)
        scalar = head_size
        if config["num_hidden_layers"] == largest:
            scalar = config["hidden_size"] // config["num_attention_heads"]
        config["query_pre_attn_scalar"] = scalar
    if name.startswith("granite") and config.get("attention_multiplier") is None:
        raise ModelLoadError(f"{header.path} lacks the setting {name}.attention.scale")
    if name == "phi3" and "rope_scaling" in config:
        original = header.values.get("phi3.rope.scaling.original_context_length")
        config["original_max_position_embeddings"] = original
    if "blk.0.attn_q.bias" in header.tensors and config["architectures"] == ["LlamaForCausalLM"]:
        config["attention_bias"] = True


def _scaling(
    header: GgufHeader,
    read: _Values,
    floats: Callable[[str], list[float]],
    family: Family,
) -> dict[str, Any] | None:
    """`rope_scaling`, from settings or from factors among the tensors."""
    kind, factor = read.get("rope.scaling.type"), read.get("rope.scaling.factor")
    original = read.get("rope.scaling.original_context_length")
    context = read.integer("context_length")
    same, short, long = _FACTORS
    if same in header.tensors:
        factors = floats(same)
        return {
            "rope_type": "longrope",
            "short_factor": factors,
            "long_factor": factors,
            "original_max_position_embeddings": context,
            "attention_factor": 1.0,
        }
    if short in header.tensors and long in header.tensors:
        return {
            "rope_type": "longrope",
            "short_factor": floats(short),
            "long_factor": floats(long),
            **_given("attention_factor", read.get("rope.scaling.attn_factor")),
        }
    if kind in (None, "none") and not factor:
        return None
    if kind in (None, "linear"):
        return None if factor in (None, 0.0, 1.0) else {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        betas = {
            **_given("beta_fast", read.get("rope.scaling.yarn_beta_fast")),
            **_given("beta_slow", read.get("rope.scaling.yarn_beta_slow")),
            **_given("original_max_position_embeddings", original),
        }
        return {"rope_type": "yarn", "factor": factor, **betas}
    raise ModelLoadError(f"{header.path}: rope.scaling.type {kind!r} is not known")


def _given(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: value}


def _rows(header: GgufHeader, name: str) -> int:
    if name not in header.tensors:
        raise ModelLoadError(f"{header.path} lacks the tensor {name!r}; it holds no whole model")
    return header.tensors[name].shape[0]


class _Values:
    """Settings of the file's architecture, and which of them were read."""

    def __init__(self, header: GgufHeader) -> None:
        self._path = header.path
        self._prefix = f"{header.values['general.architecture']}."
        self._values = {
            name.removeprefix(self._prefix): value
            for name, value in header.values.items()
            if name.startswith(self._prefix)
        }
        self._unread = set(self._values)

    def get(self, name: str) -> Any:
        """A setting, None if it is not there. A list of one number for each layer counts if all are one."""
        value = self._values.get(name)
        self._unread.discard(name)
        if isinstance(value, list):
            if len(set(map(str, value))) != 1:
                raise ModelLoadError(
                    f"{self._path}: {self._prefix}{name} differs from layer to layer, which is not supported"
                )
            value = value[0]
        return shortest(value) if isinstance(value, float) else value

    def each(self, name: str) -> list[Any]:
        """A setting with a value for each layer; empty if it is not there."""
        value = self._values.get(name, [])
        self._unread.discard(name)
        return list(value) if isinstance(value, list) else [value]

    def of_layers(self, name: str) -> Any:
        """A setting that must be there; 0 counts as absent in a list with a number for each layer."""
        values = [value for value in self.each(name) if value]
        if len(set(map(str, values))) > 1:
            return self.get(name)  # which refuses it
        return values[0] if values else self.needed(name)

    def needed(self, name: str) -> Any:
        """A setting that must be there."""
        value = self.get(name)
        if value is None:
            raise ModelLoadError(f"{self._path} lacks the setting {self._prefix}{name}")
        return value

    def integer(self, name: str) -> int:
        """A whole number from 1 on."""
        value = self.needed(name)
        if not isinstance(value, int) or value < 1:
            raise ModelLoadError(
                f"{self._path}: {self._prefix}{name} is {value!r}; it must be a whole number from 1 on"
            )
        return value

    def refuse_unread(self) -> None:
        """Raises ModelLoadError for settings that nothing has asked for."""
        if self._unread:
            names = ", ".join(sorted(self._prefix + name for name in self._unread))
            raise ModelLoadError(
                f"{self._path}: {names} is not known, so the model might compute something else than it "
                "was trained for; take the model's safetensors files"
            )
