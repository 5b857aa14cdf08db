"""Health, readiness, version, load, metrics, keys, hosts, paths and methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import quire
from quire.config.schema import ObservabilityConfig, Settings
from quire.metrics.registry import METRICS
from quire.protocol.outputs import EngineStats
from tests.server.scripted import Scripted
from tests.unit.fake_engine import tokens_of

Serve = Callable[..., Any]
P = [70, 71, 72]


def test_health_and_friends(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for path in ("/health", "/ping"):
            answer = await server.http.get(path)
            assert (answer.status_code, answer.content) == (200, b"")
        assert (await server.http.post("/ping")).status_code == 200
        assert (await server.http.head("/health")).status_code == 200
        assert (await server.http.get("/ready")).json() == {"phase": "ready", "percent": 100}
        assert (await server.http.get("/version")).json() == {"version": quire.__version__}
        assert (await server.http.get("/load")).json() == {"server_load": 0}

    serve(test)


def test_load_counts_requests_in_flight_if_asked_to(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        tasks = [
            asyncio.create_task(server.post({"prompt": P, "stream": n == 0})) for n in range(3)
        ]
        while len(server.client.live) < 3:
            await asyncio.sleep(0.01)
        assert (await server.http.get("/load")).json() == {"server_load": 3}
        server.client.gate.set()
        await asyncio.gather(*tasks)
        assert (await server.http.get("/load")).json() == {"server_load": 0}

    serve(test, enable_server_load_tracking=True)


def test_an_idle_server_lists_every_series(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for path in ("/metrics", "/metrics/"):
            answer = await server.http.get(path)
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            for metric in METRICS:
                if metric.plain is None:
                    suffix = {"counter": "_total", "gauge": "", "histogram": "_count"}[metric.kind]
                    assert f'{metric.name}{suffix}{{engine="0"' in answer.text, metric.name
        for reason in ("stop", "length", "abort", "error", "repetition"):
            assert server.series("vllm:request_success_total", finished_reason=reason) == 0
        assert server.series("vllm:cache_config_info", block_size="16", num_gpu_blocks="64") == 1
        buckets = [
            line for line in answer.text.splitlines() if "request_prompt_tokens_bucket" in line
        ]
        assert [line.split('le="')[1].split('"')[0] for line in buckets] == [
            "1.0", "2.0", "5.0", "10.0", "20.0", "50.0", "+Inf",
        ]  # fmt: skip

    serve(test)


def test_requests_are_counted(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for stream in (False, True):
            for _ in range(2):
                answer = await server.post({"prompt": P, "max_tokens": 5, "stream": stream})
                assert answer.status_code == 200
        assert server.series("vllm:prompt_tokens_total", model_name="tiny", engine="0") == 12
        assert server.series("vllm:prompt_tokens_cached_total") == 8
        source = "vllm:prompt_tokens_by_source_total"
        assert server.series(source, source="local_cache_hit") == 8
        assert server.series(source, source="local_compute") == 4
        assert server.series(source) == 12
        assert server.series("http_request_duration_highr_seconds_count") == 4
        route = {"handler": "/v1/completions"}
        assert server.series("http_request_size_bytes_count", **route) == 4
        assert 4 * 20 < server.series("http_request_size_bytes_sum", **route) < 4 * 100
        assert server.series("http_response_size_bytes_sum", **route) > 4 * 200
        assert server.series("vllm:generation_tokens_total") == 20
        assert server.series("vllm:request_success_total") == 4
        assert server.series("vllm:request_success_total", finished_reason="length") == 4
        for name in (
            "time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
            "request_prefill_time_seconds", "request_decode_time_seconds", "request_inference_time_seconds",
            "request_prompt_tokens", "request_generation_tokens", "request_params_n",
            "request_params_max_tokens", "request_time_per_output_token_seconds",
            "request_max_num_generation_tokens", "request_prefill_kv_computed_tokens",
        ):  # fmt: skip
            assert server.series(f"vllm:{name}_count") == 4, name
        assert server.series("vllm:inter_token_latency_seconds_count") == 16
        assert server.series("vllm:inter_token_latency_seconds_sum") == pytest.approx(16 * 0.5)
        assert server.series("vllm:request_queue_time_seconds_sum") == pytest.approx(4 * 0.5)
        assert server.series("vllm:request_decode_time_seconds_sum") == pytest.approx(4 * 2.0)
        assert server.series("vllm:request_prefill_kv_computed_tokens_sum") == 4
        assert server.series("vllm:iteration_tokens_total_count") == server.client.stats.steps
        assert server.series("vllm:iteration_tokens_total_sum") == 20
        assert (
            server.series("quire:requests_accepted_total")
            == server.series("quire:requests_finished_total")
            == 4
        )

    serve(test)


def test_waiting_requests_are_shown_by_what_they_wait_for(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.state.serving.take_stats(EngineStats(num_waiting=3, steps=1))
        name = "vllm:num_requests_waiting_by_reason"
        gauges = {
            sample.labels.get("reason"): sample.value
            for family in server.state.metrics.registry.collect()
            for sample in family.samples
            if sample.name in (name, "vllm:num_requests_waiting")
        }
        assert gauges == {None: 3, "capacity": 3, "deferred": 0}

    serve(test)


def test_choices_are_counted_one_by_one(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        await server.post({"prompt": P, "max_tokens": 4, "n": 3})
        assert server.series("vllm:generation_tokens_total") == 12
        assert server.series("vllm:request_success_total") == 3
        assert server.series("vllm:request_generation_tokens_count") == 3
        assert server.series("vllm:request_params_n_sum") == 3
        assert server.series("vllm:request_params_n_count") == 1
        assert server.series("quire:requests_accepted_total") == 1
        assert server.series("vllm:inter_token_latency_seconds_count") == 9

    serve(test)


def test_what_was_refused_was_not_accepted(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        assert (await server.post({"prompt": [50] * 100})).status_code == 400
        assert server.series("quire:requests_accepted_total") == 0
        assert server.series("vllm:request_success_total") == 0
        route = {"handler": "/v1/completions", "method": "POST", "status": "4xx"}
        assert server.series("http_requests_total", **route) == 1

    serve(test)


def test_stats_can_be_off(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        await server.post({"prompt": P})
        assert server.series("vllm:generation_tokens_total") == 0
        assert (await server.http.get("/metrics")).status_code == 200
        assert server.series("http_requests_total", handler="/v1/completions") == 1

    serve(test, settings=Settings(observability=ObservabilityConfig(disable_log_stats=True)))


OPEN = ("/health", "/ready", "/ping", "/version", "/metrics", "/metrics/")
CLOSED = (
    "/v1/models", "/v1/models/tiny", "/load", "/docs", "/openapi.json", "/v1/nope", "/ui/state", "//v1/models",
    "/ui/../v1/models", "/ui/nope", "/ui", "/v1/models/", "/health/", "/V1/models", "/v1%2fmodels",
)  # fmt: skip


@pytest.mark.parametrize("header", [
    None, "Bearer wrong", "Bearer ", "Bearer", "Basic a2V5", "key", "Bearer " + "k" * 10**6,
    "Bearer key2 x", "Bearer ké",
])  # fmt: skip
def test_no_key_no_answer(serve: Serve, header: str | None) -> None:
    async def test(server: Scripted) -> None:
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        for path in CLOSED:
            answer = await server.http.get(path, headers=headers, params={"api_key": "key"})
            assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"}), path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await server.post({"prompt": P}, headers=headers)).status_code == 401
        for path in OPEN:
            assert (await server.http.get(path, headers=headers)).status_code == 200

    serve(test, api_key=["key", "key2"])


def test_any_of_the_keys_opens(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for header in ("Bearer key", "bearer key2", "BEARER  key"):
            assert (
                await server.post({"prompt": P}, headers={"Authorization": header})
            ).status_code == 200

    serve(test, api_key=["key", "key2"])


def test_hosts(serve: Serve) -> None:
    async def statuses(server: Scripted, *hosts: str) -> list[int]:
        return [
            (await server.http.get("/version", headers={"Host": host})).status_code
            for host in hosts
        ]

    async def loopback(server: Scripted) -> None:
        assert (
            await statuses(server, "localhost:80", "127.0.0.1", "[::1]:9", "LOCALHOST") == [200] * 4
        )
        assert await statuses(server, "evil.example", "10.0.0.1:80") == [403] * 2
        assert await statuses(server, "a/?b", "a b", "", "a:b") == [400] * 4
        twice = await server.http.get(
            "/version", headers=[("Host", "localhost"), ("Host", "localhost")]
        )
        assert twice.status_code == 400

    async def named(server: Scripted) -> None:
        assert await statuses(server, "my.example", "evil.example") == [200, 403]

    async def everyone(server: Scripted) -> None:
        assert await statuses(server, "evil.example") == [200]

    serve(loopback)
    serve(named, allowed_hosts=["my.example"])
    serve(everyone, allowed_hosts=["*"])
    serve(everyone, host="0.0.0.0")


def test_paths_and_methods(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for path in (
            "/v1/nope",
            "/v1/models/x/",
            "/V1/models",
            "//v1/models",
            "/v1/completions/",
            "/ui",
        ):
            answer = await server.http.get(path)
            assert answer.status_code == 404, path
            assert answer.json()["error"]["code"] == 404
        for method, path, allow in (
            ("GET", "/v1/completions", "POST"), ("POST", "/health", "GET"), ("FOO", "/v1/models", "GET"),
            ("TRACE", "/version", "GET"), ("DELETE", "/v1/models", "GET"),
        ):  # fmt: skip
            answer = await server.http.request(method, path)
            assert answer.status_code == 405 and allow in answer.headers["allow"]
            assert answer.json()["error"]["type"] == "Method Not Allowed"
        assert server.series("http_requests_total", method="other") == 1

    serve(test)


def test_cross_origin_only_if_configured(serve: Serve) -> None:
    asks = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}

    async def closed(server: Scripted) -> None:
        for answer in (
            await server.http.options("/v1/completions", headers=asks),
            await server.http.get("/version", headers=asks),
        ):
            assert "access-control-allow-origin" not in answer.headers

    async def open_(server: Scripted) -> None:
        answer = await server.http.options("/v1/completions", headers=asks)
        assert answer.headers["access-control-allow-origin"] == "http://page.example"

    serve(closed)
    serve(open_, allowed_origins=["http://page.example"], api_key=["k"])


def test_docs_can_be_off(serve: Serve) -> None:
    async def on(server: Scripted) -> None:
        assert "/v1/completions" in (await server.http.get("/openapi.json")).json()["paths"]

    async def off(server: Scripted) -> None:
        for path in ("/openapi.json", "/docs", "/redoc"):
            assert (await server.http.get(path)).status_code == 404

    serve(on)
    serve(off, disable_fastapi_docs=True)


def test_the_fake_engine_answers_as_the_tests_think(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        answer = await server.post({"prompt": P, "max_tokens": 2, "return_token_ids": True})
        assert answer.json()["choices"][0]["token_ids"] == tokens_of(P, 2) == [73, 74]

    serve(test)
