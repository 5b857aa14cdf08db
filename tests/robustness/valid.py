"""Requests as clients send them, made at random from a seed: what the fuzzer starts from.

How they are spoilt is `tests.robustness.spoilt`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Rng = random.Random
Body = dict[str, Any]

WORDS = (
    "The", "capital", "of", "France", "is", "Paris", "river", "three", "dogs", "red", "and", "then", "weather",
    "number", "what", "who", "12", "é", "東京", "🙂", "<|im_start|>", "<|im_end|>", "<think>", "</s>", '{"a":',
    "1}", "\\n", "\t", "'", '"', "%", "{{", "x", "}}",
)  # fmt: skip
NUM_TOKENS = 4
"""Most tokens that a valid body asks for."""

SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
    {"type": "string", "maxLength": 5},
    {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    {"$ref": "#/$defs/n", "$defs": {"n": {"type": "number", "minimum": 0}}},
]
REGEXES = ("[a-c]{1,3}", "(yes|no)", "\\d+", "[^x]*", "a?b+c*")
GRAMMARS = ('root ::= "a" | "b"', 'start: "x" /[0-9]+/', 'root ::= [a-z]+ " " [0-9]')
TOOLS: list[Body] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {}}},
    {"type": "function", "function": {"name": "add", "strict": True, "parameters": SCHEMAS[0]}},
]


def text(rng: Rng, most: int = 12) -> str:
    """A few words, some of them of several bytes, some that look like markup."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def token_ids(rng: Rng) -> list[int]:
    """Ids that the demo model has."""
    return [rng.randrange(4000) for _ in range(rng.randint(1, 10))]


def _constraint(rng: Rng) -> Body:
    return rng.choice(
        (
            {"json": rng.choice(SCHEMAS)},
            {"regex": rng.choice(REGEXES)},
            {"choice": ["yes", "no", "maybe so"]},
            {"grammar": rng.choice(GRAMMARS)},
            {"json_object": True},
        )
    )


def _format(rng: Rng) -> Body:
    return rng.choice(
        (
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "s", "schema": rng.choice(SCHEMAS)}},
        )
    )


SAMPLING: dict[str, Callable[[Rng], Any]] = {
    "model": lambda rng: "quire-demo",
    "n": lambda rng: rng.choice((1, 2, 3)),
    "temperature": lambda rng: rng.choice((0, 0.5, 1, 1.0, 2)),
    "top_p": lambda rng: rng.choice((0.1, 0.9, 1)),
    "top_k": lambda rng: rng.choice((-1, 0, 1, 50)),
    "min_p": lambda rng: rng.choice((0, 0.1, 1)),
    "seed": lambda rng: rng.randrange(2**40),
    "stop": lambda rng: rng.choice(("zq", ["\n", "Paris"], ["é", "🙂"])),
    "stop_token_ids": token_ids,
    "frequency_penalty": lambda rng: rng.uniform(-2, 2),
    "presence_penalty": lambda rng: rng.uniform(-2, 2),
    "repetition_penalty": lambda rng: rng.choice((0.5, 1, 1.3)),
    "logit_bias": lambda rng: {str(one): rng.uniform(-100, 100) for one in token_ids(rng)},
    "allowed_token_ids": token_ids,
    "bad_words": lambda rng: [text(rng, 2)],
    "ignore_eos": lambda rng: True,
    "min_tokens": lambda rng: rng.choice((0, 1)),
    "skip_special_tokens": lambda rng: rng.choice((True, False)),
    "include_stop_str_in_output": lambda rng: True,
    "truncate_prompt_tokens": lambda rng: rng.choice((1, 5, -1)),
    "return_token_ids": lambda rng: True,
    "cache_salt": lambda rng: rng.choice(("a", "tenant-7", "x" * 128)),
    "user": lambda rng: "somebody",
    "response_format": _format,
    "structured_outputs": _constraint,
    "prompt_logprobs": lambda rng: rng.choice((0, 1, 5)),
    "logprob_token_ids": token_ids,
    "return_tokens_as_token_ids": lambda rng: True,
    "request_id": lambda rng: f"id-{rng.randrange(10**9)}",
    "priority": lambda rng: 0,
    "guided_choice": lambda rng: ["a", "b"],
}
CHAT: dict[str, Callable[[Rng], Any]] = SAMPLING | {
    "logprobs": lambda rng: True,
    "tools": lambda rng: rng.sample(TOOLS, rng.randint(1, 3)),
    "reasoning_effort": lambda rng: rng.choice(("none", "low", "high")),
    "chat_template_kwargs": lambda rng: rng.choice(({}, {"enable_thinking": False}, {"x": [1]})),
    "add_generation_prompt": lambda rng: True,
    "parallel_tool_calls": lambda rng: rng.choice((True, False)),
    "include_reasoning": lambda rng: False,
    "documents": lambda rng: [{"title": "t", "text": text(rng)}],
    "thinking_token_budget": lambda rng: rng.choice((-1, 0, 3)),
}
RESPONSES: dict[str, Callable[[Rng], Any]] = {
    name: SAMPLING[name] for name in ("model", "temperature", "top_p", "top_k", "seed", "cache_salt")
} | {
    "instructions": text,
    "store": lambda rng: rng.choice((True, False)),
    "metadata": lambda rng: {"a": "b"},
    "text": lambda rng: {"format": {"type": "json_schema", "name": "s", "schema": rng.choice(SCHEMAS)}},
    "tools": lambda rng: [{"type": "function", **TOOLS[0]["function"]}],
    "reasoning": lambda rng: {"effort": rng.choice(("low", "high"))},
    "top_logprobs": lambda rng: rng.choice((0, 3)),
    "previous_response_id": lambda rng: f"resp_{rng.randrange(10**9)}",
    "include": lambda rng: ["message.output_text.logprobs"],
    "truncation": lambda rng: "auto",
}  # fmt: skip
ANTHROPIC: dict[str, Callable[[Rng], Any]] = {
    name: SAMPLING[name] for name in ("temperature", "top_p", "top_k", "seed", "cache_salt")
} | {
    "system": lambda rng: rng.choice((text(rng), [{"type": "text", "text": text(rng)}])),
    "stop_sequences": lambda rng: ["zq"],
    "tools": lambda rng: [{"name": "f", "input_schema": SCHEMAS[0], "description": "d"}],
    "thinking": lambda rng: {"type": "enabled", "budget_tokens": 1024},
    "metadata": lambda rng: {"user_id": "u"},
}


