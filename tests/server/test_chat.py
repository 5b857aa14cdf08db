"""What /v1/chat/completions, /tokenize and /detokenize answer: whole and streamed, and to wrong requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.config.schema import SchedulerConfig, Settings
from quire.frontend.tokenizer import Tokenizer
from tests import checkpoints
from tests.server.scripted import MAX_LEN, Scripted, scripted
from tests.server.test_completions import sse
from tests.unit.fake_engine import tokens_of

Serve = Callable[..., Any]

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role[0] + ':' + m.content + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a' + (mood or ':') }}{% endif %}"
    "{% if tools %}{{ tools[0].function.name }}{% endif %}"
    "{% if reasoning_effort %}{{ reasoning_effort }}{% endif %}"
)
USER = [{"role": "user", "content": "Hello"}]


def allowing(mode: str, *names: Any) -> dict[str, Any]:
    """A tool_choice that leaves the tools of these names."""
    listed = [{"type": "function", "function": {"name": one}} for one in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}


PROMPT = "<|bos|>u:Hello a:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    checkpoints.write_tokenizer(root)
    (root / "chat_template.jinja").write_text(TEMPLATE)
    return root


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def ask(server: Scripted, path: str = "/v1/chat/completions", **body: Any) -> Any:
    return server.http.post(path, json={"messages": USER, "max_tokens": 4, **body})


def expected(tokenizer: Tokenizer, prompt: str, count: int = 4, index: int = 0) -> str:
    ids = tokens_of(tokenizer.encode(prompt, False), count, index)
    return tokenizer.decode(ids, skip_special_tokens=True)


def test_a_whole_answer(serve: Serve, tokenizer: Tokenizer) -> None:
    async def test(server: Scripted) -> None:
        answer = (await ask(server, seed=5, request_id="abc", model="tiny")).json()
        assert isinstance(answer.pop("created"), int)
        num = len(tokenizer.encode(PROMPT, False))
        assert answer == {
            "id": "chatcmpl-abc",
            "object": "chat.completion",
            "model": "tiny",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": expected(tokenizer, PROMPT),
                        "refusal": None,
                        "annotations": None,
                        "audio": None,
                        "function_call": None,
                        "reasoning": None,
                        "reasoning_content": None,
                    },
                    "logprobs": None,
                    "finish_reason": "length",
                    "stop_reason": None,
                    "seed": 5,
                }
            ],
            "usage": {"prompt_tokens": num, "total_tokens": num + 4, "completion_tokens": 4},
            "prompt_logprobs": None,
            "system_fingerprint": "fake",
            "service_tier": None,
            "kv_transfer_params": None,
        }

    serve(test)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"n": 3, "seed": 1}, {"logprobs": True, "top_logprobs": 2}, {"stop": "o"},
        {"add_generation_prompt": False, "continue_final_message": True},
        {"echo": True, "continue_final_message": True, "add_generation_prompt": False},
        {"max_completion_tokens": 4, "max_tokens": 4.0}, {"return_token_ids": True},
    ],
)  # fmt: skip
def test_a_stream_says_what_the_whole_answer_says(serve: Serve, body: dict[str, Any]) -> None:
    async def test(server: Scripted) -> None:
        whole = (await ask(server, **body)).json()
        chunks = sse(await ask(server, **body, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
        assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
        assert len({(one["id"], one["created"], one["model"]) for one in chunks}) == 1
        for index, choice in enumerate(whole["choices"]):
            mine = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == index]
            assert mine[0]["delta"] == {"role": choice["message"]["role"], "content": ""}
            assert all(set(one["delta"]) == {"content"} for one in mine[1:])
            text = "".join(one["delta"]["content"] for one in mine)
            assert text == choice["message"]["content"]
            assert [one["finish_reason"] for one in mine[:-1]] == [None] * (len(mine) - 1)
            assert mine[-1]["finish_reason"] == choice["finish_reason"]
            assert mine[-1]["stop_reason"] == choice["stop_reason"]
            logged = [
                entry for one in mine for entry in (one["logprobs"] or {"content": []})["content"]
            ]
            assert logged == (choice["logprobs"] or {"content": []})["content"]
            ids = [token for one in mine for token in one.get("token_ids", [])]
            assert ids == choice.get("token_ids", [])
        assert chunks[0].get("prompt_token_ids") == whole.get("prompt_token_ids")
        assert [one for one in chunks if "system_fingerprint" in one][-1] is chunks[-1]

    serve(test)


def test_every_piece_may_say_the_usage(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        chunks = sse(await ask(server, stream=True, stream_options=options))
        counts = [one["usage"]["completion_tokens"] for one in chunks]
        assert (
            counts == sorted(counts) and counts[-1] == 4 and all("usage" in one for one in chunks)
        )

    serve(test)


def test_logprobs_in_the_form_of_chats(serve: Serve, tokenizer: Tokenizer) -> None:
    async def test(server: Scripted) -> None:
        answer = (await ask(server, logprobs=True, top_logprobs=3)).json()
        ids = tokens_of(tokenizer.encode(PROMPT, False), 4)
        entries = answer["choices"][0]["logprobs"]["content"]
        assert [one["logprob"] for one in entries] == [-token / 100 for token in ids]
        assert [bytes(one["bytes"]) for one in entries] == [tokenizer.token_bytes(t) for t in ids]
        assert all(len(one["top_logprobs"]) == 3 for one in entries)
        assert all(one["top_logprobs"][0]["logprob"] == one["logprob"] for one in entries)
        bare = (await ask(server, logprobs=True)).json()["choices"][0]["logprobs"]["content"]
        assert [one["top_logprobs"] for one in bare] == [[]] * 4
        named = await ask(server, logprobs=True, return_tokens_as_token_ids=True)
        entries = named.json()["choices"][0]["logprobs"]["content"]
        assert [one["token"] for one in entries] == [f"token_id:{token}" for token in ids]

    serve(test)


def test_template_variables(serve: Serve, tokenizer: Tokenizer) -> None:
    async def test(server: Scripted) -> None:
        async def text(**body: Any) -> str:
            body = {"return_token_ids": True, **body}
            return tokenizer.decode((await ask(server, **body)).json()["prompt_token_ids"])

        assert await text() == "<|bos|>u:Hello a!"
        assert await text(chat_template_kwargs={"mood": "?"}) == "<|bos|>u:Hello a?"
        assert await text(reasoning_effort="low") == "<|bos|>u:Hello a!low"
        assert await text(add_generation_prompt=False) == "<|bos|>u:Hello "
        parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
        assert await text(messages=parts) == "<|bos|>u:Hi a!"
        assert await text(truncate_prompt_tokens=2) == tokenizer.decode(
            tokenizer.encode("<|bos|>u:Hello a!", False)[-2:]
        )

    serve(test, default_chat_template_kwargs={"mood": "!"})


def test_echo_and_roles(serve: Serve, tokenizer: Tokenizer) -> None:
    async def test(server: Scripted) -> None:
        messages = [*USER, {"role": "assistant", "content": "Well, "}]
        body = {"add_generation_prompt": False, "continue_final_message": True, "echo": True}
        message = (await ask(server, messages=messages, **body)).json()["choices"][0]["message"]
        assert message["role"] == "assistant"
        assert message["content"] == "Well, " + expected(tokenizer, "<|bos|>u:Hello a:Well, ")
        message = (await ask(server, echo=True)).json()["choices"][0]["message"]
        assert message["role"] == "bot" and message["content"] == expected(tokenizer, PROMPT)

    serve(test, response_role="bot")


def test_without_max_tokens_the_context_is_filled(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        answer = await server.http.post("/v1/chat/completions", json={"messages": USER})
        assert answer.json()["usage"]["total_tokens"] == MAX_LEN

    serve(test)


def test_special_tokens_in_messages_are_text(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        messages = [{"role": "user", "content": "a<|bos|><|eos|>b"}]
        answer = (await ask(server, messages=messages, return_token_ids=True)).json()
        ids = answer["prompt_token_ids"]
        assert ids[0] == checkpoints.BOS_ID
        assert not {checkpoints.BOS_ID, checkpoints.EOS_ID} & set(ids[1:])

    serve(test)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": [*USER, 5]}, "messages[1]"),
    ({"messages": [*USER, {"role": "root", "content": "a"}]}, "messages[1].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0]",
    ),
    ({"messages": USER * 200}, "messages"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"chat_template": ""}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {f"x{i}": i for i in range(10**4)}}, "chat_template_kwargs"),
    ({"chat_template": ""}, "chat_template"),
    ({"tools": TOOLS}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "auto"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": 5}, "tool_choice"),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
    ),
    ({"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS}, "tool_choice"),
    ({"tool_choice": allowing("auto")}, "tool_choice"),
    ({"tool_choice": allowing("auto", "g"), "tools": TOOLS}, "tool_choice"),
    ({"tool_choice": allowing("none", "f"), "tools": TOOLS}, "tool_choice"),
    ({"tool_choice": allowing("required"), "tools": TOOLS}, "tool_choice"),
    ({"tool_choice": allowing("required", 5), "tools": TOOLS}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"tools": TOOLS, "parallel_tool_calls": "x"}, "parallel_tool_calls"),
    ({"logprob_token_ids": [50, 60]}, "logprob_token_ids"),
    ({"functions": [{"name": "f"}]}, "function_call"),
    ({"functions": []}, "functions"),
    ({"functions": "f"}, "functions"),
    ({"functions": [5], "function_call": "none"}, "functions[0]"),
    ({"functions": [{"name": "a b"}], "function_call": "none"}, "functions[0].name"),
    (
        {"functions": [{"name": "f", "parameters": {"type": "x"}}], "function_call": "none"},
        "functions[0].parameters",
    ),
    ({"functions": [{"name": "f"}], "tools": TOOLS}, "functions"),
    ({"functions": [{"name": "f"}], "tool_choice": "none"}, "functions"),
    ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
    ({"functions": [{"name": "f"}], "function_call": {}}, "function_call"),
    ({"function_call": "auto"}, "function_call"),
    ({"reasoning_effort": "much"}, "reasoning_effort"),
    ({"tools": []}, "tools"),
    ({"tools": TOOLS * 129, "tool_choice": "none"}, "tools"),
    ({"tools": TOOLS * 2, "tool_choice": "none"}, "tools[1].function.name"),
    ({"tools": [{"type": "something"}], "tool_choice": "none"}, "tools[0]"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}], "tool_choice": "none"},
        "tools[0].function.name",
    ),
    ({"tool_choice": "auto"}, "tool_choice"),
    (
        {
            "tools": TOOLS,
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "structured_outputs": {"regex": "a"},
        },
        "tool_choice",
    ),
    ({"documents": {"text": "a"}}, "documents"),
    ({"documents": ["a"]}, "documents"),
    ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": None, "max_completion_tokens": 0}, "max_completion_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"logprobs": 5}, "logprobs"),
    ({"n": 0}, "n"),
    ({"temperature": -1}, "temperature"),
    ({"stream_options": {}}, "stream_options"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_faults_are_named(serve: Serve, stream: bool) -> None:
    async def test(server: Scripted) -> None:
        for body, param in FAULTS:
            if stream and "stream_options" in body:
                continue
            answer = await ask(server, **{"stream": stream, **body})
            assert answer.status_code == 400, (body, answer.text)
            error = answer.json()["error"]
            assert error["type"] == "BadRequestError" and error["param"] == param, error

    serve(test)


def test_deep_variables_are_refused(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for depth in (100, 10**4):
            deep = '{"a":' * depth + "1" + "}" * depth
            body = json.dumps({"messages": USER, "chat_template_kwargs": 0}).replace("0", deep)
            answer = await server.http.post(
                "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 400

    serve(test)


def test_tool_choice_none_is_no_tool(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        answer = await ask(server, tool_choice="none", parallel_tool_calls=False, user="me", foo=1)
        assert answer.status_code == 200 and answer.headers["x-ignored-fields"] == "foo"
        assert (await ask(server, model="other")).status_code == 404

    serve(test)


@pytest.mark.parametrize("hide", [False, True])
def test_tools_are_shown_where_none_is_called(
    serve: Serve, tokenizer: Tokenizer, hide: bool
) -> None:
    async def test(server: Scripted) -> None:
        body = {"tools": TOOLS, "tool_choice": "none", "return_token_ids": True}
        ids = (await ask(server, **body)).json()["prompt_token_ids"]
        assert tokenizer.decode(ids) == PROMPT + ("" if hide else "f")

    serve(test, exclude_tools_when_tool_choice_none=hide)


def test_logprobs_of_the_prompt(serve: Serve, tokenizer: Tokenizer) -> None:
    async def test(server: Scripted) -> None:
        found = (await ask(server, prompt_logprobs=1)).json()["prompt_logprobs"]
        ids = tokenizer.encode(PROMPT, False)
        assert found[0] is None and len(found) == len(ids)
        assert all(str(token) in one for token, one in zip(ids[1:], found[1:], strict=True))

    serve(test)


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    checkpoints.write_tokenizer(tmp_path)

    async def test() -> None:
        async with scripted(tmp_path) as server:
            error = (await ask(server)).json()["error"]
            assert error["code"] == 400 and "--chat-template" in error["message"]

    asyncio.run(test())


def test_tokenize_and_back(serve: Serve, tokenizer: Tokenizer) -> None:
    async def test(server: Scripted) -> None:
        async def post(path: str, **body: Any) -> Any:
            return (await server.http.post(path, json=body)).json()

        text = "The river runs é 你"
        found = await post("/tokenize", prompt=text, model="tiny")
        ids = tokenizer.encode(text)
        assert found == {
            "count": len(ids), "max_model_len": MAX_LEN, "tokens": ids, "token_strs": None,
        }  # fmt: skip
        bare = await post(
            "/tokenize", prompt=text, add_special_tokens=False, return_token_strs=True
        )
        assert bare["tokens"] == ids[1:]
        assert bare["token_strs"] == tokenizer.convert_ids_to_tokens(ids[1:])
        chat = await post("/tokenize", messages=USER)
        assert chat["tokens"] == tokenizer.encode(PROMPT, False)
        asked = await ask(server, return_token_ids=True)
        assert asked.json()["prompt_token_ids"] == chat["tokens"]
        open_ = await post(
            "/tokenize", messages=USER, add_generation_prompt=False, continue_final_message=True
        )
        assert open_["tokens"] == tokenizer.encode("<|bos|>u:Hello", False)
        assert await post("/detokenize", tokens=ids) == {"prompt": "<|bos|>" + text}
        assert await post("/detokenize", tokens=[]) == {"prompt": ""}
        assert await post("/tokenize", prompt="", add_special_tokens=False) == {
            "count": 0, "max_model_len": MAX_LEN, "tokens": [], "token_strs": None,
        }  # fmt: skip

    serve(test)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": USER}, "prompt"),
        ("/tokenize", {"prompt": "a" * (1 << 21)}, "prompt"),
        ("/tokenize", {"messages": [{}]}, "messages[0].role"),
        ("/tokenize", {"messages": USER, "chat_template": "x"}, "chat_template"),
        ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [1, 1.5]}, "tokens"), ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [checkpoints.VOCAB_SIZE]}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens"),
    ],
)  # fmt: skip
def test_faults_of_the_tokenizer_routes(
    serve: Serve, path: str, body: dict[str, Any], param: str
) -> None:
    async def test(server: Scripted) -> None:
        answer = await server.http.post(path, json=body)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text

    serve(test)


def test_the_wire_forms_are_described(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        paths = (await server.http.get("/openapi.json")).json()["paths"]
        body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
        assert {"messages", "top_logprobs", "temperature"} <= set(body["schema"]["properties"])
        assert "properties" in body["schema"]["properties"]["stream_options"]
        json.dumps(paths["/tokenize"])

    serve(test)


def test_a_trusted_template_is_read_and_bounded(serve: Serve, tokenizer: Tokenizer) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

    async def test(server: Scripted) -> None:
        found = await ask(
            server, chat_template="{{ messages[0].content }}?", return_prompt_text=True
        )
        assert found.json()["prompt_text"] == "Hello?"
        begin = asyncio.get_running_loop().time()
        slow = asyncio.create_task(ask(server, chat_template=endless))
        await asyncio.sleep(0.1)
        for _ in range(5):
            start = asyncio.get_running_loop().time()
            assert (await ask(server)).status_code == 200
            assert asyncio.get_running_loop().time() - start < 3
        error = (await slow).json()["error"]
        assert error["code"] == 400 and error["param"] == "messages", error
        assert "longer than 2 seconds" in error["message"]
        assert asyncio.get_running_loop().time() - begin < 60
        wrong = (await ask(server, chat_template="{% if %}")).json()["error"]
        assert wrong["code"] == 400 and "line 1" in wrong["message"]

    serve(test, trust_request_chat_template=True)


def test_documents_reach_the_template(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        template = "{% for d in documents %}{{ d.title }}:{{ d.text }};{% endfor %}"
        body = {"documents": [{"title": "a", "text": "b"}], "chat_template": template}
        found = await ask(server, **body, return_prompt_text=True)
        assert found.json()["prompt_text"] == "a:b;"

    serve(test, trust_request_chat_template=True)


def test_the_prompts_text_is_shown_on_request(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        assert (await ask(server, return_prompt_text=True)).json()["prompt_text"] == PROMPT
        assert "prompt_text" not in (await ask(server)).json()

    serve(test)


@pytest.mark.parametrize("flag", [False, True])
def test_a_stream_may_come_in_larger_pieces(serve: Serve, flag: bool) -> None:
    async def streamed(server: Scripted, **body: Any) -> tuple[str, int]:
        """The text, and the number of events that hold some of it."""
        server.client.gate.clear()
        task = asyncio.create_task(ask(server, stream=True, max_tokens=10, **body))
        while not server.client.live:
            await asyncio.sleep(0.01)
        for _ in range(10):
            server.client.step_once()
            await asyncio.sleep(0.01)
        server.client.gate.set()
        texts = [one["choices"][0]["delta"]["content"] for one in sse(await task)]
        return "".join(texts), len(texts) - 1

    async def test(server: Scripted) -> None:
        every = await streamed(server, stream_interval=1)
        some = await streamed(server, **({} if flag else {"stream_interval": 4}))
        assert every[0] == some[0]
        assert (every[1], some[1]) == ((4, 4) if flag else (10, 4))

    interval = Settings(scheduler=SchedulerConfig(stream_interval=4 if flag else 1))
    serve(test, settings=interval)


@pytest.mark.parametrize("with_usage", [False, True])
def test_several_conversations_share_an_answer(
    serve: Serve, tokenizer: Tokenizer, with_usage: bool
) -> None:
    async def test(server: Scripted) -> None:
        other = [{"role": "user", "content": "River"}]
        path = "/v1/chat/completions/batch"
        found = (await ask(server, path, messages=[USER, other], logprobs=with_usage)).json()
        alone = [
            (await ask(server, messages=one, logprobs=with_usage)).json() for one in (USER, other)
        ]
        assert found["object"] == "chat.completion"
        for place, one in enumerate(alone):
            choice = {**one["choices"][0], "index": place, "seed": None}
            assert {**found["choices"][place], "seed": None} == choice
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert found["usage"][name] == sum(one["usage"][name] for one in alone)

    serve(test)


def test_what_a_batch_of_conversations_may_not_ask(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for body, param in [
            ({"messages": USER}, "messages"),
            ({"messages": []}, "messages"),
            ({"messages": [USER] * 1025}, "messages"),
            ({"messages": [USER], "stream": True}, "stream"),
            ({"messages": [USER], "n": 2}, "n"),
            ({"messages": [USER], "tools": TOOLS, "tool_choice": "none"}, "tools"),
            ({"messages": [USER], "use_beam_search": True}, "use_beam_search"),
            ({"messages": [USER, []]}, "messages"),
            ({"messages": [USER, [{"role": "root", "content": "a"}]]}, "messages"),
        ]:
            answer = await ask(server, "/v1/chat/completions/batch", **body)
            error = answer.json()["error"]
            assert answer.status_code == 400 and error["param"] == param, (body, error)
        assert "messages[1]" in error["message"]

    serve(test)
