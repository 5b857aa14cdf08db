"""Asks a process with Transformers in it what a folder's model does, and makes a description of the answer.

Neither torch nor Transformers is imported here: what cannot run is refused before that process is started
where the installed files show it, in milliseconds.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from quire.models.foreign.program import Program
from quire.models.foreign.protocol import Answer, Request
from quire.models.names import Rule, WeightMap
from quire.models.pooling_roles import NOT_THE_DECODERS
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec
from quire.protocol.errors import ModelLoadError, SettingsError

_TIMEOUT_S = 120.0
_INSTALL = "install it with: pip install 'quire[transformers]'"


def installed() -> Path | None:
    """The folder of Transformers, which is not imported; None if it is not installed."""
    found = importlib.util.find_spec("transformers")
    return None if found is None or found.origin is None else Path(found.origin).parent


def is_known(name: Any) -> bool:
    """Whether the installed Transformers has a causal model of this name."""
    return isinstance(name, str) and name in _causal()


def pools(values: Mapping[str, Any]) -> bool:
    """Whether the installed Transformers has a model of this type, whatever stands above it."""
    return values.get("model_type") in _bases()


def _pooled_refusal(values: Mapping[str, Any]) -> str | None:
    """Why a model's hidden states cannot be made by Transformers' code; None if no file shows a reason."""
    if installed() is None:
        return f"Transformers is not installed; {_INSTALL}"
    if values.get("is_encoder_decoder") is True:
        return "it is an encoder and a decoder"
    if not pools(values):
        return f"the installed Transformers has no model of the type {values.get('model_type')!r} either"
    file = _bases()[str(values["model_type"])]
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if "pixel_values" in text or "input_features" in text:
        return "it takes more than text"
    if text and "position_ids" not in text:
        return "it takes no position_ids, so packed tokens cannot say where they stand"
    return _file_refusal(file, values)


def refusal(values: Mapping[str, Any], name: str, *, trust_remote_code: bool) -> str | None:
    """Why a model cannot be run from Transformers' code, as far as its files show; None if nothing does."""
    if installed() is None:
        return f"Transformers is not installed; {_INSTALL}"
    if values.get("is_encoder_decoder") is True:
        return "it is an encoder and a decoder"
    if "AutoModelForCausalLM" in (values.get("auto_map") or {}) and not is_known(name):
        if trust_remote_code:
            return None
        return "its code comes with the checkpoint and is not run; --trust-remote-code allows that"
    if not is_known(name):
        return "the installed Transformers has no causal model of this name either"
    return _file_refusal(_causal()[name], values)


