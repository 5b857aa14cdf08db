"""LLM and LLMEngine over a scripted engine: order, many prompts, errors, interruption, settings."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quire.llm
from quire.config.args import AsyncEngineArgs, EngineArgs
from quire.config.cli import read_serve
from quire.config.schema import Settings
from quire.llm import LLM
from quire.llm_engine import LLMEngine
from quire.protocol.errors import (
    EngineDeadError,
    InvalidRequestError,
    NotServedError,
    SettingsError,
)
from quire.protocol.params import RequestOutputKind, SamplingParams
from tests import checkpoints
from tests.unit.fake_engine import FakeClient, tokens_of

Quiet = {"use_tqdm": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    checkpoints.write_tokenizer(root)
    return root


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[FakeClient]:
    made: list[FakeClient] = []

    def make(settings: Settings, *, own_process: bool) -> FakeClient:
        made.append(FakeClient(settings, str(folder), fail_on=[13, 13]))
        return made[-1]

    monkeypatch.setattr("quire.llm_engine.make_client", make)
    return made


@pytest.fixture
def llm(clients: list[FakeClient]) -> Iterator[LLM]:
    with LLM("model") as made:
        yield made


# --- generate


def test_answers_keep_the_order_of_the_prompts(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=count) for count in (9, 1, 5)]
    answers = llm.generate([[10], [20], [30]], params, **Quiet)
    assert [answer.outputs[0].token_ids for answer in answers] == [
        tokens_of([10], 9), tokens_of([20], 1), tokens_of([30], 5)
    ]  # fmt: skip
    assert all(
        answer.finished and answer.outputs[0].finish_reason == "length" for answer in answers
    )


@pytest.mark.parametrize(
    "prompt", ["the sea", [0, 5], {"prompt": "the sea"}, {"prompt_token_ids": [5]}]
)
def test_a_single_prompt_gives_a_list_of_one(llm: LLM, prompt: Any) -> None:
    (answer,) = llm.generate(prompt, **Quiet)
    assert len(answer.outputs[0].token_ids) == 16
    assert answer.prompt == ("the sea" if "the sea" in str(prompt) else None)
    assert answer.outputs[0].text == llm.get_tokenizer().decode(answer.outputs[0].token_ids, True)


def test_iterables_and_no_prompts(llm: LLM) -> None:
    assert llm.generate([], **Quiet) == []
    answers = llm.generate(([one] for one in (5, 6)), SamplingParams(max_tokens=1), **Quiet)
    assert [answer.outputs[0].token_ids for answer in answers] == [[6], [7]]


def test_all_choices_are_in_one_answer(llm: LLM) -> None:
    (answer,) = llm.generate([[5]], SamplingParams(n=3, max_tokens=2), **Quiet)
    assert [choice.token_ids for choice in answer.outputs] == [
        tokens_of([5], 2, i) for i in range(3)
    ]


def test_many_prompts_are_fed_a_window_at_a_time(
    llm: LLM, clients: list[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quire.llm, "MAX_QUEUED", 7)

    def prompts() -> Iterator[list[int]]:
        for one in range(100):
            assert len(clients[0].live) < 7
            yield [one]

    answers = llm.generate(prompts(), SamplingParams(max_tokens=3, min_tokens=1), **Quiet)
    assert [answer.prompt_token_ids for answer in answers] == [[one] for one in range(100)]
    assert clients[0].most_live == 7


def test_ten_thousand_prompts(llm: LLM, clients: list[FakeClient]) -> None:
    answers = llm.generate(
        [[one % 500] for one in range(10_000)], SamplingParams(max_tokens=1), **Quiet
    )
    assert len(answers) == 10_000 and clients[0].most_live == quire.llm.MAX_QUEUED


def test_a_wrong_prompt_is_named_and_none_is_run(llm: LLM, clients: list[FakeClient]) -> None:
    cases = [
        ("x" * 10_000, "prompt 1: .*prompt tokens"),
        ([], "prompt 1: .*empty"),
        ([600], "prompt 1: .*600"),
    ]
    for bad, message in cases:
        with pytest.raises(InvalidRequestError, match=message):
            llm.generate([[5], bad, [6]], **Quiet)
        assert clients[0].live == {} and not llm.llm_engine.has_unfinished_requests()
    with pytest.raises(TypeError, match="prompt 1"):
        llm.generate([[5], None], **Quiet)
    for nothing in (None, 5, b"text"):
        with pytest.raises(TypeError):
            llm.generate(nothing, **Quiet)


def test_one_params_or_priority_for_each_prompt(llm: LLM) -> None:
    for given in ({"sampling_params": [SamplingParams()]}, {"priority": [1]}):
        with pytest.raises(InvalidRequestError, match="1 entries for 2 prompts"):
            llm.generate([[5], [6]], **given, **Quiet)
    with pytest.raises(InvalidRequestError, match="more prompts"):
        llm.generate(iter([[5], [6]]), [SamplingParams()], **Quiet)
    for wrong in ("hot", ["hot"]):
        with pytest.raises(TypeError):
            llm.generate([[5]], wrong, **Quiet)  # type: ignore[arg-type]
    with pytest.raises(NotServedError):
        llm.generate([[5]], mm_processor_kwargs={"a": 1}, **Quiet)


def test_priorities_reach_the_engine(clients: list[FakeClient]) -> None:
    with LLM("model", scheduling_policy="priority") as llm:
        seen: list[int] = []
        add = clients[0].add
        clients[0].add = lambda request: (seen.append(request.priority), add(request))[1]  # type: ignore
        llm.generate([[5], [6]], priority=[3, -1], **Quiet)
    assert seen == [3, -1]


def test_params_of_the_caller_are_left_alone(llm: LLM) -> None:
    params = SamplingParams(max_tokens=None, output_kind=RequestOutputKind.DELTA)
    (answer,) = llm.generate([[5]], params, **Quiet)
    assert params.max_tokens is None and params.output_kind is RequestOutputKind.DELTA
    assert len(answer.outputs[0].token_ids) == 63


def test_a_failed_request_does_not_touch_its_mates(llm: LLM) -> None:
    answers = llm.generate([[12], [13, 13], [14]], SamplingParams(max_tokens=2), **Quiet)
    assert [answer.outputs[0].finish_reason for answer in answers] == ["length", "error", "length"]
    assert answers[1].error == "it failed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_exception_ends_the_requests_of_the_call(
    llm: LLM, clients: list[FakeClient], error: BaseException
) -> None:
    clients[0].raises_in_step = error
    with pytest.raises(type(error)):
        llm.generate([[5], [6]], **Quiet)
    assert clients[0].live == {} and len(clients[0].aborted) == 2
    clients[0].raises_in_step = None
    assert len(llm.generate([[5]], **Quiet)) == 1


def test_an_engine_with_nothing_to_do_is_an_error(llm: LLM, clients: list[FakeClient]) -> None:
    clients[0].step = lambda: None  # type: ignore[method-assign]
    with pytest.raises(EngineDeadError, match="1 requests are unfinished"):
        llm.generate([[5]], **Quiet)


def test_calls_from_two_threads_both_get_their_answers(llm: LLM) -> None:
    answers: dict[int, list[int]] = {}

    def work(first: int) -> None:
        made = llm.generate(
            [[first + one] for one in range(50)], SamplingParams(max_tokens=1), **Quiet
        )
        answers[first] = [answer.outputs[0].token_ids[0] for answer in made]

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {first: [first + 1 + one for one in range(50)] for first in (0, 100)}


def test_progress_counts_tokens(llm: LLM) -> None:
    class Bar:
        def __init__(self, **settings: Any) -> None:
            self.total, self.count, self.closed = settings["total"], 0, False
            self.format_dict = {"elapsed": 2.0}
            bars.append(self)

        def update(self, count: int) -> None:
            self.count += count

        def close(self) -> None:
            self.closed = True

    bars: list[Any] = []
    llm.generate([[5, 6], [7, 8]], SamplingParams(max_tokens=3), use_tqdm=Bar)
    (bar,) = bars
    assert (bar.total, bar.count, bar.closed) == (2, 2, True)
    assert bar.postfix == "input: 2.00 toks/s, output: 3.00 toks/s"


def test_the_plain_progress_bar(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate([[5]], SamplingParams(max_tokens=1))
    assert "Processed prompts: 100%" in capsys.readouterr().err


def test_seeds_are_repeatable_from_start_to_start(clients: list[FakeClient]) -> None:
    def seeds(**settings: Any) -> list[int | None]:
        with LLM("model", **settings) as llm:
            return [answer.outputs[0].seed for answer in llm.generate([[5], [6]], **Quiet)]

    assert seeds() == seeds(seed=0) != seeds(seed=1)


def test_defaults_and_the_cache(llm: LLM) -> None:
    assert llm.get_default_sampling_params().temperature == 0.5
    assert llm.reset_prefix_cache() is True
    assert llm.reset_prefix_cache(reset_running_requests=True) is True


# --- the object


def test_a_closed_llm_says_so(llm: LLM, clients: list[FakeClient]) -> None:
    llm.close()
    llm.close()
    assert clients[0].is_shut_down
    with pytest.raises(EngineDeadError, match="closed"):
        llm.generate([[5]], **Quiet)


def test_a_dropped_llm_ends_its_engine(clients: list[FakeClient]) -> None:
    llm = LLM("model")
    del llm
    assert clients[0].is_shut_down


def test_a_sleeping_engine_answers_nothing_until_it_is_woken(llm: LLM) -> None:
    before = llm.generate([[5]], **Quiet)[0].outputs[0].token_ids
    llm.sleep(level=0)
    for ask in (llm.generate, llm.embed):
        with pytest.raises(NotServedError, match=r"call wake_up\(\) first"):
            ask([[5]], **Quiet)
    llm.wake_up(tags=["scheduling"])
    assert llm.generate([[5]], **Quiet)[0].outputs[0].token_ids == before
    with pytest.raises(NotServedError, match="level is 1; weights and cache stay in memory"):
        llm.sleep()


def test_calls_of_the_engine_by_name(llm: LLM) -> None:
    assert llm.collective_rpc("reset_prefix_cache") == [True]
    assert llm.get_world_size() == 1
    llm.reset_mm_cache()
    for wrong in ({"method": lambda worker: 1}, {"method": "reset_prefix_cache", "args": (1,)}):
        with pytest.raises(NotServedError):
            llm.collective_rpc(**wrong)  # type: ignore[arg-type]
    with pytest.raises(NotServedError, match="no torch module"):
        llm.apply_model(lambda model: model)


def test_an_llm_is_not_used_after_a_fork(
    llm: LLM, clients: list[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="fork"):
            llm.generate([[5]], **Quiet)
        llm.close()
    assert not clients[0].is_shut_down


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_llm_is_not_copied(llm: LLM, how: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        how(llm)


def test_settings_by_name(clients: list[FakeClient]) -> None:
    with (
        LLM("model", block_size=32, max_num_seqs=4, threads=1),
        LLM.from_engine_args(EngineArgs("other")),
    ):
        first, second = (client.settings for client in clients)
    assert (first.model.model, first.cache.block_size, first.scheduler.max_num_seqs) == (
        "model",
        32,
        4,
    )
    assert first.observability.disable_log_stats and not second.observability.disable_log_stats
    with pytest.raises(TypeError, match="'blok_size'; did you mean 'block_size'"):
        LLM("model", blok_size=1)


def test_a_tokenizer_that_cannot_be_read_ends_the_engine(
    clients: list[FakeClient], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        LLM("model", tokenizer=str(tmp_path))
    assert clients[0].is_shut_down


def test_without_a_tokenizer(clients: list[FakeClient]) -> None:
    with LLM("model", skip_tokenizer_init=True) as llm:
        (answer,) = llm.generate([[5]], SamplingParams(max_tokens=2), **Quiet)
        assert (answer.outputs[0].text, answer.outputs[0].token_ids) == ("", [6, 7])
        with pytest.raises(InvalidRequestError, match="skip_tokenizer_init"):
            llm.get_tokenizer()


# --- EngineArgs


def test_engine_args_are_attributes() -> None:
    args = EngineArgs(model="m", max_logprobs=5)
    assert (args.model, args.max_logprobs, args.block_size, args.served_model_name) == (
        "m",
        5,
        None,
        [],
    )
    args.block_size = 8
    args.served_model_name = "one"
    settings = args.to_settings()
    assert settings.cache.block_size == 8 and settings.model.served_model_name == ["one"]
    assert settings.scheduler == Settings().scheduler
    assert "block_size=8" in repr(args)
    assert isinstance(AsyncEngineArgs("m"), EngineArgs)
    with pytest.raises(AttributeError):
        _ = args.nothing


def test_engine_args_share_no_lists() -> None:
    EngineArgs("m").served_model_name.append("x")
    assert EngineArgs("m").served_model_name == []


def test_a_path_is_a_model(tmp_path: Path) -> None:
    assert EngineArgs(tmp_path).to_settings().model.model == str(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        EngineArgs(5)  # type: ignore[arg-type]


def test_without_a_model_the_demo_model_is_meant() -> None:
    model = EngineArgs().to_settings().model
    assert (Path(model.model) / "config.json").is_file()
    assert model.served_model_name == ["quire-demo"]
    assert EngineArgs(served_model_name="mine").to_settings().model.served_model_name == ["mine"]
    assert read_serve([]).settings.model == model


def test_values_outside_the_choices_are_refused() -> None:
    with pytest.raises(SettingsError, match="dtype is 'int3'; it must be one of: auto"):
        EngineArgs("m", dtype="int3")
    with pytest.raises(SettingsError, match="fcfs, priority"):
        EngineArgs("m", scheduling_policy="random")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("max_model_len", "4k", 4000), ("max_model_len", "auto", -1), ("max_model_len", None, None),
        ("kv_cache_memory_bytes", "32M", 32 << 20), ("max_num_seqs", np.int64(4), 4),
        ("gpu_memory_utilization", 1, 1.0), ("enable_prefix_caching", 0, False),
        ("tokenizer", Path("there"), "there"),
    ],
)  # fmt: skip
def test_values_are_read_as_in_a_flag(name: str, given: Any, kept: Any) -> None:
    value = getattr(EngineArgs("m", **{name: given}), name)
    assert value == kept and type(value) is type(kept)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("max_model_len", "many", "a whole number"), ("max_num_seqs", 1.5, "a whole number"),
        ("max_num_seqs", True, "a whole number"), ("gpu_memory_utilization", "all", "a number"),
        ("enable_prefix_caching", 2, "true or false"), ("tokenizer", 5, "a text"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_type_are_refused(name: str, given: Any, wanted: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is .*; it must be {wanted}"):
        EngineArgs("m", **{name: given})


def test_flags_known_from_elsewhere() -> None:
    EngineArgs("m", enforce_eager=True, tokenizer_mode="auto")
    with pytest.raises(SettingsError, match="quantization"):
        EngineArgs("m", quantization="aqlm")
    with pytest.raises(TypeError, match="unknown argument 'frobnicate'"):
        EngineArgs("m", frobnicate=1)


# --- LLMEngine


def test_the_engine_loop(clients: list[FakeClient]) -> None:
    engine = LLMEngine.from_engine_args(EngineArgs("model"))
    assert engine.step() == []
    internal = engine.add_request("a", [5], SamplingParams(max_tokens=2), prompt_text="said")
    engine.add_request("b", "the sea", SamplingParams(max_tokens=3))
    engine.add_request("b", [9], SamplingParams(max_tokens=3))
    assert internal.startswith("a-") and engine.get_num_unfinished_requests() == 3
    outputs = engine.step()
    assert [output.request_id for output in outputs] == ["a", "b", "b"]
    assert [output.prompt for output in outputs] == ["said", "the sea", None]
    engine.abort_request("b")
    assert len(clients[0].aborted) == 2 and list(clients[0].live) == [internal]
    assert engine.step()[0].finished
    assert not engine.has_unfinished_requests()
    engine.abort_request([internal, "b"], internal=True)
    assert engine.reset_prefix_cache()
    engine.shutdown()


def test_stop_strings_end_the_engine_sequence(clients: list[FakeClient]) -> None:
    engine = LLMEngine.from_engine_args(EngineArgs("model"))
    text = engine.get_tokenizer().decode(tokens_of([60], 3))
    internal = engine.add_request("a", [60], SamplingParams(max_tokens=20, stop=[text[-1]]))
    while engine.has_unfinished_requests():
        last = engine.step()
    assert last[0].outputs[0].finish_reason == "stop"
    assert clients[0].aborted == [(internal, 0)] and clients[0].live == {}


def test_things_that_are_not_there(clients: list[FakeClient]) -> None:
    with pytest.raises(TypeError):
        LLMEngine.from_engine_args(EngineArgs("model"), stat_loggers=[object()])
    engine = LLMEngine.from_engine_args(EngineArgs("model"))
    with pytest.raises(TypeError):
        engine.add_request(5, [1])  # type: ignore[arg-type]
    with pytest.raises(NotServedError):
        engine.reset_prefix_cache(reset_connector=True)
