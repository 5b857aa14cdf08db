"""Logits processors of an operator: offline, over HTTP, beside other requests, and when they fail."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.protocol.errors import InvalidRequestError, SettingsError
from tests.e2e.served import Served, served
from tests.processors import Broken, Sharpen, TargetToken

PROMPTS = ["The capital of France is", "Hello", "Once upon a time", "Two and two are"]


def params(temperature: float = 1.0, seed: int = 5, **fields: Any) -> SamplingParams:
    given = {"max_tokens": 8, "ignore_eos": True, "logprobs": 2} | fields
    return SamplingParams(temperature=temperature, seed=seed, **given)


def bits(output: Any) -> Any:
    return [
        (one.token_ids, [sorted((i, e.logprob) for i, e in at.items()) for at in one.logprobs])
        for one in output.outputs
    ]


def open_llm(*processors: Any, **settings: Any) -> LLM:
    return LLM(
        logits_processors=list(processors),
        max_model_len=256,
        use_tqdm_on_load=False,
        threads=1,
        **settings,
    )


def test_only_rows_that_ask_are_changed_whatever_the_company() -> None:
    with open_llm() as plain:
        untouched = [bits(one) for one in plain.generate(PROMPTS, params(), use_tqdm=False)]
    chance = random.Random(3)
    with open_llm(TargetToken, "tests.processors:NoRepeats", max_num_seqs=6) as llm:
        assert [bits(one) for one in llm.generate(PROMPTS, params(), use_tqdm=False)] == untouched
        jobs = []
        for number in range(40):
            extra = chance.choice([None, {"target_token": 70 + number}, {"no_repeats": True}])
            asked = params(max_tokens=chance.randint(1, 20), seed=number, extra_args=extra)
            jobs.append((chance.choice(PROMPTS), asked))
        together = llm.generate([p for p, _ in jobs], [a for _, a in jobs], use_tqdm=False)
        for (prompt, asked), output in zip(jobs, together, strict=True):
            ids = output.outputs[0].token_ids
            assert bits(llm.generate(prompt, asked, use_tqdm=False)[0]) == bits(output)
            if asked.extra_args and "target_token" in asked.extra_args:
                assert set(ids) == {asked.extra_args["target_token"]}
            if asked.extra_args and "no_repeats" in asked.extra_args:
                assert len(set(ids)) == len(ids)


def test_a_preempted_row_is_told_of_its_output() -> None:
    asked = params(max_tokens=60, extra_args={"no_repeats": True}, n=2)
    with open_llm("tests.processors:NoRepeats") as llm:
        wanted = [bits(one) for one in llm.generate(PROMPTS, asked, use_tqdm=False)]
    small = {"block_size": 8, "num_gpu_blocks_override": 34, "disable_log_stats": False}
    with open_llm("tests.processors:NoRepeats", **small) as llm:
        assert [bits(one) for one in llm.generate(PROMPTS, asked, use_tqdm=False)] == wanted
        assert sum(one.value for one in llm.get_metrics() if "preempt" in one.name) > 0


def test_one_that_keeps_the_best_acts_after_the_temperature() -> None:
    with open_llm() as plain, open_llm(Sharpen) as sharp:
        greedy = plain.generate(PROMPTS, params(0.0), use_tqdm=False)
        for temperature in (0.0, 1.0, 3.0):
            found = sharp.generate(PROMPTS, params(temperature, seed=9), use_tqdm=False)
            assert [one.outputs[0].token_ids for one in found] == [
                one.outputs[0].token_ids for one in greedy
            ], "only the best id is left"
        mixed = sharp.generate(PROMPTS[:2], [params(0.0), params(1.0, seed=4)], use_tqdm=False)
        assert bits(mixed[0]) == bits(greedy[0]), "raw logprobs do not show it"


def test_async_scheduling_changes_nothing() -> None:
    asked = params(extra_args={"no_repeats": True}, max_tokens=20)
    with open_llm("tests.processors:NoRepeats") as llm:
        wanted = [bits(one) for one in llm.generate(PROMPTS, asked, use_tqdm=False)]
    with open_llm("tests.processors:NoRepeats", async_scheduling=True) as llm:
        assert [bits(one) for one in llm.generate(PROMPTS, asked, use_tqdm=False)] == wanted


def test_one_that_fails_ends_only_the_row_that_made_it_fail() -> None:
    with open_llm() as plain, open_llm(Broken) as llm:
        wanted = plain.generate(PROMPTS, params(), use_tqdm=False)
        asked = [params(), params(extra_args={"curse": 1}), params(), params()]
        found = llm.generate(PROMPTS, asked, use_tqdm=False)
    assert found[1].outputs[0].finish_reason == "error" and "cursed" in (found[1].error or "")
    assert [bits(found[at]) for at in (0, 2, 3)] == [bits(wanted[at]) for at in (0, 2, 3)]


def test_params_that_a_processor_refuses() -> None:
    with open_llm(TargetToken) as llm:
        with pytest.raises(InvalidRequestError, match=r"TargetToken refuses.*integer"):
            llm.generate("x", params(extra_args={"target_token": "a"}), use_tqdm=False)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("tests.nothing:Here", "cannot be loaded"),
        ("tests.processors:Nothing", "cannot be loaded"),
        ("tests.processors", "LogitsProcessor"),
        ("tests.processors:random_name()", "cannot be loaded"),
        ("plain", "module:Class"),
        ("builtins:dict", "LogitsProcessor"),
        ("quire.protocol.logits_processors:LogitsProcessor", "does not define"),
    ],
)
def test_a_wrong_name_stops_the_start(what: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        open_llm(what)


def test_an_object_is_no_class() -> None:
    with pytest.raises(SettingsError, match="class"):
        open_llm(object())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    flags = ["--logits-processors", "tests.processors:TargetToken", "--max-model-len", "256"]
    with served(tmp_path_factory.mktemp("log"), *flags) as one:
        yield one


def test_vllm_xargs_reach_the_processor_over_http(server: Served) -> None:
    body = {"prompt": "Hi", "max_tokens": 3, "return_token_ids": True}
    asked = server.post(body | {"vllm_xargs": {"target_token": 77}}).json()
    assert asked["choices"][0]["token_ids"] == [77, 77, 77]
    message = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    chat = server.post(
        message | {"vllm_xargs": {"target_token": 78}, "return_token_ids": True},
        "/v1/chat/completions",
    ).json()
    assert chat["choices"][0]["token_ids"] == [78, 78]


@pytest.mark.parametrize(
    ("xargs", "words"),
    [
        ({"target_token": "x"}, "TargetToken refuses"),
        ({"target_token": {"a": 1}}, "texts, numbers and lists"),
        ({"a" * 100: 1}, "100 characters"),
        ({"a": "x" * 5000}, "5000 characters"),
        ({"a": [1] * 2000}, "2000 entries"),
        ({str(at): at for at in range(40)}, "40 entries"),
        ([1], "vllm_xargs"),
    ],
)
def test_wrong_vllm_xargs_are_400(server: Served, xargs: Any, words: str) -> None:
    refused = server.post({"prompt": "Hi", "vllm_xargs": xargs})
    assert refused.status_code == 400 and words in refused.json()["error"]["message"], refused.text
