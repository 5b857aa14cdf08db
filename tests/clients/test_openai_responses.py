"""A tour of /v1/responses with the official `openai` client: items, streams, tools, forms, the background."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.served import served

MODEL = "quire-demo"
FRANCE = "What is the capital of France?"
WEATHER = "What is the weather in Paris?"
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
LONG: Any = {"max_output_tokens": 7000, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("responses")


def words(folder: Path) -> tuple[str, ...]:
    store = ("--responses-store", str(folder / "kept.sqlite3"))
    return ("--threads", "1", "--kv-cache-memory-bytes", "64M", *store)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[openai.OpenAI]:
    with served(folder, *words(folder)) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
            yield made


def create(client: openai.OpenAI, **body: Any) -> Any:
    given = {"model": MODEL, "input": FRANCE, "temperature": 0, "max_output_tokens": 80, **body}
    return client.responses.create(**given)


def ended(client: openai.OpenAI, name: str) -> Any:
    for _ in range(300):
        found = client.responses.retrieve(name)
        if found.status not in ("queued", "in_progress"):
            return found
        time.sleep(0.05)
    raise AssertionError("it does not end")


def test_a_response(client: openai.OpenAI) -> None:
    found = create(client, metadata={"a": "b"})
    assert found.output_text == "The capital of France is Paris."
    assert (found.status, found.object, found.metadata) == ("completed", "response", {"a": "b"})
    counted = client.responses.input_tokens.count(model=MODEL, input=FRANCE)
    assert counted.input_tokens == found.usage.input_tokens
    cut = create(client, max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_streams(client: openai.OpenAI) -> None:
    whole = create(client)
    events = list(create(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    with client.responses.stream(model=MODEL, input=FRANCE, temperature=0) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert final.output_text == whole.output_text


def test_logprobs(client: openai.OpenAI) -> None:
    found = create(client, include=["message.output_text.logprobs"], top_logprobs=3)
    part = found.output[0].content[0]
    assert "".join(one.token for one in part.logprobs) == part.text
    assert all(len(one.top_logprobs) == 3 for one in part.logprobs)


def test_tools_round_trip(client: openai.OpenAI) -> None:
    asked = create(client, input=WEATHER, tools=[TOOL])
    call = asked.output[-1]
    assert (call.type, call.name, call.arguments) == (
        "function_call", "get_weather", '{"city": "Paris"}',
    )  # fmt: skip
    result = '{"temperature": 20, "sky": "sunny"}'
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": result}
    told = create(client, input=[output], previous_response_id=asked.id, tools=[TOOL])
    assert told.output_text == "It is sunny and 20 degrees in Paris."
    history = [{"role": "user", "content": WEATHER}, *asked.output, output]
    again = create(client, input=history, tools=[TOOL], store=False)
    assert again.output_text == told.output_text
    with client.responses.stream(model=MODEL, input=WEATHER, temperature=0, tools=[TOOL]) as stream:
        seen = [one for one in stream if one.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert seen[-1].snapshot == final.output[-1].arguments == call.arguments


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_demanded_tools(client: openai.OpenAI, choice: Any) -> None:
    found = create(client, input="Hello", tools=[TOOL], tool_choice=choice)
    assert [item.name for item in found.output if item.type == "function_call"]


def test_answers_in_a_form(client: openai.OpenAI) -> None:
    class Answer(BaseModel):
        city: Literal["Paris", "Rome"]

    found = client.responses.parse(
        model=MODEL, input=FRANCE, temperature=0, text_format=Answer, max_output_tokens=200
    )
    assert isinstance(found.output_parsed, Answer)
    with client.responses.stream(
        model=MODEL, input=FRANCE, temperature=0, text_format=Answer, max_output_tokens=200
    ) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Answer)


def test_kept_responses(client: openai.OpenAI) -> None:
    made = create(client)
    assert client.responses.retrieve(made.id) == made
    items = client.responses.input_items.list(made.id)
    assert items.data[0].content[0].text == FRANCE and not items.has_more
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        create(client, previous_response_id=made.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        create(client, background=True, store=False)


def test_in_the_background(client: openai.OpenAI) -> None:
    made = create(client, background=True)
    assert made.status in ("queued", "in_progress")
    assert ended(client, made.id).output_text == "The capital of France is Paris."
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(made.id)
    made = create(client, background=True, **LONG)
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


def test_a_stream_taken_up_again(client: openai.OpenAI) -> None:
    stream = create(client, background=True, stream=True)
    first = [next(stream) for _ in range(3)]
    stream.close()
    name = first[0].response.id
    rest = list(client.responses.retrieve(name, stream=True, starting_after=2))
    assert [event.sequence_number for event in rest] == list(range(3, 3 + len(rest)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == "The capital of France is Paris."


def test_a_request_as_a_coding_agent_sends_it(client: openai.OpenAI) -> None:
    """The shape that Codex sends: developer messages, hosted tools, sealed reasoning, no store."""
    body = {
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "<permissions>read-only</permissions>"}],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "<environment_context/>"}],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": WEATHER}],
            },
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAAB-of-another-server"},
            {
                "type": "function_call",
                "name": "shell",
                "arguments": '{"command":["ls"]}',
                "call_id": "call_1",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "a.txt"},
        ],
        "tools": [
            {
                "type": "function",
                "name": "shell",
                "description": "Runs a command",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                    "required": ["command"],
                    "additionalProperties": False,
                },
            },
            {
                "type": "custom",
                "name": "apply_patch",
                "description": "Patches files",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
            },
            {"type": "web_search", "external_web_access": False},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199-session",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-installation-id": "1"},
    }
    headers = {"originator": "codex_cli_rs", "session_id": "0199", "accept": "text/event-stream"}
    url = str(client.base_url).rstrip("/") + "/responses"
    answer = httpx.post(url, json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.text.startswith("event: response.created")
    assert "event: response.completed" in answer.text or "event: response.incomplete" in answer.text


def test_a_restart_keeps_responses(folder: Path, client: openai.OpenAI) -> None:
    made = create(client, input="My name is Ann.")
    with served(folder, *words(folder)) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as other:
            assert other.responses.retrieve(made.id).output_text == made.output_text
            assert create(other, previous_response_id=made.id).status == "completed"


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="other"):
        create(client, model="other")
    with pytest.raises(openai.BadRequestError, match="images"):
        image = {"type": "input_image", "image_url": "http://x/y.png"}
        create(client, input=[{"role": "user", "content": [image]}])
    with pytest.raises(openai.BadRequestError, match="limit"):
        create(client, input="word " * 20_000)


def test_a_reader_that_leaves_frees_the_engine(client: openai.OpenAI) -> None:
    """One that leaves a stream of its own; a response in the background goes on until it is cancelled."""
    root = str(client.base_url).removesuffix("/v1/")

    def running() -> float:
        lines = httpx.get(f"{root}/metrics").text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("vllm:num_requests_running{")
        )

    def settles(wanted: float) -> bool:
        for _ in range(100):
            if running() == wanted:
                return True
            time.sleep(0.05)
        return False

    stream = create(client, stream=True, **LONG)
    for _ in range(8):
        next(stream)
    assert settles(1)
    stream.close()
    assert settles(0)
    made = create(client, background=True, stream=True, **LONG)
    name = next(made).response.id
    made.close()
    assert settles(1) and client.responses.retrieve(name).status == "in_progress"
    client.responses.delete(name)
    assert settles(0)
