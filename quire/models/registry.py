"""Says what model a checkpoint folder holds, without torch and without reading weights.

Building the model is `models.build`; what each family's settings mean is in `models.architectures`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quire.config.plugins import load as load_reference
from quire.models.families import ALIASES as ALIASES
from quire.models.families import ARCHITECTURES as ARCHITECTURES
from quire.models.families import known_as as known_as
from quire.models.family import Architecture
from quire.models.foreign.ask import foreign_spec, is_known, names_of
from quire.models.foreign.ask import pools as foreign_pools
from quire.models.hf_config import HfConfig, merge_overrides
from quire.models.lengths import derived_max_len
from quire.models.loading.checkpoint import NOTHING, kept_formats, method_of, read_checkpoint
from quire.models.loading.gguf.folder import folder_of
from quire.models.loading.gguf.found import gguf_file
from quire.models.names import WeightMap, match
from quire.models.pooling import (
    PoolingDescription,
    PoolingWish,
    describe_pooling,
    for_pooling,
    pools,
)
from quire.models.pooling_roles import NOT_THE_DECODERS, Role, base_names
from quire.models.sentence_modules import read_modules
from quire.models.spec import DecoderSpec
from quire.protocol.errors import ModelLoadError, SettingsError
from quire.quant.formats import FormatTable

logger = logging.getLogger(__name__)


class ModelRegistry:
    """Architectures that a plug-in adds to those above, by the name that config.json gives them."""

    @staticmethod
    def register_model(name: str, architecture: Architecture | str) -> None:
        """Makes an architecture known to this process; one of the same name is replaced.

        architecture  a description: an `Architecture`, `module:NAME` of one, which is imported when a
                      checkpoint asks for it, or the name of a known one that this is the same as.
        Raises TypeError for anything else, a model's class among it: models are built from descriptions.
        """
        if not isinstance(architecture, (Architecture, str)):
            raise TypeError(
                f"{name}: a model is added by its description (quire.models.family.Architecture) or as "
                f"module:NAME of one, not as {type(architecture).__name__}"
            )
        if name in ARCHITECTURES or name in _ADDED:
            logger.warning("the architecture %s is replaced by a plug-in's", name)
        _ADDED[name] = architecture

    @staticmethod
    def get_supported_archs() -> list[str]:
        """The names that are known in this process, sorted."""
        return sorted({*ARCHITECTURES, *ALIASES, *_ADDED})


_ADDED: dict[str, Architecture | str] = {}


def known_architecture(name: Any) -> Architecture | None:
    """The architecture of a name in config.json, ours or a plug-in's; None if it is neither.

    Raises ModelLoadError for a plug-in's that cannot be imported.
    """
    found = _ADDED.get(name) if isinstance(name, str) else None
    if found is None:
        return ARCHITECTURES.get(known_as(name)) if isinstance(name, str) else None
    if isinstance(found, str) and ":" not in found:
        if found not in ARCHITECTURES:
            raise ModelLoadError(f"{name} was registered as {found}, which is not known")
        return ARCHITECTURES[found]
    try:
        loaded = load_reference(found) if isinstance(found, str) else found
    except SettingsError as error:
        raise ModelLoadError(f"the architecture {name}: {error}") from error
    if not isinstance(loaded, Architecture):
        raise ModelLoadError(f"the architecture {name}: {found} is not an Architecture")
    return loaded


GENERATION_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""What of generation_config.json sets defaults of requests."""

_MAX_CONFIG_BYTES = 16 << 20
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """A checkpoint described: all that the front, the engine and the ledger need to know of it.

    checkpoint_dtype     of the weights: "float32", "bfloat16" or "float16".
    max_model_len        longest sequence in tokens, position scaling included.
    eos_token_ids        of generation_config.json, else of config.json; empty when neither says.
    generation_defaults  values of GENERATION_KEYS that the checkpoint or the user sets.
    hf_config            config.json with the user's overrides.
    pooling              how it pools; None for a model that generates.
    quantization         how its weights come quantized, as the checkpoint says; None if they are plain.
    formats              of the parameters that are kept as they come quantized.
    cache_scales         by layer, those of keys and values that an fp8 cache shall have.
    decoder_start        tokens with which the decoder of an encoder-decoder model begins.
    """

    path: str
    architecture: str
    spec: DecoderSpec
    checkpoint_dtype: str
    max_model_len: int
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    generation_defaults: dict[str, Any] = field(default_factory=dict)
    hf_config: dict[str, Any] = field(default_factory=dict)
    pooling: PoolingDescription | None = None
    quantization: str | None = None
    formats: FormatTable = field(default_factory=FormatTable)
    cache_scales: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    decoder_start: tuple[int, ...] = ()


