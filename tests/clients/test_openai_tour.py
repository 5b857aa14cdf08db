"""The official `openai` client at what the other files of this folder leave out: completions, models, every field,
raw answers, asyncio, options, timeouts, errors."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.served import served

MODEL = "quire-demo"
KEY = "secret"
FRANCE = "The capital of France is"
ASKED: Any = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
NEWEST = (3, 54)
"""The release of the client whose fields the tables below list."""
TRANSPORT = {"extra_headers", "extra_query", "extra_body", "timeout"}
VERSION = tuple(int(part) for part in openai.__version__.split(".")[:2])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    words = ["--threads", "1", "--kv-cache-memory-bytes", "64M", "--api-key", KEY]
    words += ["--enable-request-id-headers", "--enable-prompt-tokens-details"]
    words += ["--responses-store", "memory", "--max-body-bytes", "1M"]
    words += ["--served-model-name", MODEL, "second", "third/name"]
    with served(tmp_path_factory.mktemp("tour"), *words) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def complete(client: openai.OpenAI, **body: Any) -> Any:
    given = {"model": MODEL, "prompt": FRANCE, "max_tokens": 8, "temperature": 0, **body}
    return client.completions.create(**given)


def chat(client: openai.OpenAI, **body: Any) -> Any:
    given = {"model": MODEL, "messages": ASKED, "max_tokens": 60, "temperature": 0, **body}
    return client.chat.completions.create(**given)


def running(url: str) -> float:
    """Requests that the engine runs."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("vllm:num_requests_running{")
    )


def settles(url: str, wanted: float) -> bool:
    for _ in range(100):
        if running(url) == wanted:
            return True
        time.sleep(0.05)
    return False


def test_models(client: openai.OpenAI) -> None:
    names = [MODEL, "second", "third/name"]
    assert [one.id for one in client.models.list()] == names
    listed = client.models.list()
    assert listed.object == "list" and not listed.has_next_page()
    for name in names:
        card = client.models.retrieve(name)
        assert (card.id, card.object) == (name, "model") and card.created > 0
        assert chat(client, model=name).model == name
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.param == "model" and "other" in caught.value.message


def test_prompts_of_every_form(client: openai.OpenAI, url: str) -> None:
    whole = complete(client)
    assert (whole.object, whole.choices[0].text) == ("text_completion", " Paris.")
    tokens = client.post("/../tokenize", body={"prompt": FRANCE}, cast_to=httpx.Response)
    ids = tokens.json()["tokens"]
    for prompt in ([FRANCE], ids, [ids]):
        assert complete(client, prompt=prompt).choices[0].text == " Paris."
    many = complete(
        client, prompt=[FRANCE, "The capital of Italy is"], n=2, temperature=0.1, seed=1
    )
    assert [one.index for one in many.choices] == [0, 1, 2, 3]
    assert {one.text for one in many.choices[2:]} == {" Rome."}
    assert many.usage.total_tokens == many.usage.prompt_tokens + many.usage.completion_tokens


def test_completion_fields_act(client: openai.OpenAI) -> None:
    def text(**body: Any) -> str:
        return str(complete(client, **body).choices[0].text)

    assert text(echo=True) == FRANCE + " Paris."
    scored = complete(client, echo=True, max_tokens=0, logprobs=2).choices[0].logprobs
    assert "".join(scored.tokens) == FRANCE and scored.token_logprobs[0] is None
    assert scored.text_offset[0] == 0 and len(scored.top_logprobs[-1]) >= 2
    first = complete(client, logprobs=1, max_tokens=1).choices[0].logprobs.tokens[0]
    paris = client.post("/../tokenize", body={"prompt": first}, cast_to=httpx.Response).json()
    banned = {str(one): -100 for one in paris["tokens"]}
    assert not text(logit_bias=banned, max_tokens=1).startswith(first)
    assert text(stop="ris") == " Pa" and text(stop=["x", "ris"]) == " Pa"
    assert complete(client, max_tokens=1).choices[0].finish_reason == "length"
    warm = {"temperature": 1.5, "top_p": 0.9, "max_tokens": 20}
    assert text(**warm, seed=7) == text(**warm, seed=7)
    assert len({text(**warm, prompt="My", seed=one) for one in range(6)}) > 1
    again = {"prompt": "one one one one one one", "max_tokens": 20}
    assert text(**again, frequency_penalty=2, presence_penalty=2) != text(**again)
    best = complete(client, best_of=3, n=2, temperature=1, seed=1)
    assert len(best.choices) == 2
    assert text(user="ann", extra_headers={"X-Other": "1"}, extra_query={"a": "b"}) == " Paris."
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, suffix="!")
    assert caught.value.param == "suffix"


