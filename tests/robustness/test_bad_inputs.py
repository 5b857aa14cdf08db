"""The table of wrong inputs over HTTP: each is refused in words, soon, and the server is as before.

Rows that another file tests are named in `ELSEWHERE`. Numbers are those of the table.
"""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.killing import Server
from tests.robustness.alive import Alive, Neighbour, assert_refused, stretched

TESTS = Path(__file__).resolve().parents[1]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

ELSEWHERE: dict[int, str] = {
    3: "server/test_errors.py::test_numbers_that_json_or_the_machine_does_not_have",
    12: "server/test_info.py::test_hosts",
    16: "server/test_completions.py::test_request_ids",
    17: "server/test_admission.py::test_a_full_queue_is_429_at_once_and_never_reaches_the_engine",
    18: "server/test_errors.py::test_draining_and_loading_are_503_with_the_phase",
    19: "server/test_info.py::test_cross_origin_only_if_configured",
    7: "server/test_launch.py::test_heads_are_bounded_and_malformed_ones_refused",
    8: "server/test_launch.py::test_heads_are_bounded_and_malformed_ones_refused",
    9: "e2e/test_slow_clients.py::test_two_hundred_dawdlers_are_cut_off_and_nobody_waits_for_them",
    13: "robustness/test_advisories.py::test_wrong_keys",
    40: "server/test_errors.py::test_unknown_fields_are_named_in_a_header_or_refused",
    45: "robustness/test_advisories.py::test_what_fired_it",
    71: "unit/test_engine_cache.py::test_cached_blocks_are_evicted_least_recently_used_first",
    73: "models/test_registry.py::test_a_missing_folder_or_config_is_said",
    75: "models/test_registry.py::test_what_is_wrong_with_config_json_is_said",
    76: "unit/test_ledger.py::test_a_model_that_cannot_fit_is_refused_before_torch_is_loaded",
    77: "unit/test_faces.py::test_a_wrong_prompt_is_named_and_none_is_run",
    78: "unit/test_faces.py::test_one_params_or_priority_for_each_prompt",
    79: "unit/test_faces.py::test_an_llm_is_not_used_after_a_fork",
    80: "unit/test_faces.py::test_an_exception_ends_the_requests_of_the_call",
    81: "unit/test_faces_async.py::test_leaving_a_stream_ends_its_request",
    82: "unit/test_faces.py::test_a_dropped_llm_ends_its_engine",
    83: "unit/test_faces_async.py::test_many_requests_at_once_and_the_same_name_twice",
    84: "unit/test_faces.py::test_an_llm_is_not_copied",
    37: "server/test_errors.py::test_a_wrong_field_is_400_and_named",
    55: "engine/test_grammar.py::test_a_vocabulary_that_cannot_spell_the_constraint",
    68: "server/test_batches.py::test_a_file_with_a_fault_fails_before_anything_runs",
    74: "unit/test_faces.py::test_settings_by_name",
    85: "unit/test_processors.py::test_a_result_of_another_shape_is_an_error",
    86: "models/test_registry.py::test_damaged_weights_are_said",
    87: "models/test_registry.py::test_a_bad_index_is_said",
    88: "models/test_registry.py::test_what_is_wrong_with_config_json_is_said",
    89: "models/test_registry.py::test_what_is_wrong_with_config_json_is_said",
    61: "e2e/test_pooling_server.py::test_bad_requests_are_refused_and_the_server_goes_on",
    62: "e2e/test_pooling_server.py::test_a_model_for_text_says_what_would_make_it_embed",
    63: "e2e/test_pooling_server.py::test_bad_requests_are_refused_and_the_server_goes_on",
    92: "unit/test_config.py::test_names_that_do_nothing_are_told_apart",
    95: "models/test_registry.py::test_damaged_weights_are_said",
    99: "server/test_tls.py::test_what_cannot_work_is_said_before_anything_starts",
}
NOT_SERVED = {
    58: "requests have no time limit of their own",
    46: "images are not served: row 44 refuses them",
    60: "adapters are not served",
    67: "audio is not served",
    69: "adapters are not served",
}


@dataclass(frozen=True)
class Row:
    """Row `number` of the table: what is wrong, the fields over a good body, what is answered."""

    number: int
    what: str
    path: str
    body: Any
    status: int = 400
    param: str | None = None

    def __str__(self) -> str:
        return f"E{self.number}-{self.path.rpartition('/')[2]}-{self.what}".replace(" ", "_")


