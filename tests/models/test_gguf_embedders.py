"""GGUF files of embedders: the vectors, and the token ids, that the same model has from safetensors, bit by bit.

Files are written with the `gguf` package, its names of tensors, and the settings that llama.cpp's converter
(as llama-cpp-python 0.3.36 carries it) wrote for these models.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from quire import LLM
from quire.models.loading.gguf.folder import folder_of
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.checkpoints import VOCAB_SIZE, prompt_ids
from tests.models import gguf_writer, harness
from tests.models import test_bert_kin as bert_kin
from tests.models import test_pooling_kinds as kinds
from tests.models.test_gguf import SMALL
from tests.pooling_checkpoints import states, unit, write_model, write_modules, write_pair_tokenizer

WORDS = (Path(__file__).parents[2] / "docs" / "design.md").read_text()[:20_000]
TEXTS = [
    "Hello, world! It's 12345 o'clock.",
    "  two spaces\n\n  and\ttabs \r\n",
    "naïve CAFÉ — 東京 🙂 ½ ﬁ",
    "unbelievable readability of quantised sequences",
    "",
]
PROMPTS = [prompt_ids(length, length) for length in (1, 7, 100)]
LENGTHS = {"context_length": 130, "embedding_length": 64, "block_count": 3}
LENGTHS |= {"feed_forward_length": 96, "attention.head_count": 4}
WRITTEN: dict[str, dict[str, Any]] = {
    "bert": LENGTHS | {"attention.layer_norm_epsilon": 1e-12, "attention.causal": False},
    "nomic-bert": LENGTHS
    | {"attention.layer_norm_epsilon": 1e-12, "attention.causal": False, "rope.freq_base": 1000.0},
    "gemma-embedding": LENGTHS
    | {
        "block_count": 7,
        "attention.head_count_kv": 2,
        "rope.freq_base": 1000000.0,
        "rope.freq_base_swa": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "attention.sliding_window": 16,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "nomic-bert-moe": LENGTHS
    | {
        "context_length": 160,
        "embedding_length": 48,
        "block_count": 4,
        "feed_forward_length": 56,
        "rope.freq_base": 100.0,
        "attention.layer_norm_epsilon": 1e-2,
        "expert_count": 5,
        "attention.key_length": 12,
        "attention.value_length": 12,
        "attention.causal": False,
        "moe_every_n_layers": 2,
        "expert_used_count": 2,
    },
    "jina-bert-v2": LENGTHS
    | {
        "context_length": 200,
        "embedding_length": 48,
        "block_count": 2,
        "feed_forward_length": 80,
        "attention.head_count": 6,
        "attention.layer_norm_epsilon": 1e-3,
        "attention.causal": False,
    },
    "modern-bert": LENGTHS
    | {
        "block_count": 4,
        "rope.freq_base": 160000.0,
        "rope.freq_base_swa": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.causal": False,
        "classifier.pooling_type": 2,
        "attention.sliding_window": 16,
        "rope.scaling.type": "none",
        "vocab_size": 512,
        "hidden_activation": "gelu",
    },
    "qwen3": LENGTHS
    | {
        "attention.head_count_kv": 2,
        "rope.freq_base": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "classifier.output_labels": ["yes", "no"],
        "pooling_type": 4,
    },
}
WRITTEN |= ENCODERS
POOLINGS = {"mean": 1, "cls": 2, "last": 3}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))


def write_file(
    folder: Path,
    arch: str,
    pooling: str | None,
    beside: Callable[[gguf.GGUFWriter], None] | None = None,
    **more: Any,
) -> Path:
    """The folder's model as a file. beside: adds tensors. more: further settings, with all of their names."""
    path = folder.parent / f"{folder.name}.gguf"
    writer = gguf.GGUFWriter(str(path), arch)
    settings = {f"{arch}.{key}": value for key, value in WRITTEN[arch].items()} | more
    if pooling is not None:
        settings[f"{arch}.pooling_type"] = POOLINGS[pooling]
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    kinds |= {str: writer.add_string, list: writer.add_array}
    for key, value in settings.items():
        kinds[type(value)](key, value)
    if not any(key.startswith("tokenizer") for key in more):
        writer.add_tokenizer_model("none")
    known = {text: one for one, text in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known[arch], 8)
    for source, tensor in load_file(folder / "model.safetensors").items():
        stem, _, end = source.rpartition(".")
        values = tensor.float().numpy()
        if "pooler." in source or source.endswith("experts.bias"):
            continue
        if arch == "modern-bert" and stem == "classifier":
            stem = "classifier.out_proj"
        if end in ("w1", "w2"):
            values = values.reshape(more[f"{arch}.expert_count"], -1, values.shape[-1])
            values, stem, end = values if end == "w1" else values.swapaxes(1, 2), source, "weight"
        if arch == "gemma-embedding" and source.endswith("norm.weight"):
            values = values + np.float32(1.0)
        if "position_embeddings" in source:
            values = values[-settings[f"{arch}.context_length"] :]
        name = names.get_name(stem) or names.get_name(f"model.{stem}")
        if name is None:  # below a head
            name = names.get_name(stem.partition(".")[2])
        assert name is not None, source
        writer.add_tensor(f"{name}.{end}", np.ascontiguousarray(values))
    if beside is not None:
        beside(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def vectors(model: Path, prompts: list[Any]) -> list[tuple[list[int], list[float]]]:
    options: dict[str, Any] = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False}
    with LLM(str(model), max_num_seqs=16, **options) as llm:
        found = llm.embed(prompts, use_tqdm=False)
    return [(list(one.prompt_token_ids), one.outputs.embedding) for one in found]


