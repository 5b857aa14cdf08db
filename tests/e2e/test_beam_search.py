"""Beam search against one that is written down here over the logits of Transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from quire import LLM, SamplingParams
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import BeamSearchParams, StructuredOutputsParams
from tests.checkpoints import EOS_ID, prompt_ids

PROMPTS = [prompt_ids(length, seed=length) for length in (1, 7, 40)]
Found = list[tuple[list[int], float, str]]


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("llama")


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", threads=1, max_model_len=128) as made:
        yield made


@pytest.fixture(scope="module")
def logprobs(folder: Path) -> Callable[[list[int]], torch.Tensor]:
    """Log-probabilities of the token behind the ids, [V], from Transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def of(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)

    return of


def reference(
    logprobs: Callable[[list[int]], torch.Tensor], prompt: list[int], width: int, steps: int,
    penalty: float, end: int | None,
) -> Found:  # fmt: skip
    """(tokens, cumulative log-probability, reason) of the best `width`, best first."""
    beams = [(prompt, 0.0)]
    ended: list[tuple[float, list[int], float, str]] = []
    for _ in range(steps):
        grown = []
        for tokens, total in beams:
            values, ids = logprobs(tokens).topk(2 * width)
            for value, token in zip(values.tolist(), ids.tolist(), strict=True):
                if token == end:
                    score = (total + value) / len(tokens) ** penalty
                    ended.append((score, tokens, total + value, "stop"))
                else:
                    grown.append(([*tokens, token], total + value))
        beams = sorted(grown, key=lambda beam: -beam[1])[:width]
    ended += [(total / len(t) ** penalty, t, total, "length") for t, total in beams]
    best = sorted(ended, key=lambda one: -one[0])[:width]
    return [(tokens, total, reason) for _, tokens, total, reason in best]


@pytest.mark.parametrize(("width", "penalty"), [(1, 1.0), (3, 1.0), (4, 0.0), (2, 2.5)])
def test_the_sequences_are_those_of_the_reference(
    llm: LLM, logprobs: Callable[[list[int]], torch.Tensor], width: int, penalty: float
) -> None:
    params = BeamSearchParams(
        beam_width=width, max_tokens=6, length_penalty=penalty, ignore_eos=True
    )
    found = llm.beam_search([{"prompt_token_ids": ids} for ids in PROMPTS], params)
    for prompt, output in zip(PROMPTS, found, strict=True):
        expected = reference(logprobs, prompt, width, 6, penalty, None)
        assert [one.tokens for one in output.sequences] == [tokens for tokens, _, _ in expected]
        for one, (_, total, reason) in zip(output.sequences, expected, strict=True):
            assert one.cum_logprob == pytest.approx(total, abs=1e-4)
            assert one.finish_reason == reason and len(one.logprobs) == 6
            assert one.text == llm.get_tokenizer().decode(one.tokens)


@pytest.mark.parametrize("included", [False, True])
def test_an_end_token_closes_a_sequence_and_is_not_counted(
    folder: Path, logprobs: Callable[[list[int]], torch.Tensor], included: bool
) -> None:
    # The end token is one that a beam really takes: the third of the best sequence.
    prompt, width = PROMPTS[1], 3
    best = reference(logprobs, prompt, width, 5, 1.0, None)[0][0]
    end = best[len(prompt) + 2]
    expected = reference(logprobs, prompt, width, 5, 1.0, end)
    assert "stop" in {reason for _, _, reason in expected}
    with LLM(
        str(folder), dtype="float32", threads=1, max_model_len=128, skip_tokenizer_init=True,
        hf_overrides={"eos_token_id": end}, generation_config="vllm",
    ) as llm:  # fmt: skip
        params = BeamSearchParams(
            beam_width=width, max_tokens=5, include_stop_str_in_output=included
        )
        (output,) = llm.beam_search({"prompt_token_ids": prompt}, params)
    assert len(output.sequences) == width
    for one, (tokens, total, reason) in zip(output.sequences, expected, strict=True):
        stopped = reason == "stop"
        assert one.tokens == ([*tokens, end] if stopped and included else tokens)
        assert one.cum_logprob == pytest.approx(total, abs=1e-4)
        assert (one.finish_reason, one.stop_reason) == (reason, end if stopped else None)
        assert one.text is None


def test_it_is_the_same_alone_and_beside_others(llm: LLM) -> None:
    params = BeamSearchParams(beam_width=3, max_tokens=8, ignore_eos=True)
    prompts = [{"prompt_token_ids": ids} for ids in PROMPTS]
    together = llm.beam_search(prompts, params)
    alone = [llm.beam_search(prompt, params)[0] for prompt in prompts]
    few = llm.beam_search(prompts, params, concurrency_limit=2)
    (waiting,) = [llm.enqueue(prompts[:1], SamplingParams(max_tokens=2), use_tqdm=False)]
    beside = llm.beam_search(prompts, params)
    for other in (alone, few, beside):
        assert [[(s.tokens, s.cum_logprob) for s in o.sequences] for o in other] == [
            [(s.tokens, s.cum_logprob) for s in o.sequences] for o in together
        ]
    assert [one.request_id for one in llm.wait_for_completion(use_tqdm=False)] == waiting
    assert not llm.llm_engine.has_unfinished_requests()


def test_the_end_of_the_context_is_the_end(llm: LLM) -> None:
    params = BeamSearchParams(beam_width=2, max_tokens=50, ignore_eos=True)
    (output,) = llm.beam_search({"prompt_token_ids": prompt_ids(120)}, params)
    assert [len(one.tokens) for one in output.sequences] == [128, 128]
    assert {one.finish_reason for one in output.sequences} == {"length"}


def test_what_cannot_be_searched_is_said(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match=r"beam_width 11 .* at most 10"):
        llm.beam_search([[5]], BeamSearchParams(beam_width=11, max_tokens=1))
    with pytest.raises(InvalidRequestError, match="prompt 1"):
        llm.beam_search([[5], [9999]], BeamSearchParams(beam_width=2, max_tokens=1))
    with pytest.raises(InvalidRequestError, match="concurrency_limit"):
        llm.beam_search([[5]], BeamSearchParams(beam_width=2, max_tokens=1), concurrency_limit=0)
    with pytest.raises(TypeError, match="BeamSearchParams"):
        llm.beam_search([[5]], SamplingParams())  # type: ignore[arg-type]
    constrained = BeamSearchParams(
        beam_width=2, max_tokens=1, structured_outputs=StructuredOutputsParams(regex="a+")
    )
    with pytest.raises(NotServedError):
        llm.beam_search([[5]], constrained)
    assert not llm.llm_engine.has_unfinished_requests()
    assert EOS_ID in llm.llm_engine.inputs.eos_token_ids