def test_a_completion_in_pieces(client: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    pieces = list(complete(client, stream=True, stream_options=options))
    assert "".join(one.choices[0].text for one in pieces if one.choices) == " Paris."
    assert pieces[-1].choices == [] and pieces[-1].usage == complete(client).usage
    assert all(one.usage is not None for one in pieces)
    with complete(client, stream=True, max_tokens=2000, extra_body={"ignore_eos": True}) as stream:
        assert next(iter(stream)).id.startswith("cmpl-")


CHAT_FIELDS: dict[str, Any] = {
    "frequency_penalty": 0.5, "logit_bias": {"5": -100}, "logprobs": True, "max_tokens": 60,
    "max_completion_tokens": 60, "metadata": {"a": "b"}, "modalities": ["text"], "n": 1,
    "parallel_tool_calls": False, "presence_penalty": 0.1, "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"}, "prompt_cache_retention": "24h",
    "prediction": {"type": "content", "content": ANSWER}, "moderation": {"mode": "off"},
    "reasoning_effort": "none", "response_format": {"type": "text"}, "safety_identifier": "ann",
    "seed": 3, "service_tier": "auto", "stop": ["\n\n\n"], "store": False, "stream": False,
    "temperature": 0.0, "tool_choice": "none", "tools": None, "top_p": 1.0, "user": "ann",
    "top_logprobs": 0, "verbosity": "low", "web_search_options": {}, "stream_options": None,
}  # fmt: skip
"""Fields of a chat and values that are taken. Those that mean nothing to a server of one's own change nothing."""
CHAT_REFUSED: dict[str, Any] = {
    "audio": {"format": "wav", "voice": "ash"}, "modalities": ["text", "audio"], "n": 0,
    "functions": [], "function_call": "auto", "temperature": -1, "top_p": 0,
    "top_logprobs": 3, "frequency_penalty": -3, "presence_penalty": 3, "max_tokens": 0,
    "max_completion_tokens": -1, "reasoning_effort": "huge", "response_format": {"type": "xml"},
    "logit_bias": {"x": 1}, "stream_options": {"include_usage": True}, "tool_choice": "some",
}  # fmt: skip


@pytest.mark.skipif(VERSION > NEWEST, reason="a newer client may have fields that are not listed")
def test_every_field_of_a_chat_is_listed(client: openai.OpenAI) -> None:
    known = set(inspect.signature(client.chat.completions.create).parameters)
    assert known - TRANSPORT - {"messages", "model"} <= CHAT_FIELDS.keys() | CHAT_REFUSED.keys()


@pytest.mark.parametrize("name", CHAT_FIELDS)
def test_a_field_of_a_chat_is_taken(client: openai.OpenAI, name: str) -> None:
    found = chat(client, extra_body={name: CHAT_FIELDS[name]})
    assert found.choices[0].message.content.strip() == ANSWER


@pytest.mark.parametrize("name", CHAT_REFUSED)
def test_a_field_of_a_chat_is_refused(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, extra_body={name: CHAT_REFUSED[name]})
    assert name in str(caught.value.param) or name in caught.value.message


RESPONSE_FIELDS: dict[str, Any] = {
    "access_programs": ["a"], "background": False, "background_options": None,
    "context_management": None, "image": None, "include": ["reasoning.encrypted_content"],
    "instructions": "Be brief.", "max_output_tokens": 60, "max_tool_calls": 2,
    "metadata": {"a": "b"}, "moderation": None, "parallel_tool_calls": False,
    "previous_response_id": None, "prompt_cache_key": "k", "prompt_cache_options": None,
    "prompt_cache_retention": "24h", "reasoning": {"effort": "none"}, "safety_identifier": "ann",
    "service_tier": "auto", "store": False, "stream": False, "stream_options": None,
    "temperature": 0, "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1, "truncation": "auto",
    "user": "ann",
}  # fmt: skip
RESPONSE_REFUSED: dict[str, Any] = {
    "conversation": "conv_1", "prompt": {"id": "pmpt_1"}, "max_output_tokens": 0, "temperature": -1,
    "top_p": 2, "top_logprobs": 50, "truncation": "some", "text": {"format": {"type": "xml"}},
    "metadata": {"a": 5}, "tool_choice": "some", "previous_response_id": "resp_none",
}  # fmt: skip


def respond(client: openai.OpenAI, **body: Any) -> Any:
    given = {"model": MODEL, "input": ASKED, "max_output_tokens": 60, "temperature": 0, **body}
    return client.responses.create(**given)


@pytest.mark.skipif(VERSION > NEWEST, reason="a newer client may have fields that are not listed")
def test_every_field_of_a_response_is_listed(client: openai.OpenAI) -> None:
    listed = {"input", "model", *RESPONSE_FIELDS, *RESPONSE_REFUSED}
    known = set(inspect.signature(client.responses.create).parameters)
    assert known - TRANSPORT <= listed
    known = set(inspect.signature(client.responses.input_tokens.count).parameters)
    assert known - TRANSPORT - {"personality"} <= listed


