"""Prompts as embeddings answer as the ids whose embeddings they are, bit for bit, wherever their blocks go."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from quire import LLM, SamplingParams
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import BeamSearchParams
from tests.e2e.served import Served, served

Checkpoint = Callable[..., Path]
IDS = [5 + (7 * i) % 400 for i in range(150)]
PARAMS = SamplingParams(temperature=1.0, seed=3, max_tokens=12, logprobs=2, ignore_eos=True)


@pytest.fixture(scope="module", params=["qwen3", "gemma2"])
def folder(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Path:
    return checkpoint(request.param)


def rows_of(folder: Path, ids: list[int]) -> torch.Tensor:
    """What Transformers' own embedding gives."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model.get_input_embeddings()(torch.tensor(ids))


def open_llm(folder: Path, **settings: Any) -> LLM:
    return LLM(
        str(folder),
        enable_prompt_embeds=True,
        max_model_len=256,
        use_tqdm_on_load=False,
        threads=1,
        **settings,
    )


def bits(output: Any) -> Any:
    return [
        (one.token_ids, [sorted((i, e.logprob) for i, e in at.items()) for at in one.logprobs])
        for one in output.outputs
    ]


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_num_batched_tokens": 32, "max_num_seqs": 8}, {"enable_prefix_caching": False}],
    ids=["whole", "in chunks", "without cache"],
)
def test_the_answer_is_that_of_the_ids(folder: Path, settings: dict[str, Any]) -> None:
    rows = rows_of(folder, IDS)
    with open_llm(folder, **settings) as llm:
        wanted = [bits(one) for one in llm.generate([IDS, IDS[:33]], PARAMS, use_tqdm=False)]
        prompts = [{"prompt_embeds": rows}, IDS[:33], {"prompt_embeds": rows[:33]}, IDS]
        found = [bits(one) for one in llm.generate(prompts, PARAMS, use_tqdm=False)]
        assert found == [wanted[0], wanted[1], wanted[1], wanted[0]]
        mixed = {
            "prompt_embeds": rows,
            "prompt_token_ids": IDS,
            "prompt_is_token_ids": [at % 3 == 0 for at in range(len(IDS))],
        }
        assert bits(llm.generate(mixed, PARAMS, use_tqdm=False)[0]) == wanted[0]


def test_blocks_are_found_again_by_content(folder: Path) -> None:
    rows = rows_of(folder, IDS)
    other = rows.clone()
    other[100] += 0.5
    with open_llm(folder) as llm:
        ask = lambda prompt: llm.generate(prompt, PARAMS, use_tqdm=False)[0]  # noqa: E731
        first = ask({"prompt_embeds": rows})
        again = ask({"prompt_embeds": rows.clone()})
        changed = ask({"prompt_embeds": other})
        zeros = ask([0] * len(IDS))
        assert first.num_cached_tokens == 0 and first.prompt_token_ids == [0] * len(IDS)
        assert again.num_cached_tokens == 128 and bits(again) == bits(first)
        assert changed.num_cached_tokens == 96, "the block with the changed row is another"
        assert zeros.num_cached_tokens == 0, "placeholders never share a block with real ids"
        llm.reset_prefix_cache()
        assert bits(ask({"prompt_embeds": other})) == bits(changed)


def test_preempted_ones_and_choices_come_back_right(folder: Path) -> None:
    rows = rows_of(folder, IDS)
    params = SamplingParams(
        n=3, temperature=1.0, seed=3, max_tokens=40, logprobs=1, ignore_eos=True
    )
    prompts = [{"prompt_embeds": rows[start : start + 60]} for start in range(0, 90, 15)]
    with open_llm(folder) as llm:
        wanted = [bits(llm.generate(one, params, use_tqdm=False)[0]) for one in prompts]
    with open_llm(folder, num_gpu_blocks_override=16, disable_log_stats=False) as llm:
        found = [bits(one) for one in llm.generate(prompts, params, use_tqdm=False)]
        counts = {one.name: one.value for one in llm.get_metrics() if "preempt" in one.name}
    assert found == wanted
    assert sum(counts.values()) > 0, f"nothing was preempted: {counts}"


def test_penalties_do_not_see_placeholders(folder: Path) -> None:
    rows = rows_of(folder, IDS)
    params = SamplingParams(temperature=0.0, max_tokens=8, repetition_penalty=5.0, ignore_eos=True)
    with open_llm(folder) as llm:
        bias = SamplingParams(
            temperature=0.0, max_tokens=1, repetition_penalty=5.0, logit_bias={0: 30.0}
        )
        assert llm.generate({"prompt_embeds": rows}, params, use_tqdm=False)[0].finished
        one = llm.generate({"prompt_embeds": rows}, bias, use_tqdm=False)[0]
        assert one.outputs[0].token_ids == [0], "id 0 was not in the prompt"


