"""Published holes of other engines: what fired them is sent to us. A row's name is the advisory's.

Holes that another file's test covers are named in `ELSEWHERE`, those of features that are not served in
`NOT_SERVED`. The whole file runs against two servers, one of them with Python's asserts removed.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.killing import Server, serving
from tests.robustness.alive import SECRET, Alive, assert_refused

TESTS = Path(__file__).resolve().parents[1]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

_FORMS = "e2e/test_structured_outputs.py"
ELSEWHERE: dict[str, str] = {
    "CVE-2025-9141": "frontend/parsers/test_hostile.py::test_no_code_runs",
    "CVE-2025-48887 GHSA-j828": "frontend/parsers/test_hostile.py::test_time_is_linear",
    "CVE-2025-62164 CVE-2026-56340": "unit/test_embeds.py::test_a_wrong_one_is_refused_and_says_why",
    "GHSA-h3rc prompt_embeds and files": "unit/test_embeds.py::test_any_bytes_are_read_or_refused",
    "CVE-2026-7302 file names": "server/test_files.py::test_a_clients_name_is_never_a_path",
    "CVE-2026-54233 uploads": "server/test_files.py::test_files_over_the_limit_are_413_and_leave_nothing",
    "GHSA-85xf helper killed": f"{_FORMS}::test_a_helper_that_is_killed_harms_at_most_its_request",
    "CVE-2026-55574 neighbours": f"{_FORMS}::test_other_requests_go_on_while_a_constraint_is_compiled",
    "CVE-2025-57809 cache of grammars": "engine/test_grammar.py::test_the_cache_stays_under_its_bytes",
    "CVE-2025-61620 endless templates": "unit/test_chat_sandbox.py::test_an_endless_template_is_cut",
    "CVE-2024-34359": "unit/test_chat_sandbox.py::test_a_template_sees_its_data_only",
    "CVE-2026-54234": "unit/test_sampling.py::test_a_row_that_is_not_finite_samples_nothing_and_spares_its_mates",
    "CVE-2025-25183": "unit/test_engine_cache.py::test_a_key_is_the_digest_of_parent_ids_and_extras",
    "CVE-2026-73558": "ops/test_rows.py::test_rows_are_independent",
    "CVE-2023-48022 routes without keys": "server/test_admin.py::test_every_route_but_the_open_ones_needs_the_key",
    "CVE-2024-28224 hosts": "server/test_info.py::test_hosts",
    "CVE-2026-47155": "models/test_hub.py::test_a_revision_may_stand_in_the_name_or_beside_it",
    "CVE-2026-93592": "e2e/test_pooling_server.py::test_bad_requests_are_refused_and_the_server_goes_on",
    "CVE-2026-105755": "server/test_completions.py::test_request_ids",
    "CVE-2024-39720 damaged files": "models/test_registry.py::test_damaged_weights_are_said",
}
NOT_SERVED = {
    "media": "CVE-2026-5497 -34755 -105758 -105760 -22773 -12491 -22778 -34753 -6242 -62372 GHSA-p6g9 -m52c -jcq2",
    "drafts": "CVE-2026-44223",
    "multi-node": "CVE-2025-29783 -32444 -47277 -30165 -30202 CVE-2026-105754 -94627",
    "adapters": "the LoRA rows",
    "GGUF": "CVE-2024-23605 -21802 CVE-2025-0317 CVE-2026-33298 -7482",
    "recurrent layers": "CVE-2026-7141",
}
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "The river", "max_tokens": 2},
    CHAT: {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2},
    RESPONSES: {"input": "Hello", "max_output_tokens": 2},
    MESSAGES: {"model": "quire-demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/tokenize": {},
}  # fmt: skip


@pytest.fixture(scope="module", params=["", "2"], ids=["plain", "OO"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """With prompt embeddings on; one of the two runs under `python -OO`."""
    folder = tmp_path_factory.mktemp("batches")
    flags = (
        "--disable-uvicorn-access-log",
        "--engine-restarts",
        "0",
        "--responses-store",
        "memory",
    )
    flags += (
        "--batch-dir",
        str(folder),
        "--enable-prompt-embeds",
        "--enable-prompt-tokens-details",
    )
    variables = {"PYTHONOPTIMIZE": request.param} if request.param else {}
    with serving(*flags, **variables) as running:
        yield running


@dataclass(frozen=True)
class Row:
    """One advisory: the fields over a good body, what may come, the field that a refusal names."""

    advisory: str
    path: str
    fields: Any
    statuses: tuple[int, ...] = (400,)
    param: str | None = None

    def __str__(self) -> str:
        return self.advisory.replace(" ", "_")


def _constraint(**fields: Any) -> dict[str, Any]:
    return {"structured_outputs": fields}


def _tool(parameters: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": parameters}
    return {"tools": [{"type": "function", "function": function}]}


def _says(text: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _npy(dtype: str, shape: tuple[int, ...], data: bytes) -> str:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    made = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data
    return base64.b64encode(made).decode()


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self._marker,))


_PLACEHOLDERS = "<|vision_start|><|image_pad|><|vision_end|>"
_PARENTHESES = "(" * 30_000 + '"a"' + ")" * 30_000
_FORM, _KWARGS, _EMBEDS = "structured_outputs", "chat_template_kwargs", "prompt_embeds"
_PICKLED = base64.b64encode(b"\x80\x02cos\nsystem\n").decode()
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
_DERENDER = {"generate_response": {"choices": [{"token_ids": [10**9]}]}}
_LONG_IDS = {"token_ids": [5] * 9000, "sampling_params": {"max_tokens": 1}}
ROWS = [
    Row("CVE-2024-8768 empty", COMPLETIONS, {"prompt": ""}, param="prompt"),
    Row("CVE-2024-8768 list", COMPLETIONS, {"prompt": [[]]}, param="prompt"),
    Row("CVE-2024-8939 best_of", COMPLETIONS, {"best_of": 10**6}, param="best_of"),
    Row("CVE-2024-11040 beams", COMPLETIONS, {"use_beam_search": True, "best_of": 10}, param="use_beam_search"),
    Row("CVE-2026-34756", CHAT, {"n": 1_000_000}, param="n"),
    Row("CVE-2026-73559", COMPLETIONS, {"prompt": ["a"] * 100_000}, param="prompt"),
    Row("CVE-2026-73559 times n", COMPLETIONS, {"prompt": ["a"] * 1024, "n": 128}, param="prompt"),
    Row("CVE-2026-44222", CHAT, _says(_PLACEHOLDERS), (200,)),
    Row("CVE-2026-44222 ids", COMPLETIONS, {"prompt": _PLACEHOLDERS}, (200,)),
    Row("CVE-2025-46560", CHAT, _says(_PLACEHOLDERS * 25_000), (200, 400)),
    Row("CVE-2025-46560 tokenize", "/tokenize", {"prompt": "<|image_pad|>" * 70_000}, (200, 400)),
    Row("GHSA-v5gm", CHAT, {"stop_token_ids": [10**9], "min_tokens": 1}, param="stop_token_ids"),
    Row("CVE-2026-114051", CHAT, {"min_tokens": 10**9, "max_tokens": None}, param="min_tokens"),
    Row("CVE-2026-116173 allowed", CHAT, {"allowed_token_ids": [10**9]}, param="allowed_token_ids"),
    Row("CVE-2026-116173 logprobs", CHAT, {"logprob_token_ids": [1] * 129}, param="logprob_token_ids"),
    Row("CVE-2026-116173 many", CHAT, {"allowed_token_ids": list(range(10**6))}, param="allowed_token_ids"),
    Row("PYSEC-2026-4000 empty", CHAT, {"bad_words": [""]}, param="bad_words"),
    Row("CVE-2025-48942 schema", COMPLETIONS, _constraint(json='{"type": 5}'), param=_FORM),
    Row("CVE-2025-48943 regex", COMPLETIONS, _constraint(regex="(("), param=_FORM),
    Row("CVE-2025-48944 type", CHAT, _tool({"type": "something"}), param="tools"),
    Row("CVE-2025-48944 pattern", CHAT, _tool({"properties": {"a": {"pattern": "(("}}}), param="tools"),
    Row("CVE-2025-48944 braces", CHAT, _tool("{{}}"), param="tools"),
    Row("CVE-2026-105757 empty grammar", COMPLETIONS, _constraint(grammar=""), param=_FORM),
    Row("CVE-2026-55574", COMPLETIONS, _constraint(regex="(a+)+$"), (200, 400)),
    Row("CVE-2026-55574 while it runs", COMPLETIONS, _constraint(regex="[^x]*" * 400)),
    Row("CVE-2026-73556", COMPLETIONS, _constraint(regex="(a{1,100000}){1,100000}"), (200, 400)),
    Row("CVE-2026-25048 itself", COMPLETIONS, _constraint(grammar="root ::= root"), param=_FORM),
    Row("CVE-2025-58446 large", COMPLETIONS, _constraint(grammar="root ::= " + '"a" ' * 70_000), (200, 400)),
    Row("CVE-2025-32381 parentheses", COMPLETIONS, _constraint(grammar="root ::= " + _PARENTHESES), param=_FORM),
    Row("CVE-2025-61620", CHAT, {"chat_template": "{% for i in range(10**9) %}{% endfor %}"}, param="chat_template"),
    Row("CVE-2025-62426 tokenize", CHAT, {"chat_template_kwargs": {"tokenize": True}}, param=_KWARGS),
    Row("CVE-2026-115911 messages", CHAT, {"chat_template_kwargs": {"messages": []}}, param=_KWARGS),
    Row("PYSEC-2026-4349", "/tokenize", GOOD[CHAT] | {"chat_template_kwargs": {"chat_template": "x"}}, param=_KWARGS),
    Row("CVE-2026-100647 129", CHAT, {"cache_salt": "x" * 129}, param="cache_salt"),
    Row("CVE-2026-105756 slashes", CHAT, {"cache_salt": "../" * 20}, (200,)),
    Row("GHSA-h3rc", CHAT, {"mm_processor_kwargs": {"code_revision": "evil"}}, param="mm_processor_kwargs"),
    Row("GHSA-3mqx completions", COMPLETIONS, {"prompt": [5] * 9000, "truncate_prompt_tokens": None}, param="prompt"),
    Row("GHSA-3mqx chat", CHAT, _says("word " * 90_000), param="messages"),
    Row("GHSA-3mqx responses", RESPONSES, {"input": "word " * 90_000}, param="input"),
    Row("GHSA-3mqx messages", MESSAGES, _says("word " * 90_000)),
    Row("GHSA-3mqx ids", "/inference/v1/generate", _LONG_IDS),
    Row("CVE-2026-71486", "/v1/completions/derender", _DERENDER),
    Row("CVE-2026-21869 negative", COMPLETIONS, {"truncate_prompt_tokens": -5}, param="truncate_prompt_tokens"),
    Row("CVE-2026-21869 budget", CHAT, {"thinking_token_budget": -5}, param="thinking_token_budget"),
    Row("integers of more than 64 bits", MESSAGES, {"top_k": 10**30}),
    Row("integers of 100 bits, budget", CHAT, {"thinking_token_budget": 10**30}, param="thinking_token_budget"),
    Row("integers of 64 bits", MESSAGES, {"top_k": 2**63}, (200,)),
    Row("TGI CVE-2026-0599", CHAT, _says("![](http://127.0.0.1:1/x.png)"), (200,)),
    Row("CVE-2026-22778 chat", CHAT, _says([_IMAGE]), param="messages"),
    Row("CVE-2026-22778 messages", MESSAGES, _says([_BLOCK])),
    Row("CVE-2025-62164 pickle", COMPLETIONS, {_EMBEDS: _PICKLED}, param=_EMBEDS),
    Row("CVE-2025-62164 objects", COMPLETIONS, {_EMBEDS: _npy("|O", (1, 192), b"\x80\x04N.")}, param=_EMBEDS),
    Row("CVE-2025-62164 width", COMPLETIONS, {_EMBEDS: _npy("<f4", (1, 3), b"\0" * 12)}, param=_EMBEDS),
    Row("CVE-2025-62164 shape", COMPLETIONS, {_EMBEDS: _npy("<f4", (2**40, 2**40), b"")}, param=_EMBEDS),
    Row("CVE-2025-62164 complex", COMPLETIONS, {_EMBEDS: _npy("<c8", (1, 192), b"\0" * 1536)}, param=_EMBEDS),
    Row("CVE-2025-62164 no rows", COMPLETIONS, {_EMBEDS: _npy("<f4", (0, 192), b"")}, param=_EMBEDS),
    Row("CVE-2026-7304 processors", CHAT, {"vllm_xargs": {"logits_processor": "gASVEAAAAAAAAACM"}}, param="vllm_xargs"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_fired_it(client: httpx.Client, alive: Alive, row: Row) -> None:
    begun_s = time.monotonic()
    sent = json.dumps(GOOD.get(row.path, {}) | row.fields)
    answer = client.post(row.path, content=sent, headers={"Content-Type": "application/json"})
    assert time.monotonic() - begun_s < 20
    assert answer.status_code in row.statuses, answer.text[:500]
    if answer.status_code != 200:
        assert_refused(answer, answer.status_code, row.param, sent=sent[:10_000])
    alive.check(most_growth=(64 << 20) + 300 * len(sent))  # a long text takes memory once


def test_bytes_for_a_reader_of_pickles_do_nothing(
    server: Server, alive: Alive, tmp_path: Path
) -> None:
    """CVE-2024-9052, -11041, -50050, ShadowMQ: pickles to every socket of the server's processes."""
    bomb = pickle.dumps(Bomb(tmp_path / "marker")) + b"x" * (1 << 20)
    front = psutil.Process(server.process.pid)
    family = [front, *front.children(recursive=True)]
    places: list[Any] = []
    for one in family:
        for kind in one.net_connections("inet"):
            if kind.status == psutil.CONN_LISTEN:
                assert kind.laddr.ip == "127.0.0.1", kind
                places.append((kind.laddr.ip, kind.laddr.port))
        places += [path.laddr for path in one.net_connections("unix") if path.laddr]
    ports = {place for place in places if isinstance(place, tuple)}
    assert ports == {("127.0.0.1", int(server.url.rpartition(":")[2]))}
    # A stranger cannot reach the other sockets: their folder is closed, and has a name of its own.
    for path in {place for place in places if isinstance(place, str)}:
        assert Path(path).parent.stat().st_mode & 0o077 == 0, path
    for port in ports:
        with socket.create_connection(port, timeout=5) as one:
            try:
                one.sendall(bomb)
                assert one.recv(100).startswith(b"HTTP/1.1 400")
            except ConnectionResetError:
                pass
    assert not (tmp_path / "marker").exists()
    alive.check()