def _file_refusal(file: Path, values: Mapping[str, Any]) -> str | None:
    """What in a model's file stands against running it, as far as a look at its text shows."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if re.search(r"_is_stateful\s*=\s*True", text):
        return "it keeps a recurrent state, which only our own description could cache"
    if text and "ALL_ATTENTION_FUNCTIONS" not in text:
        return "its attention does not go through the attention interface of Transformers"
    counts = re.search(r"num_(local_|routed_)?experts|n_routed_experts", json.dumps(dict(values)))
    if "use_experts_implementation" in text and counts is not None:
        return "it has experts, which only our own descriptions pack"
    return None


def _listed(table: str) -> list[tuple[str, str, Path]]:
    """Type, class and file of the models in one of Transformers' tables."""
    folder = installed()
    if folder is None:
        return []
    text = (folder / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    found = re.search(rf"^{table} = OrderedDict\((.*?)\n\)", text, re.S | re.M)
    pairs = re.findall(r'\("([^"]+)",\s*"([^"]+)"\)', found[1] if found else "")
    return [
        (kind, name, folder / "models" / short / f"modeling_{short}.py")
        for kind, name in pairs
        for short in (kind.replace("-", "_"),)
    ]


@lru_cache(maxsize=1)
def _causal() -> dict[str, Path]:
    """Files of the causal models that the installed Transformers has, by class."""
    table: dict[str, Path] = {}
    for _, name, file in _listed("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"):
        if name not in table or not table[name].is_file():
            table[name] = file
    return table


@lru_cache(maxsize=1)
def _bases() -> dict[str, Path]:
    """Files of all its models, by the type that config.json names."""
    return {kind: file for kind, _, file in _listed("MODEL_MAPPING_NAMES")}


def foreign_spec(
    folder: Path,
    values: Mapping[str, Any],
    name: str,
    pooled: bool,
    overrides: Mapping[str, Any],
    trust_remote_code: bool,
) -> DecoderSpec:
    """The description of a folder's model, with its program. Raises ModelLoadError with why there is none."""
    if pooled:
        why = _pooled_refusal(values)
        values = {key: one for key, one in values.items() if key not in NOT_THE_DECODERS}
    else:
        why = refusal(values, name, trust_remote_code=trust_remote_code)
    if why is not None:
        raise ModelLoadError(f"{folder}: {name} cannot be run from Transformers' code: {why}")
    request = Request(
        folder=str(folder),
        architecture=name,
        config=dict(values),
        overrides=dict(overrides),
        trust_remote_code=trust_remote_code,
        pooled=pooled,
    )
    answer = _asked(msgspec.json.encode(request))
    if answer.program is None:
        raise ModelLoadError(
            f"{folder}: {name} cannot be run from Transformers' code: {answer.refusal}"
        )
    ways = {line.both_ways for line in answer.program.attention}
    if len(ways) > 1 or (True in ways and not pooled):
        raise ModelLoadError(
            f"{folder}: {name} cannot be run from Transformers' code: "
            + ("some layers look both ways and some back" if pooled else "it generates nothing")
        )
    return spec_of(answer.program)


@lru_cache(maxsize=4)
def _asked(request: bytes) -> Answer:
    with tempfile.TemporaryDirectory(prefix="quire-foreign-") as room:
        source, target = Path(room) / "request.json", Path(room) / "answer.json"
        source.write_bytes(request)
        command = [sys.executable, "-m", "quire.models.foreign.helper", str(source), str(target)]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True
            )
        except subprocess.TimeoutExpired:
            return Answer(refusal=f"following its code took more than {_TIMEOUT_S:.0f} s")
        if not target.is_file():
            last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            return Answer(refusal=f"the process that follows its code ended: {last[:300]}")
        return msgspec.json.decode(target.read_bytes(), type=Answer)


def spec_of(program: Program) -> DecoderSpec:
    """A description whose layers are the program's attentions, each with as wide a part as there is."""
    widest = max(
        [program.hidden_size]
        + [
            max(weight.shape)
            for weight in program.weights.values()
            if weight.group in ("attention", "feed_forward", "router", "other") and weight.shape
        ]
    )
    layers = tuple(
        LayerSpec(
            mixer=Attention(
                num_heads=line.num_heads,
                num_kv_heads=line.num_kv_heads,
                head_size=line.head_size,
                rope=None,
                scale=line.scale,
                window=line.window,
                softcap=line.softcap,
                sinks=line.sinks is not None,
                bidirectional=line.both_ways,
            ),
            feed_forward=Dense(width=widest, gated=False),
        )
        for line in program.attention
    )
    return DecoderSpec(
        vocab_size=program.vocab_size,
        hidden_size=program.hidden_size,
        max_position_embeddings=program.max_position_embeddings,
        layers=layers,
        max_len=program.max_position_embeddings,
        tie_head=program.tied,
        program=program,
    )


def names_of(spec: DecoderSpec) -> WeightMap:
    """Where the parameters of a description with a program stand in a checkpoint."""
    program = spec.program
    assert program is not None, "a description without a program has names of its own"
    weights = program.weights
    return WeightMap(
        rules=tuple(
            Rule(
                weight.source,
                name,
                transpose=weight.transpose,
                fold="add_one" if weight.add_one else "none",
            )
            for name, weight in weights.items()
            if weight.source is not None
        ),
        ignored=tuple(program.ignored),
        ignored_if_tied=(program.head_source,) if program.head_source else (),
        optional_prefix=program.prefix,
        ones=tuple(name for name, weight in weights.items() if weight.source is None),
    )


def left_to_torch(program: Program, *, with_embeds: bool) -> str:
    """What of a model of Transformers is not ours, for the table of the start.

    with_embeds  whether prompts may come as embeddings. Raises SettingsError then: it cannot take them.
    """
    if with_embeds:
        raise SettingsError(
            f"enable_prompt_embeds: {program.architecture} runs from Transformers' code, whose first layer "
            "is reached from token ids only"
        )
    why = f"the code of {program.architecture}, with our products, attention and cache"
    if not program.left:
        return f"{why}; every row independent of its batch"
    named = ", ".join(f"{name} ({count})" for name, count in sorted(program.left.items()))
    return f"{why}; left to torch, whose rows may follow their batch in the last bits: {named}"
