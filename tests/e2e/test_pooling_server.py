"""Servers of pooling models over HTTP: embeddings with the official client, classes, scores, ranks, refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch

from quire.protocol.pooled_results import Numbers
from quire.protocol.request import TensorRef
from quire.server.number_codes import raw_bytes
from tests.e2e.served import Served, served
from tests.pooling_checkpoints import logits, states, unit, write_model, write_modules

TEXTS = ["The river runs down.", "Bread", "Snow fell on the mountain during the night"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Any]]:
    folder = tmp_path_factory.mktemp("embedder")
    model = write_model(folder, "Bert", matryoshka_dimensions=[16, 32])
    write_modules(folder, "mean")
    words = (str(folder), "--dtype", "float32", "--served-model-name", "tiny")
    with served(folder, *words) as server:
        yield server, model


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Any]]:
    folder = tmp_path_factory.mktemp("ranker")
    model = write_model(folder, "Bert", "ForSequenceClassification", id2label={0: "fits"})
    with served(folder, str(folder), "--dtype", "float32") as server:
        yield server, model


def tokens(folder_of: Served, text: str, other: str | None = None) -> Any:
    from tokenizers import Tokenizer

    path = folder_of.log.parent / "tokenizer.json"
    return Tokenizer.from_file(str(path)).encode(text, other)


def embedding_of(server: Served, model: Any, text: str) -> torch.Tensor:
    return unit(states(model, tokens(server, text).ids).mean(0))


def test_the_official_client_gets_the_model_s_embeddings(embedder: tuple[Served, Any]) -> None:
    server, model = embedder
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    for form in ("base64", "float"):
        found = client.embeddings.create(model="tiny", input=TEXTS, encoding_format=form)
        count = sum(len(tokens(server, text).ids) for text in TEXTS)
        assert found.usage.prompt_tokens == found.usage.total_tokens == count
        for place, (one, text) in enumerate(zip(found.data, TEXTS, strict=True)):
            assert one.index == place and one.object == "embedding"
            vector = one.embedding
            if isinstance(vector, str):
                vector = np.frombuffer(base64.b64decode(vector), dtype="<f4").tolist()
            wanted = embedding_of(server, model, text)
            torch.testing.assert_close(torch.tensor(vector), wanted, atol=2e-5, rtol=0)
    short = client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=16).data[0].embedding
    assert len(short) == 16 and np.linalg.norm(short) == pytest.approx(1.0)
    ids = tokens(server, TEXTS[0]).ids
    by_ids = client.embeddings.create(model="tiny", input=[ids]).data[0].embedding
    assert by_ids == client.embeddings.create(model="tiny", input=TEXTS[0]).data[0].embedding


def test_raw_bytes_say_where_each_embedding_lies(embedder: tuple[Served, Any]) -> None:
    server, _ = embedder
    plain = server.post({"input": TEXTS}, "/v1/embeddings").json()["data"]
    body = {"input": TEXTS, "encoding_format": "bytes", "embed_dtype": "float16"}
    answer = server.post(body | {"endianness": "big"}, "/v1/embeddings")
    described = json.loads(answer.headers["metadata"])
    assert answer.headers["content-type"] == "application/octet-stream"
    for place, one in zip(described["data"], plain, strict=True):
        found = np.frombuffer(answer.content[place["start"] : place["end"]], dtype=">f2")
        assert place["shape"] == [64]
        np.testing.assert_array_equal(found, np.array(one["embedding"], dtype=np.float16))
    only = server.post(body | {"encoding_format": "bytes_only"}, "/v1/embeddings")
    assert "metadata" not in only.headers and len(only.content) == 3 * 64 * 2


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bfloat16", torch.bfloat16),
        ("fp8_e4m3", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
    ],
)
def test_smaller_numbers_are_rounded_as_torch_rounds_them(name: str, dtype: torch.dtype) -> None:
    values = torch.cat((torch.randn(500), torch.randn(500) * 1e-3, torch.tensor([0.0, -0.0, 1e-9])))
    numbers = Numbers(
        TensorRef(dtype="float32", shape=tuple(values.shape), data=values.numpy().tobytes())
    )
    wanted = values.to(dtype).view(torch.uint8).numpy().tobytes()
    assert raw_bytes(numbers, name, "little") == wanted


def test_cohere_s_form(embedder: tuple[Served, Any]) -> None:
    server, model = embedder
    body = {"texts": TEXTS, "input_type": "search_document", "model": "tiny"}
    body["embedding_types"] = ["float", "ubinary", "binary"]
    found = server.post(body, "/v2/embed").json()
    vector = embedding_of(server, model, TEXTS[1])
    torch.testing.assert_close(
        torch.tensor(found["embeddings"]["float"][1]), vector, atol=2e-5, rtol=0
    )
    bits = np.packbits(vector.numpy() > 0)
    assert found["embeddings"]["ubinary"][1] == bits.tolist()
    assert found["embeddings"]["binary"][1] == (bits.astype(int) - 128).tolist()
    assert found["response_type"] == "embeddings_by_type"


def test_scores_of_an_embedder_are_cosines(embedder: tuple[Served, Any]) -> None:
    server, model = embedder
    vectors = [embedding_of(server, model, text) for text in TEXTS]
    wanted = [float(vectors[0] @ one) for one in vectors]
    for names in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")):
        found = server.post({names[0]: TEXTS[0], names[1]: TEXTS}, "/score").json()
        assert [one["score"] for one in found["data"]] == pytest.approx(wanted, abs=2e-5)


def test_pooling_gives_rows_of_tokens(embedder: tuple[Served, Any]) -> None:
    server, model = embedder
    body = {"input": TEXTS[0], "task": "token_embed", "use_activation": False}
    found = server.post(body, "/pooling").json()["data"][0]["data"]
    wanted = states(model, tokens(server, TEXTS[0]).ids)
    torch.testing.assert_close(torch.tensor(found), wanted, atol=2e-5, rtol=2e-5)


def test_ranks_are_those_of_the_cross_encoder(ranker: tuple[Served, Any]) -> None:
    server, model = ranker
    query = "Where are you going?"
    scores = []
    for text in TEXTS:
        pair = tokens(server, query, text)
        scores.append(float(torch.sigmoid(logits(model, pair.ids, pair.type_ids))))
    order = sorted(range(3), key=lambda place: -scores[place])
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        body = {"query": query, "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]}
        found = server.post(body, path).json()["results"]
        assert [one["index"] for one in found] == order
        assert [one["relevance_score"] for one in found] == pytest.approx(
            [scores[place] for place in order], abs=2e-5
        )
        assert found[0]["document"]["text"] == TEXTS[order[0]]
    assert len(server.post(body | {"top_n": 2}, "/rerank").json()["results"]) == 2
    assert len(server.post(body | {"top_n": 9}, "/rerank").json()["results"]) == 3


def test_classes_have_their_names(ranker: tuple[Served, Any]) -> None:
    server, model = ranker
    found = server.post({"input": TEXTS}, "/classify").json()
    assert found["id"].startswith("classify-") and found["object"] == "list"
    for one, text in zip(found["data"], TEXTS, strict=True):
        wanted = torch.sigmoid(logits(model, tokens(server, text).ids))
        assert one["label"] == "fits" and one["num_classes"] == 1
        assert one["probs"] == pytest.approx(wanted.tolist(), abs=2e-5)


BAD = [
    ("/v1/embeddings", {}, "input", "missing"),
    ("/v1/embeddings", {"input": []}, "input", "empty list"),
    ("/v1/embeddings", {"input": [[-1, 5]]}, "input", r"input\[0\]\[0\]"),
    ("/v1/embeddings", {"input": [[5], [2**31]]}, "input", r"input\[1\]\[0\]"),
    ("/v1/embeddings", {"input": [[5], [512]]}, "input", r"input\[1\]"),
    ("/v1/embeddings", {"input": [[5, True]]}, "input", r"input\[0\]\[1\]"),
    ("/v1/embeddings", {"input": ["a", 7]}, "input", r"input\[1\]"),
    ("/v1/embeddings", {"input": ["a"] * 100_000}, "input", "limit is 2048"),
    ("/v1/embeddings", {"input": "a " * 999}, "input", "limit is 130"),
    ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", "0"),
    ("/v1/embeddings", {"input": "a", "dimensions": -1}, "dimensions", "-1"),
    ("/v1/embeddings", {"input": "a", "dimensions": 65}, "dimensions", "64"),
    ("/v1/embeddings", {"input": "a", "dimensions": 20}, "dimensions", "16, 32"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "x"}, "encoding_format", "base64"),
    ("/v1/embeddings", {"input": "a", "embed_dtype": "int4"}, "embed_dtype", "float16"),
    ("/v1/embeddings", {"input": "a", "normalize": True}, "normalize", "use_activation"),
    ("/v1/embeddings", {"input": "a", "messages": []}, "messages", "together"),
    ("/pooling", {"input": "a", "task": "score"}, "task", "old name"),
    ("/pooling", {"input": "a", "task": "classify"}, "task", "serves embed, token_embed"),
    ("/classify", {"input": "a"}, None, "serves embed, token_embed"),
    ("/score", {"text_1": "a"}, "queries", "text_1"),
    ("/score", {"text_1": "a", "text_2": []}, "text_2", "empty list"),
    ("/score", {"text_1": ["a", "b"], "text_2": ["a"] * 3}, "text_2", "3"),
    ("/rerank", {"query": "", "documents": ["a"]}, "query", "empty"),
    ("/rerank", {"query": "a"}, "documents", "missing"),
    ("/rerank", {"query": "a", "documents": []}, "documents", "empty list"),
    ("/rerank", {"query": "a", "documents": [1]}, "documents", r"documents\[0\]"),
    ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n", "-1"),
    ("/v2/embed", {"texts": ["a"], "inputs": ["a"]}, "texts", "exactly one"),
    ("/v2/embed", {"texts": ["a"], "embedding_types": ["int3"]}, "embedding_types", "int3"),
    ("/v2/embed", {"texts": ["a"], "truncate": "MIDDLE"}, "truncate", "MIDDLE"),
    ("/v1/completions", {"prompt": "a"}, None, "does not generate text"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, None, ""),
]


def test_bad_requests_are_refused_and_the_server_goes_on(embedder: tuple[Served, Any]) -> None:
    import re

    server, _ = embedder
    for path, body, param, words in BAD:
        answer = server.post(body, path)
        error = answer.json()["error"]
        shown = (path, str(body)[:80], error)
        assert answer.status_code == 400, shown
        assert param is None or error["param"] == param, shown
        assert re.search(words, error["message"]), shown
    assert server.post({"input": "a"}, "/v1/embeddings").status_code == 200


def test_a_model_for_text_says_what_would_make_it_embed(tmp_path: Path) -> None:
    write_model(tmp_path, "Llama", "ForCausalLM")
    with served(tmp_path, str(tmp_path), "--dtype", "float32") as server:
        for path in ("/v1/embeddings", "/pooling", "/classify"):
            answer = server.post({"input": "a"}, path)
            assert answer.status_code == 400
            assert "--runner pooling" in answer.json()["error"]["message"]
