"""How a model in a GGUF file pools, as the files that sentence-transformers writes beside a checkpoint.

What those mean is `models.sentence_modules`'.
"""

from __future__ import annotations

from typing import Any

from quire.models.loading.gguf.header import GgufHeader
from quire.protocol.errors import ModelLoadError

_NONE, _RANK = 0, 4
_MODES = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}


def pooling_files(header: GgufHeader) -> dict[str, Any]:
    """modules.json and what it names; nothing for a file that does not say how it pools.

    Vectors get length one, as llama.cpp's server gives them. Raises ModelLoadError for another way of pooling.
    """
    name = header.values.get("general.architecture")
    kind = header.values.get(f"{name}.pooling_type", _NONE)
    if kind == _NONE:
        return {}
    if kind not in _MODES:
        what = "a head that ranks" if kind == _RANK else "unknown"
        raise ModelLoadError(
            f"{header.path}: {name}.pooling_type is {kind}, {what}; 0 to 3 (none, mean, first and last token) "
            "are read from GGUF files. Take the model's safetensors files"
        )
    parts = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{part}" if place else "",
            "type": f"sentence_transformers.models.{part}",
        }
        for place, part in enumerate(parts)
    ]
    modes = {f"pooling_mode_{mode}": number == kind for number, mode in _MODES.items()}
    return {"modules.json": modules, "1_Pooling/config.json": modes}