def test_what_cannot_be_had_is_refused(folder: Path) -> None:
    prompt = {"prompt_embeds": rows_of(folder, IDS)}
    with open_llm(folder) as llm:
        for params, how, param in (
            (SamplingParams(prompt_logprobs=1), None, "prompt_logprobs"),
            (SamplingParams(), {"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                llm.generate(prompt, params, tokenization_kwargs=how, use_tqdm=False)
            assert caught.value.param == param
        with pytest.raises(InvalidRequestError, match="beam search"):
            llm.beam_search([prompt], BeamSearchParams(beam_width=2, max_tokens=2))
    with LLM(str(folder), max_model_len=256, use_tqdm_on_load=False) as llm:
        with pytest.raises(NotServedError, match="--enable-prompt-embeds"):
            llm.generate(prompt, use_tqdm=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint) -> Iterator[Served]:
    flags = ["--enable-prompt-embeds", "--max-model-len", "256"]
    with served(tmp_path_factory.mktemp("log"), str(checkpoint("qwen3")), *flags) as one:
        yield one


def as_text(rows: torch.Tensor) -> str:
    return base64.b64encode(safetensors.torch.save({"prompt_embeds": rows.contiguous()})).decode()


def test_over_http(server: Served, checkpoint: Checkpoint) -> None:
    rows = rows_of(checkpoint("qwen3"), IDS)
    ask = {"max_tokens": 8, "seed": 3, "temperature": 1.0, "return_token_ids": True}
    wanted = server.post({"prompt": [IDS, IDS[:40]], **ask}).json()["choices"]
    body = {"prompt_embeds": [as_text(rows), as_text(rows[:40])], "prompt": "", **ask}
    answer = server.post(body).json()
    ids = [one["token_ids"] for one in answer["choices"]]
    assert ids == [one["token_ids"] for one in wanted]
    assert answer["usage"]["prompt_tokens"] == len(IDS) + 40
    streamed = server.post({"prompt_embeds": as_text(rows), "stream": True, **ask}).text
    pieces = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
    streamed_ids = [one for piece in pieces for one in piece["choices"][0]["token_ids"]]
    assert streamed_ids == wanted[0]["token_ids"]
    for wrong in ({"echo": True}, {"prompt_logprobs": 1}):
        refused = server.post({"prompt_embeds": as_text(rows), **wrong})
        assert refused.status_code == 400
        assert "prompt_embeds" in refused.json()["error"]["message"]


def test_with_the_official_client(server: Served, checkpoint: Checkpoint) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    rows = rows_of(checkpoint("qwen3"), IDS)
    ask: dict[str, Any] = {"model": model, "max_tokens": 6, "temperature": 0.0}
    extra = {"return_token_ids": True}
    wanted = client.completions.create(prompt=IDS, extra_body=extra, **ask)
    found = client.completions.create(
        prompt="", extra_body=extra | {"prompt_embeds": as_text(rows)}, **ask
    )
    assert found.choices[0].token_ids == wanted.choices[0].token_ids
    with pytest.raises(openai.BadRequestError, match="prompt_embeds"):
        client.completions.create(prompt="", extra_body={"prompt_embeds": "AAAA"}, **ask)
    wrong = {"prompt_embeds": as_text(rows), "truncate_prompt_tokens": 4}
    with pytest.raises(openai.BadRequestError, match="truncated"):
        client.completions.create(prompt="", extra_body=wrong, **ask)


def test_wrong_ones_beside_good_ones_over_http(server: Served, checkpoint: Checkpoint) -> None:
    """Malformed files in parallel with good ones: each wrong one is 400, each good one right."""
    rows = rows_of(checkpoint("qwen3"), IDS[:40])
    good = as_text(rows)
    wrong = [
        as_text(rows[:, :-1]),
        as_text(rows * float("nan")),
        as_text(rows.repeat(7, 1)),
        good[: len(good) // 8 * 4],
        "UEsDBBQAAAA=",
        "%%%%",
    ]
    expected = server.post({"prompt": IDS[:40], "seed": 1, "max_tokens": 4}).json()
    answers: dict[int, Any] = {}

    def ask(at: int) -> None:
        embeds = good if at % 2 else wrong[at // 2 % len(wrong)]
        answers[at] = server.post({"prompt_embeds": embeds, "seed": 1, "max_tokens": 4})

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(64)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for at, answer in answers.items():
        if at % 2:
            assert answer.json()["choices"][0]["text"] == expected["choices"][0]["text"]
        else:
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"] == "prompt_embeds"
