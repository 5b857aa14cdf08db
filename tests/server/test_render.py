"""Rendering and back: what /inference/v1/generate gets is what the chat would have run, and its ids read the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from quire.async_llm import AsyncLLM
from quire.config.demo import FOLDER
from quire.config.schema import ModelConfig, Settings
from quire.config.server import ServerConfig
from quire.protocol.params import SamplingParams
from quire.server.app import build_app
from quire.server.schema.inference import params_from_wire, params_to_wire
from quire.server.state import ServerState
from tests.server.saying import MODEL, Saying, talk

ASK = [{"role": "user", "content": "Say <|im_end|> 你好 🙂."}]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = 'Well.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln 🙂"}}\n</tool_call>'
VOLATILE = ("id", "created")


async def post(server: Saying, path: str, body: Any, status: int = 200) -> Any:
    answer = await server.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is new each time."""
    kept = {name: value for name, value in answer.items() if name not in VOLATILE}
    text = json.dumps(kept, sort_keys=True)
    calls = [call["id"] for one in kept["choices"] for call in one["message"].get("tool_calls", ())]
    for call in calls:
        text = text.replace(call, "call")
    found = json.loads(text)
    for extra in ("service_tier", "kv_transfer_params"):
        found.pop(extra, None)
    return dict(found)


CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two choices": {"n": 2, "seed": 5},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "temperature": 0.5, "seed": 7},
    "cut": {"max_tokens": 3},
    "stop": {"stop": ["🙂"]},
    "stop kept": {"stop": ["🙂"], "include_stop_str_in_output": True},
    "tools": {"tools": [WEATHER]},
    "ids": {"return_token_ids": True},
}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_by_way_of_ids_is_the_chat(name: str) -> None:
    body = {"model": MODEL, "messages": ASK, "seed": 3} | CHATS[name]

    async def test(server: Saying) -> None:
        server.client.text = CALL if name == "tools" else "Grüße 🙂, 你好. Bye."
        direct = await post(server, "/v1/chat/completions", body)
        rendered = await post(server, "/v1/chat/completions/render", body)
        generated = await post(server, "/inference/v1/generate", rendered)
        assert server.client.prompts[0] == server.client.prompts[1]
        assert "text" not in json.dumps(generated["choices"])
        back = await post(
            server,
            "/v1/chat/completions/derender",
            {"model": MODEL, "generate_response": generated, "chat_request": body},
        )
        assert plain(back) == plain(direct)
        if name == "tools":
            assert back["choices"][0]["finish_reason"] == "tool_calls"

    talk(test)


@pytest.mark.parametrize("name", ["plain", "tools", "stop"])
def test_a_stream_carried_by_the_client(name: str) -> None:
    body = {"model": MODEL, "messages": ASK, "seed": 3, "stream": True} | CHATS[name]

    async def test(server: Saying) -> None:
        server.client.text = CALL if name == "tools" else "Grüße 🙂, 你好. Bye."
        direct = await post(server, "/v1/chat/completions", body | {"stream": False})
        rendered = await post(server, "/v1/chat/completions/render", body)
        answer = await server.http.post("/inference/v1/generate", json=rendered)
        events = answer.text.split("\n\n")
        assert events[-2] == "data: [DONE]"
        pieces = [json.loads(one.removeprefix("data: ")) for one in events[:-2]]
        last = pieces[-1]["choices"][0]
        ids = [t for piece in pieces for one in piece["choices"] for t in one["token_ids"]]
        runs = {"finish_reason": None, "stop_reason": None}
        single = [last | runs | {"token_ids": [t]} for t in ids[:-1]]
        pieces = [
            pieces[0] | {"choices": [one]} for one in [*single, last | {"token_ids": ids[-1:]}]
        ]
        state, text, reason, names, arguments = None, "", None, [], ""
        roles = 0
        for piece in pieces:
            found = await post(
                server,
                "/v1/chat/completions/derender",
                {
                    "stream": True, "model": MODEL, "generate_response": piece,
                    "chat_request": body, "stream_state": state,
                },
            )  # fmt: skip
            state = found["stream_state"]
            for choice in (found["chunk"] or {"choices": []})["choices"]:
                delta = choice["delta"]
                roles += "role" in delta
                text += delta.get("content") or ""
                reason = choice["finish_reason"] or reason
                for call in delta.get("tool_calls", ()):
                    names += [call["function"]["name"]] if "name" in call["function"] else []
                    arguments += call["function"]["arguments"]
        message = direct["choices"][0]["message"]
        assert text == (message["content"] or "") and roles == 1
        assert reason == direct["choices"][0]["finish_reason"]
        if name == "tools":
            assert names == ["get_weather"]
            assert json.loads(arguments) == {"city": "Köln 🙂"}

    talk(test)


COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Hello there"},
    "ids": {"prompt": [310, 349, 291]},
    "several": {"prompt": ["Hello", "Good day"], "n": 2, "seed": 4},
    "logprobs": {"prompt": "Hello", "logprobs": 2},
    "echo": {"prompt": "Hello there", "echo": True},
    "cut": {"prompt": "one two three four", "truncate_prompt_tokens": 3},
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_completion_by_way_of_ids_is_the_completion(name: str) -> None:
    body = {"model": MODEL, "seed": 3, "max_tokens": 12} | COMPLETIONS[name]

    async def test(server: Saying) -> None:
        server.client.text = "Grüße 🙂, 你好. Bye."
        direct = await post(server, "/v1/completions", body)
        rendered = await post(server, "/v1/completions/render", body)
        generated = [await post(server, "/inference/v1/generate", one) for one in rendered]
        half = len(server.client.prompts) // 2
        assert server.client.prompts[:half] == server.client.prompts[half:]
        back = await post(
            server,
            "/v1/completions/derender",
            {"model": MODEL, "generate_responses": generated, "completion_request": body},
        )
        for answer in (direct, back):
            for extra in (*VOLATILE, "service_tier", "kv_transfer_params"):
                answer.pop(extra, None)
        assert back == direct

    talk(test)


