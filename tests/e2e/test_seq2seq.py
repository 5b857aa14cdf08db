"""Encoder-decoder models through the whole engine: tokens of Transformers, the same bits, forks, limits, prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from quire import LLM, SamplingParams
from quire.protocol.errors import InvalidRequestError, ModelLoadError, SettingsError
from quire.protocol.params import BeamSearchParams
from quire.protocol.prompts import build_explicit_enc_dec_prompt, zip_enc_dec_prompts
from quire.protocol.request import EncoderInput, EngineRequest
from tests.checkpoints import VOCAB_SIZE
from tests.e2e.driver import Job, engine, run
from tests.e2e.matrix import Way, matrix
from tests.e2e.served import served
from tests.models import seq2seq
from tests.pooling_checkpoints import write_pair_tokenizer

NUM_TOKENS = 32
LENGTHS = (60, 3, 90, 17, 33, 120)
PARAMS: dict[str, Any] = {"max_tokens": NUM_TOKENS, "temperature": 0.0, "ignore_eos": True}


def text(number: int, length: int) -> list[int]:
    return [(7 * i * i + 3 * number) % 90 + 5 for i in range(length)]


@dataclass(frozen=True)
class Pair(Job):
    """A request with a text for the encoder."""

    read: tuple[int, ...] = ()

    def request(self, request_id: str, **changes: Any) -> EngineRequest:
        return super().request(
            request_id, encoder=EncoderInput(token_ids=list(self.read)), **changes
        )


@pytest.fixture(scope="module", params=["t5", "mbart"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pairs") / request.param
    return seq2seq.write(where, seq2seq.CASES[request.param])


@pytest.mark.parametrize("name", seq2seq.CASES)
def test_greedy_tokens_are_those_of_transformers_in_a_mixed_batch(
    name: str, tmp_path: Path
) -> None:
    folder = seq2seq.write(tmp_path / name, seq2seq.CASES[name])
    model, begin = seq2seq.their_model(folder), [seq2seq.CASES[name]["decoder_start_token_id"]]
    jobs = [
        Pair((*begin, *text(5, number)), PARAMS, 1, read=tuple(text(number, length)))
        for number, length in enumerate(LENGTHS)
    ]
    with engine(folder, max_model_len=128, max_num_batched_tokens=128, dtype="float32") as client:
        found = run(client, jobs)
    for job, (one,) in zip(jobs[:3], found, strict=False):
        theirs = seq2seq.greedy(model, job.read, job.prompt, NUM_TOKENS)
        assert one.token_ids == theirs


def test_bits_depend_on_the_request_only(folder: Path) -> None:
    sampled = {"max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "logprobs": 2, "n": 2}
    greedy = {"max_tokens": 24, "temperature": 0.0, "logprobs": 2, "prompt_logprobs": 1}
    jobs = [
        Pair(
            (0, *text(3, 5 * number)),
            (sampled if number % 2 else greedy) | {"ignore_eos": True},
            1000 + number,
            read=tuple(text(number, 5 + 37 * number % 110)),
        )
        for number in range(9)
    ]
    plan = [
        Way("alone", at_once=1),
        Way("all"),
        Way("shuffled", order=1),
        Way("batch of 5", {"max_num_seqs": 5}),
        Way("budget 128", {"max_num_batched_tokens": 128}),
        Way("blocks of 8", {"block_size": 8}),
        Way("own budget", {"max_num_batched_tokens": None}),
        Way("two tickets", {"async_scheduling": True}),
        Way("two threads, all", {"threads": 2}),
        Way("preempted", {"block_size": 16, "num_gpu_blocks_override": 40}),
        Way("eager, all", is_recorded=False),
    ]
    cells = list(matrix(folder, jobs, plan, longest=128, dtype="bfloat16"))
    assert {cell.name: cell.example for cell in cells if cell.num_different} == {}
    assert {cell.name: cell.weakness for cell in cells if cell.weakness} == {}


def test_the_encoder_reads_once_for_all_choices(folder: Path) -> None:
    job = Pair((0, 9), PARAMS | {"n": 4, "temperature": 1.0}, 7, read=tuple(text(0, 100)))
    with engine(folder, max_model_len=128, max_num_batched_tokens=128) as client:
        client.add(job.request("r-0"))
        while (outputs := client.step()) is not None:
            stats = outputs.stats
    assert stats.prompt_tokens_computed < 110
    assert stats.blocks_in_use == 0


def test_prompts_in_all_their_forms(folder: Path) -> None:
    read, params = text(0, 40), SamplingParams(**PARAMS)
    start = seq2seq.CASES[folder.name]["decoder_start_token_id"]
    llm = LLM(str(folder), skip_tokenizer_init=True, max_model_len=128, max_num_seqs=8)
    ids = {"prompt_token_ids": read}
    forms: list[Any] = [
        ids,
        read,
        {"encoder_prompt": ids, "decoder_prompt": None},
        build_explicit_enc_dec_prompt(ids, {"prompt_token_ids": [start]}),
        *zip_enc_dec_prompts([ids], [{"prompt_token_ids": [start, 7, 8]}]),
        {"encoder_prompt": ids, "decoder_prompt": {"prompt_token_ids": [7, 8]}},
    ]
    found = llm.generate(forms, params, use_tqdm=False)
    assert [one.prompt_token_ids for one in found] == [[start]] * 4 + [[start, 7, 8]] * 2
    assert all(one.encoder_prompt_token_ids == read for one in found)
    tokens = [list(one.outputs[0].token_ids) for one in found]
    assert tokens[:4] == tokens[:1] * 4 and tokens[4] == tokens[5]
    beams = llm.beam_search([ids], BeamSearchParams(beam_width=2, max_tokens=4))
    assert len(beams[0].sequences) == 2 and beams[0].sequences[0].tokens[0] == start
    for prompt, said in (
        ({"prompt_token_ids": text(0, 129)}, "too long"),
        ({"encoder_prompt": ids, "prompt": "a"}, "encoder_prompt"),
        ({"decoder_prompt": ids}, "encoder_prompt"),
        ({"encoder_prompt": {"prompt_token_ids": []}, "decoder_prompt": None}, "empty"),
        ({"encoder_prompt": {"prompt_token_ids": [97]}, "decoder_prompt": None}, "97"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            llm.generate([prompt], params, use_tqdm=False)


def test_settings_that_cannot_be_are_told(folder: Path) -> None:
    with (
        pytest.raises(SettingsError, match="encoder reads a prompt whole"),
        engine(folder, max_model_len=128, max_num_batched_tokens=64),
    ):
        pass
    with (
        pytest.raises(SettingsError, match="embeddings"),
        engine(folder, max_model_len=128, enable_prompt_embeds=True),
    ):
        pass
    with pytest.raises(ModelLoadError, match="pools nothing"), engine(folder, runner="pooling"):
        pass


def test_over_http_the_prompt_is_the_encoder_s(tmp_path: Path) -> None:
    folder = seq2seq.write(tmp_path / "served", seq2seq.t5(vocab_size=VOCAB_SIZE))
    write_pair_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = (str(folder), "--dtype", "float32", "--max-model-len", "64")
    asked = {"prompt": "The river runs", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    asked |= {"return_token_ids": True, "stream_options": {"include_usage": True}}
    read = tokenizer.encode(asked["prompt"]).ids
    theirs = seq2seq.greedy(seq2seq.their_model(folder), read, [0], 8)
    with served(folder, *words) as server:
        whole = server.post({key: asked[key] for key in asked if key != "stream_options"})
        assert whole.status_code == 200, whole.text
        (choice,) = whole.json()["choices"]
        assert choice["token_ids"] == theirs
        assert choice["text"] == tokenizer.decode(theirs)
        usage = whole.json()["usage"]
        assert usage == {"prompt_tokens": len(read) + 1, "completion_tokens": 8} | {
            "total_tokens": len(read) + 9
        }
        same = server.post({"prompt": read, "max_tokens": 8, "temperature": 0, "ignore_eos": True})
        assert same.json()["choices"][0]["text"] == choice["text"]
        events = server.post(asked | {"stream": True}).text
        assert '"usage":' in events and events.endswith("data: [DONE]\n\n")
        long = server.post({"prompt": list(range(5, 70)), "max_tokens": 2})
        assert long.status_code == 400 and "too long" in long.text
        chat = server.post({"messages": [{"role": "user", "content": "a"}]}, "/v1/chat/completions")
        assert chat.status_code == 400 and "template" in chat.text
