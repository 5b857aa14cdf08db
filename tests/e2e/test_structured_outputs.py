"""Structured outputs as users ask for them: `LLM`, `AsyncLLM`, the official client, and a helper that dies."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import psutil
import pydantic
import pytest

from quire import LLM, SamplingParams
from quire.async_llm import AsyncLLM
from quire.config.args import EngineArgs
from quire.config.demo import FOLDER, NAME
from quire.protocol.errors import InvalidRequestError, SettingsError
from quire.protocol.params import BeamSearchParams, RequestOutputKind, StructuredOutputsParams

SMALL: dict[str, Any] = {"threads": 1, "kv_cache_memory_bytes": 64 << 20}
PROMPT = "Tell me about a lake."


class Lake(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(max_length=24)
    depth: int = pydantic.Field(ge=0, le=999)
    kind: Literal["salt", "sweet"]


LAKE = Lake.model_json_schema()


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(**SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """The base URL of `quire serve` with the demo model, and its process id."""
    command = [sys.executable, "-m", "quire", "serve", "--port", "0", "--threads", "1"]
    command += ["--kv-cache-memory-bytes", "64M", "--uvicorn-log-level", "warning"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    found = None
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    assert found, "".join(lines)
    rest = process.stderr
    threading.Thread(target=lambda: lines.extend(rest), daemon=True).start()
    deadline = time.monotonic() + 60
    while httpx.get(f"{found[0]}/ready").status_code != 200:
        assert process.poll() is None and time.monotonic() < deadline, "".join(lines)
        time.sleep(0.1)
    yield found[0], process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, "".join(lines)


@pytest.fixture(scope="module")
def client(server: tuple[str, int]) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0)


def params(seed: int = 1, **constraint: Any) -> SamplingParams:
    wanted = StructuredOutputsParams(**constraint)
    return SamplingParams(max_tokens=200, temperature=1.0, seed=seed, structured_outputs=wanted)


def text_of(llm: LLM, how: SamplingParams) -> str:
    (output,) = llm.generate(PROMPT, how, use_tqdm=False)
    assert output.outputs[0].finish_reason == "stop"
    return output.outputs[0].text


# Offline.


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_kind_is_followed(llm: LLM, seed: int) -> None:
    for schema in (Lake, LAKE, json.dumps(LAKE)):
        Lake.model_validate_json(text_of(llm, params(seed, json=schema)))
    assert re.fullmatch(
        r"\w{2,6}@\w{2,6}\.com", text_of(llm, params(seed, regex=r"\w{2,6}@\w{2,6}\.com"))
    )
    assert text_of(llm, params(seed, choice=["red", "green", "blå"])) in ("red", "green", "blå")
    listed = text_of(
        llm, params(seed, grammar='root ::= "[" item ("," item ("," item)?)? "]"\nitem ::= [0-9]')
    )
    assert all(0 <= one <= 9 for one in json.loads(listed))
    assert re.fullmatch(
        "a[0-9]{1,3}", text_of(llm, params(seed, grammar='start: "a" N\nN: /[0-9]{1,3}/'))
    )
    compact = text_of(llm, params(seed, json=LAKE, disable_any_whitespace=True))
    assert compact == json.dumps(json.loads(compact), separators=(",", ":"), ensure_ascii=False)
    tag = {
        "begin": "<lake>",
        "content": {"type": "json_schema", "json_schema": LAKE},
        "end": "</lake>",
    }
    tree = {"type": "triggered_tags", "triggers": ["<lake>"], "tags": [tag | {"type": "tag"}],
            "at_least_one": True, "stop_after_first": True}  # fmt: skip
    marked = text_of(
        llm, params(seed, structural_tag=json.dumps({"type": "structural_tag", "format": tree}))
    )
    Lake.model_validate_json(marked.removeprefix("<lake>").removesuffix("</lake>"))


def test_any_object(llm: LLM) -> None:
    how = params(json_object=True)
    how.max_tokens = 600
    found = llm.generate(
        [PROMPT] * 24, [params_of(how, seed) for seed in range(24)], use_tqdm=False
    )
    ended = [one.outputs[0] for one in found if one.outputs[0].finish_reason == "stop"]
    assert len(ended) >= 4  # a third of them on average
    assert all(isinstance(json.loads(one.text), dict) for one in ended)


def params_of(how: SamplingParams, seed: int) -> SamplingParams:
    own = how.clone()
    own.seed = seed
    return own


def test_with_n_logprobs_penalties_and_stop_strings(llm: LLM) -> None:
    how = params(json=LAKE)
    how.n, how.logprobs, how.presence_penalty, how.stop = 4, 2, 1.0, ["\x00never"]
    (output,) = llm.generate(PROMPT, how, use_tqdm=False)
    for one in output.outputs:
        Lake.model_validate_json(one.text)
        assert one.logprobs is not None and len(one.logprobs) == len(one.token_ids)
    assert len({one.text for one in output.outputs}) > 1


def test_the_users_params_are_not_changed(llm: LLM) -> None:
    how = params(choice=["a"])
    assert text_of(llm, how) == "a" and how.structured_outputs is not None


@pytest.mark.parametrize(
    ("constraint", "word"),
    [
        ({"json": {"type": "something"}}, "something"), ({"json": "{"}, "JSON"), ({"regex": "(("}, "regex"),
        ({"regex": "a{1,100000}"}, "too complex"), ({"grammar": "root ::= root"}, "grammar"),
        ({"grammar": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000}, "too complex"),
        ({"json": {"const": "x" * 300_000}}, "262144"), ({"json": {"a": {1, 2}}}, "JSON"),
        ({"choice": ["\ud800"]}, "surrogate"), ({"choice": [str(n) for n in range(10_001)]}, "10000"),
        ({"regex": "a", "backend": "xgrammar"}, "structured-outputs-config"),
        ({"structural_tag": "{}"}, "structural"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_it_is_queued(
    llm: LLM, constraint: dict[str, Any], word: str
) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match="structured_outputs") as caught:
        llm.generate(PROMPT, params(**constraint), use_tqdm=False)
    assert word in str(caught.value) and caught.value.param == "structured_outputs"
    assert time.monotonic() - started < 30.0
    assert text_of(llm, params(choice=["on"])) == "on"


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"regex": "a", "choice": ["b"]}, {"json_object": False}, {"choice": []}, {"choice": [""]},
        {"choice": "ab"}, {"grammar": ""}, {"json": ""}, {"regex": 3}, {"json": [1]},
        {"regex": "a", "disable_any_whitespace": 1}, {"regex": "a", "backend": 7},
    ],
)  # fmt: skip
def test_params_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="structured_outputs"):
        StructuredOutputsParams(**fields)


def test_a_budget_of_thinking_needs_a_parser() -> None:
    with (
        LLM(FOLDER, **SMALL) as made,
        pytest.raises(InvalidRequestError, match="--reasoning-parser"),
    ):
        made.generate(PROMPT, SamplingParams(thinking_token_budget=4), use_tqdm=False)


def test_the_answer_behind_the_thinking_is_bound() -> None:
    with LLM(FOLDER, **SMALL, reasoning_parser="qwen3") as thinking:
        how = params(json=LAKE)
        how.thinking_token_budget, how.n, how.max_tokens = 12, 4, 300
        (output,) = thinking.generate("<think>", how, use_tqdm=False)
        for one in output.outputs:
            thought, _, answer = one.text.partition("</think>")
            assert thought and len(thinking.get_tokenizer().encode(thought)) <= 14
            Lake.model_validate_json(answer)
        (closed,) = thinking.generate("<think></think>", params(choice=["yes"]), use_tqdm=False)
        assert closed.outputs[0].text == "yes"


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"backend": "outlines"}, "outlines"), ({"backend": "lm-format-enforcer"}, "vocabulary"),
        ({"backend": "other"}, "auto, guidance or xgrammar"), ({"unheard": 1}, "unheard"),
        ({"disable_any_whitespace": "yes"}, "true or false"), ({"reasoning_parser": "x"}, "--reasoning-parser"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_work(config: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        LLM(**SMALL, structured_outputs_config=config)


def test_options_of_the_engine_hold_for_every_request() -> None:
    config = {"disable_any_whitespace": True, "disable_additional_properties": True}
    with LLM(**SMALL, structured_outputs_config=config) as made:
        loose = {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["a"],
        }
        found = text_of(made, params(json=loose))
    assert re.fullmatch(r'\{"a":[0-9]\}', found)


@pytest.mark.slow
def test_the_other_backend() -> None:
    pytest.importorskip("xgrammar", reason="the extra xgrammar is not installed")
    with LLM(**SMALL, structured_outputs_config={"backend": "xgrammar"}) as made:
        Lake.model_validate_json(text_of(made, params(json=LAKE)))
        assert text_of(made, params(choice=["red", "green"])) in ("red", "green")
        with pytest.raises(InvalidRequestError, match="use guidance"):
            made.generate(PROMPT, params(json={"type": "integer", "multipleOf": 3}), use_tqdm=False)


def test_beams_are_refused(llm: LLM) -> None:
    how = BeamSearchParams(
        beam_width=2, max_tokens=4, structured_outputs=StructuredOutputsParams(choice=["yes", "no"])
    )
    with pytest.raises(InvalidRequestError, match="structured_outputs"):
        llm.beam_search([{"prompt": PROMPT}], how)


# Beside others.


def test_other_requests_go_on_while_a_constraint_is_compiled() -> None:
    async def inside() -> None:
        args = EngineArgs(**SMALL)
        engine = AsyncLLM.from_settings(args.to_settings(), own_process=False)
        try:
            slow: Any = engine._inputs.constraints._structured  # type: ignore[union-attr]
            for helper in slow._helpers:
                real = helper.check
                helper.check = lambda spec, real=real: (time.sleep(1.0), real(spec))[1]
            delta = SamplingParams(
                max_tokens=30, output_kind=RequestOutputKind.DELTA, ignore_eos=True
            )

            async def constrained() -> str:
                async for output in engine.generate(PROMPT, params(choice=["yes"]), "slow"):
                    last = output
                return last.outputs[0].text

            async def free() -> float:
                started = time.monotonic()
                async for _ in engine.generate(PROMPT, delta, "free"):
                    pass
                return time.monotonic() - started

            answer = asyncio.create_task(constrained())
            await asyncio.sleep(0.05)
            assert await free() < 0.9 and not answer.done()
            assert await answer == "yes"
        finally:
            engine.shutdown()

    asyncio.run(inside())


# Over HTTP.


def helpers_of(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [one for one in children if "quire.engine.grammar.helper" in " ".join(one.cmdline())]


def test_response_formats(client: openai.OpenAI) -> None:
    schema: Any = {
        "type": "json_schema",
        "json_schema": {"name": "lake", "schema": LAKE, "strict": True},
    }
    asked: Any = [{"role": "user", "content": PROMPT}]
    made = client.completions.create(
        model=NAME,
        prompt=PROMPT,
        max_tokens=200,
        temperature=1,
        seed=4,
        extra_body={"response_format": schema},
    )
    assert made.choices[0].finish_reason == "stop"
    Lake.model_validate_json(made.choices[0].text)
    for stream in (False, True):
        if stream:
            pieces = client.chat.completions.create(
                model=NAME,
                messages=asked,
                temperature=1,
                seed=5,
                response_format=schema,
                stream=True,
            )
            text = "".join(one.choices[0].delta.content or "" for one in pieces if one.choices)
        else:
            whole = client.chat.completions.create(
                model=NAME, messages=asked, temperature=1, seed=5, response_format=schema
            )
            text = whole.choices[0].message.content or ""
        Lake.model_validate_json(text)
    parsed = client.chat.completions.parse(model=NAME, messages=asked, response_format=Lake, seed=6)
    assert isinstance(parsed.choices[0].message.parsed, Lake)
    loose = client.chat.completions.create(
        model=NAME, messages=asked, response_format={"type": "json_object"}, seed=1, max_tokens=800
    )
    if loose.choices[0].finish_reason == "stop":
        json.loads(loose.choices[0].message.content or "")


@pytest.mark.parametrize(
    "body",
    [
        {"structured_outputs": {"choice": ["yes", "no"]}}, {"guided_choice": ["yes", "no"]},
        {"guided_regex": "yes|no"}, {"structured_outputs": {"regex": "yes|no"}},
        {"guided_grammar": 'root ::= "yes" | "no"'}, {"guided_json": {"enum": ["yes"]}},
        {"guided_json": '{"enum": ["yes"]}', "guided_whitespace_pattern": "[ ]?"},
        {"guided_choice": ["yes", "no"], "guided_decoding_backend": "auto"},
        {"response_format": {"type": "text"}, "guided_choice": ["yes", "no"]},
        {"structured_outputs": {"structural_tag": {"format": {"type": "const_string", "value": "yes"}}}},
        {"response_format": {"type": "structural_tag", "format": {"type": "const_string", "value": "no"}}},
    ],
)  # fmt: skip
def test_every_field_that_constrains(server: tuple[str, int], body: dict[str, Any]) -> None:
    shared = {
        "model": NAME,
        "max_tokens": 200,
        "temperature": 1,
        "seed": 5,
    }  # a chat thinks at times
    plain = httpx.post(f"{server[0]}/v1/completions", json={"prompt": PROMPT, **shared, **body})
    assert plain.status_code == 200, plain.text
    assert plain.json()["choices"][0]["text"].strip('"') in ("yes", "no")
    messages = [{"role": "user", "content": PROMPT}]
    chat = httpx.post(
        f"{server[0]}/v1/chat/completions", json={"messages": messages, **shared, **body}
    )
    assert chat.status_code == 200, chat.text
    assert chat.json()["choices"][0]["message"]["content"].strip('"') in ("yes", "no")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {}}, "response_format"), ({"response_format": {"type": "unheard"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": False}}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "response_format"),
        ({"structured_outputs": {}}, "structured_outputs"), ({"structured_outputs": 3}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "(("}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
        ({"guided_regex": "a", "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array", "maxItems": 10**9}}}},
         "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://a.b/c"}}}},
         "response_format"),
        ({"guided_json": {"type": "nothing"}}, "guided_json"),
        ({"structured_outputs": {"regex": "(a+)+$"}}, "structured_outputs"),
        ({"guided_regex": "(("}, "guided_regex"), ({"guided_regex": 3}, "guided_regex"),
    ],
)  # fmt: skip
def test_bad_constraints_get_400(server: tuple[str, int], body: dict[str, Any], param: str) -> None:
    answer = httpx.post(
        f"{server[0]}/v1/completions", json={"model": NAME, "prompt": PROMPT, **body}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_any_json_where_the_schema_is_empty(server: tuple[str, int]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "any", "schema": {}}}
    body = {"model": NAME, "prompt": PROMPT, "response_format": form, "max_tokens": 1}
    answer = httpx.post(f"{server[0]}/v1/completions", json=body)
    assert answer.status_code == 200 and answer.json()["choices"][0]["finish_reason"] == "length"


def test_a_helper_that_is_killed_harms_at_most_its_request(server: tuple[str, int]) -> None:
    url, pid = server
    body = {"model": NAME, "prompt": PROMPT, "max_tokens": 20}

    def ask(regex: str) -> httpx.Response:
        return httpx.post(
            f"{url}/v1/completions",
            json=body | {"structured_outputs": {"regex": regex}},
            timeout=60,
        )

    assert ask("before[0-9]").status_code == 200
    (helper, *_) = helpers_of(pid)
    os.kill(helper.pid, signal.SIGSTOP)  # it hangs: past the deadline it is killed
    hangs = ask("hangs[0-9]")
    assert hangs.status_code == 400 and "too complex" in hangs.text
    assert not psutil.pid_exists(helper.pid)
    assert ask("next[0-9]").status_code == 200
    (helper, *_) = helpers_of(pid)
    os.kill(helper.pid, signal.SIGSTOP)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(ask("dies[0-9]")))
    asking.start()
    time.sleep(0.3)
    os.kill(helper.pid, signal.SIGKILL)  # in the middle of a constraint
    asking.join()
    assert answers[0].status_code == 400 and "killed" in answers[0].text
    assert ask("dies[0-9]").status_code == 200  # it was not the constraint's doing
    for helper in helpers_of(pid):
        os.kill(helper.pid, signal.SIGKILL)  # while it is idle
    assert ask("after[0-9]").status_code == 200
    assert httpx.get(f"{url}/health").status_code == 200


def test_the_front_stays_light() -> None:
    code = (
        "import sys, quire.frontend.constraints, quire.frontend.structured, quire.server.schema.constraints;"
        "print([one for one in ('torch', 'transformers', 'llguidance', 'xgrammar') if one in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    code = (
        "import sys, quire.engine.grammar.helper;"
        "print([one for one in ('torch', 'transformers') if one in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_nothing_of_an_unconstrained_request_changes(llm: LLM) -> None:
    free = SamplingParams(max_tokens=40, temperature=1.0, seed=9, logprobs=2, ignore_eos=True)
    (alone,) = llm.generate(PROMPT, free, use_tqdm=False)
    mixed = llm.generate(
        [PROMPT] * 5, [params(n, json=LAKE) for n in range(4)] + [free], use_tqdm=False
    )
    assert mixed[4].outputs[0].token_ids == alone.outputs[0].token_ids
    assert str(mixed[4].outputs[0].logprobs) == str(alone.outputs[0].logprobs)
    for one in mixed[:4]:
        jsonschema.validate(json.loads(one.outputs[0].text), LAKE)