@pytest.mark.parametrize("name", RESPONSE_FIELDS)
def test_a_field_of_a_response_is_taken(client: openai.OpenAI, name: str) -> None:
    found = respond(client, extra_body={name: RESPONSE_FIELDS[name]})
    assert found.status == "completed" and ANSWER in found.output_text
    echoed = getattr(found, name, None)
    if name in ("instructions", "max_tool_calls", "metadata", "parallel_tool_calls", "user"):
        assert echoed == RESPONSE_FIELDS[name]


@pytest.mark.parametrize("name", RESPONSE_REFUSED)
def test_a_field_of_a_response_is_refused(client: openai.OpenAI, name: str) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        respond(client, extra_body={name: RESPONSE_REFUSED[name]})
    assert name in str(caught.value.body)


def test_raw_answers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASKED, temperature=0, extra_headers={"X-Request-Id": "mine-1"}
    )
    assert raw.status_code == 200
    assert raw.headers["x-request-id"] == raw.request_id == "mine-1"
    assert raw.headers["content-type"] == "application/json" and raw.retries_taken == 0
    assert raw.parse().choices[0].message.content == ANSWER
    assert chat(client)._request_id, "the client shows the id that the header gives"
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASKED, temperature=0, stream=True
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    stream = client.completions.with_raw_response.create(
        model=MODEL, prompt=FRANCE, temperature=0, stream=True, max_tokens=8
    ).parse()
    assert "".join(one.choices[0].text for one in stream) == " Paris."
    listed = client.models.with_raw_response.list()
    assert listed.parse().data[0].id == MODEL


def test_asyncio(url: str) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            listed = [one.id async for one in client.models.list()]
            assert listed == [MODEL, "second", "third/name"]
            body: Any = {"model": MODEL, "temperature": 0}

            async def streamed() -> str:
                stream = await client.chat.completions.create(**body, messages=ASKED, stream=True)
                return "".join([one.choices[0].delta.content or "" async for one in stream])

            async def helped() -> str:
                async with client.chat.completions.stream(**body, messages=ASKED) as stream:
                    final = await stream.get_final_completion()
                return str(final.choices[0].message.content)

            async def responded() -> str:
                async with client.responses.stream(**body, input=ASKED) as stream:
                    return (await stream.get_final_response()).output_text

            async def completed() -> str:
                found = await client.completions.create(**body, prompt=FRANCE, max_tokens=8)
                return FRANCE + found.choices[0].text

            jobs = [one() for one in (streamed, helped, responded, completed) for _ in range(4)]
            assert set(await asyncio.gather(*jobs)) == {ANSWER}

    asyncio.run(run())


def test_options_of_a_client(client: openai.OpenAI, url: str) -> None:
    other = client.with_options(
        timeout=30, default_headers={"X-Request-Id": "mine-2"}, default_query={"v": "1"}
    )
    assert chat(other)._request_id == "mine-2"
    assert client.copy(max_retries=1).models.list().data[0].id == MODEL
    with openai.OpenAI(base_url=f"{url}/v1/", api_key=KEY, organization="o", project="p") as named:
        assert chat(named).choices[0].message.content == ANSWER
    version = client.get("/../version", cast_to=httpx.Response).json()
    assert version["version"]


def test_the_module_as_a_client(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "base_url", f"{url}/v1/")
    monkeypatch.setattr(openai, "api_key", KEY)
    found = openai.chat.completions.create(model=MODEL, messages=ASKED, temperature=0)
    assert found.choices[0].message.content == ANSWER


def test_a_timeout_frees_the_engine(client: openai.OpenAI, url: str) -> None:
    long: Any = {"max_tokens": 7000, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.APITimeoutError):
        chat(client.with_options(timeout=0.5), **long)
    assert settles(url, 0)
    stream = chat(client, **long, stream=True)
    next(stream)
    assert settles(url, 1)
    stream.close()
    assert settles(url, 0)


def test_errors_have_their_classes(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        chat(client, model="other")
    assert (missing.value.status_code, missing.value.type) == (404, "NotFoundError")
    with pytest.raises(openai.BadRequestError) as bad:
        chat(client, temperature=-1)
    assert bad.value.param == "temperature" and bad.value.request_id
    assert isinstance(bad.value.body, dict) and bad.value.body["code"] == 400
    with pytest.raises(openai.AuthenticationError):
        chat(client.with_options(api_key="guess"))
    with pytest.raises(openai.PermissionDeniedError, match="allowed-hosts"):
        chat(client, extra_headers={"Host": "evil.example"})
    with pytest.raises(openai.APIStatusError) as large:
        complete(client, prompt="x" * 2_000_000)
    assert large.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="8192"):
        complete(client, prompt="x y " * 10_000)
    with pytest.raises(openai.APIConnectionError):
        chat(client.with_options(base_url="http://127.0.0.1:9/v1"))
    assert chat(client).choices[0].message.content == ANSWER


