"""The demo model through `quire serve`, the official client and `LLM.chat`: it answers, and always the same."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from quire import LLM, SamplingParams
from quire.config.demo import FOLDER, NAME

QUESTION = "What is the capital of France?"
ASKED: Any = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The base URL of `quire serve` without a model, in its own process."""
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
    yield found[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, "".join(lines)


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(threads=1, kv_cache_memory_bytes=64 << 20) as made:
        yield made


def test_the_capital_of_france(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == [NAME]
    answer = client.chat.completions.create(model=NAME, messages=ASKED, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0}, {"temperature": 1.0, "seed": 7}, {"temperature": 1.5, "seed": 3, "n": 3},
        {"temperature": 1.2, "seed": 5, "stop": "is"}, {"max_tokens": 3, "temperature": 0},
        {"temperature": 1.0, "seed": 2, "logprobs": True, "top_logprobs": 3},
    ],
)  # fmt: skip
def test_streamed_text_is_the_whole_text(client: openai.OpenAI, how: dict[str, Any]) -> None:
    whole = client.chat.completions.create(model=NAME, messages=ASKED, **how)
    texts = [""] * how.get("n", 1)
    reasons: list[str | None] = [None] * how.get("n", 1)
    usage = None
    options: Any = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model=NAME, messages=ASKED, stream=True, stream_options=options, **how
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    if "logprobs" in how:
        logged = whole.choices[0].logprobs
        assert logged is not None and logged.content is not None
        shown = b"".join(bytes(one.bytes or ()) for one in logged.content).decode()
        assert shown.removesuffix("<|im_end|>") == texts[0]
        for one in logged.content:
            values = [top.logprob for top in one.top_logprobs]
            assert len(values) == 3 and values == sorted(values, reverse=True)


def test_an_answer_is_continued(client: openai.OpenAI) -> None:
    messages: Any = [*ASKED, {"role": "assistant", "content": "The capital of"}]
    extra = {"add_generation_prompt": False, "continue_final_message": True}
    answer = client.chat.completions.create(
        model=NAME, messages=messages, temperature=0, extra_body=extra
    )
    assert (answer.choices[0].message.content or "").startswith(" France is Paris")


def test_faults_reach_the_client_as_errors(client: openai.OpenAI) -> None:
    wrong: Any = [{"role": "root", "content": "Hi"}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=wrong)
    assert caught.value.param == "messages[0].role"


SERIES = (
    "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "quire:requests_accepted_total",
    "quire:requests_finished_total", "quire:requests_aborted_total", "quire:requests_failed_total",
)  # fmt: skip


def counters(url: str) -> dict[str, int]:
    """The series of SERIES as they stand, summed over their labels."""
    text = httpx.get(f"{url}/metrics").text
    found = {name: re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for name in SERIES}
    assert all(found.values()), f"missing in /metrics: {[n for n, v in found.items() if not v]}"
    return {name: int(sum(float(value) for value in values)) for name, values in found.items()}


def moved(url: str, since: dict[str, int], ended: int) -> list[int]:
    """How far each series has gone, once so many requests have ended; as it stands after 10 s."""
    deadline = time.monotonic() + 10
    while True:
        now = counters(url)
        steps = [now[name] - since[name] for name in SERIES]
        if sum(steps[3:]) >= ended or time.monotonic() > deadline:
            return steps
        time.sleep(0.05)


def chat_bodies(count: int) -> list[dict[str, Any]]:
    """Short questions; half are greedy, half drawn with a seed, and all show ids and logprobs."""
    return [
        {
            "messages": [{"role": "user", "content": f"What is {number} + {number % 7}?"}],
            "temperature": 1.0 if number % 2 else 0.0, "seed": number, "max_tokens": 16,
            "logprobs": True, "top_logprobs": 2, "return_token_ids": True,
        }
        for number in range(count)
    ]  # fmt: skip


async def ask_all(url: str, bodies: list[dict[str, Any]], at_once: int) -> list[dict[str, Any]]:
    """The whole answers, in order of the bodies."""
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:

        async def ask(body: dict[str, Any]) -> dict[str, Any]:
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        return await asyncio.gather(*(ask(body) for body in bodies))