def test_the_client_of_no_route_sends_pickles(
    client: httpx.Client, alive: Alive, tmp_path: Path
) -> None:
    """CVE-2025-10164, CVE-2026-86793: routes that take weights or code are not there."""
    bomb = pickle.dumps(Bomb(tmp_path / "marker"))
    for path in (
        "/update_weights_from_tensor",
        "/update_weights",
        "/collective_rpc",
        "/v1/load_lora_adapter",
    ):
        assert client.post(path, content=bomb).status_code == 404
    for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, "/tokenize", "/v1/batches"):
        assert client.post(path, content=bomb).status_code in (400, 415)
    assert not (tmp_path / "marker").exists()
    alive.check()


def test_good_embeddings_beside_bad_ones(client: httpx.Client, alive: Alive) -> None:
    """GHSA-pr7f: at the same time, all the bad are refused and all the good are right."""
    width = next(
        size for size in (64, 96, 128, 160, 192, 224, 256, 320, 384, 512) if _fits(client, size)
    )
    good = {"prompt_embeds": _npy("<f4", (3, width), struct.pack("<f", 0.01) * 3 * width)}
    bad = {"prompt_embeds": _npy("<f4", (3, width), struct.pack("<f", float("nan")) * 3 * width)}
    ask = {"max_tokens": 3, "temperature": 0, "prompt": None}

    def send(number: int) -> httpx.Response:
        return client.post(COMPLETIONS, json=ask | (bad if number % 2 else good))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(32)))
    texts = {answer.json()["choices"][0]["text"] for answer in answers[::2]}
    assert len(texts) == 1
    for answer in answers[1::2]:
        assert_refused(answer, 400, "prompt_embeds")
    penalised = ask | good | {"repetition_penalty": 1.5, "frequency_penalty": 1.0}
    assert client.post(COMPLETIONS, json=penalised).status_code == 200  # CVE-2026-105922
    alive.check()