def test_what_is_not_served_says_so(client: openai.OpenAI) -> None:
    calls = [
        lambda: client.moderations.create(input="x"),
        lambda: client.images.generate(prompt="x"),
        lambda: client.uploads.create(
            bytes=1, filename="a", mime_type="text/plain", purpose="batch"
        ),
        lambda: client.vector_stores.list(),
        lambda: client.fine_tuning.jobs.list(),
        lambda: client.conversations.create(),
        lambda: client.chat.completions.retrieve("chatcmpl-1"),
    ]
    for call in calls:
        with pytest.raises(openai.NotFoundError, match="no such path"):
            call()
    for other in (
        lambda: client.models.delete(MODEL),
        lambda: client.chat.completions.list(),
        lambda: client.responses.compact(model=MODEL, input="x"),
    ):
        with pytest.raises(openai.APIStatusError, match="does not take this method") as caught:
            other()
        assert caught.value.status_code == 405


@pytest.mark.parametrize("number", [0, 2, 5])
def test_exactly_the_ids_that_are_asked_for_are_reported(
    client: openai.OpenAI, number: int
) -> None:
    """Beside the chosen one, whatever number of the best is asked for; as scored when they stand in a prompt."""
    ids = [300, 400, 500]
    named = [f"token_id:{one}" for one in ids]
    more: Any = {"extra_body": {"return_tokens_as_token_ids": True}}
    asks: Any = {"extra_body": {"return_tokens_as_token_ids": True, "logprob_token_ids": ids}}
    prompt = (
        complete(client, echo=True, max_tokens=0, logprobs=0, **more).choices[0].logprobs.tokens
    )
    prompt_ids = [int(one.removeprefix("token_id:")) for one in prompt]
    scores = [
        complete(
            client, prompt=[*prompt_ids, one], echo=True, max_tokens=0, logprobs=0
        ).choices[0].logprobs.token_logprobs[-1]
        for one in ids
    ]  # fmt: skip
    found = complete(client, max_tokens=1, logprobs=number, **asks).choices[0].logprobs
    assert found.top_logprobs[0].keys() == {found.tokens[0], *named}
    assert [found.top_logprobs[0][one] for one in named] == scores
    talk = chat(client, max_tokens=1, logprobs=True, top_logprobs=number, **asks)
    (entry,) = talk.choices[0].logprobs.content
    assert {one.token for one in entry.top_logprobs} == {entry.token, *named}


@pytest.mark.parametrize("item_first", [False, True])
def test_scores_of_a_model_that_writes(client: openai.OpenAI, url: str, item_first: bool) -> None:
    """They are the probabilities that completions report for the labels."""
    labels, items = [300, 400, 500], [" France is", " Italy is", " the"]
    asked: Any = {"query": "The capital of", "items": items, "label_token_ids": labels}
    head = {"Authorization": f"Bearer {KEY}"}
    for softmax in (True, False):
        body = asked | {"item_first": item_first, "apply_softmax": softmax}
        found = httpx.post(f"{url}/generative_scoring", json=body, headers=head, timeout=60).json()
        for item, one in zip(items, found["data"], strict=True):
            prompt = item + asked["query"] if item_first else asked["query"] + item
            more: Any = {"return_tokens_as_token_ids": True, "logprob_token_ids": labels}
            told = complete(client, prompt=prompt, max_tokens=1, logprobs=0, extra_body=more)
            top = told.choices[0].logprobs.top_logprobs[0]
            likely = [math.exp(top[f"token_id:{label}"]) for label in labels]
            wanted = likely[0] / sum(likely) if softmax else likely[0]
            assert one["score"] == pytest.approx(wanted, rel=1e-6)
    wrong = [
        ({"query": [2**70], "items": [[5]]}, "items"), ({"query": [-1], "items": [[5]]}, "items"),
        ({"query": "", "items": [""]}, "items"), ({"items": []}, "items"),
        ({"items": [5]}, "items"), ({"items": [[5]]}, "items"),
        ({"label_token_ids": []}, "label_token_ids"), ({"query": None}, "query"),
        ({"label_token_ids": [10**6]}, "label_token_ids"), ({"label_token_ids": None}, "label_token_ids"),
    ]  # fmt: skip
    for change, param in wrong:
        told = httpx.post(f"{url}/generative_scoring", json=asked | change, headers=head)
        assert told.status_code == 400 and told.json()["error"]["param"] == param, told.text