_ASK = [{"role": "user", "content": "Hello"}]
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "The river", "max_tokens": 2},
    CHAT: {"messages": _ASK, "max_tokens": 2},
    RESPONSES: {"input": "Hello", "max_output_tokens": 2},
    MESSAGES: {"model": "quire-demo", "messages": _ASK, "max_tokens": 2},
    "/tokenize": {},
    "/detokenize": {},
}


def _nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"type": "object", "properties": {"a": value}}
    return value


def _tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}} | function}]}


def _schema(schema: Any) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    }


def _called(call: Any) -> dict[str, Any]:
    said = {"role": "assistant", "tool_calls": [call]}
    answer = {"role": "tool", "content": "x", "tool_call_id": "c"}
    return {"messages": [*_ASK, said, answer]}


def _said(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "no json"}}
_LARGE_CALL = _CALL | {"function": {"name": "f", "arguments": "x" * 10**7}}
_NOBODY = {"type": "function", "function": {"name": "g"}}
_ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
_PARENTHESES = "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000
_FORM = "structured_outputs"
_MANY_PARTS = {"messages": [{"role": "user", "content": ["a"] * 600}] * 300}
_MANY = {f"k{one}": 1 for one in range(10**5)}

ROWS: list[Row] = [
    Row(1, "open brace", CHAT, b"{"),
    Row(1, "empty", CHAT, b""),
    Row(1, "null", CHAT, b"null"),
    Row(1, "list", RESPONSES, b"[]"),
    Row(1, "text", MESSAGES, b'"x"'),
    Row(1, "number", "/tokenize", b"123"),
    Row(2, "100000 lists", COMPLETIONS, b"[" * 100_000),
    Row(2, "100000 objects", CHAT, b'{"a":' * 100_000),
    Row(2, "deep messages", CHAT, b'{"messages":' + b"[" * 90_000 + b"]" * 90_000 + b"}"),
    Row(4, "not UTF-8", CHAT, b'{"messages": "\xff\xfe"}'),
    Row(4, "half a character", CHAT, b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
    Row(4, "NUL", COMPLETIONS, {"prompt": "a\x00b"}, 200),
    Row(4, "byte order mark", COMPLETIONS, b'\xef\xbb\xbf{"prompt": "a", "max_tokens": 1}', 200),
    Row(21, "no model", CHAT, {}, 200),
    Row(21, "unknown model", CHAT, {"model": "x" * 10_000}, 404, "model"),
    Row(21, "unknown model", RESPONSES, {"model": "nobody"}, 404, "model"),
    Row(21, "unknown model", MESSAGES, {"model": "nobody"}, 404),
    Row(22, "missing", COMPLETIONS, {"prompt": None}, 400, "prompt"),
    Row(22, "empty", COMPLETIONS, {"prompt": ""}, 400, "prompt"),
    Row(22, "list of empty", COMPLETIONS, {"prompt": [""]}, 400, "prompt"),
    Row(23, "negative", COMPLETIONS, {"prompt": [-1]}, 400, "prompt"),
    Row(23, "2**63", COMPLETIONS, {"prompt": [[2**63]]}, 400, "prompt"),
    Row(23, "beyond the vocabulary", COMPLETIONS, {"prompt": [10**6]}, 400, "prompt"),
    Row(24, "10 MB", COMPLETIONS, {"prompt": "word " * 2_000_000}, 400, "prompt"),
    Row(24, "10 MB", CHAT, _said("word " * 2_000_000), 400, "messages"),
    Row(24, "10 MB", RESPONSES, {"input": "word " * 2_000_000}, 400, "input"),
    Row(24, "10 MB", MESSAGES, _said("word " * 2_000_000)),
    Row(25, "0", CHAT, {"max_tokens": 0}, 400, "max_tokens"),
    Row(25, "-1", CHAT, {"max_tokens": -1}, 400, "max_tokens"),
    Row(25, "text", CHAT, {"max_tokens": "5"}, 400, "max_tokens"),
    Row(25, "1.0", CHAT, {"max_tokens": 1.0}, 200),
    Row(25, "beyond the context is capped", CHAT, {"max_tokens": 2**40, "stop": ["e", "a"]}, 200),
    Row(25, "two limits", CHAT, {"max_completion_tokens": 3}, 400, "max_tokens"),
    Row(25, "0", RESPONSES, {"max_output_tokens": 0}, 400, "max_output_tokens"),
    Row(25, "0", MESSAGES, {"max_tokens": 0}),
    Row(26, "over the context is capped", COMPLETIONS, {"max_tokens": 10**7, "stop": ["e", "a"]}, 200),
    Row(27, "over max_tokens", CHAT, {"min_tokens": 3}, 400, "min_tokens"),
    Row(27, "negative", CHAT, {"min_tokens": -1}, 400, "min_tokens"),
    Row(27, "huge", CHAT, {"min_tokens": 2**40, "max_tokens": None}, 400, "min_tokens"),
    Row(28, "0", CHAT, {"n": 0}, 400, "n"),
    Row(28, "129", CHAT, {"n": 129}, 400, "n"),
    Row(28, "greedy and two", CHAT, {"n": 2, "temperature": 0}, 200),
    Row(29, "negative", CHAT, {"temperature": -0.1}, 400, "temperature"),
    Row(29, "text", CHAT, {"temperature": "0"}, 400, "temperature"),
    Row(29, "tiny", CHAT, {"temperature": 1e-9}, 200),
    Row(29, "2.1", CHAT, {"temperature": 2.1}, 200),
    Row(29, "1e9", MESSAGES, {"temperature": 1e9}),
    Row(29, "1e9", RESPONSES, {"temperature": 1e9}, 400, "temperature"),
    Row(30, "0", CHAT, {"top_p": 0}, 400, "top_p"),
    Row(30, "-2", CHAT, {"top_k": -2}, 400, "top_k"),
    Row(30, "huge is off", CHAT, {"top_k": 10**9}, 200),
    Row(30, "1.1", CHAT, {"min_p": 1.1}, 400, "min_p"),
    Row(31, "2.01", CHAT, {"presence_penalty": 2.01}, 400, "presence_penalty"),
    Row(31, "0", CHAT, {"repetition_penalty": 0}, 400, "repetition_penalty"),
    Row(32, "-1", CHAT, {"seed": -1}, 200),
    Row(32, "2**63", CHAT, {"seed": 2**63}, 200),
    Row(32, "2**64", CHAT, {"seed": 2**64}, 400, "seed"),
    Row(32, "1.5", CHAT, {"seed": 1.5}, 400, "seed"),
    Row(33, "empty", CHAT, {"stop": ""}, 400, "stop"),
    Row(33, "17", CHAT, {"stop": ["x"] * 17}, 400, "stop"),
    Row(33, "1 MB", CHAT, {"stop": "x" * 10**6}, 400, "stop"),
    Row(33, "empty", MESSAGES, {"stop_sequences": [""]}),
    Row(34, "out of range", CHAT, {"stop_token_ids": [10**9], "min_tokens": 1}, 400, "stop_token_ids"),
    Row(34, "10**6", CHAT, {"stop_token_ids": [1] * 10**6}, 400, "stop_token_ids"),
    Row(35, "alone", CHAT, {"top_logprobs": 2}, 400, "top_logprobs"),
    Row(35, "21", CHAT, {"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    Row(35, "true", COMPLETIONS, {"logprobs": True}, 400, "logprobs"),
    Row(35, "streamed", CHAT, {"prompt_logprobs": 1, "stream": True}, 400, "prompt_logprobs"),
    Row(36, "text", CHAT, {"logit_bias": {"abc": 1}}, 400, "logit_bias"),
    Row(36, "out of range", CHAT, {"logit_bias": {str(10**7): 1}}, 400, "logit_bias"),
    Row(36, "101", CHAT, {"logit_bias": {"5": 101}}, 400, "logit_bias"),
    Row(36, "10**5 keys", CHAT, {"logit_bias": {str(one): 1 for one in range(10**5)}}, 400, "logit_bias"),
    Row(38, "text", CHAT, {"stream": "yes"}, 400, "stream"),
    Row(38, "options alone", CHAT, {"stream_options": {"include_usage": True}}, 400, "stream_options"),
    Row(38, "unknown option", CHAT, {"stream": True, "stream_options": {"x": 1}}, 200),
    Row(39, "suffix", COMPLETIONS, {"suffix": "x"}, 400, "suffix"),
    Row(41, "missing", CHAT, {"messages": None}, 400, "messages"),
    Row(41, "empty", CHAT, {"messages": []}, 400, "messages"),
    Row(41, "object", CHAT, {"messages": {}}, 400, "messages"),
    Row(41, "10**6", CHAT, {"messages": [1] * 10**6}, 400, "messages"),
    Row(41, "many parts in many", CHAT, _MANY_PARTS, 400, "messages"),
    Row(41, "no role", CHAT, {"messages": [*_ASK, {"content": "x"}]}, 400, "messages"),
    Row(41, "role of ten letters", CHAT, {"messages": [{"role": 5, "content": "x"}]}, 400, "messages"),
    Row(41, "content 5", CHAT, _said(5), 400, "messages"),
    Row(41, "list of numbers", MESSAGES, {"messages": [5]}),
    Row(41, "number", RESPONSES, {"input": [5]}, 400, "input"),
    Row(42, "both ends", CHAT, {"continue_final_message": True}, 400),
    Row(43, "special tokens", CHAT, _said("<|im_start|>system\nx<|im_end|></s><|image_pad|>"), 200),
    Row(44, "image", CHAT, _said([_IMAGE]), 400, "messages"),
    Row(44, "audio", CHAT, _said([{"type": "input_audio", "input_audio": {}}]), 400, "messages"),
    Row(44, "unknown part", CHAT, _said([{"type": "smell"}]), 400, "messages"),
    Row(44, "image without an address", CHAT, _said([{"type": "image_url"}]), 400, "messages"),
    Row(44, "image", MESSAGES, _said([{"type": "image", "source": {"type": "url", "url": "http://x/"}}])),
    Row(44, "image", RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
    Row(47, "1000 images", CHAT, _said([_IMAGE] * 1000), 400, "messages"),
    Row(48, "template", CHAT, {"chat_template": "{{ 1 }}"}, 400, "chat_template"),
    Row(48, "tokenize", CHAT, {"chat_template_kwargs": {"tokenize": True}}, 400, "chat_template_kwargs"),
    Row(48, "template inside", CHAT, {"chat_template_kwargs": {"chat_template": "x"}}, 400, "chat_template_kwargs"),
    Row(48, "10**5 keys", CHAT, {"chat_template_kwargs": _MANY}, 400, "chat_template_kwargs"),
    Row(49, "no list", CHAT, {"tools": {}}, 400, "tools"),
    Row(49, "129", CHAT, {"tools": _tool()["tools"] * 129}, 400, "tools"),
    Row(49, "twice", CHAT, {"tools": _tool()["tools"] * 2}, 400, "tools"),
    Row(49, "name with a space", CHAT, _tool(name="a b"), 400, "tools"),
    Row(49, "name of 10 kB", CHAT, _tool(name="a" * 10_000), 400, "tools"),
    Row(49, "no schema", CHAT, _tool(parameters="x"), 400, "tools"),
    Row(49, "type something", CHAT, _tool(parameters={"type": "something"}), 400, "tools"),
    Row(49, "pattern", CHAT, _tool(parameters={"properties": {"a": {"pattern": "(("}}}), 400, "tools"),
    Row(49, "reference to itself", CHAT, _tool(parameters={"$ref": "#"}), 400, "tools"),
    Row(49, "distant reference", CHAT, _tool(parameters={"$ref": "http://127.0.0.1:1/"}), 400, "tools"),
    Row(50, "required alone", CHAT, {"tool_choice": "required"}, 400, "tool_choice"),
    Row(50, "empty object", CHAT, _tool() | {"tool_choice": {}}, 400, "tool_choice"),
    Row(50, "unknown name", CHAT, _tool() | {"tool_choice": _NOBODY}, 400, "tool_choice"),
    Row(50, "parallel x", CHAT, _tool() | {"parallel_tool_calls": "x"}, 400, "parallel_tool_calls"),
    Row(51, "arguments no JSON", CHAT, _called(_CALL), 200),
    Row(51, "10 MB arguments", CHAT, _called(_LARGE_CALL), 400, "messages"),
    Row(52, "empty", CHAT, {"response_format": {}}, 400, "response_format"),
    Row(52, "unknown", CHAT, {"response_format": {"type": "yaml"}}, 400, "response_format"),
    Row(52, "no schema", CHAT, {"response_format": {"type": "json_schema"}}, 400, "response_format"),
    Row(52, "any JSON", CHAT, _schema({}), 200),
    Row(52, "false", CHAT, _schema(False), 400, "response_format"),
    Row(52, "no choice", CHAT, _schema({"enum": []})),
    Row(52, "minLength 10**9", CHAT, _schema({"type": "string", "minLength": 10**9})),
    Row(52, "endless", CHAT, _schema(_ENDLESS)),
    Row(52, "depth 64 and more", CHAT, _schema(_nested(200))),
    Row(52, "5 MB", CHAT, _schema({"enum": ["x" * 5_000_000]})),
    Row(52, "pattern", CHAT, _schema({"type": "string", "pattern": "((("})),
    Row(53, "empty", COMPLETIONS, {"structured_outputs": {"grammar": ""}}, 400, "structured_outputs"),
    Row(53, "syntax", COMPLETIONS, {"structured_outputs": {"grammar": "root ::= ("}}, 400, "structured_outputs"),
    Row(53, "unknown rule", COMPLETIONS, {_FORM: {"grammar": "root ::= nobody"}}, 400, _FORM),
    Row(53, "itself", COMPLETIONS, {"structured_outputs": {"grammar": "root ::= root"}}, 400, "structured_outputs"),
    Row(53, "30000 parentheses", COMPLETIONS, {_FORM: {"grammar": _PARENTHESES}}, 400, _FORM),
    Row(53, "no choice", COMPLETIONS, {"structured_outputs": {"choice": []}}, 400, "structured_outputs"),
    Row(53, "two at once", COMPLETIONS, {_FORM: {"regex": "a", "choice": ["b"]}}, 400, _FORM),
    Row(54, "one token", CHAT, _schema({"type": "object"}) | {"max_tokens": 1}, 200),
    Row(56, "129", CHAT, {"cache_salt": "x" * 129}, 400, "cache_salt"),
    Row(56, "newline", CHAT, {"cache_salt": "a\nb"}, 400, "cache_salt"),
    Row(56, "number", RESPONSES, {"cache_salt": 5}, 400, "cache_salt"),
    Row(56, "129", MESSAGES, {"cache_salt": "x" * 129}),
    Row(57, "text", CHAT, {"priority": "a"}, 400, "priority"),
    Row(57, "10**30", CHAT, {"priority": 10**30}, 400, "priority"),
    Row(57, "user 10 kB", CHAT, {"user": "x" * 10_000}, 400, "user"),
    Row(57, "deep metadata", RESPONSES, {"metadata": {"a": _nested(100)}}, 400, "metadata"),
    Row(59, "off", COMPLETIONS, {"prompt": None, "prompt_embeds": "AAAA"}, 400, "prompt_embeds"),
    Row(64, "missing", "/tokenize", {}, 400, "prompt"),
    Row(64, "10 MB", "/tokenize", {"prompt": "x" * 10**7}, 400, "prompt"),
    Row(64, "missing", "/detokenize", {}, 400, "tokens"),
    Row(64, "out of range", "/detokenize", {"tokens": [10**9]}, 400, "tokens"),
    Row(65, "unknown", RESPONSES, {"previous_response_id": "resp_nobody"}, 404, "previous_response_id"),
    Row(66, "no model", MESSAGES, {"model": None}),
    Row(66, "tools no list", MESSAGES, {"tools": 5}),
    Row(66, "system 5", MESSAGES, {"system": 5}),
]  # fmt: skip


@pytest.fixture(scope="module")
def ready(client: httpx.Client) -> httpx.Client:
    """The client, when what compiles constraints has started: that takes a second, once."""
    assert client.post(CHAT, json=GOOD[CHAT] | _schema({})).status_code == 200
    return client


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_wrong_body_is_answered_in_words_and_soon(
    ready: httpx.Client, alive: Alive, neighbour: Neighbour, row: Row
) -> None:
    data = row.body
    if not isinstance(data, bytes):
        data = json.dumps(GOOD[row.path] | data).encode()
    head = {"Content-Type": "application/json"}
    with neighbour:
        begun_s = time.monotonic()
        answer = ready.post(row.path, content=data, headers=head)
        took_s = time.monotonic() - begun_s
    if row.status == 200:
        assert answer.status_code == 200, answer.text[:1000]
    else:
        message = assert_refused(
            answer, row.status, row.param, sent=data[:10_000].decode("latin-1")
        )
        assert len(message) <= 2000 and "Recursion" not in message
    assert took_s < stretched(2.0 if row.number in (52, 53) else 1.0), took_s
    alive.check()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=utf-16", 415),
        (None, 200),
    ],
)
def test_media_types(server: Server, alive: Alive, given: str | None, status: int) -> None:
    """Rows 5 and 20: what a form in a browser can send is not read."""
    for path in (COMPLETIONS, CHAT, RESPONSES, MESSAGES):
        request = httpx.Request("POST", server.url + path, content=json.dumps(GOOD[path]))
        if given is not None:
            request.headers["Content-Type"] = given
        with httpx.Client(timeout=60) as client:
            answer = client.send(request)
        if status == 200:
            assert answer.status_code == 200, answer.text
        else:
            assert_refused(answer, status)
    alive.check()


def test_sizes(server: Server, alive: Alive) -> None:
    """Rows 6, 14 and 56: what is too large is not read to its end; packed bodies are not unpacked."""

    def endless() -> Any:
        while True:
            yield b" " * (1 << 20)

    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert_refused(httpx.post(server.url + CHAT, content=b"\x1f\x8b", headers=packed), 415)
    head = {"Content-Type": "application/json"}
    with httpx.Client(timeout=60) as client:
        try:
            answer = client.post(server.url + CHAT, content=endless(), headers=head)
        except httpx.WriteError:
            pass  # closed while the client still wrote
        else:
            assert_refused(answer, 413)
    alive.check(most_growth=200 << 20)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
        ("FOO", "/v1/models", 400),  # no method that HTTP knows
        ("PROPFIND", "/v1/models", 405),
        ("TRACE", "/v1/models", 405),
        ("GET", "/v1/nope", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/V1/models", 404),
        ("GET", "/v1/responses/resp_nobody", 404),
        ("DELETE", "/v1/responses/resp_nobody", 404),
        ("POST", "/v1/responses/resp_nobody/cancel", 404),
        ("GET", "/v1/files/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/files/file-nobody/content", 404),
        ("GET", "/v1/batches/batch_nobody", 404),
        ("POST", "/pause", 404),
        ("POST", "/update_weights", 404),
        ("POST", "/v1/load_lora_adapter", 404),
    ],
)
def test_paths_and_methods(
    server: Server, alive: Alive, method: str, path: str, status: int
) -> None:
    """Rows 10 and 11, and what is not there."""
    answer = httpx.request(method, server.url + path)
    assert_refused(answer, status)
    if status == 405:
        assert answer.headers["allow"]
    alive.check()


def test_methods_are_no_label(server: Server) -> None:
    """Row 10: what clients make up makes no new series of metrics."""

    def series() -> int:
        return len(re.findall(r"^\w", httpx.get(f"{server.url}/metrics").text, re.M))

    def made_up(number: int) -> None:
        httpx.request(
            f"M{number}", f"{server.url}/v1/x{number}", headers={"X-Request-Id": str(number)}
        )
        httpx.post(server.url + CHAT, json=GOOD[CHAT] | {"model": f"m{number}"})

    made_up(0)
    before = series()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(made_up, range(1, 100)))
    assert series() == before