def _fits(client: httpx.Client, width: int) -> bool:
    body = {"prompt_embeds": _npy("<f4", (1, width), b"\0" * 4 * width), "max_tokens": 1}
    return client.post(COMPLETIONS, json=body).status_code == 200


def test_a_row_that_was_constrained_is_free_again(client: httpx.Client, alive: Alive) -> None:
    """GHSA-6cxc, PYSEC-2026-4000: masks, biases and bans stay with their request."""
    body = {"prompt": "The capital of France is", "max_tokens": 6, "temperature": 0}
    alone = client.post(COMPLETIONS, json=body).json()["choices"][0]["text"]
    for edit in (
        {"allowed_token_ids": [70]},
        {"logit_bias": {str(one): -100 for one in range(200, 1200)}},
        {"bad_words": [" Paris", "Paris", "🙂" * 3]},
        {"structured_outputs": {"regex": "[x-z]{3}"}},
        {"repetition_penalty": 1.9, "min_tokens": 5},
    ):
        assert client.post(COMPLETIONS, json=body | edit).status_code == 200
        assert client.post(COMPLETIONS, json=body).json()["choices"][0]["text"] == alone
        with ThreadPoolExecutor(8) as pool:
            both = list(
                pool.map(lambda one: client.post(COMPLETIONS, json=one), [body, body | edit] * 4)
            )
        assert {answer.json()["choices"][0]["text"] for answer in both[::2]} == {alone}
    alive.check()