def weight_map_of(description: ModelDescription) -> WeightMap:
    """Where the weights of what `describe` has found stand."""
    architecture = known_architecture(description.architecture)
    if description.spec.program is not None:
        names = names_of(description.spec)
    else:
        assert architecture is not None, f"{description.architecture} was described; it is unknown"
        names = architecture.names
    return names if description.pooling is None else description.pooling.names(names)


def describe(
    model: str,
    *,
    hf_overrides: Mapping[str, Any] | None = None,
    generation_config: str = "auto",
    override_generation_config: Mapping[str, Any] | None = None,
    load_format: str = "auto",
    pooling: PoolingWish | None = None,
    model_impl: str = "auto",
    trust_remote_code: bool = False,
) -> ModelDescription:
    """What the folder `model` holds.

    hf_overrides                over config.json: objects merge, null takes a key out of use.
    generation_config           "auto" is the model's own, "vllm" none, else a folder with one.
    override_generation_config  over the defaults so found.
    load_format                 "dummy" asks for no weight files.
    pooling                     what is asked of a model that may pool.
    model_impl                  "transformers": from its code always; "auto": where there is no description here.
    trust_remote_code           whether code that comes with the checkpoint may run.
    Raises ModelLoadError with what is wrong and what to do.
    """
    folder = _folder(model)
    values = _values(folder, hf_overrides or {})
    name, architecture, role = _architecture(values, folder, model_impl)
    pooled = pools(role, pooling or PoolingWish(), folder)
    if architecture is None:
        spec = foreign_spec(folder, values, name, pooled, hf_overrides or {}, trust_remote_code)
        names = names_of(spec)
    else:
        spec, names = _spec(values, name, architecture, folder, pooled), architecture.names
    dtype, _ = _checkpoint_dtype(values, folder), method_of(folder, values)
    checkpoint = NOTHING if load_format == "dummy" else read_checkpoint(folder, values)
    shapes, how = checkpoint.shapes, None
    if pooled:
        how = describe_pooling(folder, values, spec, role, pooling or PoolingWish(), names, shapes)
        names = how.names(names)
    formats = FormatTable()
    if shapes:
        spec = _with_tensors(spec, architecture, shapes)
        plan = match(checkpoint.mapped(names), spec, shapes)
        formats = kept_formats(plan, spec, checkpoint.tensors)
    generation, own = _generation_config(folder, generation_config), _with_text(values)
    defaults = {key: generation[key] for key in GENERATION_KEYS if generation.get(key) is not None}
    return ModelDescription(
        path=str(folder),
        architecture=name,
        spec=spec,
        checkpoint_dtype=dtype or checkpoint.dtype,
        max_model_len=_max_len(spec, folder, pooled),
        eos_token_ids=_token_ids(generation.get("eos_token_id", own.get("eos_token_id")), folder),
        bos_token_id=next(iter(_token_ids(own.get("bos_token_id"), folder)), None),
        generation_defaults={**defaults, **(override_generation_config or {})},
        hf_config=values,
        pooling=how,
        quantization=checkpoint.method,
        formats=formats,
        cache_scales=checkpoint.cache_scales,
        decoder_start=_decoder_start({**own, **generation}, folder) if spec.encoder else (),
    )


def _with_tensors(
    spec: DecoderSpec, architecture: Architecture | None, names: Container[str]
) -> DecoderSpec:
    """The description for a checkpoint with tensors of these names."""
    if architecture is None:
        return spec
    if architecture.told_by_tensors is not None:
        spec = architecture.told_by_tensors(spec, names)
    own = architecture.own_head
    return replace(spec, tie_head=True) if own is not None and own not in names else spec


def _folder(model: str) -> Path:
    """The folder that a model's name means; of a GGUF file the one that is made of it."""
    file = gguf_file(model) if model else None
    folder = Path(model) if file is None else folder_of(file)
    if not model or not folder.is_dir():
        raise ModelLoadError(
            f"there is no folder {model!r}; the model must be a local folder with config.json, "
            "tokenizer.json and safetensors files, or a hub name: org/name"
        )
    return folder


