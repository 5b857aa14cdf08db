"""Every wrong input of /v1/completions: its status, its type, the field it names, and nothing left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from quire.config.schema import SchedulerConfig, Settings
from tests.checkpoints import VOCAB_SIZE
from tests.server.scripted import MAX_LEN, Scripted

Serve = Callable[..., Any]

GOOD = {"prompt": "the river", "max_tokens": 2}

WRONG_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    # (what, fields over GOOD, the field that the answer names)
    ("prompt missing", {"prompt": None}, "prompt"),
    ("prompt list empty", {"prompt": []}, "prompt"),
    ("prompt inner list empty", {"prompt": [[]]}, "prompt"),
    ("prompt object", {"prompt": {}}, "prompt"),
    ("prompt number", {"prompt": 5}, "prompt"),
    ("prompt mixed", {"prompt": ["a", 1]}, "prompt"),
    ("prompt mixed the other way", {"prompt": [1, "a"]}, "prompt"),
    ("prompt of 1025", {"prompt": ["a"] * 1025}, "prompt"),
    ("id negative", {"prompt": [-1]}, "prompt"),
    ("id of vocabulary size", {"prompt": [VOCAB_SIZE]}, "prompt"),
    ("id 2**31", {"prompt": [2**31]}, "prompt"),
    ("id 2**63", {"prompt": [2**63]}, "prompt"),
    ("id fraction", {"prompt": [1.5]}, "prompt"),
    ("id true", {"prompt": [1, True]}, "prompt"),
    ("id first true", {"prompt": [True, 1]}, "prompt"),
    ("id text", {"prompt": [1, "7"]}, "prompt"),
    ("prompt of the context's length", {"prompt": [50] * MAX_LEN}, "prompt"),
    ("prompt too long", {"prompt": [50] * (MAX_LEN + 1)}, "prompt"),
    ("text too long", {"prompt": "a" * 10_000_000}, "prompt"),
    ("max_tokens 0", {"max_tokens": 0}, "max_tokens"),
    ("max_tokens -1", {"max_tokens": -1}, "max_tokens"),
    ("max_tokens text", {"max_tokens": "5"}, "max_tokens"),
    ("max_tokens of 65 bits", {"max_tokens": 2**64}, "max_tokens"),
    ("min_tokens over the context", {"max_tokens": 2**40, "min_tokens": 2**39}, "min_tokens"),
    ("min_tokens over max_tokens", {"min_tokens": 3}, "min_tokens"),
    ("min_tokens negative", {"min_tokens": -1}, "min_tokens"),
    ("min_tokens huge", {"max_tokens": None, "min_tokens": 10**6}, "min_tokens"),
    ("n 0", {"n": 0}, "n"),
    ("n -1", {"n": -1}, "n"),
    ("n 129", {"n": 129}, "n"),
    ("n 10**9", {"n": 10**9}, "n"),
    ("n fraction", {"n": 1.5}, "n"),
    ("best_of below n", {"n": 3, "best_of": 2}, "best_of"),
    ("best_of streamed", {"best_of": 2, "stream": True}, "best_of"),
    ("temperature negative", {"temperature": -0.1}, "temperature"),
    ("temperature text", {"temperature": "0"}, "temperature"),
    ("temperature 1e9", {"temperature": 1e9}, "temperature"),
    ("top_p 0", {"top_p": 0}, "top_p"),
    ("top_p -1", {"top_p": -1}, "top_p"),
    ("top_p 1.01", {"top_p": 1.01}, "top_p"),
    ("top_k -2", {"top_k": -2}, "top_k"),
    ("min_p -1", {"min_p": -1}, "min_p"),
    ("min_p 1.1", {"min_p": 1.1}, "min_p"),
    ("frequency_penalty 2.01", {"frequency_penalty": 2.01}, "frequency_penalty"),
    ("presence_penalty -2.01", {"presence_penalty": -2.01}, "presence_penalty"),
    ("repetition_penalty 0", {"repetition_penalty": 0}, "repetition_penalty"),
    ("repetition_penalty -1", {"repetition_penalty": -1}, "repetition_penalty"),
    ("repetition_penalty 1e9", {"repetition_penalty": 1e9}, "repetition_penalty"),
    ("seed 2**64", {"seed": 2**64}, "seed"),
    ("seed fraction", {"seed": 1.5}, "seed"),
    ("seed text", {"seed": "a"}, "seed"),
    ("stop empty", {"stop": ""}, "stop"),
    ("stop list of empty", {"stop": [""]}, "stop"),
    ("stop 17 strings", {"stop": ["x"] * 17}, "stop"),
    ("stop 1 MB", {"stop": "x" * 10**6}, "stop"),
    ("stop number", {"stop": 5}, "stop"),
    ("stop id out of range", {"stop_token_ids": [VOCAB_SIZE]}, "stop_token_ids"),
    ("stop id negative", {"stop_token_ids": [-1]}, "stop_token_ids"),
    ("stop id text", {"stop_token_ids": ["1"]}, "stop_token_ids"),
    ("stop ids 10**6", {"stop_token_ids": [1] * 10**6}, "stop_token_ids"),
    ("logprobs -1", {"logprobs": -1}, "logprobs"),
    ("logprobs 21", {"logprobs": 21}, "logprobs"),
    ("logprobs true", {"logprobs": True}, "logprobs"),
    ("prompt_logprobs streamed", {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ("prompt_logprobs 21", {"prompt_logprobs": 21}, "prompt_logprobs"),
    ("bias key text", {"logit_bias": {"abc": 1}}, "logit_bias"),
    ("bias key out of range", {"logit_bias": {str(VOCAB_SIZE): 1}}, "logit_bias"),
    ("bias 101", {"logit_bias": {"5": 101}}, "logit_bias"),
    ("bias text", {"logit_bias": {"5": "a"}}, "logit_bias"),
    ("bias 10**5 keys", {"logit_bias": {str(one): 1 for one in range(10**5)}}, "logit_bias"),
    ("allowed ids empty", {"allowed_token_ids": []}, "allowed_token_ids"),
    ("allowed ids out of range", {"allowed_token_ids": [VOCAB_SIZE]}, "allowed_token_ids"),
    ("allowed ids 10**6", {"allowed_token_ids": [1] * 10**6}, "allowed_token_ids"),
    ("bad word empty", {"bad_words": [""]}, "bad_words"),
    ("stream text", {"stream": "yes"}, "stream"),
    ("stream_options alone", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("suffix", {"suffix": "end"}, "suffix"),
    ("beam search", {"use_beam_search": True}, "use_beam_search"),
    ("unknown format", {"response_format": {"type": "yaml"}}, "response_format"),
    ("two constraints", {"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ("embeddings", {"prompt_embeds": "AAAA"}, "prompt_embeds"),
    ("cache transfer", {"kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
    ("salt empty", {"cache_salt": ""}, "cache_salt"),
    ("salt of 129", {"cache_salt": "x" * 129}, "cache_salt"),
    ("salt with a newline", {"cache_salt": "a\nb"}, "cache_salt"),
    ("salt number", {"cache_salt": 5}, "cache_salt"),
    ("priority text", {"priority": "a"}, "priority"),
    ("priority 10**30", {"priority": 10**30}, "priority"),
    ("priority under fcfs", {"priority": 1}, "priority"),
    ("user 10 kB", {"user": "x" * 10_000}, "user"),
    ("request_id 10 kB", {"request_id": "x" * 10_000}, "request_id"),
    ("truncation 0", {"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ("truncation side", {"truncate_prompt_tokens": 2, "truncation_side": "middle"}, "truncation_side"),
    ("half a character", {"prompt": "\ud800"}, "prompt"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "fields", "param"), WRONG_FIELDS, ids=[one[0] for one in WRONG_FIELDS]
)
def test_a_wrong_field_is_400_and_named(
    serve: Serve, what: str, fields: dict[str, Any], param: str
) -> None:
    async def test(server: Scripted) -> None:
        raw = json.dumps({**GOOD, **fields}).encode()
        started_s = time.perf_counter()
        response = await server.post(raw)
        assert time.perf_counter() - started_s < 10.0
        error = response.json()["error"]
        assert response.status_code == 400, response.text[:500]
        assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, 400)
        assert error["message"] and len(error["message"]) < 1000
        assert (await server.post(GOOD)).status_code == 200

    serve(test)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000], ids=lambda text: text[:9]
)
@pytest.mark.parametrize("field", ["temperature", "max_tokens", "seed"])
def test_numbers_that_json_or_the_machine_does_not_have(
    serve: Serve, number: str, field: str
) -> None:
    async def test(server: Scripted) -> None:
        response = await server.post(b'{"prompt":"a","%s":%s}' % (field.encode(), number.encode()))
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["param"]) == (
            400,
            "BadRequestError",
            field,
        )

    serve(test)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"{", "position 1"),
        (b"", "position 0"),
        (b"null", "position 0"),
        (b"[]", "position 0"),
        (b'"x"', "position 0"),
        (b"123", "position 0"),
        (b'{"prompt": "a",}', "position 15"),
        (b'{"prompt": "\xff"}', "position 12"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_object_says_where(serve: Serve, raw: bytes, word: str) -> None:
    async def test(server: Scripted) -> None:
        started_s = time.perf_counter()
        response = await server.post(raw)
        assert time.perf_counter() - started_s < 5.0
        error = response.json()["error"]
        assert (response.status_code, error["type"]) == (400, "BadRequestError")
        assert word in error["message"] and "Recursion" not in error["message"]

    serve(test)


ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("max_tokens 1.0", {"max_tokens": 1.0}),
    ("max_tokens null", {"max_tokens": None}),
    ("default max_tokens behind a long prompt", {"prompt": [50] * (MAX_LEN - 3), "max_tokens": None}),
    ("n at temperature 0", {"n": 3, "temperature": 0}),
    ("temperature 1e-9", {"temperature": 1e-9}),
    ("temperature 2.1", {"temperature": 2.1}),
    ("top_k off", {"top_k": 0}),
    ("top_k -1", {"top_k": -1}),
    ("top_k huge", {"top_k": 10**9}),
    ("seed -1", {"seed": -1}),
    ("seed 2**63", {"seed": 2**63}),
    ("seed null", {"seed": None}),
    ("stop null", {"stop": None}),
    ("all tokens down", {"logit_bias": {str(one): -100 for one in range(500)}}),
    ("ignore_eos without max_tokens", {"ignore_eos": True, "max_tokens": None}),
    ("a zero byte", {"prompt": "a\0b"}),
    ("every optional field null", {"n": None, "stream": None, "echo": None, "top_p": None, "user": None}),
    ("text format", {"response_format": {"type": "text"}}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "fields"), ALLOWED, ids=[one[0] for one in ALLOWED])
def test_what_looks_odd_and_is_right(serve: Serve, what: str, fields: dict[str, Any]) -> None:
    async def test(server: Scripted) -> None:
        response = await server.post({**GOOD, **fields})
        assert response.status_code == 200, response.text
        assert len(response.json()["choices"]) == (fields.get("n") or 1)

    serve(test)


def test_max_tokens_beyond_the_context_is_what_fits(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for most in (MAX_LEN - 9, 2**40):
            response = await server.post({"prompt": [50] * 10, "max_tokens": most})
            assert response.json()["usage"]["completion_tokens"] == MAX_LEN - 10, response.text

    serve(test)


def test_priority_is_taken_where_the_scheduler_orders_by_it(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        one = asyncio.create_task(server.post({**GOOD, "priority": 7}))
        two = asyncio.create_task(server.post(GOOD, headers={"X-Vllm-Priority": "-3"}))
        while len(server.client.live) < 2:
            await asyncio.sleep(0.01)
        assert sorted(request.priority for request in server.client.live.values()) == [-3, 7]
        server.client.gate.set()
        assert [(await task).status_code for task in (one, two)] == [200, 200]
        wrong = await server.post(json.dumps(GOOD).encode(), headers={"X-Vllm-Priority": "high"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "priority")

    serve(test, settings=Settings(scheduler=SchedulerConfig(scheduling_policy="priority")))


def test_an_unknown_model_is_404_and_cut(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for name in ("other", "x" * 10_000):
            response = await server.post({**GOOD, "model": name})
            error = response.json()["error"]
            assert (response.status_code, error["type"], error["param"]) == (
                404,
                "NotFoundError",
                "model",
            )
            assert name[:64] in error["message"] and len(error["message"]) < 200
        assert (await server.post({**GOOD, "model": "tiny"})).status_code == 200

    serve(test)


def test_unknown_fields_are_named_in_a_header_or_refused(serve: Serve) -> None:
    body = {**GOOD, "max_token": 5, "stream": True, "stream_options": {"x": 1}, "bad\r\nname": 1}

    async def lenient(server: Scripted) -> None:
        response = await server.post(body)
        assert response.status_code == 200
        assert response.headers["x-ignored-fields"] == "max_token, stream_options.x"
        assert "x-ignored-fields" not in (await server.post(GOOD)).headers
        odd = {"擟": 1, "a\r\nSet-Cookie: b": 1, "é": 1}
        assert "x-ignored-fields" not in (await server.post(GOOD | odd)).headers

    async def strict(server: Scripted) -> None:
        response = await server.post({**GOOD, "max_token": 5})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "max_token")

    serve(lenient)
    serve(strict, strict=True)


def test_media_types(serve: Serve) -> None:
    raw = json.dumps(GOOD).encode()

    async def test(server: Scripted) -> None:
        async def status(**headers: str) -> int:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            response = await server.http.post("/v1/completions", content=raw, headers=names)
            if response.status_code != 200:
                assert response.json()["error"]["type"] == "UnsupportedMediaType"
            return response.status_code

        assert await status() == 200
        assert await status(content_type="application/json; charset=UTF-8") == 200
        assert await status(content_type="text/plain") == 415
        assert await status(content_type="application/json; charset=utf-16") == 415
        assert await status(content_encoding="gzip") == 415

    serve(test)


def test_a_byte_order_mark_is_passed_over(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        assert (await server.post(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())).status_code == 200

    serve(test)


def test_a_large_body_is_413_announced_or_not(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        async def endless() -> Any:
            while True:
                yield b" " * 1000

        announced = await server.post(b" " * 5001)
        chunked = await server.http.post("/v1/completions", content=endless())
        for response in (announced, chunked):
            assert response.status_code == 413
            assert "5000 bytes" in response.json()["error"]["message"]
            assert response.headers["connection"] == "close"

    serve(test, max_body_bytes=5000)


def test_a_body_that_stands_still_is_408(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        async def slow() -> Any:
            yield b"{"
            await asyncio.sleep(5)

        response = await server.http.post("/v1/completions", content=slow())
        assert response.status_code == 408

    serve(test, body_timeout=0.05)


def test_a_request_that_fails_is_500_and_its_neighbours_do_not_notice(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        bodies = [{"prompt": [13, 13]}, GOOD, {"prompt": ["a", "b"]}, {"prompt": [[13, 13], [50]]}]
        answers = await asyncio.gather(*(server.post(body) for body in bodies))
        assert [one.status_code for one in answers] == [500, 200, 200, 500]
        assert answers[0].json()["error"]["type"] == "InternalServerError"
        assert server.series("quire:requests_accepted_total") == 6
        ends = [
            server.series(f"quire:requests_{how}_total")
            for how in ("finished", "aborted", "failed")
        ]
        assert sum(ends) == 6 and ends[2] == 2

    serve(test)


def test_what_nobody_raised_on_purpose_is_500_without_its_text(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: Scripted) -> None:
        def broken(self: object) -> None:
            raise RuntimeError("secret in /etc/passwd at 0x7f00deadbeef")

        monkeypatch.setattr(type(server.llm), "default_sampling_values", broken)
        response = await server.post(GOOD)
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "InternalServerError"
        assert "secret" not in response.text and "Traceback" not in response.text

    serve(test)


def test_a_dead_engine_gives_500_and_health_says_so(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        waiting = [
            asyncio.create_task(server.post({**GOOD, "stream": flag})) for flag in (True, False)
        ]
        while len(server.client.live) < 2:
            await asyncio.sleep(0.01)
        server.client.die("the engine process ended with code -9 in /tmp/folder/file.py")
        for task in waiting:
            response = await task
            assert response.status_code == 500
            assert response.json()["error"]["type"] == "InternalServerError"
            assert "/tmp/folder" not in response.text
        assert (await server.http.get("/health")).status_code == 503
        ready = await server.http.get("/ready")
        assert (ready.status_code, ready.json()["phase"]) == (503, "dead")
        assert (await server.post(GOOD)).status_code == 500
        server.client.live.clear()

    serve(test)


def test_draining_and_loading_are_503_with_the_phase(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.state.draining = True
        for response in (await server.post(GOOD), await server.http.get("/ready")):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
        assert (await server.post(GOOD)).json()["error"]["type"] == "ServiceUnavailable"
        assert (await server.post(GOOD)).json()["error"]["phase"] == "draining"
        assert (await server.http.get("/health")).status_code == 200
        server.state.draining, server.state.ready = False, False
        server.client.phase = ("loading weights", 40)
        assert (await server.post(GOOD)).json()["error"]["phase"] == "loading weights"
        assert (await server.http.get("/ready")).json() == {
            "phase": "loading weights",
            "percent": 40,
        }

    serve(test)