def test_many_chats_at_once_each_equal_their_solo_run_and_metrics_add_up(url: str) -> None:
    bodies = chat_bodies(64)
    alone_bodies = [{**body, "cache_salt": f"alone-{n}"} for n, body in enumerate(bodies)]
    since = counters(url)
    together = asyncio.run(ask_all(url, bodies, 64))
    alone = asyncio.run(ask_all(url, alone_bodies, 1))
    for number, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert one["choices"] == other["choices"], f"chat {number}"
        choice = one["choices"][0]
        assert len(choice["token_ids"]) == one["usage"]["completion_tokens"] > 0
        assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
    assert len({one["choices"][0]["message"]["content"] for one in together}) > 32
    usages = [answer["usage"] for answer in [*together, *alone]]
    used = [sum(usage[name] for usage in usages) for name in ("prompt_tokens", "completion_tokens")]
    assert moved(url, since, 128) == [*used, 128, 128, 0, 0]


def test_chats_whose_readers_leave_are_counted_as_aborted(url: str) -> None:
    since = counters(url)

    async def leave(body: dict[str, Any]) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for _ in answer.aiter_lines():
                    return

    async def mixed() -> None:
        long = {"stream": True, "max_tokens": 400, "ignore_eos": True}
        bodies = chat_bodies(12)
        leavers = asyncio.gather(*(leave(body | long) for body in bodies[8:]))
        await asyncio.gather(ask_all(url, bodies[:8], 8), leavers)

    asyncio.run(mixed())
    assert moved(url, since, 12)[2:] == [12, 8, 4, 0]


def test_the_offline_face_says_the_same(client: openai.OpenAI, llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, seed=7, max_tokens=40)
    answer = llm.chat(ASKED, params, use_tqdm=False)[0]
    served = client.chat.completions.create(
        model=NAME, messages=ASKED, temperature=1.0, seed=7, max_tokens=40
    )
    assert answer.outputs[0].text == served.choices[0].message.content
    assert answer.prompt is not None and answer.prompt.endswith("<|im_start|>assistant\n")


def test_chat_is_that_of_transformers(llm: LLM) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="bfloat16")
    talks: Any = [ASKED, [{"role": "system", "content": "Be brief."}, *ASKED], ASKED * 1]
    params = SamplingParams(temperature=0, max_tokens=8)
    for talk, answer in zip(talks, llm.chat(talks, params, use_tqdm=False), strict=True):
        ids = tokenizer.apply_chat_template(
            talk, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        assert answer.prompt_token_ids == ids[0].tolist()
        theirs = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert list(answer.outputs[0].token_ids) == theirs.tolist()


def test_enqueued_chats_are_answered_in_order(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=16)
    talks: Any = [ASKED, [{"role": "user", "content": "Hello!"}]]
    names = llm.enqueue_chat(talks, params, use_tqdm=False)
    answers = llm.wait_for_completion(use_tqdm=False)
    assert [answer.request_id for answer in answers] == names
    expected = [one.outputs[0].text for one in llm.chat(talks, params, use_tqdm=False)]
    assert [answer.outputs[0].text for answer in answers] == expected


def test_wrong_conversations_are_refused(llm: LLM) -> None:
    with pytest.raises(ValueError, match=r"prompt 1: messages\[0\]\.role"):
        llm.chat([ASKED, [{"content": "a"}]], use_tqdm=False)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="both true"):
        llm.chat(ASKED, continue_final_message=True, use_tqdm=False)
    with pytest.raises(ValueError, match="tools"):
        llm.chat(ASKED, tools=[{"type": "function"}], use_tqdm=False)
    with pytest.raises(ValueError, match="messages"):
        llm.chat([], use_tqdm=False)
    own = llm.chat(ASKED, SamplingParams(max_tokens=1), chat_template="x", use_tqdm=False)[0]
    assert own.prompt == "x"
