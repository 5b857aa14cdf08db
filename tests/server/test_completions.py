"""What /v1/completions answers to a client that does everything right, word for word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from quire.protocol.results import CompletionOutput
from quire.server.completion_output import Choice, ChunkWriter
from quire.server.schema.completions import CompletionRequest
from tests.server.scripted import Scripted, settings
from tests.unit.fake_engine import tokens_of

Serve = Callable[..., Any]
P = [70, 71, 72]


@pytest.fixture(scope="module")
def text(folder: Any) -> Callable[[list[int]], str]:
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda ids: raw.decode(ids, skip_special_tokens=True)


def sse(response: Any) -> list[Any]:
    """The events of a stream as JSON; checks the framing byte for byte."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in response.headers
    blocks = response.content.split(b"\n\n")
    assert blocks[-1] == b"" and blocks[-2] == b"data: [DONE]"
    assert all(block.startswith(b"data: {") and b"\n" not in block for block in blocks[:-2])
    return [json.loads(block[6:]) for block in blocks[:-2]]


def test_a_whole_answer(serve: Serve, text: Callable[[list[int]], str]) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": P, "max_tokens": 4, "seed": 5, "request_id": "abc", "model": "tiny"}
        answer = (await server.post(body)).json()
        created = answer.pop("created")
        assert isinstance(created, int)
        assert answer == {
            "id": "cmpl-abc",
            "object": "text_completion",
            "model": "tiny",
            "choices": [
                {
                    "index": 0,
                    "text": text(tokens_of(P, 4)),
                    "logprobs": None,
                    "finish_reason": "length",
                    "stop_reason": None,
                    "seed": 5,
                }
            ],
            "usage": {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4},
            "system_fingerprint": "fake",
            "service_tier": None,
            "kv_transfer_params": None,
        }

    serve(test)


def test_a_streamed_answer_byte_for_byte(serve: Serve, text: Callable[[list[int]], str]) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": P, "max_tokens": 1, "seed": 5, "request_id": "abc", "stream": True}
        response = await server.post(body)
        created = sse(response)[0]["created"]
        piece = json.dumps(text(tokens_of(P, 1)), ensure_ascii=False)
        assert response.text == (
            f'data: {{"id":"cmpl-abc","object":"text_completion","created":{created},"model":"tiny",'
            f'"choices":[{{"index":0,"text":{piece},"logprobs":null,'
            '"finish_reason":"length","stop_reason":null,"seed":5}],"system_fingerprint":"fake"}\n\n'
            "data: [DONE]\n\n"
        )

    serve(test)


def test_a_piece_in_the_middle_byte_for_byte() -> None:
    choice = Choice(1, CompletionRequest(), as_ids=False)
    choice.add(CompletionOutput(index=1, text='é"\n', token_ids=[5], seed=5))
    writer = ChunkWriter("cmpl-a", 7, "m", "f")
    assert writer.piece(1, choice, {"token_ids": [5]}).decode() == (
        'data: {"id":"cmpl-a","object":"text_completion","created":7,"model":"m","choices":'
        '[{"index":1,"text":"é\\"\\n","logprobs":null,"finish_reason":null,"stop_reason":null,'
        '"token_ids":[5]}]}\n\n'
    )


@pytest.mark.parametrize("fields", [
    {}, {"n": 3}, {"prompt": ["a", "the river", "x"]}, {"prompt": [P, [80]], "n": 2}, {"echo": True},
    {"echo": True, "n": 2, "prompt": ["a", "b"], "logprobs": 2}, {"logprobs": 0}, {"stop": ["zzz"]},
    {"echo": True, "max_tokens": 0, "logprobs": 1}, {"return_token_ids": True, "n": 2},
])  # fmt: skip
def test_a_stream_joined_is_the_whole_answer(serve: Serve, fields: dict[str, Any]) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": "the river", "max_tokens": 6, "seed": 1, **fields}
        whole = (await server.post(body)).json()
        events = sse(
            await server.post({**body, "stream": True, "stream_options": {"include_usage": True}})
        )
        assert [one["usage"] for one in events if "usage" in one] == [whole["usage"]]
        assert events[-1]["choices"] == []
        joined: dict[int, dict[str, Any]] = {}
        for piece in (choice for one in events for choice in one["choices"]):
            have = joined.setdefault(piece["index"], {"text": "", "logprobs": None})
            have["text"] += piece["text"]
            if piece["logprobs"] is not None:
                have["logprobs"] = have["logprobs"] or {name: [] for name in piece["logprobs"]}
                for name, values in piece["logprobs"].items():
                    have["logprobs"][name] += values
            if "token_ids" in piece:
                have["token_ids"] = have.get("token_ids", []) + piece["token_ids"]
            for name in ("finish_reason", "stop_reason", "seed", "prompt_token_ids"):
                if piece.get(name) is not None or name in ("finish_reason", "stop_reason"):
                    have[name] = piece.get(name)
        expected = {one.pop("index"): one for one in whole["choices"]}
        assert joined == expected

    serve(test)


