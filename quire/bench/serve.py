"""`quire bench serve`: a load test of a running server.

Sending and timing is `bench.load`, the numbers `bench.serve_report`, the flags `bench.serve_flags`.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from quire.bench import load, serve_flags, wire
from quire.bench.arguments import read_own
from quire.bench.dataset_flags import choose, read_source
from quire.bench.datasets import Sample
from quire.bench.load import Arrivals, Target, Timed
from quire.bench.report import write_json
from quire.bench.serve_report import details, render, results
from quire.bench.wire import ServerFailedError
from quire.config import env
from quire.protocol.errors import SettingsError

_ENDPOINTS = {
    "openai": "/v1/completions",
    "vllm": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
}
_RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A load test, all flags checked. `model_id` is what results call the model."""

    flags: argparse.Namespace
    url: str
    is_chat: bool
    extra: dict[str, Any]
    heads: dict[str, str]
    arrivals: Arrivals
    metrics: list[str]
    ranks: list[float]
    goals_ms: dict[str, float]
    metadata: dict[str, str]


def main(argv: Sequence[str]) -> int:
    """Measures; returns 0, or 1 if no request was answered. Raises QuireError."""
    plan = read_plan(read_own(serve_flags.make(), argv))
    found = asyncio.run(_run(plan))
    return 0 if found["completed"] else 1


def read_plan(flags: argparse.Namespace) -> Plan:
    """The plan that the flags ask for. Raises SettingsError."""
    if flags.backend not in _ENDPOINTS:
        raise SettingsError(
            f"--backend is {flags.backend!r}; it must be one of: {', '.join(_ENDPOINTS)}"
        )
    base = (flags.base_url or f"http://{flags.host}:{flags.port}").rstrip("/")
    is_chat = flags.backend == "openai-chat"
    return Plan(
        flags=flags,
        url=base,
        is_chat=is_chat,
        extra=serve_flags.sampling_fields(flags, is_chat),
        heads=wire.headers(flags.api_key or env.read("OPENAI_API_KEY"))
        | serve_flags.pairs("--header", flags.header, "="),
        arrivals=_arrivals(flags),
        metrics=serve_flags.metric_names(flags.percentile_metrics),
        ranks=serve_flags.ranks(flags.metric_percentiles),
        goals_ms=serve_flags.goals(flags.goodput),
        metadata=serve_flags.pairs("--metadata", flags.metadata, "="),
    )


def _arrivals(flags: argparse.Namespace) -> Arrivals:
    ramp = flags.ramp_up_strategy
    ends = (flags.ramp_up_start_rps, flags.ramp_up_end_rps)
    if ramp is None and ends != (None, None):
        raise SettingsError("--ramp-up-start-rps and --ramp-up-end-rps need --ramp-up-strategy")
    if ramp is not None and None in ends:
        raise SettingsError("--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps")
    if ramp is not None and flags.request_rate != float("inf"):
        raise SettingsError("--ramp-up-strategy and --request-rate cannot be given together")
    return Arrivals(
        rate=flags.request_rate,
        burstiness=flags.burstiness,
        ramp=ramp,
        start_rps=ends[0] or 0.0,
        end_rps=ends[1] or 0.0,
        seed=flags.seed,
    )


async def _run(plan: Plan) -> dict[str, Any]:
    flags = plan.flags
    async with _client(plan) as client:
        deadline_s = time.perf_counter() + flags.ready_check_timeout_sec
        card = await _card(client, plan, deadline_s)
        model = flags.model or card.get("id") or flags.served_model_name
        tokenizer = flags.tokenizer or _tokenizer_folder(model, card)
        source = read_source(model, tokenizer, as_text=True)
        samples = choose(flags, source, flags.seed)
        target = Target(
            url=plan.url + (flags.endpoint or _ENDPOINTS[flags.backend]),
            model=flags.served_model_name or card.get("id") or model,
            is_chat=plan.is_chat,
            extra=plan.extra,
            request_id_prefix=flags.request_id_prefix,
        )
        if flags.ready_check_timeout_sec:
            await _wait_ready(client, target, samples[0], deadline_s)
        if flags.num_warmups:
            warm = [samples[place % len(samples)] for place in range(flags.num_warmups)]
            await load.run_load(
                client, target, warm, [0.0] * len(warm), max_concurrency=flags.max_concurrency
            )
        if flags.profile:
            await _post(client, plan, "start_profile")
        duration_s, requests = await _measure(client, target, samples, plan)
        if flags.profile:
            try:
                print(f"Profile, at the server: {await _post(client, plan, 'stop_profile')}")
            except ServerFailedError as error:  # one with max_iterations may have ended by itself
                print(f"--profile: {error}", file=sys.stderr)
    found = _about(plan, model, tokenizer, len(samples))
    found |= results(requests, duration_s, plan.ranks, plan.goals_ms)
    print(render(found, plan.metrics, plan.ranks))
    failed = [one.error for one in requests if one.error is not None]
    if failed:
        print(f"{len(failed)} requests failed; the first with: {failed[0]}", file=sys.stderr)
    _save(plan, found, requests)
    return found


