"""Every check before the engine: prompts, lengths, vocabulary, options, seeds, features that are not served."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from quire.frontend.inputs import InputProcessor, RequestOptions
from quire.frontend.prompts import chars_to_read
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import (
    PoolingParams,
    RepetitionDetectionParams,
    SamplingParams,
)
from quire.protocol.request import EngineRequest
from tests import checkpoints

VOCAB = 512
CONTEXT = 64


def description(**values: Any) -> Any:
    fields: dict[str, Any] = {"path": "", "eos_token_ids": (1, 7), "pooling": None}
    fields |= {"generation_defaults": {}, "spec": SimpleNamespace(encoder=None)}
    return SimpleNamespace(**(fields | values))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.write_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.fixture
def inputs(tokenizer: Tokenizer) -> InputProcessor:
    return processor(tokenizer)


def processor(tokenizer: Tokenizer | None, **values: Any) -> InputProcessor:
    described = description(**values.pop("described", {}))
    settings = {"vocab_size": VOCAB, "max_model_len": CONTEXT, "base_seed": 0}
    return InputProcessor(described, tokenizer, **(settings | values))


def process(
    inputs: InputProcessor,
    prompt: Any = (5, 6),
    params: SamplingParams | None = None,
    **options: Any,
) -> EngineRequest:
    return inputs.process("r", prompt, params, RequestOptions(**options))


def refusal(param: str | None, *words: str, of: Any) -> None:
    """`of` must raise for `param` with all of the words in its message."""
    with pytest.raises(InvalidRequestError) as caught:
        of()
    assert caught.value.param == param
    for word in words:
        assert word in str(caught.value), str(caught.value)


def own(request: EngineRequest) -> SamplingParams:
    assert isinstance(request.params, SamplingParams)
    return request.params


# --- prompts


def test_forms_of_a_prompt_give_the_same_ids(inputs: InputProcessor, tokenizer: Tokenizer) -> None:
    text = "the river runs"
    ids = tokenizer.encode(text)
    assert ids[0] == checkpoints.BOS_ID
    for prompt in (text, {"prompt": text}, ids, tuple(ids), {"prompt_token_ids": ids},
                   {"prompt": "other", "prompt_token_ids": ids}):  # fmt: skip
        assert process(inputs, prompt).prompt_token_ids == ids


def test_numpy_ids_become_plain_integers(inputs: InputProcessor) -> None:
    import numpy as np

    for prompt in ([np.int64(3), np.int32(4)], {"prompt_token_ids": np.array([3, 4])}):
        ids = process(inputs, prompt).prompt_token_ids
        assert ids == [3, 4] and all(type(one) is int for one in ids)


def test_request_ids_are_made_unique_and_keep_their_name(inputs: InputProcessor) -> None:
    first, second = process(inputs).request_id, process(inputs).request_id
    assert first != second
    assert first.startswith("r-") and len(first) == len("r-") + 8


def test_an_empty_text_needs_a_bos(inputs: InputProcessor, tokenizer: Tokenizer) -> None:
    assert process(inputs, "").prompt_token_ids == [checkpoints.BOS_ID]
    bare = {"tokenization_kwargs": {"add_special_tokens": False}}
    refusal("prompt", "empty", of=lambda: process(inputs, "", **bare))


@pytest.mark.parametrize("prompt", [[], {"prompt_token_ids": []}, ()])
def test_no_tokens_are_refused(inputs: InputProcessor, prompt: Any) -> None:
    refusal("prompt", "empty", of=lambda: process(inputs, prompt))


@pytest.mark.parametrize("prompt", [None, 5, b"text", object()])
def test_other_types_are_type_errors(inputs: InputProcessor, prompt: Any) -> None:
    with pytest.raises(TypeError):
        process(inputs, prompt)


@pytest.mark.parametrize(
    "prompt",
    [{}, {"prompt": None}, {"prompt": 5}, {"prompt_token_ids": 5}, {"prompt_token_ids": "12"},
     {"prompt": "a", "promt": "b"}],
)  # fmt: skip
def test_malformed_dictionaries_are_refused(inputs: InputProcessor, prompt: Any) -> None:
    refusal("prompt", of=lambda: process(inputs, prompt))


@pytest.mark.parametrize("bad", [-1, VOCAB, 2**31, 2**63, 10**300, 1.5, True, "7", None])
def test_ids_outside_the_vocabulary_are_refused(inputs: InputProcessor, bad: Any) -> None:
    refusal("prompt", of=lambda: process(inputs, [3, bad]))
    with pytest.raises(InvalidRequestError) as caught:
        process(inputs, [3, bad])
    assert len(str(caught.value)) < 300


def test_the_largest_id_is_allowed(inputs: InputProcessor) -> None:
    assert process(inputs, [0, VOCAB - 1]).prompt_token_ids == [0, VOCAB - 1]


def test_a_text_needs_a_tokenizer() -> None:
    without = processor(None)
    refusal("prompt", "skip_tokenizer_init", of=lambda: process(without, "text"))
    request = process(without, [1, 2])
    assert own(request).detokenize is False


def test_a_tokenizer_of_another_model_is_noticed(tokenizer: Tokenizer) -> None:
    small = processor(tokenizer, vocab_size=300)
    refusal("prompt", "300", of=lambda: process(small, "the harbour and the lighthouse"))


# --- lengths


def test_a_prompt_needs_one_free_place(inputs: InputProcessor) -> None:
    assert own(process(inputs, [5] * (CONTEXT - 1))).max_tokens == 1
    for length in (CONTEXT, CONTEXT + 1):
        refusal(
            "prompt",
            f"{length} prompt tokens",
            str(CONTEXT - 1),
            of=lambda n=length: process(inputs, [5] * n),
        )


def test_a_huge_text_is_refused_quickly(inputs: InputProcessor) -> None:
    begin = time.process_time()
    refusal("prompt", "prompt tokens", of=lambda: process(inputs, "the sea " * 1_250_000))
    assert time.process_time() - begin < 2.0


def test_open_max_tokens_goes_up_to_the_context(inputs: InputProcessor) -> None:
    assert own(process(inputs, [5] * 4, SamplingParams(max_tokens=None))).max_tokens == CONTEXT - 4


def test_max_tokens_beyond_the_context_are_what_fits(inputs: InputProcessor) -> None:
    params = SamplingParams(max_tokens=CONTEXT, min_tokens=CONTEXT)
    capped = own(process(inputs, [5] * 4, params))
    assert (capped.max_tokens, capped.min_tokens) == (CONTEXT - 4, CONTEXT - 4)
    refusal(
        "min_tokens",
        "after 4 prompt tokens",
        of=lambda: process(inputs, [5] * 4, params, strict=True),
    )
    over = SamplingParams(max_tokens=CONTEXT - 3)
    assert own(process(inputs, [5] * 4, over, strict=True)).max_tokens == CONTEXT - 4


def test_min_tokens_beyond_the_context_are_refused(inputs: InputProcessor) -> None:
    params = SamplingParams(max_tokens=None, min_tokens=CONTEXT)
    refusal("min_tokens", of=lambda: process(inputs, [5], params))


@pytest.mark.parametrize(
    ("keep", "side", "expected"),
    [(3, None, [7, 8, 9]), (3, "right", [5, 6, 7]), (9, None, [5, 6, 7, 8, 9])],
)
def test_truncation_of_ids(
    inputs: InputProcessor, keep: int, side: str | None, expected: list[int]
) -> None:
    how = {"truncate_prompt_tokens": keep, "truncation_side": side}
    assert process(inputs, [5, 6, 7, 8, 9], tokenization_kwargs=how).prompt_token_ids == expected


def test_truncation_to_the_context_leaves_room_for_max_tokens(inputs: InputProcessor) -> None:
    how = {"truncate_prompt_tokens": -1}
    request = process(inputs, [*range(100)], SamplingParams(max_tokens=10), tokenization_kwargs=how)
    assert request.prompt_token_ids == [*range(46, 100)]
    long = process(inputs, "the river runs down " * 100, tokenization_kwargs=how)
    assert (
        len(long.prompt_token_ids) == CONTEXT - 16
        and long.prompt_token_ids[0] == checkpoints.BOS_ID
    )


@pytest.mark.parametrize("keep", [0, -2, True, "3", CONTEXT + 1])
def test_impossible_truncations_are_refused(inputs: InputProcessor, keep: Any) -> None:
    how = {"truncate_prompt_tokens": keep}
    refusal("truncate_prompt_tokens", of=lambda: process(inputs, [5], tokenization_kwargs=how))


def test_unknown_tokenization_settings_are_refused(inputs: InputProcessor) -> None:
    refusal("padding", of=lambda: process(inputs, [5], tokenization_kwargs={"padding": True}))
    refusal(
        "truncation_side",
        of=lambda: process(inputs, [5], tokenization_kwargs={"truncation_side": "up"}),
    )


# --- params


def test_logprobs_have_a_limit(tokenizer: Tokenizer, inputs: InputProcessor) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        assert getattr(own(process(inputs, params=SamplingParams(**{name: 20}))), name) == 20
        for value in (21, -1):
            params = SamplingParams(**{name: value})
            refusal(name, "20", of=lambda p=params: process(inputs, params=p))
    unlimited = processor(tokenizer, max_logprobs=-1)
    assert own(process(unlimited, params=SamplingParams(logprobs=-1))).logprobs == -1
    refusal("logprobs", of=lambda: process(unlimited, params=SamplingParams(logprobs=VOCAB + 1)))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("logit_bias", {VOCAB - 1: 1.0}, {VOCAB: 1.0}),
        ("allowed_token_ids", [0, VOCAB - 1], [0, VOCAB]),
        ("stop_token_ids", [VOCAB - 1], [2**63]),
        ("logprob_token_ids", [0], [VOCAB]),
        ("stop_token_ids", [1], [1] * (VOCAB + 1)),
    ],
)
def test_ids_in_params_are_within_the_vocabulary(
    inputs: InputProcessor, name: str, good: Any, bad: Any
) -> None:
    assert getattr(own(process(inputs, params=SamplingParams(**{name: good}))), name) == good
    refusal(name, of=lambda: process(inputs, params=SamplingParams(**{name: bad})))


def test_bad_words_are_found_with_and_without_a_space(
    inputs: InputProcessor, tokenizer: Tokenizer
) -> None:
    request = process(inputs, params=SamplingParams(bad_words=["the"]))
    assert own(request).bad_words_ids == [
        tokenizer.encode("the", False),
        tokenizer.encode(" the", False),
    ]
    refusal(
        "bad_words", of=lambda: process(processor(None), params=SamplingParams(bad_words=["a"]))
    )
    refusal(
        "bad_words",
        of=lambda: process(
            processor(tokenizer, vocab_size=9), [5], SamplingParams(bad_words=["a"])
        ),
    )


def test_stop_strings_need_a_tokenizer(inputs: InputProcessor) -> None:
    assert own(process(inputs, params=SamplingParams(stop="a"))).stop == ["a"]
    refusal(
        "stop",
        "stop_token_ids",
        of=lambda: process(processor(None), params=SamplingParams(stop=["a"])),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", ["a"] * 17),
        ("stop", ["a" * 257]),
        ("logit_bias", {one % VOCAB: 1.0 for one in range(VOCAB)}),
        ("bad_words", ["a"] * 129),
        ("bad_words", ["a" * 257]),
    ],
)
def test_sizes_are_limited_for_clients_only(tokenizer: Tokenizer, name: str, value: Any) -> None:
    from quire.frontend.inputs import Limits

    limited = processor(tokenizer, limits=Limits(logit_biases=VOCAB - 1))
    params = SamplingParams(**{name: value})
    process(limited, params=params)
    refusal(name, "the limit is", of=lambda: process(limited, params=params, strict=True))


def test_params_are_copied_and_checked_again(inputs: InputProcessor) -> None:
    params = SamplingParams(stop_token_ids=[3], max_tokens=None)
    request = process(inputs, params=params)
    params.stop_token_ids.append(9)
    params.max_tokens = 1
    assert own(request).stop_token_ids == [3] and own(request).max_tokens == CONTEXT - 2
    shared = SamplingParams(max_tokens=None, skip_clone=True)
    process(inputs, params=shared)
    assert shared.max_tokens is None
    params.temperature = -1.0
    refusal("temperature", of=lambda: process(inputs, params=params))


def test_default_params_come_from_the_generation_config(tokenizer: Tokenizer) -> None:
    advised = {"temperature": 0.6, "top_k": 20, "max_new_tokens": 9}
    with_defaults = processor(tokenizer, described={"generation_defaults": advised})
    params = own(process(with_defaults))
    assert (params.temperature, params.top_k, params.max_tokens) == (0.6, 20, 9)
    assert own(process(with_defaults, params=SamplingParams())).temperature == 1.0


def test_ends_come_from_the_model_and_its_tokenizer(tokenizer: Tokenizer) -> None:
    assert process(processor(tokenizer)).eos_token_ids == (1, 7)
    only_tokenizer = processor(tokenizer, described={"eos_token_ids": ()})
    assert process(only_tokenizer).eos_token_ids == (checkpoints.EOS_ID,)
    assert process(processor(None, described={"eos_token_ids": (VOCAB,)})).eos_token_ids == ()


# --- seeds


def test_missing_seeds_follow_from_the_base_and_the_order(tokenizer: Tokenizer) -> None:
    def seeds(base: int | None) -> list[int]:
        made = processor(tokenizer, base_seed=base)
        return [process(made).seed for _ in range(3)]

    assert seeds(0) == seeds(0) != seeds(1)
    assert seeds(None) != seeds(None)
    assert len(set(seeds(0))) == 3
    assert all(0 <= one < 2**53 for base in (0, None) for one in seeds(base))


@pytest.mark.parametrize(
    ("given", "used"), [(0, 0), (42, 42), (2**64 - 1, 2**64 - 1), (-2, 2**64 - 2)]
)
def test_a_given_seed_is_kept_in_64_bits(inputs: InputProcessor, given: int, used: int) -> None:
    assert process(inputs, params=SamplingParams(seed=given)).seed == used


# --- options and features


def test_priorities_need_their_policy(inputs: InputProcessor, tokenizer: Tokenizer) -> None:
    refusal("priority", "--scheduling-policy priority", of=lambda: process(inputs, priority=1))
    ordered = processor(tokenizer, use_priority=True)
    assert process(ordered, priority=-3).priority == -3
    for bad in (2**31, True, 1.5):
        refusal("priority", of=lambda p=bad: process(ordered, priority=p))


def test_cache_salts(inputs: InputProcessor) -> None:
    assert process(inputs, cache_salt="s").cache_salt == "s"
    assert process(inputs, {"prompt": "a", "cache_salt": "t"}).cache_salt == "t"
    assert process(inputs, cache_salt="s" * 129).cache_salt == "s" * 129
    refusal("cache_salt", "128", of=lambda: process(inputs, cache_salt="s" * 129, strict=True))
    for bad in ("", 5):
        refusal("cache_salt", of=lambda salt=bad: process(inputs, cache_salt=salt))


@pytest.mark.parametrize(
    ("prompt", "params", "options", "param"),
    [
        ({"prompt": "a", "multi_modal_data": {"image": 1}}, None, {}, "multi_modal_data"),
        ({"prompt_embeds": [[1.0]]}, None, {}, "prompt_embeds"),
        ({"encoder_prompt": "a", "decoder_prompt": "b"}, None, {}, "encoder_prompt"),
        ({"data": "x", "data_format": "y"}, None, {}, "data"),
        ([5], None, {"lora_request": object()}, "lora_request"),
        ([5], None, {"mm_processor_kwargs": {"a": 1}}, "mm_processor_kwargs"),
        ([5], SamplingParams(repetition_detection=RepetitionDetectionParams(max_pattern_size=4)), {},
         "repetition_detection"),
        ([5], SamplingParams(flat_logprobs=True), {}, "flat_logprobs"),
        ([5], SamplingParams(extra_args={"kv_transfer_params": {"a": 1}}), {}, "kv_transfer_params"),
        ([5], PoolingParams(), {}, "task"),
    ],
)  # fmt: skip
def test_features_that_are_not_served_are_refused_with_a_sentence(
    inputs: InputProcessor, prompt: Any, params: Any, options: Any, param: str | None
) -> None:
    with pytest.raises(NotServedError, match=r"served|no ") as caught:
        process(inputs, prompt, params, **options)
    assert caught.value.param == param


def test_a_request_id_is_a_string(inputs: InputProcessor) -> None:
    with pytest.raises(TypeError):
        inputs.process(5, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        process(inputs, params="hot")  # type: ignore[arg-type]


def test_the_request_survives_the_wire(inputs: InputProcessor) -> None:
    import msgspec

    request = process(
        inputs, "the sea", SamplingParams(n=2, stop="x", bad_words=["no"], logit_bias={3: -1.0})
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=EngineRequest) == request


def test_both_halves_of_a_prompt_count_as_text_to_read() -> None:
    assert chars_to_read({"encoder_prompt": {"prompt": "abc"}, "decoder_prompt": "de"}) == 5
    assert chars_to_read({"encoder_prompt": "abc"}) == 3