def _with_text(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys of a file, and those of its text's decoder that it does not state itself."""
    text = values.get("text_config")
    return {**text, **values} if isinstance(text, dict) else values


def _values(folder: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with overrides, and with what files of models that see may say inside: how weights are quantized."""
    values = merge_overrides(_read_json(folder / "config.json", required=True), overrides)
    inner = values.get("text_config")
    settings = inner.get("quantization_config") if isinstance(inner, dict) else None
    return {"quantization_config": settings, **values} if settings else values


def _max_len(spec: DecoderSpec, folder: Path, pooled: bool) -> int:
    longest = derived_max_len(spec)
    stated = read_modules(folder).max_length if pooled else None
    return longest if stated is None else min(stated, longest)


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        if path.is_file() and path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ModelLoadError(
                f"{path} has {path.stat().st_size:,} bytes; at most {_MAX_CONFIG_BYTES:,} are read"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ModelLoadError(
                f"{path.parent} has no {path.name}; it is not a checkpoint folder"
            ) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} must hold a JSON object")
    return values


def _architecture(
    values: Mapping[str, Any], folder: Path, model_impl: str
) -> tuple[str, Architecture | None, Role]:
    """The known name, its architecture, and what the name in config.json says that it is for.

    No architecture means that Transformers' code shall run.
    """
    names = values.get("architectures")
    known = f"known are {', '.join(ModelRegistry.get_supported_archs())}"
    if not isinstance(names, list) or not names:
        raise ModelLoadError(
            f"{folder}/config.json names no architecture in `architectures`; {known}"
        )
    if model_impl == "transformers":
        return str(names[0]), None, _role(str(names[0]))
    for name in names:
        architecture = known_architecture(name)
        if architecture is not None:
            name = known_as(name)
            return name, architecture, _role(name) if name.endswith("Model") else "generate"
    for name in names:
        role, bases = base_names(str(name))
        for base in bases:
            architecture = known_architecture(base)
            if architecture is not None:
                return base, architecture, role
    if model_impl == "auto" and (is_known(names[0]) or values.get("auto_map")):
        return str(names[0]), None, "generate"
    if model_impl == "auto" and _role(str(names[0])) == "embed" and foreign_pools(values):
        return str(names[0]), None, "embed"
    raise ModelLoadError(f"{folder}: the architecture {names[0]!r} is not supported; {known}")


def _role(name: str) -> Role:
    """What a name says that its model was made for."""
    return "generate" if name.endswith("LMHeadModel") else base_names(name)[0]


def _spec(
    values: Mapping[str, Any], name: str, architecture: Architecture, folder: Path, pooled: bool
) -> DecoderSpec:
    if pooled:
        values = {key: value for key, value in values.items() if key not in NOT_THE_DECODERS}
    hf = HfConfig(values, where=f"{folder}/config.json")
    spec = architecture.describe(hf)
    if spec.encoder is not None and pooled:
        raise ModelLoadError(
            f"{folder}: {name} has an encoder and a decoder, and pools nothing here"
        )
    if spec.sees_both_ways and not pooled:
        raise ModelLoadError(f"{folder}: {name} generates nothing; use --runner pooling")
    if pooled:
        spec = for_pooling(spec, values)
        hf.skip("use_bidirectional_attention", "is_causal")
    hf.skip("quantization_config")  # read with the tensors, see `models.loading.checkpoint`
    unread = hf.unread()
    if unread:
        key = unread[0].split(".")[0]
        raise ModelLoadError(
            f"{folder}/config.json: {name} does not know {', '.join(unread)}, so the model might "
            f"compute something else than it was trained for; if it has no effect, start with "
            f"--hf-overrides '{{\"{key}\": null}}'"
        )
    return spec


def _checkpoint_dtype(values: Mapping[str, Any], folder: Path) -> str | None:
    name = values.get("dtype", values.get("torch_dtype"))
    if name is None:
        return None
    short = str(name).removeprefix("torch.")
    if short not in _DTYPES:
        raise ModelLoadError(
            f"{folder}/config.json: dtype {name!r} is not supported; known are {_DTYPES}"
        )
    return short


def _generation_config(folder: Path, source: str) -> dict[str, Any]:
    if source == "vllm":
        return {}
    if source == "auto":
        return _read_json(folder / "generation_config.json", required=False)
    return _read_json(Path(source) / "generation_config.json", required=True)


def _decoder_start(values: Mapping[str, Any], folder: Path) -> tuple[int, ...]:
    """The token that begins every output, and the one that must follow it if there is one."""
    start = values.get("decoder_start_token_id")
    if start is None:
        start = values.get("bos_token_id")
    first = _token_ids(start, folder)
    if not first:
        raise ModelLoadError(
            f"{folder}: neither config.json nor generation_config.json has decoder_start_token_id, with which the "
            "decoder begins"
        )
    return first[:1] + _token_ids(values.get("forced_bos_token_id"), folder)[:1]


def _token_ids(value: Any, folder: Path) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in ids):
        raise ModelLoadError(f"{folder}: {value!r} is no token id or list of token ids")
    return tuple(dict.fromkeys(ids))
