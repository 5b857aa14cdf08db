"""Requests for the fuzzer: body number N of a seed, valid, or spoilt in structure, or spoilt in its bytes.

What is valid is `tests.robustness.valid`; sending and judging is `tests.robustness.fuzzing`.
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from typing import Any

from quire.protocol.options import StructuredOutputsParams
from quire.protocol.params import SamplingParams
from quire.server.schema.chat import ChatRequest, TokenizeRequest
from quire.server.schema.completions import CompletionRequest
from quire.server.schema.messages import MessagesRequest
from quire.server.schema.responses import ResponsesRequest
from tests.robustness.valid import GENERATING, ROUTES, Body, Rng

_PATHS = list(ROUTES)
_WEIGHTS = [share for share, _ in ROUTES.values()]

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 128, 129, 4095, 4096, 2**31, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63,
    2**64, -(2**63) - 1, 10**30, 0.0, -0.0, 0.5, 1.5, -0.1, 1e-9, 1e9, 1e308, "", " ", "a", "0", "null",
    "\x00", "\ufeff", "\u202e", "é" * 300, "x" * 129, "x" * 5000, "💥" * 50, "../../etc/passwd",
    "'; drop table", "<|endoftext|>", "{{ 7*7 }}", "{% for i in range(10**9) %}x{% endfor %}", "(a+)+$",
    "a{1,100000}", "((((((((((", "root ::= root", [], [[]], [None], [""], ["a", 1], [True], [-1], [2**63],
    [1.5], [0] * 600, ["a"] * 1025, ["a"] * 17, [[[[[[]]]]]], {}, {"a": {}}, {"": ""}, {"type": "x"},
    {"$ref": "#"}, {"type": "object", "properties": {"a": {"$ref": "#"}}}, {"role": "user"},
    {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}, {"__class__": 1},
)  # fmt: skip
_FORMS = (SamplingParams, StructuredOutputsParams, ChatRequest, TokenizeRequest, CompletionRequest)
_FORMS += (MessagesRequest, ResponsesRequest)
_NAMES = sorted({name for form in _FORMS for name in form.__struct_fields__})
"""Every field that any body may have."""
_OTHERS = ("", "max_token", "constructor", "__class__", "x" * 300, "é", "type", "$ref")
_LITERALS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 500, b"'x'", b"undefined", b"01")
_TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
    "multipart/form-data; boundary=x",
)
SHARES = (("valid", 0.45), ("structure", 0.45), ("bytes", 0.10))


@dataclass(frozen=True)
class Sent:
    """One request: what kind of body it is, where it goes, its head's extra lines and its bytes.

    path  as it stands in the request, percent-encoded.
    """

    kind: str
    path: str
    lines: tuple[str, ...]
    data: bytes
    method: str = "POST"

    def message(self, host: str) -> bytes:
        """The bytes of the whole request."""
        head = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        head.append(f"Content-Length: {len(self.data)}")
        return "\r\n".join([*head, *self.lines, "", ""]).encode() + self.data

    @property
    def generates(self) -> bool:
        """Whether an answer of 200 has been through the engine."""
        return self.path in GENERATING


def request_of(seed: int, number: int) -> Sent:
    """Request `number` of a seed; the same every time."""
    rng = random.Random(f"{seed}:{number}")
    path = rng.choices(_PATHS, _WEIGHTS)[0]
    body = ROUTES[path][1](rng)
    kind = rng.choices([name for name, _ in SHARES], [share for _, share in SHARES])[0]
    lines = ["Content-Type: application/json"]
    if kind == "structure":
        body = copy.deepcopy(body)  # parts of valid bodies are shared
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            _spoil(rng, body)
        if rng.random() < 0.03:
            lines = [f"Content-Type: {rng.choice(_TYPES)}"]
        if rng.random() < 0.03:
            lines.append(f"X-Request-Id: {rng.choice(('a', 'x' * 300, 'é', '%00', 'same'))}")
    data = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind == "bytes":
        data = _spoil_bytes(rng, data)
    return Sent(kind, path, tuple(lines), data)


def _spoil(rng: Rng, body: Body) -> None:
    """One change somewhere in the body."""
    holder, key = _place(rng, body)
    how = rng.randrange(10)
    if how <= 2 or (holder is body and key is None):
        _put(rng, holder, key, copy.deepcopy(rng.choice(ODD)))
    elif how == 3:
        _drop(holder, key)
    elif how == 4:
        _put(rng, holder, key, _retyped(rng, _at(holder, key)))
    elif how == 5:
        _put(rng, holder, key, _grown(rng, _at(holder, key)))
    elif how == 6:
        other, name = _place(rng, body)
        value = copy.deepcopy(_at(other, name))
        _put(rng, holder, key, value)
    elif how == 7:
        nested: Any = _at(holder, key)
        for _ in range(rng.choice((1, 3, 20, 100))):  # deeper ones are among the spoilt bytes
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        _put(rng, holder, key, nested)
    elif isinstance(holder, dict):
        name = rng.choice(_NAMES if rng.random() < 0.8 else _OTHERS)
        holder[name] = copy.deepcopy(rng.choice(ODD))


def _place(rng: Rng, body: Any) -> tuple[Any, Any]:
    """An object or list of the body with one of its keys; the higher up, the likelier."""
    holder, key = body, None
    while isinstance(holder, (dict, list)) and holder:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.5:
            break
        holder = inner
    return holder, key


def _at(holder: Any, key: Any) -> Any:
    return holder if key is None else holder[key]


def _put(rng: Rng, holder: Any, key: Any, value: Any) -> None:
    if key is not None:
        holder[key] = value
    elif isinstance(holder, dict):
        holder[rng.choice(("prompt", "messages", "n"))] = value


def _drop(holder: Any, key: Any) -> None:
    if key is not None:
        del holder[key]


def _retyped(rng: Rng, value: Any) -> Any:
    changes: tuple[Any, ...] = (str(value)[:2000], [value], {"value": value}, bool(value))
    if isinstance(value, (int, float)) and abs(value) < 1e300:
        changes += (-value, value + 0.5, int(value) * 10**9)
    return rng.choice(changes)


def _grown(rng: Rng, value: Any) -> Any:
    if isinstance(value, (str, list)):
        return value * rng.choice((2, 20, 300 if len(value) < 200 else 2))
    if isinstance(value, dict):
        return value | {f"key{number}": number for number in range(rng.choice((5, 200)))}
    return [value] * rng.choice((2, 200))


def _spoil_bytes(rng: Rng, data: bytes) -> bytes:
    how = rng.randrange(8)
    place = rng.randrange(len(data))
    if how == 0:
        return data[:place]
    if how == 1:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if how == 2:
        return (
            data[:place] + rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00")) + data[place:]
        )
    if how == 3:
        return b'{"temperature": ' + rng.choice(_LITERALS) + b", " + data[1:]
    if how == 4:
        return rng.choice((b"", b"null", b"[]", b'"x"', b"123", b"{", b"[" * 5000, b'{"a":' * 3000))
    if how == 5:
        return data + rng.choice((b"x", data, b"\n\n", b"]"))
    if how == 6:
        return rng.choice((b"\xef\xbb\xbf", b" \r\n", b"\xff\xfe")) + data
    return data[:-1] + b', "prompt": "again", "max_tokens": 1, "' + b'a": 1, "a": 2}'
