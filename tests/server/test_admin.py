"""Routes of operators: there only where asked for, behind the key, and what they ask of the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from quire.config.cli import read_serve
from quire.config.schema import ObservabilityConfig, Settings
from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError
from quire.server.guard import OPEN_PATHS
from quire.server.outer import outer_middleware
from tests.server.scripted import Scripted

Serve = Callable[..., Any]

DEV = [
    ("POST", "/reset_prefix_cache"), ("POST", "/reset_mm_cache"), ("POST", "/reset_encoder_cache"),
    ("POST", "/pause"), ("POST", "/resume"), ("GET", "/is_paused"), ("POST", "/sleep?level=0"),
    ("POST", "/wake_up"), ("GET", "/is_sleeping"), ("POST", "/collective_rpc"), ("GET", "/server_info"),
    ("POST", "/abort_requests"), ("GET", "/get_world_size"),
]  # fmt: skip
NEVER = [
    ("POST", "/update_weights"), ("POST", "/init_weight_transfer_engine"), ("POST", "/scale_elastic_ep"),
    ("POST", "/fault_tolerance/apply"), ("POST", "/v1/load_lora_adapter"), ("GET", "/weight_info"),
]  # fmt: skip
PROFILED = Settings(
    observability=ObservabilityConfig(
        profiler_config={"profiler": "torch", "torch_profiler_dir": "/tmp/quire-test-profiles"}
    )
)
EVERYTHING = {
    "server_dev_mode": True, "enable_tokenizer_info_endpoint": True,
}  # fmt: skip


def calls_of(server: Scripted) -> list[str]:
    """What is asked of the engine by name from now on; everything is answered with True."""
    asked: list[str] = []
    server.client.call = lambda name: asked.append(name) or True  # type: ignore[method-assign,func-returns-value]
    return asked


def test_they_are_404_unless_asked_for(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        more = [("POST", "/start_profile"), ("POST", "/stop_profile"), ("GET", "/tokenizer_info")]
        for method, path in [*DEV, *NEVER, *more]:
            assert (await server.http.request(method, path)).status_code == 404, path

    serve(test)


def test_what_is_not_there_stays_404_in_development(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for method, path in NEVER:
            assert (await server.http.request(method, path)).status_code == 404, path

    serve(test, **EVERYTHING)


def test_every_route_but_the_open_ones_needs_the_key(serve: Serve) -> None:
    """A route that is added without a guard fails here."""

    async def test(server: Scripted) -> None:
        paths = server.app.openapi()["paths"]
        table = [(method, path) for path, methods in paths.items() for method in methods]
        table += [*DEV, ("GET", "/docs"), ("GET", "/openapi.json")]
        assert len(table) > 40
        for method, path in table:
            if path in OPEN_PATHS:
                continue
            for headers in ({}, {"authorization": "Bearer wrong"}, {"x-quire-internal": "1"}):
                answer = await server.http.request(method.upper(), path, headers=headers)
                assert answer.status_code == 401, path

    serve(test, api_key=["k"], settings=PROFILED, **EVERYTHING)


def test_resetting_caches(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        asked = calls_of(server)
        answer = await server.http.post("/reset_prefix_cache")
        assert answer.json() == {"success": True}
        await server.http.post("/reset_prefix_cache?reset_running_requests=true")
        for path in ("/reset_mm_cache", "/reset_encoder_cache"):
            answer = await server.http.post(path)
            assert answer.status_code == 200 and answer.content == b""
        assert asked == ["reset_prefix_cache", "reset_running"]
        for query in ("reset_running_requests=maybe", "reset_external=true"):
            assert (await server.http.post(f"/reset_prefix_cache?{query}")).status_code == 400

    serve(test, server_dev_mode=True)


def test_pausing(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        asked = calls_of(server)
        assert (await server.http.get("/is_paused")).json() == {"is_paused": False}
        answer = await server.http.post("/pause?mode=keep&clear_cache=false")
        assert answer.json() == {"status": "paused"} and asked == ["pause"]
        assert (await server.http.get("/is_paused")).json() == {"is_paused": True}
        assert (await server.http.post("/resume")).json() == {"status": "resumed"}
        assert (await server.http.get("/is_paused")).json() == {"is_paused": False}
        asked.clear()
        await server.http.post("/pause?mode=wait")
        assert asked == ["hold_new", "pause", "reset_running"]
        await server.http.post("/resume")
        assert (await server.http.post("/pause?mode=never")).status_code == 400

    serve(test, server_dev_mode=True)


@pytest.mark.parametrize("mode", ["abort", "wait"])
def test_what_becomes_of_live_requests(serve: Serve, mode: str) -> None:
    async def test(server: Scripted) -> None:
        calls_of(server)
        server.client.gate.clear()
        live = asyncio.create_task(server.post({"prompt": "hi", "max_tokens": 3}))
        while not server.client.live:
            await asyncio.sleep(0.01)
        pausing = asyncio.create_task(server.http.post(f"/pause?mode={mode}"))
        await asyncio.sleep(0.1)
        assert pausing.done() == (mode == "abort")
        server.client.gate.set()
        if server.client.live:
            server.client.step_once()
        body = (await live).json()
        assert body["choices"][0]["finish_reason"] == ("abort" if mode == "abort" else "length")
        assert (await pausing).json() == {"status": "paused"}

    serve(test, server_dev_mode=True)


def test_sleeping_is_holding_or_nothing(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        asked = calls_of(server)
        for level in ("1", "2"):
            answer = await server.http.post(f"/sleep?level={level}")
            assert answer.status_code == 501 and answer.json()["error"]["param"] == "level"
        assert (await server.http.post("/sleep")).status_code == 501
        assert (await server.http.post("/sleep?level=3")).status_code == 400
        assert not asked
        assert (await server.http.post("/sleep?level=0")).status_code == 200
        assert (await server.http.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert (await server.http.post("/wake_up?tags=x")).status_code == 400
        assert (await server.http.post("/wake_up?tags=weights&tags=kv_cache")).status_code == 200
        assert (await server.http.get("/is_sleeping")).json() == {"is_sleeping": False}

    serve(test, server_dev_mode=True)


def test_calls_by_name_and_nothing_else(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        asked = calls_of(server)
        answer = await server.http.post("/collective_rpc", json={"method": "blocks_in_use"})
        assert answer.json() == {"results": [True]} and asked == ["blocks_in_use"]
        for body in ({}, {"method": 7}, {"method": "blocks_in_use", "args": ["x"]}):
            answer = await server.http.post("/collective_rpc", json=body)
            assert answer.status_code == 400, body

    serve(test, server_dev_mode=True)


def test_aborting_by_id(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        live = [
            asyncio.create_task(
                server.post({"prompt": "hi", "max_tokens": 3}, headers={"x-request-id": name})
            )
            for name in ("one-1", "two", "three")
        ]
        while len(server.client.live) < 3:
            await asyncio.sleep(0.01)
        for body, count in (
            ({"request_ids": ["nobody", "on"]}, 0),
            ({"request_ids": ["one-1"]}, 1),
            ({"request_ids": ["cmpl-two", "cmpl-one-1"]}, 1),
        ):
            answer = await server.http.post("/abort_requests", json=body)
            assert answer.json() == {"status": "aborted", "aborted": count}
        assert len(server.llm._streams) == 1
        answer = await server.http.post("/abort_requests")
        assert answer.json()["aborted"] == 1
        server.client.gate.set()
        for task in live:
            assert (await task).json()["choices"][0]["finish_reason"] == "abort"

    serve(test, server_dev_mode=True)


def test_token_servers_have_little_else(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        body = {"token_ids": [50], "sampling_params": {"max_tokens": 2}}
        answer = await server.http.post("/inference/v1/generate", json=body)
        assert answer.json()["choices"][0]["token_ids"] == [51, 52]
        assert (await server.http.post("/abort_requests")).json()["aborted"] == 0
        for path in ("/v1/completions", "/v1/chat/completions", "/v1/files", "/pause"):
            assert (await server.http.post(path, json={})).status_code == 404, path

    serve(test, tokens_only=True)


def test_the_load_in_a_header(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": "hi", "max_tokens": 1}
        plain = await server.post(body)
        assert "endpoint-load-metrics" not in plain.headers
        text = await server.post(body, headers={"endpoint-load-metrics-format": "TEXT"})
        found = text.headers["endpoint-load-metrics"]
        assert found.startswith("TEXT named_metrics.kv_cache_usage_perc=")
        assert "named_metrics.num_requests_waiting=0" in found
        answer = await server.post(body, headers={"endpoint-load-metrics-format": "json"})
        kind, _, data = answer.headers["endpoint-load-metrics"].partition(" ")
        named = json.loads(data)["named_metrics"]
        assert kind == "JSON" and set(named) == {"kv_cache_usage_perc", "num_requests_waiting"}
        odd = await server.post(body, headers={"endpoint-load-metrics-format": "xml"})
        assert "endpoint-load-metrics" not in odd.headers

    serve(test)


def test_what_the_cache_holds(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.call = lambda name: {"blocks_in_use": 3}[name]  # type: ignore[method-assign]
        found = (await server.http.get("/memory_stats")).json()["kv_cache"]
        assert (found["blocks_total"], found["blocks_used"], found["blocks_free"]) == (64, 3, 61)

    serve(test)


def test_times_of_a_request_in_its_answer(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        found = (await server.post({"prompt": "hi", "max_tokens": 3})).json()["metrics"]
        assert found["queue_time_ms"] == 500.0 and found["mean_itl_ms"] == 500.0
        assert found["generation_time_ms"] == 1000.0 and found["tokens_per_second"] > 0
        several = (await server.post({"prompt": "hi", "max_tokens": 3, "n": 2})).json()
        assert "metrics" not in several

    serve(test, enable_per_request_metrics=True)


def test_the_tokenizers_settings(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        found = (await server.http.get("/tokenizer_info")).json()
        assert "tokenizer_class" in found and "chat_template" in found

    serve(test, enable_tokenizer_info_endpoint=True)


def test_invocations_find_their_endpoint(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        body = {"prompt": "hi", "max_tokens": 2, "temperature": 0}
        answer = await server.http.post("/invocations", json=body)
        assert answer.json()["object"] == "text_completion"
        stream = await server.http.post("/invocations", json=body | {"stream": True})
        assert stream.text.endswith("data: [DONE]\n\n")
        ids = await server.http.post("/invocations", json={"token_ids": [50]})
        assert ids.json()["choices"][0]["token_ids"][0] == 51
        chat = await server.http.post("/invocations", json={"messages": "x"})
        assert chat.status_code == 400 and "messages" in chat.json()["error"]["param"]
        for body in ({}, {"x": 1}):
            answer = await server.http.post("/invocations", json=body)
            assert answer.status_code == 400 and "prompt" in answer.json()["error"]["message"]

    serve(test)


class Stamp:
    """A middleware that marks answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-stamp", b"1"))
            await send(message)

        await self.app(scope, receive, marked)