def test_usage_can_come_with_every_piece(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        events = sse(
            await server.post(
                {"prompt": P, "max_tokens": 3, "stream": True, "stream_options": options}
            )
        )
        check(events)
        plain = sse(await server.post({"prompt": P, "max_tokens": 3, "stream": True}))
        assert not any("usage" in one for one in plain)

    async def forced(server: Scripted) -> None:
        events = sse(await server.post({"prompt": P, "max_tokens": 3, "stream": True}))
        check(events)

    def check(events: list[Any]) -> None:
        counts = [one["usage"]["completion_tokens"] for one in events]
        assert len(counts) >= 2 and counts == sorted(counts) and counts[-2:] == [3, 3]
        assert events[-1]["choices"] == [] and all(one["choices"] for one in events[:-1])

    serve(test)
    serve(forced, enable_force_include_usage=True)


def test_choices_stand_prompt_by_prompt(serve: Serve, text: Callable[[list[int]], str]) -> None:
    async def test(server: Scripted) -> None:
        answer = (await server.post({"prompt": [P, [90]], "n": 2, "max_tokens": 3})).json()
        wanted = [text(tokens_of(prompt, 3, index)) for prompt in (P, [90]) for index in (0, 1)]
        assert [choice["text"] for choice in answer["choices"]] == wanted
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 16, "completion_tokens": 12}

    serve(test)