def test_prompt_logprobs_over_a_cached_prefix(client: httpx.Client, alive: Alive) -> None:
    """CVE-2026-116180: warm and cold give the same numbers."""
    body = {
        "prompt": "warm and cold " * 40,
        "max_tokens": 1,
        "prompt_logprobs": 2,
        "temperature": 0,
        "seed": 1,
    }
    cold = client.post(COMPLETIONS, json=body | {"cache_salt": "cold"}).json()["choices"][0]
    assert client.post(COMPLETIONS, json=body | {"prompt_logprobs": None}).status_code == 200
    warm = client.post(COMPLETIONS, json=body).json()["choices"][0]
    assert warm == cold and cold["prompt_logprobs"][-1]
    alive.check()


def test_salts_keep_caches_apart(client: httpx.Client) -> None:
    """CVE-2025-46570, CVE-2026-105752: what one tenant has cached, another does not see."""

    def cached(path: str, salt: str) -> int:
        words = "a secret of one tenant " * 30
        body = GOOD[path] | ({"input": words} if path == RESPONSES else _says(words))
        if path == COMPLETIONS:
            body = {"prompt": words, "max_tokens": 1}
        usage = client.post(path, json=body | {"cache_salt": salt}).json()["usage"]
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or usage
        return int(details.get("cached_tokens", details.get("cache_read_input_tokens")) or 0)

    for path in (COMPLETIONS, CHAT, RESPONSES, MESSAGES):
        cached(path, f"one{path}")
        assert cached(path, f"one{path}") > 0
        assert cached(path, f"two{path}") == 0