@pytest.mark.parametrize(
    ("family", "arch", "pooling"),
    [
        ("Bert", "bert", "mean"),
        ("NomicBert", "nomic-bert", "cls"),
        ("Gemma3Text", "gemma-embedding", "mean"),
    ],
)
def test_embedders_have_the_vectors_of_their_safetensors(
    family: str, arch: str, pooling: str, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    more = {"layer_types": None, "num_hidden_layers": 7} if family == "Gemma3Text" else {}
    write_model(folder, family, **more)
    write_modules(folder, pooling)
    path = write_file(folder, arch, pooling)
    expected = vectors(folder, PROMPTS)
    with LLM(
        str(path), tokenizer=str(folder), dtype="float32", threads=1, use_tqdm_on_load=False
    ) as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
    assert [one.outputs.embedding for one in found] == [vector for _, vector in expected]


def write_nomic(folder: Path) -> None:
    """Nomic v2 whose experts' sums have a bias of zeros, which files do not hold."""
    bert_kin.write_nomic(folder)
    path = folder / "model.safetensors"
    save_file(
        {
            name: one * 0 if name.endswith("experts.bias") else one
            for name, one in load_file(path).items()
        },
        path,
    )


@pytest.mark.parametrize(
    ("write", "arch", "pooling"),
    [
        (write_nomic, "nomic-bert-moe", "mean"),
        (kinds.write_jina, "jina-bert-v2", None),
        (bert_kin.write_code, "jina-bert-v2", "mean"),
        (lambda folder: write_model(folder, "ModernBert"), "modern-bert", "cls"),
    ],
)
def test_kin_of_bert(
    write: Callable[[Path], Any], arch: str, pooling: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    write(folder)
    write_pair_tokenizer(folder)
    if pooling is not None:
        write_modules(folder, pooling)
    more = {f"{arch}.{key}": value for key, value in WRITTEN[arch].items()}
    path = write_file(folder, arch, pooling, **more)
    expected = vectors(folder, PROMPTS)
    options: dict[str, Any] = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False}
    with LLM(str(path), tokenizer=str(folder), **options) as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
    assert [one.outputs.embedding for one in found] == [vector for _, vector in expected]


@pytest.mark.parametrize(
    ("family", "arch", "labels"),
    [("XLMRoberta", "bert", 1), ("Roberta", "bert", 3), ("ModernBert", "modern-bert", 1)],
)
def test_heads_of_classes(family: str, arch: str, labels: int, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    write_model(folder, family, "ForSequenceClassification", num_labels=labels)
    settings: dict[str, Any] = {f"{arch}.classifier.output_labels": list("abc")[:labels]}
    if arch == "bert":
        settings |= {"bert.context_length": 128}
    path = write_file(folder, arch, None, **settings)
    options: dict[str, Any] = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False}
    found = []
    for model in (folder, path):
        with LLM(str(model), tokenizer=str(folder), runner="pooling", **options) as llm:
            made = [llm.classify(PROMPTS, use_tqdm=False)]
            if labels == 1:
                made.append(llm.score("a river", ["runs", "stands still"], use_tqdm=False))
            found.append([one.outputs for results in made for one in results])
    assert found[0] == found[1]


def test_ranks_of_qwen3(tmp_path: Path) -> None:
    """Rows of "yes" and "no", of which files hold no others where the embedding is not the output matrix."""
    folder = tmp_path / "plain"
    folder.mkdir()
    model = write_model(folder, "Qwen3", "ForCausalLM", tie_word_embeddings=False)
    yes, no = 77, 91
    rows = model.lm_head.weight[[yes, no]].detach().numpy()
    save_file(
        {
            name: one
            for name, one in load_file(folder / "model.safetensors").items()
            if name != "lm_head.weight"
        },
        folder / "model.safetensors",
    )

    def more(writer: Any) -> None:
        writer.add_tensor("cls.output.weight", rows)

    path = write_file(folder, "qwen3", None, more)
    options: dict[str, Any] = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False}
    with LLM(str(path), tokenizer=str(folder), runner="pooling", **options) as llm:
        found = llm.classify(PROMPTS, use_tqdm=False)
        assert len(llm.score("a river", ["runs"], use_tqdm=False)) == 1
    for ids, one in zip(PROMPTS, found, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1]
        share = logits[[yes, no]].softmax(0)[0]
        assert one.outputs.probs == [pytest.approx(float(share), abs=2e-5)]


