"""Benchmarks without a model: numbers, arrivals, data sets, flags, event streams."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.bench import arguments, latency, serve_flags, startup, throughput
from quire.bench import report as numbers
from quire.bench.dataset_flags import choose, read_source
from quire.bench.datasets import (
    PrefixSizes,
    RandomSizes,
    Source,
    batches,
    prefix_samples,
    random_samples,
)
from quire.bench.load import Arrivals, Timed
from quire.bench.serve import read_plan
from quire.bench.serve_report import is_good, peak_concurrency, peak_tokens_per_s, render, results
from quire.bench.startup import Start
from quire.bench.wire import Delta, EventReader, ServerFailedError, error_text, is_local
from quire.cli.main import main
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.errors import SettingsError
from tests.checkpoints import TOKENIZER_SIZE, write_tokenizer

Capture = pytest.CaptureFixture[str]
floats = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


# --- numbers


@given(floats, st.floats(0.0, 100.0))
def test_percentiles_are_numpy_s(values: list[float], rank: float) -> None:
    assert numbers.percentile(values, rank) == pytest.approx(np.percentile(values, rank), abs=1e-6)


@given(floats)
def test_the_summary_is_numpy_s(values: list[float]) -> None:
    found = numbers.summary(values, [50.0, 99.9])
    assert list(found) == ["mean", "median", "std", "p50", "p99.9"]
    want = [np.mean(values), np.median(values), np.std(values), np.median(values)]
    assert list(found.values())[:4] == pytest.approx(want, rel=1e-6, abs=1e-6)


def test_nothing_has_zeros() -> None:
    assert set(numbers.summary([], [99.0]).values()) == {0.0}


def test_a_table_has_even_columns() -> None:
    text = numbers.table([["name", "x"], ["long name", 1.5], ["b", 22.25]])
    assert text.split("\n") == ["name           x", "long name   1.50", "b          22.25"]


def test_results_are_written_or_appended_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    numbers.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    lines = tmp_path / "b.jsonl"
    for value in (1, 2):
        numbers.write_json(lines, {"a": value}, append=True)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == [{"a": 1}, {"a": 2}]
    with pytest.raises(SettingsError, match="cannot be written"):
        numbers.write_json(path / "below a file", {})


# --- what is on the wire


@given(st.lists(st.text(), max_size=5), st.data())
def test_events_come_out_however_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    sent = [
        json.dumps({"text": text}, ensure_ascii=False).replace("\\ud", "\\uD") for text in texts
    ]
    whole = b": comment\n\n" + b"".join(
        b"event: x\r\ndata: " + one.encode("utf-8", "replace") + b"\r\n\r\n" for one in sent
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    reader = EventReader()
    got = []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)]):
        got += reader.feed(whole[begin:end])
    assert got == [one.encode("utf-8", "replace").decode() for one in sent]


def test_deltas_are_read_leniently() -> None:
    assert Delta("[DONE]").is_end
    chat = Delta('{"choices":[{"delta":{"content":null,"reasoning":"r"},"finish_reason":"stop"}]}')
    assert (chat.text, chat.reasoning, chat.finish_reason) == ("", "r", "stop")
    end = Delta('{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    assert end.usage == (3, 4) and not end.is_end
    with pytest.raises(ServerFailedError, match="out of cache"):
        Delta('{"error":{"message":"out of cache","code":500}}')
    with pytest.raises(ServerFailedError, match="no JSON"):
        Delta("<html>")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"error":{"message":"m"}}', "m"), ('{"error":"m"}', "m"), ('{"detail":"m"}', "m"),
        ("plain m", "plain m"), ("", "no reason given"), ("[1]", "[1]"),
    ],
)  # fmt: skip
def test_errors_of_any_form_have_a_sentence(body: str, sentence: str) -> None:
    assert error_text(body, 418) == f"HTTP 418: {sentence}" and error_text(body) == sentence


def test_local_addresses() -> None:
    assert all(
        is_local(u) for u in ("http://localhost:1/v1", "http://127.0.0.1", "http://[::1]:8/v1")
    )
    assert not any(
        is_local(u) for u in ("http://example.org", "http://localhost.example", "nonsense")
    )


# --- arrivals


def test_arrivals_have_the_rate_and_the_burstiness() -> None:
    for burstiness in (0.3, 1.0, 4.0):
        times = Arrivals(rate=10.0, burstiness=burstiness, seed=1).times(20_000)
        gaps = np.diff([0.0, *times])
        assert times == sorted(times)
        assert gaps.mean() == pytest.approx(0.1, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(burstiness), rel=0.05)


def test_without_a_rate_all_come_at_once_and_a_seed_repeats() -> None:
    assert Arrivals().times(3) == [0.0, 0.0, 0.0]
    assert Arrivals(rate=3.0, seed=5).times(9) == Arrivals(rate=3.0, seed=5).times(9)
    assert Arrivals(rate=3.0, seed=5).times(9) != Arrivals(rate=3.0, seed=6).times(9)


@pytest.mark.parametrize(("ramp", "middle"), [("linear", 5.5), ("exponential", math.sqrt(10.0))])
def test_ramps(ramp: Any, middle: float) -> None:
    arrivals = Arrivals(ramp=ramp, start_rps=1.0, end_rps=10.0)
    rates = [arrivals.rate_at(share) for share in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1.0, middle, 10.0])


# --- what is made of the times


def timed(
    start_s: float, ttft_s: float | None, itls: list[float], latency_s: float, **kw: Any
) -> Timed:
    return Timed(10, start_s, ttft_s, itls, latency_s, **kw)


REQUESTS = [
    timed(0.0, 0.1, [0.1, 0.2], 0.5, output_len=3),
    timed(0.2, 0.3, [], 0.3, output_len=1),
    timed(1.05, 0.2, [0.2], 0.4, output_len=4),
    timed(0.0, None, [], 9.0, error="HTTP 500: no"),
]


def test_results_add_up() -> None:
    found = results(REQUESTS, 2.0, [50.0, 99.0], {"ttft": 250.0, "tpot": 100.0})
    assert (found["completed"], found["failed"]) == (3, 1)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (30, 8)
    assert found["request_throughput"] == 1.5 and found["output_throughput"] == 4.0
    assert found["total_token_throughput"] == 19.0
    ttfts, tpots = [100.0, 300.0, 200.0], [200.0, 200.0 / 3]
    assert found["mean_ttft_ms"] == pytest.approx(200.0)
    assert found["p99_ttft_ms"] == pytest.approx(np.percentile(ttfts, 99))
    assert found["std_ttft_ms"] == pytest.approx(np.std(ttfts))
    assert found["mean_tpot_ms"] == pytest.approx(np.mean(tpots))
    assert found["median_itl_ms"] == pytest.approx(200.0)
    assert found["mean_e2el_ms"] == pytest.approx(400.0)
    assert found["request_goodput"] == 0.5  # one of two seconds: the first's TPOT is 200 ms


def test_goodput_is_left_out_without_goals() -> None:
    assert results(REQUESTS, 2.0, [99.0], {})["request_goodput"] is None
    assert is_good(REQUESTS[1], {"tpot": 1.0})  # one token has no TPOT


def test_peaks() -> None:  # tokens at 0.5, 1.25 (two), 1.45 (two) lie within a second
    done = REQUESTS[:3]
    assert peak_concurrency(done) == 2 and peak_concurrency([]) == 0
    assert peak_tokens_per_s(done) == pytest.approx(5.0) and peak_tokens_per_s([]) == 0.0


def test_the_report_has_the_lines() -> None:
    found = results(REQUESTS, 2.0, [99.0], {}) | {"max_concurrency": 4, "request_rate": 2.0}
    text = render(found, ["ttft", "itl"], [99.0])
    for line in (
        "Successful requests:", "Failed requests:", "Maximum request concurrency:",
        "Request rate configured (RPS):", "Benchmark duration (s):", "Total input tokens:",
        "Total generated tokens:", "Request throughput (req/s):", "Output token throughput (tok/s):",
        "Peak output token throughput (tok/s):", "Peak concurrent requests:",
        "Total token throughput (tok/s):", "Mean TTFT (ms):", "Median ITL (ms):", "P99 TTFT (ms):",
    ):  # fmt: skip
        assert f"\n{line} " in text
    assert "TPOT" not in text and "goodput" not in text


def test_phases_of_a_start_add_up() -> None:
    start = Start(0.5, [("starting", 0.5), ("loading weights", 2.0)], 3.0, 3.25)
    assert start.steps() == [
        ("process to port", 0.5), ("starting", 1.5), ("loading weights", 1.0), ("first request", 0.25)
    ]  # fmt: skip
    assert sum(seconds for _, seconds in start.steps()) == start.first_s
    assert "= first token" in startup.render([start, start])


# --- data sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    write_tokenizer(made)
    (made / "config.json").write_text('{"vocab_size": 512}')
    return made


def flags_of(*words: str) -> Any:
    return arguments.read_own(serve_flags.make(), list(words))


def test_random_prompts_have_their_lengths_as_ids_and_as_text(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    for as_text in (False, True):
        source = Source(tokenizer, TOKENIZER_SIZE, as_text)
        sizes = RandomSizes(input_len=20, output_len=5, prefix_len=4)
        samples = random_samples(source, 20, sizes, seed=3)
        assert [len(sample.ids) for sample in samples] == [24] * 20
        assert samples == random_samples(source, 20, sizes, seed=3)
        assert samples != random_samples(source, 20, sizes, seed=4)
        for sample in samples:
            assert (sample.text is not None) == as_text
            if as_text:
                assert tokenizer.encode(sample.text or "") == sample.ids
            else:
                assert sample.ids[:4] == samples[0].ids[:4] and min(sample.ids) > 1


def test_a_range_of_lengths() -> None:
    sizes = RandomSizes(input_len=20, output_len=10, range_ratio=0.5)
    samples = random_samples(Source(None, 100, False), 300, sizes, seed=0)
    assert {len(sample.ids) for sample in samples} == set(range(10, 31))
    assert {sample.output_len for sample in samples} == set(range(5, 16))


def test_prefixes_are_shared_equally(folder: Path) -> None:
    sizes = PrefixSizes(prefix_len=8, suffix_len=4, num_prefixes=3, output_len=2)
    samples = prefix_samples(Source(None, 1000, False), 12, sizes, seed=0)
    starts = [tuple(sample.ids[:8]) for sample in samples]
    assert sorted(starts.count(one) for one in set(starts)) == [4, 4, 4]
    assert {len(sample.ids) for sample in samples} == {12}


def test_sharegpt_takes_first_turns_that_fit(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    talks = [("The river runs down.", "And the ships wait there for the tide."), ("hi", "x" * 400)]
    content: list[Any] = [
        {"conversations": [{"from": "human", "value": a}, {"from": "gpt", "value": b}]}
        for a, b in talks
    ]
    content += [{"conversations": [{"from": "human", "value": "alone"}]}, {"id": 3}]
    path.write_text(json.dumps(content))
    source = read_source(str(folder), None, as_text=False)
    samples = choose(flags_of("--dataset-path", str(path), "--num-prompts", "3"), source, 0)
    tokenizer = source.need_tokenizer()
    assert [sample.text for sample in samples] == [talks[0][0]] * 3  # again, as there are too few
    assert samples[0].output_len == len(tokenizer.encode(talks[0][1], False))
    words = ["--dataset-path", str(path), "--num-prompts", "3", "--no-oversample"]
    assert len(choose(flags_of(*words), source, 0)) == 1
    words += ["--sharegpt-output-len", "7"]
    assert choose(flags_of(*words), source, 0)[0].output_len == 7


def test_custom_lines(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"prompt": "a b c", "output_tokens": 3}\n\n{"prompt": "d e"}\n')
    source = read_source(str(folder), None, as_text=True)
    words = ["--dataset-name", "custom", "--dataset-path", str(path), "--num-prompts", "2"]
    samples = choose(flags_of(*words, "--disable-shuffle"), source, 0)
    assert [(sample.text, sample.output_len) for sample in samples] == [
        ("a b c", 256),
        ("d e", 256),
    ]
    with pytest.raises(SettingsError, match="needs output_tokens in each line"):
        choose(flags_of(*words, "--custom-output-len", "-1"), source, 0)
    path.write_text('{"text": "a"}\n')
    with pytest.raises(SettingsError, match="has no prompt"):
        choose(flags_of(*words), source, 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dataset-name", "sonnet"], "sonnet is not served"),
        (["--dataset-name", "ronda"], "must be one of: random, sharegpt"),
        (["--dataset-name", "custom"], "needs --dataset-path"),
        (["--dataset-path", "/nowhere/x.json"], "cannot be read"),
        (["--random-range-ratio", "1"], "must be below 1"),
        (["--random-batch-size", "2"], "not served"),
    ],
)
def test_wrong_data_sets_are_named(words: list[str], sentence: str, folder: Path) -> None:
    with pytest.raises(SettingsError, match=sentence):
        choose(flags_of(*words), read_source(str(folder), None, as_text=False), 0)


def test_texts_need_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--tokenizer"):
        read_source(str(tmp_path), None, as_text=True)
    with pytest.raises(SettingsError, match="give its folder"):
        read_source(str(tmp_path), None, as_text=False)
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 9}}')
    assert read_source(str(tmp_path), None, as_text=False).ordinary_ids() == list(range(9))


def test_batches_keep_the_order() -> None:
    samples = random_samples(Source(None, 9, False), 5, RandomSizes(input_len=1, output_len=1), 0)
    assert [len(one) for one in batches(samples, 2)] == [2, 2, 1]
    assert [one for batch in batches(samples, 2) for one in batch] == samples


# --- flags


@pytest.mark.parametrize("kind", ["latency", "throughput", "serve", "startup"])
def test_each_kind_has_help(kind: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", kind, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: quire bench {kind}" in text
    assert ("quire serve --help" in text) == (kind != "serve")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["latency", "m", "--batch-size", "0"], "0 is below 1"),
        (["latency", "m", "--port", "1"], "--port is for quire serve"),
        (["latency", "m", "--batch-sise", "1"], "unknown argument --batch-sise"),
        (["throughput", "m", "--profile", "--backend", "hf"], "--profile traces Quire alone"),
        (["latency", "m", "--dtype", "int3"], "int3"),
        (["throughput", "m", "--backend", "mii"], "mii"),
        (["throughput", "m", "--n", "2", "--backend", "hf"], "--n above 1"),
        (["throughput", "m", "--lora-path", "x"], "adapters are not served"),
        (["serve", "--request-rate", "nan"], "must be above 0"),
        (["serve", "--no-such"], "unknown argument --no-such"),
        (["serve", "--extra-body", "[1]"], "must be a JSON object"),
        (["startup", "m", "--num-iters-warm", "-1"], "-1 is below 0"),
    ],
)
def test_wrong_words_are_two_lines_and_2(words: list[str], sentence: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert sentence in err and len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--backend", "tgi"], "--backend is 'tgi'"),
        (["--metric-percentiles", "50,101"], "from 0 to 100"),
        (["--metric-percentiles", "x"], "from 0 to 100"),
        (["--percentile-metrics", "ttft,zzz"], "'zzz'"),
        (["--goodput", "itl:5"], "must be ttft, tpot or e2el"),
        (["--goodput", "ttft"], "NAME:VALUE"),
        (["--metadata", "x"], "NAME=VALUE"),
        (["--ramp-up-strategy", "linear"], "needs --ramp-up-start-rps"),
        (["--ramp-up-end-rps", "3"], "need --ramp-up-strategy"),
        (["--chat-template-kwargs", '{"a":1}'], "needs --backend openai-chat"),
    ],
)
def test_wrong_values_of_serve(words: list[str], sentence: str, capsys: Capture) -> None:
    assert main(["bench", "serve", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err and len(err.splitlines()) == 1


def test_bench_itself(capsys: Capture) -> None:
    assert main(["bench"]) == 0
    text = capsys.readouterr().out
    assert all(kind in text for kind in ("latency", "throughput", "serve", "startup"))
    assert main(["bench", "sweep"]) == 2 and "sweep is not served" in capsys.readouterr().err
    assert main(["bench", "fly"]) == 2 and "unknown kind 'fly'" in capsys.readouterr().err


def test_own_and_engine_flags_are_told_apart() -> None:
    words = [
        "--dtype",
        "float32",
        "--input_len=7",
        "some/model",
        "--threads",
        "2",
        "--enforce-eager",
    ]
    read = arguments.read(latency.make(), words)
    assert read.flags.input_len == 7 and read.engine.model == "some/model"
    assert (read.engine.dtype, read.engine.threads) == ("float32", 2)
    assert read.engine_words == [
        "--dtype",
        "float32",
        "some/model",
        "--threads",
        "2",
        "--enforce-eager",
    ]
    assert any("enforce-eager" in note for note in read.notes)


def test_defaults_are_the_documented_ones() -> None:
    flags = arguments.read(latency.make(), ["m"]).flags
    assert (flags.input_len, flags.output_len, flags.batch_size, flags.n) == (32, 128, 8, 1)
    assert (flags.num_iters_warmup, flags.num_iters) == (10, 30)
    flags = arguments.read(throughput.make(), ["m"]).flags
    assert (flags.num_prompts, flags.num_warmups, flags.n) == (1000, 0, 1)
    flags = flags_of()
    assert (flags.host, flags.port, flags.burstiness, flags.seed) == ("127.0.0.1", 8000, 1.0, 0)
    assert (flags.random_input_len, flags.random_output_len) == (1024, 128)
    assert flags.request_rate == float("inf") and flags.max_concurrency is None


def test_fields_of_requests() -> None:
    words = ["--temperature", "0", "--top_k", "4", "--ignore-eos", "--logprobs", "2"]
    assert read_plan(flags_of(*words)).extra == {
        "temperature": 0.0, "top_k": 4, "ignore_eos": True, "logprobs": 2
    }  # fmt: skip
    chat = read_plan(flags_of("--backend", "openai-chat", *words, "--extra-body", '{"top_k": 9}'))
    assert chat.extra == {
        "temperature": 0.0, "top_k": 9, "ignore_eos": True, "logprobs": True, "top_logprobs": 2
    }  # fmt: skip