def test_a_thousand_wrong_requests_beside_good_streams(server: Server, alive: Alive) -> None:
    """Row 70: eight streams are as they are alone."""
    body = {"prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": True}

    def stream(seed: int) -> bytes:
        with httpx.stream(
            "POST", server.url + COMPLETIONS, json=body | {"seed": seed}, timeout=120
        ) as answer:
            lines = [line for line in answer.iter_lines() if line.startswith("data: {")]
        return "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines).encode()

    alone = [stream(seed) for seed in range(8)]
    wrong = [row for row in ROWS if row.status >= 400]
    small = [
        (
            row.path,
            row.body
            if isinstance(row.body, bytes)
            else json.dumps(GOOD[row.path] | row.body).encode(),
        )
        for row in wrong
    ]
    small = [(path, data) for path, data in small if len(data) < 100_000]

    def send(number: int) -> int:
        path, data = small[number % len(small)]
        with httpx.Client(timeout=120) as client:
            head = {"Content-Type": "application/json"}
            return client.post(server.url + path, content=data, headers=head).status_code

    with ThreadPoolExecutor(24) as pool:
        streams = [pool.submit(stream, seed) for seed in range(8)]
        statuses = list(pool.map(send, range(400)))
        assert [one.result() for one in streams] == alone
    assert all(400 <= status < 500 for status in statuses)
    alive.check(most_growth=256 << 20)  # many at a time


def test_every_row_is_tested_somewhere() -> None:
    here = {row.number for row in ROWS} | {5, 6, 10, 11, 14, 20, 70}
    for name in ("test_faults.py", "test_starts.py"):
        text = (TESTS / "robustness" / name).read_text()
        here |= {int(one) for one in re.findall(r"\bE(\d+)\b", text)}
    assert sorted(set(range(1, 101)) - here - ELSEWHERE.keys() - NOT_SERVED.keys()) == []
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / path).read_text(), place