def test_a_bert_without_its_product_is_refused(tmp_path: Path) -> None:
    """As the converter writes BertForSequenceClassification."""
    folder = tmp_path / "plain"
    folder.mkdir()
    write_model(folder, "Bert")

    def more(writer: Any) -> None:
        writer.add_tensor("cls.output.weight", np.ones((1, 64), dtype=np.float32))

    path = write_file(folder, "bert", None, more)
    with pytest.raises(ModelLoadError, match=r"has cls.output.weight, but not cls.weight"):
        describe(str(path))


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_products_behind_the_pooling(kind: str, tmp_path: Path) -> None:
    """Those of EmbeddingGemma: two, the second of eight bits here in one case."""
    folder = tmp_path / "plain"
    folder.mkdir()
    model = write_model(folder, "Gemma3Text", layer_types=None, num_hidden_layers=7)
    write_modules(folder, "mean")
    rng = np.random.default_rng(2)
    first = rng.normal(size=(96, 64)).astype(np.float32)
    second = rng.normal(size=(64, 96)).astype(np.float32)
    stored = second
    if kind == "Q8_0":
        q8 = gguf.GGMLQuantizationType.Q8_0
        stored = gguf.quants.quantize(second, q8)
        second = gguf.quants.dequantize(stored, q8)

    def more(writer: Any) -> None:
        writer.add_tensor("dense_2.weight", first)
        writer.add_tensor("dense_3.weight", stored, raw_dtype=gguf.GGMLQuantizationType[kind])

    sizes = {"dense_2_feat_in": 64, "dense_2_feat_out": 96}
    sizes |= {"dense_3_feat_in": 96, "dense_3_feat_out": 64}
    settings = {f"gemma-embedding.{key}": value for key, value in sizes.items()}
    path = write_file(folder, "gemma-embedding", "mean", more, **settings)
    with LLM(
        str(path), tokenizer=str(folder), dtype="float32", threads=1, use_tqdm_on_load=False
    ) as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
    for ids, one in zip(PROMPTS, found, strict=True):
        wanted = unit(torch.from_numpy(second @ (first @ states(model, ids).mean(0).numpy())))
        torch.testing.assert_close(
            torch.tensor(one.outputs.embedding), wanted, atol=2e-5, rtol=2e-5
        )


def word_pieces(folder: Path) -> dict[str, Any]:
    """A tokenizer of WordPiece in the folder; its settings in a file."""
    raw = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw.train_from_iterator(
        [WORDS], trainers.WordPieceTrainer(vocab_size=500, special_tokens=special)
    )
    ids = [("[CLS]", 2), ("[SEP]", 3)]
    raw.post_processor = processors.BertProcessing(ids[1], ids[0])
    raw.save(str(folder / "tokenizer.json"))
    vocab = raw.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    kept = [
        one if one in special else one[2:] if one.startswith("##") else f"\u2581{one}"
        for one in tokens
    ]
    kinds = [3 if one in special else 1 for one in tokens]
    rest = range(len(tokens), VOCAB_SIZE)
    kept += [f"\u2581[PAD{number}]" for number in rest]
    prefix = "tokenizer.ggml."
    return {
        f"{prefix}token_type_count": 2,
        f"{prefix}model": "bert",
        f"{prefix}pre": "default",
        f"{prefix}tokens": kept,
        f"{prefix}token_type": kinds + [5] * len(rest),
        f"{prefix}bos_token_id": 2,
        f"{prefix}eos_token_id": 3,
        f"{prefix}unknown_token_id": 1,
        f"{prefix}seperator_token_id": 3,
        f"{prefix}normalizer.lowercase": True,
    }