def test_a_stream_of_a_completion() -> None:
    async def test(server: Saying) -> None:
        ids = server.client.tokenizer.encode("Grüße 🙂 你好", False)
        state, text = None, ""
        for place, one in enumerate(ids):
            ended = "stop" if place == len(ids) - 1 else None
            piece = {"request_id": "x", "choices": [{"token_ids": [one], "finish_reason": ended}]}
            found = await post(
                server,
                "/v1/completions/derender",
                {"stream": True, "generate_response": piece, "stream_state": state},
            )
            state = found["stream_state"]
            assert "\ufffd" not in found["chunk"]["choices"][0]["text"]
            text += found["chunk"]["choices"][0]["text"]
        assert text == "Grüße 🙂 你好"
        whole = {"choices": [{"token_ids": ids, "finish_reason": "stop"}]}
        chat = await post(
            server,
            "/v1/chat/completions/derender",
            {"generate_response": whole, "prompt_tokens": 9},
        )
        assert chat["choices"][0]["message"]["content"] == text
        assert chat["usage"]["prompt_tokens"] == 9

    talk(test)


WRONG_IDS: list[dict[str, Any]] = [
    {}, {"token_ids": []}, {"token_ids": "x"}, {"token_ids": [1, "x"]}, {"token_ids": [-1]},
    {"token_ids": [True]}, {"token_ids": [10**30]}, {"token_ids": [99_999_999]},
    {"token_ids": [1], "sampling_params": []}, {"token_ids": [1], "sampling_params": {"n": 0}},
    {"token_ids": [1], "sampling_params": {"n": 100_000}},
    {"token_ids": [1], "sampling_params": {"temperature": "hot"}},
    {"token_ids": [1], "sampling_params": {"max_tokens": -1}},
    {"token_ids": [1], "sampling_params": {"structured_outputs": {"json": 5}}},
    {"token_ids": [1], "sampling_params": {"repetition_detection": 5}},
    {"token_ids": [1], "features": {"mm_hashes": {}}}, {"token_ids": [1], "stream": "yes"},
    {"token_ids": [1], "kv_transfer_params": {"x": 1}},
]  # fmt: skip


def test_ids_that_cannot_be_run() -> None:
    async def test(server: Saying) -> None:
        for body in WRONG_IDS:
            found = await post(server, "/inference/v1/generate", body, status=400)
            assert found["error"]["param"], body
        found = await post(server, "/inference/v1/generate", {"token_ids": [5], "model": "x"}, 404)
        assert found["error"]["type"] == "NotFoundError"

    talk(test)


WRONG_BACK: list[dict[str, Any]] = [
    {}, {"generate_response": 5}, {"generate_response": {"choices": [{"token_ids": ["x"]}]}},
    {"generate_response": {"choices": [{"token_ids": [-1]}]}},
    {"generate_response": {"choices": [{"token_ids": [1], "index": 10**9}]}},
    {"generate_response": {"choices": [{"index": 1}, {"index": 1}]}},
    {"generate_response": {"choices": [{"index": 5}]}, "chat_request": {"messages": ASK}},
    {"generate_response": {"choices": [{}]}, "chat_request": {"messages": 5}},
    {"generate_response": {"choices": [{}]}, "prompt_tokens": -1},
    {"generate_response": {"choices": [{}]}, "stream": True, "stream_state": {"token_ids": 5}},
    {"generate_response": {"choices": [{}]}, "stream": True, "stream_state": {"token_ids": {"0": [-1]}}},
    {"generate_response": {"choices": [{"token_ids": [5], "logprobs": {"content": [{"token": "x"}]}}]}},
]  # fmt: skip


def test_answers_that_cannot_be_read() -> None:
    async def test(server: Saying) -> None:
        for body in WRONG_BACK:
            await post(server, "/v1/chat/completions/derender", body, status=400)

    talk(test)


def test_parameters_survive_the_wire() -> None:
    params = SamplingParams(
        n=2, temperature=0.5, max_tokens=None, stop=["a"], logit_bias={5: 1.5}, seed=9, top_k=4
    )
    wire = json.loads(json.dumps(params_to_wire(params)))
    found, unknown = params_from_wire(wire, {"temperature": 0.1, "top_p": 0.5}, max_choices=4)
    assert params_to_wire(found) == params_to_wire(params) | {"top_p": 0.5} and not unknown
    capped, unknown = params_from_wire(
        {"max_tokens": None, "x": 1}, {"max_tokens": 7}, max_choices=4
    )
    assert capped.max_tokens == 7 and unknown == ["sampling_params.x"]


def test_rendering_needs_no_engine() -> None:
    async def test() -> None:
        settings = Settings(model=ModelConfig(model=str(FOLDER), served_model_name=[MODEL]))
        llm = AsyncLLM.without_engine(settings)
        llm.wait_ready()
        app = build_app(ServerState(settings, ServerConfig(render_only=True), llm))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000"
        ) as http:
            body = {"messages": ASK}
            rendered = (await http.post("/v1/chat/completions/render", json=body)).json()
            tokens = (await http.post("/tokenize", json=body)).json()["tokens"]
            assert rendered["token_ids"] == tokens
            assert (await http.get("/health")).status_code == 200
            for path in ("/v1/completions", "/v1/chat/completions", "/inference/v1/generate"):
                assert (await http.post(path, json={})).status_code == 404

    asyncio.run(test())
