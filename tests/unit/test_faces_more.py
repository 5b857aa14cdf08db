"""LLM over a scripted engine: requests that are answered later, and metrics as objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quire.llm import LLM
from quire.llm_engine import LLMEngine
from quire.metrics.reader import Counter, Gauge, Histogram, Metric
from quire.protocol.errors import InvalidRequestError, NotServedError, SettingsError
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput
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

    def make(settings: Any, *, own_process: bool) -> FakeClient:
        made.append(FakeClient(settings, str(folder), fail_on=[13, 13]))
        return made[-1]

    monkeypatch.setattr("quire.llm_engine.make_client", make)
    return made


@pytest.fixture
def llm(clients: list[FakeClient]) -> Iterator[LLM]:
    with LLM("model") as made:
        yield made


# --- enqueue and wait_for_completion


def test_enqueued_requests_are_answered_in_their_order(llm: LLM, clients: list[FakeClient]) -> None:
    first = llm.enqueue([[10], [20]], [SamplingParams(max_tokens=n) for n in (9, 1)], **Quiet)
    second = llm.enqueue("the sea", SamplingParams(max_tokens=2), **Quiet)
    assert len(set(first + second)) == 3 and not any(clients[0].given.values())
    answers = llm.wait_for_completion(**Quiet)
    assert [answer.request_id for answer in answers] == first + second
    assert [len(answer.outputs[0].token_ids) for answer in answers] == [9, 1, 2]
    assert answers[0].outputs[0].token_ids == tokens_of([10], 9) and answers[2].prompt == "the sea"
    assert llm.wait_for_completion(**Quiet) == []


def test_a_call_in_between_leaves_them_to_their_waiting(llm: LLM) -> None:
    (name,) = llm.enqueue([[10]], SamplingParams(max_tokens=2), **Quiet)
    (other,) = llm.generate([[30]], SamplingParams(max_tokens=5), **Quiet)
    assert other.outputs[0].token_ids == tokens_of([30], 5)
    (answer,) = llm.wait_for_completion(**Quiet)
    assert answer.request_id == name and answer.outputs[0].token_ids == tokens_of([10], 2)


def test_a_wrong_prompt_keeps_none_of_its_call(llm: LLM, clients: list[FakeClient]) -> None:
    kept = llm.enqueue([[5]], SamplingParams(max_tokens=1), **Quiet)
    with pytest.raises(InvalidRequestError, match=r"prompt 1: .*600"):
        llm.enqueue([[5], [600], [6]], **Quiet)
    with pytest.raises(NotServedError):
        llm.enqueue([[5]], mm_processor_kwargs={"size": 1}, **Quiet)
    assert len(clients[0].live) == 1
    assert [answer.request_id for answer in llm.wait_for_completion(**Quiet)] == kept


def test_the_type_of_the_outputs_can_be_asked_for(llm: LLM) -> None:
    llm.enqueue([[5]], **Quiet)
    with pytest.raises(TypeError, match="gives RequestOutput"):
        llm.wait_for_completion(str, **Quiet)
    assert len(llm.wait_for_completion((str, RequestOutput), **Quiet)) == 1


def test_an_interruption_ends_them_all(llm: LLM, clients: list[FakeClient]) -> None:
    llm.enqueue([[5], [6]], **Quiet)
    clients[0].raises_in_step = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        llm.wait_for_completion(**Quiet)
    assert clients[0].live == {} and llm.wait_for_completion(**Quiet) == []


def test_bars_say_what_they_count(llm: LLM) -> None:
    seen: list[tuple[str, int | None, int]] = []

    class Bar:
        def __init__(self, total: int | None, desc: str, **_: Any) -> None:
            self.total, self.desc, self.count = total, desc, 0

        def update(self, count: int) -> None:
            self.count += count

        def close(self) -> None:
            seen.append((self.desc, self.total, self.count))

    llm.enqueue([[5], [6]], use_tqdm=Bar)
    llm.wait_for_completion(use_tqdm=Bar)
    assert seen == [("Adding requests", 2, 2), ("Processed prompts", 2, 2)]


# --- get_metrics


def find(metrics: list[Metric], name: str, **labels: str) -> Any:
    (one,) = [m for m in metrics if m.name == name and labels.items() <= m.labels.items()]
    return one


def test_metrics_are_off_unless_asked_for(llm: LLM) -> None:
    with pytest.raises(SettingsError, match="disable_log_stats=False"):
        llm.get_metrics()


@pytest.mark.parametrize("kind", list(RequestOutputKind))
def test_metrics_count_requests_whatever_their_outputs_are(
    clients: list[FakeClient], folder: Path, kind: RequestOutputKind
) -> None:
    with LLM("model", served_model_name="tiny", disable_log_stats=False) as llm:
        engine: LLMEngine = llm.llm_engine
        params = SamplingParams(max_tokens=5, n=2, output_kind=kind)
        engine.add_request("a", [50, 51, 52], params)
        engine.add_request("b", [60, 61, 62], params)
        engine.add_request("gone", [60, 61, 62], params)
        engine.step()
        engine.abort_request("gone")
        while engine.has_unfinished_requests():
            engine.step()
        found = llm.get_metrics()
    assert all(one.labels["model_name"] == "tiny" for one in found)
    names = {one.name for one in found}
    assert {"vllm:generation_tokens", "vllm:iteration_tokens_total"} <= names
    assert all(name.startswith("vllm:") for name in names)
    assert find(found, "vllm:request_success", finished_reason="length").value == 4
    assert find(found, "vllm:request_success", finished_reason="abort").value == 2
    prompts = find(found, "vllm:request_prompt_tokens")
    assert (prompts.count, prompts.sum) == (2, 6.0)
    assert prompts.buckets["2.0"] == 0 and prompts.buckets["5.0"] == prompts.buckets["+Inf"] == 2
    assert find(found, "vllm:inter_token_latency_seconds").count >= 2 * 2 * 4
    assert isinstance(find(found, "vllm:num_preemptions"), Counter)
    assert isinstance(find(found, "vllm:num_requests_running"), Gauge)
    assert isinstance(prompts, Histogram)


def test_the_log_line_comes_when_asked_for(
    clients: list[FakeClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "quire.metrics.stats_log")
    for disabled in (True, False):
        with LLM("model", disable_log_stats=disabled) as llm:
            llm.generate([[50]], SamplingParams(max_tokens=2), **Quiet)
            caplog.clear()
            caplog.set_level("DEBUG", "quire.metrics.stats_log")
            llm.llm_engine.do_log_stats()
        assert [record.getMessage()[:31] for record in caplog.records] == (
            [] if disabled else ["Engine 000: Avg prompt throughpu"[:31]]
        )


def test_generate_is_counted_whole(clients: list[FakeClient]) -> None:
    with LLM("model", disable_log_stats=False) as llm:
        llm.generate([[50, 51, 52]] * 4, SamplingParams(max_tokens=5), **Quiet)
        found = llm.get_metrics()
    assert find(found, "vllm:prompt_tokens").value == 12
    assert find(found, "vllm:generation_tokens").value == 20
    assert find(found, "vllm:time_to_first_token_seconds").count == 4
    assert find(found, "vllm:inter_token_latency_seconds").count == 16
    assert find(found, "vllm:e2e_request_latency_seconds").count == 4