def messages(rng: Rng) -> list[Body]:
    """A conversation, sometimes with calls of tools in it."""
    found: list[Body] = []
    if rng.random() < 0.3:
        found.append({"role": "system", "content": text(rng)})
    for turn in range(rng.randint(1, 3)):
        if turn:
            if rng.random() < 0.3:
                call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
                calls = [{"id": f"c{turn}", "type": "function", "function": call}]
                found.append({"role": "assistant", "content": None, "tool_calls": calls})
                found.append({"role": "tool", "tool_call_id": f"c{turn}", "content": text(rng)})
            else:
                found.append({"role": "assistant", "content": text(rng)})
        said: Any = text(rng)
        if rng.random() < 0.2:
            said = [{"type": "text", "text": said}, {"type": "text", "text": text(rng)}]
        found.append({"role": "user", "content": said})
    return found


def _with(rng: Rng, body: Body, fields: dict[str, Callable[[Rng], Any]]) -> Body:
    count = min(len(fields), int(rng.expovariate(0.7)))
    for name in rng.sample(sorted(fields), count):
        body[name] = fields[name](rng)
    return body


def _streamed(rng: Rng, body: Body) -> Body:
    if rng.random() < 0.35:
        body["stream"] = True
        if rng.random() < 0.4:
            body["stream_options"] = {"include_usage": True}
    return body


def completion(rng: Rng) -> Body:
    """A body of /v1/completions."""
    makers: list[Callable[[], Any]] = [
        lambda: text(rng),
        lambda: token_ids(rng),
        lambda: [text(rng, 4) for _ in range(rng.randint(1, 4))],
        lambda: [token_ids(rng) for _ in range(rng.randint(1, 3))],
    ]
    prompt = rng.choices(makers, (6, 2, 1, 1))[0]()
    body = {"prompt": prompt, "max_tokens": rng.randint(1, NUM_TOKENS)}
    own: dict[str, Callable[[Rng], Any]] = {
        "logprobs": lambda rng: rng.choice((0, 1, 5)),
        "echo": lambda rng: True,
        "best_of": lambda rng: 3,
    }
    return _streamed(rng, _with(rng, body, SAMPLING | own))