def test_the_same_name_twice_at_once(client: httpx.Client, alive: Alive) -> None:
    """CVE-2026-105755: a client's id is no key of anything."""
    heads = {"X-Request-Id": "same"}
    bodies = [{"prompt": f"{one} {one}", "max_tokens": 20, "seed": one} for one in range(8)]
    alone = [client.post(COMPLETIONS, json=body).json()["choices"] for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        both = list(
            pool.map(lambda body: client.post(COMPLETIONS, json=body, headers=heads), bodies)
        )
    assert [answer.json()["choices"] for answer in both] == alone
    alive.check()


def test_special_tokens_that_are_typed_are_text(client: httpx.Client) -> None:
    """CVE-2026-44222, and no change of role: marks in content are not the ids of the marks."""
    marks = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<|eot_id|>", "[INST]")
    plain = client.post("/tokenize", json=GOOD[CHAT]).json()["tokens"]
    for mark in marks:
        ids = client.post("/tokenize", json=_says(f"Hello{mark}")).json()["tokens"]
        one = client.post("/tokenize", json={"prompt": mark, "add_special_tokens": False}).json()
        if len(one["tokens"]) == 1:
            assert ids.count(one["tokens"][0]) == plain.count(one["tokens"][0]), mark


def test_many_texts_to_tokenize_leave_nothing(client: httpx.Client, alive: Alive) -> None:
    """GHSA-823j: no cache of a thousand distinct texts."""
    for number in range(1000):
        assert client.post("/tokenize", json={"prompt": f"text {number} " * 20}).status_code == 200
    alive.check(most_growth=32 << 20)


def test_a_refusal_takes_no_time(client: httpx.Client) -> None:
    """CVE-2026-34756 and its like: the fastest of ten, as machines of tests are busy."""
    for path, fields in (
        (CHAT, {"n": 10**6}),
        (COMPLETIONS, {"prompt": ["a"] * 2000}),
        (CHAT, {"max_tokens": -1}),
        (MESSAGES, {"temperature": -1}),
    ):
        body = GOOD[path] | fields
        took_s = []
        for _ in range(10):
            begun_s = time.perf_counter()
            assert client.post(path, json=body).status_code == 400
            took_s.append(time.perf_counter() - begun_s)
        assert min(took_s) < 0.2, (path, fields, statistics.median(took_s))


def _raw(server: Server, data: bytes) -> bytes:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as one:
        one.sendall(data)
        parts = []
        try:
            while part := one.recv(1 << 16):
                parts.append(part)
        except (TimeoutError, ConnectionResetError):
            pass
    return b"".join(parts)


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    """A server with a key."""
    flags = ("--api-key", SECRET, "--keep-alive-timeout", "1", "--disable-uvicorn-access-log")
    with serving(*flags, "--responses-store", "none") as running:
        yield running


TARGETS = [
    (b"/v1/models", b"a/?b"), (b"/v1/models", b"x/../health?"), (b"/v1/models", b"a#"),
    (b"/v1/models", b"localhost/health"), (b"//v1/models", b"localhost"), (b"/V1/models", b"localhost"),
    (b"/v1%2Fmodels", b"localhost"), (b"/health/../v1/models", b"localhost"),
    (b"http://localhost/v1/models", b"localhost"), (b"/v1/models?/health", b"localhost"),
    (b"/v1/models#/health", b"localhost"), (b"/v1/models;/health", b"localhost"),
    (b"/health\\..\\v1\\models", b"localhost"), (b"*", b"localhost"),
    (b"/v1/models", b"localhost\r\nHost: other"), (b"/metrics/../v1/models", b"localhost"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "host"), TARGETS, ids=str)
def test_no_spelling_of_a_path_goes_round_the_key(
    locked: Server, target: bytes, host: bytes
) -> None:
    """CVE-2026-48746: the path that is guarded is the path that is routed."""
    data = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    answer = _raw(locked, data)
    status = int(answer[9:12])
    assert status in (400, 401, 403, 404), answer[:300]
    assert b"quire-demo" not in answer and SECRET.encode() not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": "Bearer " + "x" * 30_000},
        {"X-Api-Key": "wrong"},
        {"Cookie": f"key={SECRET}"},
    ],
)
def test_wrong_keys(locked: Server, headers: dict[str, str]) -> None:
    """Row E13 and CVE-2025-59425: no answer to any of them, nor to a key in the address."""
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", CHAT),
        ("POST", MESSAGES),
        ("GET", "/docs"),
    ):
        answer = httpx.request(method, f"{locked.url}{path}?key={SECRET}", headers=headers)
        assert_refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_every_hole_is_tested_somewhere() -> None:
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / path).read_text(), place
    names = " ".join([*(row.advisory for row in ROWS), *ELSEWHERE, *NOT_SERVED.values()])
    names += Path(__file__).read_text() + (TESTS / "robustness" / "test_source.py").read_text()
    assert len(set(re.findall(r"(?:CVE-\d{4}|PYSEC-\d{4}|GHSA)-\w+", names))) > 60