async def refuse_all(request: Any, call_next: Any) -> Any:
    """A middleware as a function."""
    answer = await call_next(request)
    answer.headers["x-function"] = "1"
    return answer


def test_middleware_of_the_operator(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        answer = await server.post({"prompt": "hi", "max_tokens": 1})
        assert answer.headers["x-stamp"] == "1" and answer.headers["x-function"] == "1"

    serve(test, middleware=[f"{__name__}.Stamp", f"{__name__}.refuse_all"])


@pytest.mark.parametrize("name", ["nothing", "no.such.module.Name", f"{__name__}.NoName", "os.sep"])
def test_middleware_that_cannot_be_had(name: str) -> None:
    with pytest.raises(SettingsError, match="--middleware"):
        outer_middleware([name])


def test_flags() -> None:
    words = ["model", "--middleware", "a.B", "--middleware", "c.D", "--tokens-only"]
    options = read_serve(words)
    assert options.server.middleware == ["a.B", "c.D"] and options.server.tokens_only
    assert ServerConfig().batch_dir is None
    for flag in ("--grpc", "--enable-sleep-mode"):
        with pytest.raises(SystemExit):
            read_serve(["model", flag])


def test_documentation_without_a_network(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        page = await server.http.get("/docs")
        assert page.status_code == 200 and "POST /v1/completions" in page.text
        assert "max_tokens" in page.text and "http" not in page.text and "<script" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await server.http.get("/redoc")).status_code == 404

    serve(test, enable_offline_docs=True)