def test_word_pieces_are_those_of_the_library(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    write_model(folder, "Bert")
    write_modules(folder, "mean")
    path = write_file(folder, "bert", "mean", **word_pieces(folder))
    assert vectors(path, TEXTS) == vectors(folder, TEXTS)
    pair = tokenizers.Tokenizer.from_file(str(folder_of(path) / "tokenizer.json"))
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours, wanted = (one.encode("a river", "runs") for one in (pair, theirs))
    assert (ours.ids, ours.type_ids) == (wanted.ids, wanted.type_ids)


def field(message: bytes, wanted: int) -> bytes:
    """A field of bytes of a protobuf message."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        key = number()
        if key & 7 == 2:
            size = number()
            if key >> 3 == wanted:
                return message[place : place + size]
            place += size
        elif key & 7 == 5:
            place += 4
        else:
            number()
    raise KeyError(wanted)


def unigrams() -> tuple[sentencepiece.SentencePieceProcessor, dict[str, Any]]:
    """A model of sentencepiece, and its settings in a file with XLM-R's first tokens."""
    room = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.splitlines()),
        model_writer=room,
        vocab_size=400,
        model_type="unigram",
        minloglevel=2,
    )
    made = sentencepiece.SentencePieceProcessor(model_proto=room.getvalue())
    pieces = [(made.id_to_piece(i), made.get_score(i)) for i in range(3, made.vocab_size())]
    first = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    prefix = "tokenizer.ggml."
    return made, {
        f"{prefix}token_type_count": 1,
        f"{prefix}model": "t5",
        f"{prefix}pre": "default",
        f"{prefix}tokens": [text for text, _ in (*first, *pieces)],
        f"{prefix}scores": [score for _, score in (*first, *pieces)],
        f"{prefix}token_type": [3, 3, 3, 2] + [1] * len(pieces),
        f"{prefix}add_space_prefix": True,
        f"{prefix}remove_extra_whitespaces": True,
        f"{prefix}precompiled_charsmap": list(field(field(room.getvalue(), 3), 2)),
        f"{prefix}bos_token_id": 0,
        f"{prefix}eos_token_id": 2,
        f"{prefix}unknown_token_id": 3,
        f"{prefix}add_bos_token": True,
        f"{prefix}add_eos_token": True,
    }


def test_unigrams_and_positions_of_xlm_r(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    write_model(folder, "XLMRoberta")
    write_modules(folder, "cls")
    made, settings = unigrams()
    path = write_file(folder, "bert", "cls", **{"bert.context_length": 128}, **settings)
    found = vectors(path, TEXTS)
    for text, (ids, _) in zip(TEXTS, found, strict=True):
        theirs = [number + 1 if number > 2 else 3 for number in made.encode(text)]
        assert ids == [0, *theirs, 2], text
    expected = vectors(folder, [ids for ids, _ in found])
    assert [vector for _, vector in found] == [vector for _, vector in expected]


def test_t5_s_texts_end_and_do_not_begin(tmp_path: Path) -> None:
    made, settings = unigrams()
    left = {f"tokenizer.ggml.add_{name}_token" for name in ("bos", "eos")}
    kept = {key: value for key, value in settings.items() if key not in left}
    folder = tmp_path / "plain"
    folder.mkdir()
    write_model(folder, "XLMRoberta")
    path = write_file(folder, "bert", "cls", **{"bert.context_length": 128}, **kept)
    ours = tokenizers.Tokenizer.from_file(str(folder_of(path) / "tokenizer.json"))
    theirs = [number + 1 if number > 2 else 3 for number in made.encode(TEXTS[0])]
    assert ours.encode(TEXTS[0]).ids == [*theirs, 2]


def test_how_a_file_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that says how pools; one that ranks is refused."""
    folder = harness.write_checkpoint(
        tmp_path / "plain",
        SMALL | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32},
    )

    def write(kind: int) -> Path:
        def more(writer: Any) -> None:
            writer.add_tokenizer_model("none")
            writer.add_uint32("qwen3.pooling_type", kind)

        path = tmp_path / f"{kind}.gguf"
        return gguf_writer.write_gguf(folder, path, lambda _: gguf_writer.Kind.F32, more)

    assert describe(str(write(0))).pooling is None
    pooling = describe(str(write(3))).pooling
    assert pooling is not None
    assert pooling.pooler.pooling == "last"
    assert pooling.pooler.use_activation
    with pytest.raises(ModelLoadError, match=r"qwen3.pooling_type is 4, a head that ranks"):
        describe(str(write(4)))


def test_a_decoder_that_sees_both_ways_is_refused(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(
        tmp_path / "plain",
        SMALL | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32},
    )

    def more(writer: Any) -> None:
        writer.add_tokenizer_model("none")
        writer.add_causal_attention(False)

    path = gguf_writer.write_gguf(folder, tmp_path / "m.gguf", lambda _: gguf_writer.Kind.F32, more)
    with pytest.raises(ModelLoadError, match=r"qwen3.attention.causal is false"):
        describe(str(path))
