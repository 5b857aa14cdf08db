"""The official `anthropic` client at what `test_anthropic.py` leaves out: every field, models, raw answers,
runners, threads, asyncio, options, errors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import httpx2
import pytest
from anthropic import beta_async_tool, beta_tool
from pydantic import BaseModel

from tests.e2e.served import served

MODEL = "quire-demo"
KEY = "secret"
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
ANSWER = "The capital of France is Paris."
NEWEST = (2, 12)
"""The release of the client whose fields the tables below list."""
VERSION = tuple(int(part) for part in anthropic.__version__.split(".")[:2])
TRANSPORT = {"extra_headers", "extra_query", "extra_body", "timeout"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    words = ["--threads", "1", "--kv-cache-memory-bytes", "64M", "--api-key", KEY]
    words += ["--responses-store", "memory", "--max-body-bytes", "1M"]
    words += ["--served-model-name", MODEL, "second", "third"]
    with served(tmp_path_factory.mktemp("helpers"), *words) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as made:
        yield made


def body(**more: Any) -> dict[str, Any]:
    extra = {"temperature": 0, **more.pop("extra_body", {})}
    return {"model": MODEL, "max_tokens": 64, "messages": FRANCE, "extra_body": extra, **more}


def test_models_in_pages(client: anthropic.Anthropic) -> None:
    names = [MODEL, "second", "third"]
    for models in (client.models, client.beta.models):
        assert [one.id for one in models.list()] == names
        assert [one.id for one in models.list(limit=1)] == names, "one page for each"
        first = models.list(limit=2)
        assert (first.has_more, first.first_id, first.last_id) == (True, MODEL, "second")
        assert [one.id for one in first.get_next_page()] == ["third"]
        assert [one.id for one in models.list(limit=1, before_id="third")] == ["second", MODEL]
        card = models.retrieve("second")
        assert (card.type, card.display_name, card.max_input_tokens) == ("model", "second", 8192)
        assert card.created_at is not None and card.created_at.year >= 2025
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        client.models.retrieve("other")
    with pytest.raises(anthropic.NotFoundError):
        client.models.list(after_id="other")
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        client.models.list(limit=0)


TAKEN: dict[str, Any] = {
    "billing_policy": {}, "cache_control": {"type": "ephemeral"}, "compaction": {},
    "context_management": {"edits": []}, "diagnostics": {}, "fallback_credit_token": "t",
    "fallbacks": [], "inference_geo": "us", "metadata": {"user_id": "u"},
    "output_config": {"effort": "low"}, "service_tier": "auto", "speed": "standard",
    "stop_sequences": ["\n\n\n"], "stream": False, "system": "Be brief.",
    "thinking": {"type": "disabled"}, "tool_choice": {"type": "none"}, "tools": [],
    "user_profile_id": "u", "workspace_id": "w", "top_k": 1, "top_p": 1, "seed": 5,
}  # fmt: skip
"""Fields and values that are taken; those that mean nothing to a server of one's own change nothing."""
REFUSED: dict[str, Any] = {
    "container": "c", "mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}],
    "thread": {"type": "create"}, "max_tokens": 0, "messages": [], "stop_sequences": [""],
    "temperature": -1, "top_p": 2, "tool_choice": {"type": "tool", "name": "none"},
    "thinking": {"type": "enabled", "budget_tokens": -5}, "system": 5, "tools": [{"name": ""}],
    "output_config": {"format": {"type": "xml"}},
}  # fmt: skip


@pytest.mark.skipif(VERSION > NEWEST, reason="a newer client may have fields that are not listed")
def test_every_field_is_listed(client: anthropic.Anthropic) -> None:
    for create in (client.messages.create, client.beta.messages.create):
        known = set(inspect.signature(create).parameters) - TRANSPORT
        assert known - {"model", "messages", "max_tokens", "betas"} <= TAKEN.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", TAKEN)
def test_a_field_is_taken(client: anthropic.Anthropic, name: str) -> None:
    found = client.beta.messages.create(**body(extra_body={name: TAKEN[name]}, betas=["x-2026"]))
    assert found.content[-1].text.strip() == ANSWER


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_is_refused(client: anthropic.Anthropic, name: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**body(extra_body={name: REFUSED[name]}))
    assert caught.value.type == "invalid_request_error", caught.value.body
    assert name.split("_")[0] in str(caught.value.body), caught.value.body


def test_raw_answers(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(**body())
    found = raw.parse()
    assert raw.headers["request-id"] == found.id == found._request_id
    assert found.content[0].text == ANSWER
    with client.messages.with_streaming_response.create(**body(stream=True)) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[0] == "event: message_start" and lines[-1] == 'data: {"type":"message_stop"}'
    counted = client.messages.with_raw_response.count_tokens(model=MODEL, messages=FRANCE)
    assert counted.parse().input_tokens == found.usage.input_tokens


def test_events_of_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**body()) as stream:
        events = list(stream)
        assert stream.get_final_text() == ANSWER
        assert stream.current_message_snapshot.stop_reason == "end_turn"
        assert stream.response.headers["request-id"] == stream.request_id
    text = [event for event in events if event.type == "text"]
    assert text[-1].snapshot == "".join(event.text for event in text) == ANSWER
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    delta = events[-2]
    assert delta.delta.stop_reason == "end_turn" and delta.usage.output_tokens > 3
    with client.messages.stream(**body()) as stream:
        assert "".join(stream.text_stream) == ANSWER
    with client.beta.messages.stream(**body(betas=["x-2026"])) as stream:
        stream.until_done()
        assert stream.get_final_message().content[0].text == ANSWER