def test_logprobs_have_the_token_first_and_offsets_into_the_text(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        choice = (await server.post({"prompt": P, "max_tokens": 3, "logprobs": 2})).json()[
            "choices"
        ][0]
        found = choice["logprobs"]
        assert "".join(found["tokens"]) == choice["text"]
        assert found["token_logprobs"] == [-one / 100 for one in tokens_of(P, 3)]
        for token, logprob, top, offset in zip(*(found[name] for name in found), strict=True):
            assert top[token] == logprob and 1 <= len(top) <= 3
            assert choice["text"][offset:].startswith(token)

    serve(test)


def test_an_echo_scores_the_prompt_from_its_second_token(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        body = {
            "prompt": "the river",
            "echo": True,
            "logprobs": 1,
            "max_tokens": 0,
            "add_special_tokens": False,
        }
        answer = (await server.post(body)).json()
        choice = answer["choices"][0]
        found = choice["logprobs"]
        assert choice["text"] == "".join(found["tokens"]) == "the river"
        assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
        assert all(value < 0 for value in found["token_logprobs"][1:]) and len(found["tokens"]) > 1
        assert choice["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 0
        with_start = (await server.post({**body, "add_special_tokens": True})).json()["choices"][0]
        offsets = with_start["logprobs"]["text_offset"]
        assert offsets[:2] == [0, 0] and with_start["text"] == "the river"

    serve(test)


def test_an_echo_of_token_ids_is_their_text(serve: Serve, text: Callable[[list[int]], str]) -> None:
    async def test(server: Scripted) -> None:
        choice = (await server.post({"prompt": P, "echo": True, "max_tokens": 2})).json()[
            "choices"
        ][0]
        assert choice["text"] == text(P) + text(tokens_of(P, 2))

    serve(test)


def test_prompt_logprobs_are_a_map_by_id(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        choice = (await server.post({"prompt": P, "prompt_logprobs": 1, "max_tokens": 1})).json()[
            "choices"
        ][0]
        first, *rest = choice["prompt_logprobs"]
        assert first is None and [sorted(one) for one in rest] == [["71", "72"], ["72", "73"]]
        assert rest[0]["71"] == {
            "logprob": -0.71,
            "rank": 1,
            "decoded_token": rest[0]["71"]["decoded_token"],
        }

    serve(test)


def test_tokens_as_ids(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": P, "logprobs": 0, "max_tokens": 2}
        asked = (await server.post({**body, "return_tokens_as_token_ids": True})).json()
        names = [f"token_id:{one}" for one in tokens_of(P, 2)]
        assert asked["choices"][0]["logprobs"]["tokens"] == names
        assert asked["choices"][0]["logprobs"]["text_offset"][0] == 0

    async def by_setting(server: Scripted) -> None:
        body = {"prompt": P, "logprobs": 0, "max_tokens": 1}
        answer = (await server.post(body)).json()
        assert answer["choices"][0]["logprobs"]["tokens"][0].startswith("token_id:")

    serve(test)
    serve(by_setting, return_tokens_as_token_ids=True)


def test_the_best_of_several_are_those_of_the_highest_mean_logprob(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        answer = (
            await server.post(
                {"prompt": P, "n": 2, "best_of": 5, "max_tokens": 2, "return_token_ids": True}
            )
        ).json()
        # choice k gets ids that are larger by k, and the logprob of an id is -id/100
        assert [one["token_ids"] for one in answer["choices"]] == [
            tokens_of(P, 2, 0),
            tokens_of(P, 2, 1),
        ]
        assert answer["choices"][0]["logprobs"] is None
        assert answer["usage"]["completion_tokens"] == 10

    serve(test)


def test_a_stop_string_ends_the_text_before_it(
    serve: Serve, text: Callable[[list[int]], str]
) -> None:
    stop = "x"

    async def test(server: Scripted) -> None:
        prompt = [next(one for one in range(60, 300) if text([one + 3]) == stop)]
        for stream in (False, True):
            body = {"prompt": prompt, "max_tokens": 20, "stop": stop, "stream": stream}
            response = await server.post(body)
            if stream:
                pieces = [one["choices"][0] for one in sse(response)]
                final, whole = pieces[-1], "".join(one["text"] for one in pieces)
            else:
                final = response.json()["choices"][0]
                whole = final["text"]
            assert whole == text(tokens_of(prompt, 2))
            assert (final["finish_reason"], final["stop_reason"]) == ("stop", stop)

    serve(test)


def test_cached_tokens_are_reported_if_asked_for(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        usage = (await server.post({"prompt": P, "max_tokens": 1})).json()["usage"]
        assert usage["prompt_tokens_details"] == {"cached_tokens": 2}

    serve(test, enable_prompt_tokens_details=True)


@pytest.mark.parametrize(("mode", "value", "shown"), [
    ("full", None, "fake"), ("none", None, None), ("custom", "mine", "mine"), ("hash", None, "b5d54c39e66671c9"),
])  # fmt: skip
def test_fingerprints(serve: Serve, mode: str, value: str | None, shown: str | None) -> None:
    async def test(server: Scripted) -> None:
        assert (await server.post({"prompt": P})).json()["system_fingerprint"] == shown

    serve(test, fingerprint_mode=mode, fingerprint_value=value)


def test_the_generation_config_gives_defaults_and_caps_max_tokens(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        inputs: Any = server.llm._inputs
        inputs.defaults = {"temperature": 0.25, "max_tokens": 3}
        server.client.gate.clear()
        tasks = [
            asyncio.create_task(server.post(body))
            for body in (
                {"prompt": P},
                {"prompt": P, "max_tokens": 9, "temperature": 0.5},
                {"prompt": P, "max_tokens": 2},
            )
        ]
        while len(server.client.live) < 3:
            await asyncio.sleep(0.01)
        params: Any = [request.params for request in server.client.live.values()]
        assert sorted((one.temperature, one.max_tokens) for one in params) == [
            (0.25, 2),
            (0.25, 3),
            (0.5, 3),
        ]
        server.client.gate.set()
        assert all([(await task).status_code == 200 for task in tasks])

    serve(test)


def test_truncation_and_special_tokens(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        async def ids(**fields: Any) -> list[int]:
            body = {
                "prompt": "the river shall",
                "return_token_ids": True,
                "max_tokens": 1,
                **fields,
            }
            found: list[int] = (await server.post(body)).json()["choices"][0]["prompt_token_ids"]
            return found

        whole, bare = await ids(), await ids(add_special_tokens=False)
        assert whole[1:] == bare and len(bare) > 2
        assert await ids(truncate_prompt_tokens=2, add_special_tokens=False) == bare[-2:]
        assert (
            await ids(truncate_prompt_tokens=2, truncation_side="right", add_special_tokens=False)
            == bare[:2]
        )

    serve(test)


def test_the_cache_salt_reaches_the_engine(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        task = asyncio.create_task(server.post({"prompt": P, "cache_salt": "s"}))
        while not server.client.live:
            await asyncio.sleep(0.01)
        assert [one.cache_salt for one in server.client.live.values()] == ["s"]
        server.client.gate.set()
        await task

    serve(test)


def test_request_ids(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": P, "max_tokens": 1, "request_id": "from-body"}
        by_header = await server.post(body, headers={"X-Request-Id": "from-header"})
        assert by_header.json()["id"] == "cmpl-from-header"
        assert by_header.headers["x-request-id"] == "from-header"
        assert (await server.post(body)).json()["id"] == "cmpl-from-body"
        long = await server.post({"prompt": P}, headers={"X-Request-Id": "x" * 10_000})
        assert len(long.headers["x-request-id"]) == 32
        assert long.json()["id"] == "cmpl-" + long.headers["x-request-id"]
        twins = await asyncio.gather(*(server.post(body) for _ in range(4)))
        assert {one.status_code for one in twins} == {200}

    serve(test, enable_request_id_headers=True)


def test_names(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        assert (await server.post({"prompt": P})).json()["model"] == "one"
        assert (await server.post({"prompt": P, "model": "two"})).json()["model"] == "two"
        cards = (await server.http.get("/v1/models")).json()["data"]
        assert [one["id"] for one in cards] == ["one", "two"] and cards[0]["max_model_len"] == 64
        assert (await server.http.get("/v1/models/two")).json() == cards[1]
        assert (await server.http.get("/v1/models/three")).status_code == 404

    serve(test, settings=settings(served_model_name=["one", "two"]))