def chat(rng: Rng) -> Body:
    """A body of /v1/chat/completions."""
    body = {"messages": messages(rng), "max_tokens": rng.randint(1, NUM_TOKENS)}
    _with(rng, body, CHAT)
    if body.get("logprobs") and rng.random() < 0.5:
        body["top_logprobs"] = rng.choice((0, 2, 20))
    if "tools" in body and rng.random() < 0.5:
        body["tool_choice"] = rng.choice(("auto", "none", "required"))
    return _streamed(rng, body)


def responses(rng: Rng) -> Body:
    """A body of /v1/responses."""
    items = [{"type": "message", **one} for one in messages(rng) if "tool_calls" not in one]
    items = [one for one in items if one["role"] != "tool"]
    body: Body = {"input": text(rng) if rng.random() < 0.6 else items}
    body["max_output_tokens"] = rng.randint(1, NUM_TOKENS)
    _with(rng, body, RESPONSES)
    if rng.random() < 0.9:
        body.pop("previous_response_id", None)
    if rng.random() < 0.3:
        body["stream"] = True
    return body


def anthropic(rng: Rng) -> Body:
    """A body of /v1/messages."""
    said = [one for one in messages(rng) if one["role"] in ("user", "assistant") and one["content"]]
    body = {"model": "quire-demo", "messages": said, "max_tokens": rng.randint(1, NUM_TOKENS)}
    _with(rng, body, ANTHROPIC)
    if rng.random() < 0.3:
        body["stream"] = True
    return body


def generate(rng: Rng) -> Body:
    """A body of /inference/v1/generate."""
    params = _with(rng, {"max_tokens": rng.randint(1, NUM_TOKENS)}, SAMPLING)
    for name in ("model", "user", "response_format", "truncate_prompt_tokens", "cache_salt"):
        params.pop(name, None)
    return _streamed(rng, {"token_ids": token_ids(rng), "sampling_params": params})


def tokenize(rng: Rng) -> Body:
    """A body of /tokenize."""
    body: Body = {"prompt": text(rng)} if rng.random() < 0.6 else {"messages": messages(rng)}
    if rng.random() < 0.3:
        body["return_token_strs"] = True
    return body


def detokenize(rng: Rng) -> Body:
    """A body of /detokenize."""
    return {"tokens": token_ids(rng)}


def derender(rng: Rng) -> Body:
    """A body of /v1/chat/completions/derender."""
    choice = {"index": 0, "token_ids": token_ids(rng), "finish_reason": "length"}
    answer = {"request_id": "a", "choices": [choice], "model": "quire-demo"}
    return {"generate_response": answer, "chat_request": chat(rng), "prompt_tokens": 3}


def conversations(rng: Rng) -> Body:
    """A body of /v1/chat/completions/batch."""
    return {"messages": [messages(rng), messages(rng)], "max_tokens": rng.randint(1, NUM_TOKENS)}


def batch(rng: Rng) -> Body:
    """A body of /v1/batches, about a file that is not there."""
    found = {"input_file_id": f"file-{rng.randrange(10**6)}", "endpoint": "/v1/chat/completions"}
    return found | {"completion_window": "24h"}


def count(rng: Rng) -> Body:
    """A body of /v1/messages/count_tokens."""
    body = anthropic(rng)
    return {name: body[name] for name in ("model", "messages", "system", "tools") if name in body}


def input_tokens(rng: Rng) -> Body:
    """A body of /v1/responses/input_tokens."""
    return {"input": text(rng), "model": "quire-demo"}


ROUTES: dict[str, tuple[float, Callable[[Rng], Body]]] = {
    "/v1/completions": (26, completion),
    "/v1/chat/completions": (26, chat),
    "/v1/responses": (12, responses),
    "/v1/messages": (10, anthropic),
    "/inference/v1/generate": (6, generate),
    "/tokenize": (5, tokenize),
    "/detokenize": (3, detokenize),
    "/v1/chat/completions/render": (2, chat),
    "/v1/completions/render": (2, completion),
    "/v1/chat/completions/derender": (2, derender),
    "/v1/messages/count_tokens": (2, count),
    "/v1/responses/input_tokens": (1, input_tokens),
    "/v1/chat/completions/batch": (1, conversations),
    "/invocations": (1, chat),
    "/v1/batches": (1, batch),
}
"""Each path with its share, and what makes a body for it."""

GENERATING = frozenset(
    {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"}
    | {"/inference/v1/generate", "/v1/chat/completions/batch", "/invocations"}
)
"""Paths whose answer of 200 has been through the engine."""