def test_thinking_in_a_stream(client: anthropic.Anthropic) -> None:
    asked = body(
        messages=[{"role": "user", "content": "What is 3 plus 4?"}],
        thinking={"type": "enabled", "budget_tokens": 1024},
        max_tokens=2048,
    )
    with client.messages.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_message()
    thought, said = final.content
    assert (thought.type, said.type) == ("thinking", "text") and "7" in thought.thinking
    pieces = [event.thinking for event in events if event.type == "thinking"]
    assert "".join(pieces) == thought.thinking
    whole = client.messages.create(**asked).content
    assert [one.type for one in whole] == ["thinking", "text"]
    assert (whole[0].thinking, whole[1].text) == (thought.thinking, said.text)
    history = [*asked["messages"], {"role": "assistant", "content": whole}, *FRANCE]
    assert client.messages.create(**asked | {"messages": history}).content[-1].text


RESULT = '{"temperature": 20, "sky": "sunny"}'
TOLD = "It is sunny and 20 degrees in Paris."


@pytest.mark.parametrize("stream", [False, True])
def test_a_runner_sends_the_whole_conversation(client: anthropic.Anthropic, stream: bool) -> None:
    """It tries a thread first; a server that ignored that would see the last message alone."""

    @beta_tool
    def get_weather(city: str) -> str:
        """Get the weather"""
        return RESULT

    runner = client.beta.messages.tool_runner(
        **body(messages=WEATHER), tools=[get_weather], stream=stream
    )
    turns = []
    for turn in runner:
        message = turn.get_final_message() if stream else turn
        turns.append(message.stop_reason)
        last = message
    assert turns == ["tool_use", "end_turn"] and last.content[-1].text == TOLD


def test_a_runner_in_asyncio_with_a_tool_that_fails(url: str) -> None:
    cities = []

    @beta_async_tool
    async def get_weather(city: str) -> str:
        """Get the weather"""
        cities.append(city)
        if len(cities) == 1:
            raise ValueError("no such city")
        return RESULT

    async def run() -> Any:
        async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
            runner = client.beta.messages.tool_runner(
                **body(messages=WEATHER), tools=[get_weather], max_iterations=3
            )
            return await runner.until_done()

    assert asyncio.run(run()).content
    assert cities[0] == "Paris"


def test_a_thread_is_refused_in_words_that_the_client_knows(client: anthropic.Anthropic) -> None:
    thread = client.beta.messages.thread(model=MODEL, max_tokens=64, extra_body={"temperature": 0})
    with pytest.raises(anthropic.BadRequestError, match="leave thread out") as caught:
        thread.send(*FRANCE)
    assert caught.value.body["error"]["details"]["error_code"] == "thread_unsupported_request"
    thread = client.beta.messages.thread(
        model=MODEL,
        max_tokens=64,
        unsupported_request_behavior="continue_unthreaded",
        extra_body={"temperature": 0},
    )
    assert thread.send(*FRANCE).content[0].text == ANSWER
    again = thread.send({"role": "user", "content": "What is the capital of Italy?"})
    assert "Rome" in again.content[0].text and len(thread.messages) == 4


def test_answers_in_a_form_from_asyncio(url: str) -> None:
    class Answer(BaseModel):
        capital: Literal["Paris", "Rome"]

    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
            parsed = await client.messages.parse(**body(), output_format=Answer)
            assert parsed.parsed_output == Answer(capital="Paris")
            async with client.messages.stream(**body(), output_format=Answer) as stream:
                final = await stream.get_final_message()
            assert final.parsed_output == parsed.parsed_output
            listed = [one.id async for one in client.models.list(limit=1)]
            assert listed == [MODEL, "second", "third"]
            count = await client.beta.messages.count_tokens(model=MODEL, messages=FRANCE)
            assert count.input_tokens == 15
            events = [one.type async for one in await client.messages.create(**body(stream=True))]
            assert events[-1] == "message_stop"

    asyncio.run(run())


def test_options_of_a_client(client: anthropic.Anthropic, url: str) -> None:
    other = client.with_options(default_headers={"anthropic-beta": "x-2026"}, timeout=30)
    assert other.messages.create(**body()).content[0].text == ANSWER
    assert client.copy(max_retries=1).models.list().data[0].id == MODEL
    with anthropic.Anthropic(base_url=f"{url}/", auth_token=KEY, max_retries=0) as bearer:
        assert bearer.messages.create(**body()).content[0].text == ANSWER
    found = client.post("/tokenize", body={"prompt": "Hello!"}, cast_to=httpx2.Response)
    assert found.json()["count"] == 2


def test_a_timeout_is_the_clients(client: anthropic.Anthropic, url: str) -> None:
    long = body(max_tokens=7000, extra_body={"ignore_eos": True, "min_tokens": 7000})
    long["messages"] = [{"role": "user", "content": "Count from 1 to 400."}]
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.001).messages.create(**long)
    with pytest.raises(anthropic.APIConnectionError):
        client.with_options(base_url="http://127.0.0.1:9").messages.create(**long)
    assert httpx.get(f"{url}/health").status_code == 200


def test_errors_have_their_classes(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.ContentTooLargeError, match="request_too_large"):
        client.messages.create(**body(system="x" * 2_000_000))
    with pytest.raises(anthropic.BadRequestError, match="8192"):
        client.messages.create(**body(system="x y " * 10_000))
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        client.with_options(api_key="guess").models.list()
    with pytest.raises(anthropic.PermissionDeniedError, match="permission_error"):
        client.messages.create(**body(extra_headers={"Host": "evil.example"}))
    for call in (
        lambda: client.messages.batches.list(),
        lambda: client.beta.sessions.list(),
        lambda: client.beta.agents.list(),
    ):
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            call()
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.get("/v1/messages", cast_to=httpx2.Response)
    assert caught.value.status_code == 405
    assert client.messages.create(**body()).content[0].text == ANSWER