def _client(plan: Plan) -> httpx.AsyncClient:
    verify: ssl.SSLContext | bool = not plan.flags.insecure
    try:
        return httpx.AsyncClient(
            headers=plan.heads,
            timeout=httpx.Timeout(None, connect=wire.CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=not wire.is_local(plan.url),
            verify=verify,
        )
    except (ValueError, TypeError) as error:
        raise SettingsError(f"--header cannot be sent: {error}") from None


async def _card(client: httpx.AsyncClient, plan: Plan, deadline_s: float) -> dict[str, Any]:
    """The card of the model in question, or an empty one where a named model has none."""
    where = f"{plan.url}/v1/models"
    while True:
        try:
            answer = await client.get(where, timeout=wire.CONNECT_TIMEOUT_S)
            break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if time.perf_counter() >= deadline_s:
                raise wire.no_answer(plan.url, error) from None
            await asyncio.sleep(_RETRY_S)
    named = plan.flags.served_model_name or plan.flags.model
    try:
        listing = answer.json() if answer.status_code == 200 else None
    except ValueError:
        listing = None
    if named is None:
        if listing is None:
            raise ServerFailedError(wire.error_text(answer.text, answer.status_code))
        return wire.first_model(listing, where)
    cards = listing.get("data") if isinstance(listing, dict) else None
    return next((card for card in cards or () if card.get("id") == named), {})


def _tokenizer_folder(model: str, card: dict[str, Any]) -> str:
    """Where the tokenizer is: the model's name if that is a folder, else what the server says."""
    root = card.get("root")
    return model if Path(model).is_dir() or not isinstance(root, str) else root


async def _wait_ready(
    client: httpx.AsyncClient, target: Target, sample: Sample, deadline_s: float
) -> None:
    """Returns when a request has been answered. Raises ServerFailedError when the time is over."""
    while True:
        timed = await load.send(client, target, sample, -1)
        if timed.error is None:
            return
        if time.perf_counter() >= deadline_s:
            raise ServerFailedError(f"the server did not become ready in time: {timed.error}")
        await asyncio.sleep(_RETRY_S)


async def _post(client: httpx.AsyncClient, plan: Plan, route: str) -> str:
    """What the server says to a command. Raises ServerFailedError if it refuses."""
    try:
        answer = await client.post(f"{plan.url}/{route}")
    except httpx.HTTPError as error:
        raise wire.no_answer(plan.url, error) from None
    if answer.status_code == 404:
        raise ServerFailedError(
            f"--profile: the server has no /{route}; start it with --profiler-config"
        )
    if answer.status_code != 200:
        raise ServerFailedError(f"/{route}: {wire.error_text(answer.text, answer.status_code)}")
    return answer.text


async def _measure(
    client: httpx.AsyncClient, target: Target, samples: list[Sample], plan: Plan
) -> tuple[float, list[Timed]]:
    moments = plan.arrivals.times(len(samples))
    bar = importlib.import_module("tqdm").tqdm(
        total=len(samples), disable=plan.flags.disable_tqdm, unit="req"
    )
    with bar:
        return await load.run_load(
            client, target, samples, moments,
            max_concurrency=plan.flags.max_concurrency, on_done=lambda: bar.update(1),
        )  # fmt: skip


def _about(plan: Plan, model: str, tokenizer: str, count: int) -> dict[str, Any]:
    flags = plan.flags
    rate = flags.request_rate
    about = {
        "date": datetime.datetime.now().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": flags.backend,
        "backend": flags.backend,
        "label": flags.label,
        "model_id": model,
        "tokenizer_id": tokenizer,
        "num_prompts": count,
        **plan.metadata,
        "request_rate": rate if rate < float("inf") else "inf",
        "burstiness": flags.burstiness,
        "max_concurrency": flags.max_concurrency,
    }
    if flags.ramp_up_strategy:
        names = ("ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps")
        about |= {name: getattr(flags, name) for name in names}
    return about


def _save(plan: Plan, found: dict[str, Any], requests: list[Timed]) -> None:
    flags = plan.flags
    if not (flags.save_result or flags.save_detailed or flags.append_result):
        return
    name = flags.result_filename
    if not name:
        at_once = "" if flags.max_concurrency is None else f"-concurrency{flags.max_concurrency}"
        model = Path(found["model_id"]).name
        name = f"{flags.label or flags.backend}-{found['request_rate']}qps{at_once}-{model}-{found['date']}.json"
    if flags.save_detailed:
        found = found | details(requests)
    path = Path(flags.result_dir) / name
    write_json(path, found, append=flags.append_result)
    print(f"result written to {path}")
