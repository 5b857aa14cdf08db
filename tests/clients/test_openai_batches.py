"""The official `openai` client stores files and runs batches, with the demo model behind `quire serve`."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.served import served

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder: Path = tmp_path_factory.mktemp("server")
    words = ["--batch-dir", str(folder / "batches"), "--api-key", "secret"]
    with served(folder, *words) as server:
        yield openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)


def lines(*bodies: dict[str, Any]) -> io.BytesIO:
    made = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate(bodies)
    ]
    file = io.BytesIO("\n".join(map(json.dumps, made)).encode())
    file.name = "requests.jsonl"
    return file


def finished(client: openai.OpenAI, batch_id: str) -> Any:
    for _ in range(600):
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


def test_files(client: openai.OpenAI) -> None:
    made = client.files.create(file=lines({"messages": QUESTION}), purpose="batch")
    assert made.filename == "requests.jsonl" and made.object == "file" and made.bytes > 50
    assert client.files.retrieve(made.id).id == made.id
    assert made.id in [one.id for one in client.files.list(purpose="batch")]
    assert json.loads(client.files.content(made.id).text)["custom_id"] == "r0"
    assert client.files.wait_for_processing(made.id).status == "processed"
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    kept = client.files.create(
        file=("a.txt", b"data"), purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )  # fmt: skip
    assert kept.expires_at == kept.created_at + 3600


def test_a_file_list_over_several_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=b"x", purpose="evals").id for _ in range(5)]
    found = [one.id for one in client.files.list(purpose="evals", limit=2)]
    assert found == made[::-1]


def test_a_batch(client: openai.OpenAI) -> None:
    good: dict[str, Any] = {"messages": QUESTION, "temperature": 0}
    file = client.files.create(file=lines(good, good | {"top_p": 7}, good), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
        metadata={"night": "1"},
    )  # fmt: skip
    assert batch.status == "validating" and batch.metadata == {"night": "1"}
    done = finished(client, batch.id)
    assert done.status == "completed" and done.errors is None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    records = [json.loads(one) for one in client.files.content(done.output_file_id).iter_lines()]
    assert [one["custom_id"] for one in records] == ["r0", "r2"]
    for one in records:
        message = one["response"]["body"]["choices"][0]["message"]
        assert message["content"] == "The capital of France is Paris."
    (bad,) = client.files.content(done.error_file_id).text.splitlines()
    assert json.loads(bad)["response"]["status_code"] == 400
    assert batch.id in [one.id for one in client.batches.list(limit=1)]


def test_a_batch_that_fails_says_why(client: openai.OpenAI) -> None:
    file = client.files.create(file=b"{}\nnonsense", purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    done = finished(client, made.id)
    assert done.status == "failed" and done.errors.data[1].line == 2
    assert done.errors.data[1].code == "invalid_json_line"


def test_a_batch_is_cancelled(client: openai.OpenAI) -> None:
    long: dict[str, Any] = {"messages": QUESTION, "max_tokens": 4000, "ignore_eos": True}
    file = client.files.create(file=lines(*[long] * 8), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    done = finished(client, batch.id)
    assert done.status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")


def test_pages_of_batches(client: openai.OpenAI) -> None:
    file = client.files.create(file=lines({"messages": QUESTION, "max_tokens": 1}), purpose="batch")
    made = [
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id
        for _ in range(3)
    ]
    first = client.batches.list(limit=2)
    assert first.has_more and first.has_next_page() and len(first.data) == 2
    assert {*made} <= {one.id for one in client.batches.list(limit=2)}
    for one in made:
        assert finished(client, one).status == "completed"


def test_content_as_it_comes(client: openai.OpenAI, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    kept = client.files.create(file=("b.bin", data), purpose="user_data")
    with client.files.with_streaming_response.content(kept.id) as answer:
        answer.stream_to_file(tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == data
    raw = client.files.with_raw_response.retrieve(kept.id)
    assert raw.parse().bytes == len(data) and raw.headers["content-type"] == "application/json"


def test_from_asyncio(client: openai.OpenAI) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(
            base_url=client.base_url, api_key="secret", max_retries=0
        ) as other:
            made = [(await other.files.create(file=b"y", purpose="vision")).id for _ in range(3)]
            found = [one.id async for one in other.files.list(purpose="vision", limit=1)]
            assert found == made[::-1]
            assert (await other.files.content(made[0])).content == b"y"
            assert [one.object async for one in other.batches.list(limit=2)]
            with pytest.raises(openai.NotFoundError):
                await other.batches.cancel("batch_none")

    asyncio.run(run())


def test_batches_need_the_key(client: openai.OpenAI) -> None:
    stranger = client.with_options(api_key="guess")
    for call in (stranger.files.list, stranger.batches.list):
        with pytest.raises(openai.AuthenticationError):
            call()
