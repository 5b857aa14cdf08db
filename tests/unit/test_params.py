"""What a request may ask: defaults, limits, normal forms, and the trip through a message."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import (
    BeamSearchParams,
    PoolingParams,
    RepetitionDetectionParams,
    RequestOutputKind,
    SamplingParams,
    SamplingType,
    StructuredOutputsParams,
)
from quire.protocol.request import EngineRequest

REFUSED = [
    ("n", 0), ("n", -1), ("n", 16_385), ("n", 10**9), ("n", 1.5), ("n", "2"), ("n", True),
    ("presence_penalty", 2.01), ("presence_penalty", -2.01), ("presence_penalty", math.nan),
    ("frequency_penalty", 2.01), ("frequency_penalty", math.inf), ("frequency_penalty", "1"),
    ("repetition_penalty", 0), ("repetition_penalty", -1), ("repetition_penalty", 1e9),
    ("repetition_penalty", 2.3e-308),
    ("repetition_penalty", math.nan),
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", "0"),
    ("temperature", 1e9), ("temperature", None), ("temperature", True), ("temperature", 10**400),
    ("top_p", 0), ("top_p", -1), ("top_p", 1.01), ("top_k", -2), ("top_k", 1.0),
    ("min_p", -1), ("min_p", 1.1),
    ("seed", 2**64), ("seed", -(2**63) - 1), ("seed", 1.5), ("seed", "a"),
    ("stop", ""), ("stop", [""]), ("stop", 5), ("stop", ["a", 5]),
    ("stop_token_ids", [-1]), ("stop_token_ids", ["7"]), ("stop_token_ids", "7"), ("stop_token_ids", 7),
    ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", "5"), ("max_tokens", 1.0),
    ("min_tokens", 17), ("min_tokens", -1),
    ("logprobs", -2), ("logprobs", 1.0), ("prompt_logprobs", -2),
    ("logprob_token_ids", []), ("logprob_token_ids", list(range(129))), ("logprob_token_ids", [-1]),
    ("stream_interval", 0), ("thinking_token_budget", -2),
    ("logit_bias", {"abc": 1}), ("logit_bias", {-1: 1}), ("logit_bias", {1: math.nan}),
    ("logit_bias", {1: math.inf}), ("logit_bias", {1: 1e7}), ("logit_bias", [1]),
    ("allowed_token_ids", []), ("allowed_token_ids", [-1]),
    ("bad_words", ""), ("bad_words", [""]), ("bad_words", [1]),
    ("ignore_eos", 1), ("output_kind", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_outside_its_limits_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=name) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert isinstance(caught.value, ValueError)


def test_error_messages_do_not_repeat_huge_values() -> None:
    for value in ("x" * 10**6, [0] * 10**6, 10**5000):
        with pytest.raises(InvalidRequestError) as caught:
            SamplingParams(temperature=value)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("given", "name", "kept"),
    [
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 10**9}, "top_k", 10**9),
        ({"seed": -1}, "seed", None),
        ({"seed": 2**63}, "seed", 2**63),
        ({"seed": 2**64 - 1}, "seed", 2**64 - 1),
        ({"seed": -(2**63)}, "seed", -(2**63)),
        ({"stop": "x"}, "stop", ["x"]),
        ({"stop": None}, "stop", []),
        ({"stop": ("x", "y")}, "stop", ["x", "y"]),
        ({"stop_token_ids": None}, "stop_token_ids", []),
        ({"logprobs": True}, "logprobs", 1),
        ({"logprobs": -1}, "logprobs", -1),
        ({"max_tokens": None, "min_tokens": 10**6}, "min_tokens", 10**6),
        ({"thinking_token_budget": -1}, "thinking_token_budget", None),
        ({"temperature": 2.1}, "temperature", 2.1),
        ({"temperature": 1}, "temperature", 1.0),
        ({"logit_bias": {7: 1}}, "logit_bias", {7: 1.0}),
        ({"n": 3, "temperature": 0.0}, "n", 3),
        ({"temperature": 0, "top_p": 0.5}, "top_p", 1.0),
        ({"temperature": 0, "top_k": 5}, "top_k", 0),
        ({"temperature": 0, "min_p": 0.5}, "min_p", 0.0),
        ({"stop_token_ids": np.array([3, 4])}, "stop_token_ids", [3, 4]),
        ({"temperature": np.float32(0.5)}, "temperature", 0.5),
    ],
)
def test_values_are_brought_to_their_plain_form(given: dict, name: str, kept: object) -> None:
    value = getattr(SamplingParams(**given), name)
    assert value == kept
    assert type(value) is type(kept)


def test_a_tiny_temperature_is_raised_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert SamplingParams(temperature=1e-9).temperature == 0.01
    assert "0.01" in caplog.text
    caplog.clear()
    assert SamplingParams(temperature=0.01).temperature == 0.01
    assert not caplog.text


def test_defaults_are_those_of_the_interface() -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (
        1,
        1.0,
        1.0,
        0,
        0.0,
    )
    assert (params.max_tokens, params.min_tokens, params.seed, params.stop) == (16, 0, None, [])
    assert (params.detokenize, params.skip_special_tokens, params.logprobs) == (True, True, None)
    assert params.output_kind is RequestOutputKind.CUMULATIVE


def test_a_change_is_checked_when_verified() -> None:
    params = SamplingParams()
    params.top_p = 7.0
    with pytest.raises(InvalidRequestError):
        params.verify()
    params.top_p = 0.5
    params.verify()


def test_stop_strings_need_text() -> None:
    with pytest.raises(InvalidRequestError, match="detokenize"):
        SamplingParams(stop="x", detokenize=False)


def test_exact_ids_exclude_another_number_of_best_ones() -> None:
    with pytest.raises(InvalidRequestError, match="logprobs is 5"):
        SamplingParams(logprob_token_ids=[1, 2], logprobs=5)
    assert SamplingParams(logprob_token_ids=[1, 2], logprobs=2).wants_logprobs
    assert SamplingParams(logprob_token_ids=[1, 2]).wants_logprobs
    assert SamplingParams(logprobs=0).wants_logprobs
    assert not SamplingParams().wants_logprobs


def test_sampling_type() -> None:
    assert SamplingParams(temperature=0, seed=3).sampling_type is SamplingType.GREEDY
    assert SamplingParams().sampling_type is SamplingType.RANDOM
    assert SamplingParams(seed=3).sampling_type is SamplingType.RANDOM_SEED


def test_from_optional_takes_none_for_defaults_and_clamps_biases() -> None:
    params = SamplingParams.from_optional(
        temperature=None, n=None, max_tokens=None, logit_bias={"7": 1000, 8: -math.pi}
    )
    assert (params.temperature, params.n, params.max_tokens) == (1.0, 1, None)
    assert params.logit_bias == {7: 100.0, 8: -math.pi}
    assert SamplingParams.from_optional().max_tokens == 16
    for bias in ({"abc": 1}, {"-1": 1}, {"1.5": 1}, {"7": math.nan}, {"7": "x"}):
        with pytest.raises(InvalidRequestError, match="logit_bias"):
            SamplingParams.from_optional(logit_bias=bias)


def everything() -> SamplingParams:
    """Params in which no field has its default."""
    return SamplingParams(
        n=2, presence_penalty=0.5, frequency_penalty=-0.5, repetition_penalty=1.1, temperature=0.7,
        top_p=0.9, top_k=40, min_p=0.05, seed=2**64 - 1, stop=["a", "b"], stop_token_ids=[1],
        ignore_eos=True, max_tokens=None, min_tokens=3, logprobs=2, prompt_logprobs=-1,
        logprob_token_ids=[4, 5], flat_logprobs=True, skip_special_tokens=False,
        spaces_between_special_tokens=False, include_stop_str_in_output=True,
        output_kind=RequestOutputKind.DELTA, stream_interval=4,
        structured_outputs=StructuredOutputsParams(json={"type": "object"}), logit_bias={9: -1.5},
        allowed_token_ids=[8, 9], bad_words=["no"], bad_words_ids=[[1, 2]], extra_args={"a": [1]},
        skip_reading_prefix_cache=True, thinking_token_budget=10,
        repetition_detection=RepetitionDetectionParams(max_pattern_size=5),
        routed_experts_prompt_start=1, separates_thinking=True,
    )  # fmt: skip


def test_every_field_survives_the_trip_through_a_message() -> None:
    params = everything()
    plain = SamplingParams()
    unlike = {
        name for name in params.__struct_fields__ if getattr(params, name) != getattr(plain, name)
    }
    assert unlike == set(params.__struct_fields__) - {"detokenize", "skip_clone"}
    request = EngineRequest(request_id="r", prompt_token_ids=[1], params=params)
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=EngineRequest)
    assert back == request
    pooling = PoolingParams(task="embed", dimensions=64)
    request = EngineRequest(request_id="r", prompt_token_ids=[1], params=pooling)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=EngineRequest) == request


def test_a_clone_shares_nothing() -> None:
    params = everything()
    copy = params.clone()
    assert copy == params
    copy.stop.append("c")
    assert copy.extra_args is not None
    copy.extra_args["a"].append(2)
    assert params == everything()
    params.skip_clone = True
    assert params.clone() is params


def test_defaults_are_not_shared_between_objects() -> None:
    SamplingParams().stop.append("x")
    assert SamplingParams().stop == []


def test_extra_ends_of_a_generation_config_become_stop_ids() -> None:
    params = SamplingParams(stop_token_ids=[5])
    params.update_from_generation_config({"eos_token_id": [2, 7, 5, 3]}, model_eos_token_id=2)
    assert params.stop_token_ids == [5, 3, 7]
    params.update_from_generation_config({"eos_token_id": 9}, None)
    params.update_from_generation_config({}, 2)
    assert params.stop_token_ids == [5, 3, 7, 9]
    params = SamplingParams(ignore_eos=True)
    params.update_from_generation_config({"eos_token_id": [2, 7]}, 2)
    assert params.stop_token_ids == []


def test_bad_words_are_tokenised_with_and_without_a_space() -> None:
    class Letters:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [ord(letter) for letter in text]

    params = SamplingParams(bad_words=["ab", " c"])
    params.update_from_tokenizer(Letters())
    assert params.bad_words_ids == [[97, 98], [32, 97, 98], [32, 99]]


@pytest.mark.parametrize("given", [{}, {"regex": "a", "choice": ["b"]}])
def test_a_constraint_is_exactly_one(given: dict) -> None:
    with pytest.raises(InvalidRequestError, match="exactly one"):
        StructuredOutputsParams(**given)


def test_a_class_with_a_schema_is_taken_as_its_schema() -> None:
    class Answer:
        @staticmethod
        def model_json_schema() -> dict:
            return {"type": "object"}

    assert StructuredOutputsParams(json=Answer).json == {"type": "object"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "given", "param"),
    [
        (BeamSearchParams, {"beam_width": 0, "max_tokens": 1}, "beam_width"),
        (BeamSearchParams, {"beam_width": 2, "max_tokens": 0}, "max_tokens"),
        (PoolingParams, {"task": "score"}, "task"),
        (PoolingParams, {"task": "sing"}, "task"),
        (PoolingParams, {"dimensions": 0}, "dimensions"),
        (PoolingParams, {"output_kind": RequestOutputKind.DELTA}, "output_kind"),
        (
            RepetitionDetectionParams,
            {"max_pattern_size": 3, "min_count": 1},
            "repetition_detection",
        ),
        (RepetitionDetectionParams, {"max_pattern_size": 0}, "repetition_detection"),
    ],
)
def test_other_params_check_their_limits(kind: type, given: dict, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        kind(**given)
    assert caught.value.param == param
