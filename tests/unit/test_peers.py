"""The parts of the peers harness that need no engine: requests, figures, tables, build flags, names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import cpu, setup
from benchmarks.peers.checkpoints import SHAPES, config_of, tensors_of
from benchmarks.peers.contention import group_of, ticks_of_groups, used_ticks, wait_for_rest
from benchmarks.peers.engines import peer_session
from benchmarks.peers.figures import (
    COLUMNS,
    EngineRun,
    Pass,
    agreement,
    figures_of,
    ratios,
    table,
)
from benchmarks.peers.http_load import even_times, request_bytes
from benchmarks.peers.roster import (
    FILES,
    FORMATS,
    PEERS,
    SCRIPTS,
    refusal,
    script_command,
    server_command,
)
from benchmarks.peers.run import parse
from benchmarks.peers.store import Store
from benchmarks.peers.workloads import (
    HIGHEST_ID,
    LOWEST_ID,
    WARMUP_OUTPUT,
    WORKLOADS,
    Request,
    requests_of,
    warmup_of,
    write_requests,
)

STORE = Store(Path("/store"))
ZEN4 = frozenset(
    ["avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512vbmi"]
)


def run_of(engine: str, *values: float, ids: tuple[tuple[int, ...], ...] = ()) -> EngineRun:
    passes = [
        Pass({"output_tok_s": value, "wall_s": 10 / value}, 20.0, 0.5, 0.0, ids) for value in values
    ]
    return EngineRun(engine, "1", {}, passes)


@pytest.mark.parametrize("name", WORKLOADS)
def test_requests_have_the_lengths_of_their_workload(name: str) -> None:
    asked = requests_of(name, 0)
    assert tuple((len(one.prompt), one.num_output) for one in asked) == WORKLOADS[name].lengths
    ids = [token for one in asked for token in one.prompt]
    assert min(ids) >= LOWEST_ID and max(ids) <= HIGHEST_ID


@pytest.mark.parametrize("name", WORKLOADS)
def test_passes_repeat_exactly_and_differ_from_each_other(name: str) -> None:
    assert requests_of(name, 1) == requests_of(name, 1)
    beginnings = {tuple(requests_of(name, number)[0].prompt[:8]) for number in (0, 1, "warmup")}
    assert len(beginnings) == 3


def test_prompts_share_what_the_workload_says_and_no_more() -> None:
    first, second = requests_of("B5", 0)[:2]
    assert first.prompt[:1024] == second.prompt[:1024]
    assert first.prompt[1024:] != second.prompt[1024:]
    assert requests_of("B3", 0)[0].prompt != requests_of("B3", 0)[1].prompt


def test_the_mixed_workload_stays_the_one_whose_figures_are_published() -> None:
    lengths = WORKLOADS["B4"].lengths
    assert (sum(a for a, _ in lengths), sum(b for _, b in lengths)) == (15_906, 7_701)


def test_the_warm_up_meets_every_prompt_length_with_short_answers() -> None:
    warm = warmup_of("B4")
    assert [len(one.prompt) for one in warm] == [length for length, _ in WORKLOADS["B4"].lengths]
    assert max(one.num_output for one in warm) == WARMUP_OUTPUT


def test_an_engines_script_reads_the_requests_that_are_written(tmp_path: Path) -> None:
    write_requests(tmp_path / "deep" / "r.json", "B1", 2)
    content = json.loads((tmp_path / "deep" / "r.json").read_text())
    read = [peer_session.read_requests(one) for one in content["passes"]]
    assert [one[0].prompt for one in read] == [requests_of("B1", n)[0].prompt for n in (0, 1)]


class Echo:
    """An engine that answers with the first ids of the prompt, `missing` of them too few."""

    name, version, settings = "echo", "1", dict[str, Any]()

    def __init__(self, missing: int = 0) -> None:
        self._missing = missing

    def generate(self, requests: list[peer_session.Request]) -> list[peer_session.Answer]:
        answers = [peer_session.Answer() for _ in requests]
        for answer, one in zip(answers, requests, strict=True):
            answer.add(one.prompt[: one.num_output - self._missing], 7.0)
        return answers


def test_a_pass_counts_what_was_made_and_refuses_another_length() -> None:
    asked = [peer_session.Request([5, 6, 7], 2)]
    done = peer_session.run_pass(Echo(), asked)["requests"][0]
    assert (done["num_prompt"], done["num_output"], done["token_ids"]) == (3, 2, [5, 6])
    with pytest.raises(RuntimeError, match="request 0: 1 tokens, asked 2"):
        peer_session.run_pass(Echo(missing=1), asked)


def test_figures_of_a_single_stream_leave_the_first_token_out() -> None:
    one = {"num_prompt": 128, "num_output": 5, "times_s": [0.5, 0.6, 0.7, 0.8, 0.9]}
    found = figures_of("B1", 0.9, [one])
    assert found == pytest.approx({"decode_tok_s": 10.0, "ttft_ms": 500.0})


def test_figures_of_a_prompt_and_of_a_batch_are_rates_over_the_wall_time() -> None:
    one = {"num_prompt": 100, "num_output": 1, "times_s": [2.0]}
    assert figures_of("B2", 2.0, [one]) == {"prompt_tok_s": 50.0, "wall_s": 2.0}
    assert figures_of("B3", 2.0, [one, one]) == {"output_tok_s": 1.0, "wall_s": 2.0}


def test_ratios_are_taken_pass_by_pass() -> None:
    assert ratios(run_of("a", 2.0, 9.0), run_of("b", 1.0, 3.0), "B3") == [2.0, 3.0]


def test_answers_are_compared_up_to_where_they_part() -> None:
    ours = run_of("a", 1.0, ids=((1, 2, 3, 4), (1, 2, 3, 4)))
    theirs = run_of("b", 1.0, ids=((1, 2, 9, 4), (1, 2, 3, 4)))
    stranger = run_of("c", 1.0, ids=((9, 2, 3, 4), (1, 2, 3, 4)))
    assert agreement(ours, stranger) == (0.5, 0.5)
    assert agreement(ours, theirs) == (1.0, 0.75)
    assert agreement(run_of("a", 1.0), theirs) is None


def test_the_table_compares_with_the_first_engine_and_names_failures() -> None:
    failed = EngineRun("openvino", "", {}, [], "not installed")
    text = table(
        "B3", [run_of("quire", 20.0, 30.0, 40.0), run_of("llamacpp", 10.0, 10.0, 10.0), failed]
    )
    lines = text.splitlines()
    assert "quire is times" in lines[2]
    assert "| 30.0 (20.0–40.0) |" in lines[4]
    assert "| 3.00 (2.00–4.00) |" in lines[5]
    assert "not installed" in lines[6]
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_where_the_first_engine_failed_the_next_one_is_compared() -> None:
    failed = EngineRun("quire", "", {}, [], "no such model")
    text = table("B3", [failed, run_of("llamacpp", 8.0), run_of("vllm", 2.0)])
    assert "llamacpp is times" in text
    assert "| 4.00 |" in text.splitlines()[-1]


def test_every_workload_has_a_figure_to_compare() -> None:
    assert COLUMNS.keys() == WORKLOADS.keys()


def test_llamacpp_is_built_for_what_the_processor_has() -> None:
    found = cpu.llama_cmake_args(ZEN4)
    assert {"-DGGML_AVX512_BF16=ON", "-DGGML_AVX512_VNNI=ON", "-DGGML_AMX_INT8=OFF"} <= set(found)
    plain = cpu.llama_cmake_args(frozenset())
    assert {"-DGGML_AVX2=OFF", "-DGGML_AVX512=OFF", "-DGGML_NATIVE=OFF"} <= set(plain)


def test_the_tile_header_is_only_for_processors_with_tiles(tmp_path: Path) -> None:
    assert "CXXFLAGS" not in setup.build_settings(tmp_path, ZEN4)
    made = setup.build_settings(tmp_path, ZEN4 | {"amx_tile", "amx_int8", "amx_bf16"})
    assert "-DGGML_AMX_INT8=ON" in made["CMAKE_ARGS"]
    assert "ldtilecfg" in Path(made["CXXFLAGS"].split()[1]).read_text()


def test_features_are_read_as_linux_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 amx_tile\n\n")
    assert cpu.cpu_features(path) == {"fpu", "avx2", "amx_tile"}
    assert cpu.has_amx(cpu.cpu_features(path)) and cpu.cpu_name(path) == "Some CPU"
    assert cpu.cpu_features(tmp_path / "none") == frozenset()
    assert cpu.cpu_name(tmp_path / "none") == "unknown"


def test_every_peer_has_a_script_and_an_environment() -> None:
    assert {path.stem for path in SCRIPTS.glob("run_*.py")} == {f"run_{name}" for name in PEERS}
    others = {"formats", "gptqmodel", "modelopt", "sentence-transformers"}  # of other benchmarks
    assert setup.RECIPES.keys() - others == PEERS.keys() - {"quire"}


def test_only_quires_own_script_imports_quire() -> None:
    importing = {
        path.name
        for path in SCRIPTS.glob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(("import quire", "from quire", "from benchmarks"))
    }
    assert importing == {"run_quire.py"}


def test_what_a_peer_cannot_run_is_refused_with_the_reason() -> None:
    assert "not int4" in refusal(PEERS["transformers"], "B1", "int4")
    assert "server" in refusal(PEERS["llamacpp"], "B6", "bf16")
    every = [(name, form) for name in WORKLOADS for form in (*FORMATS, *FILES)]
    assert not any(refusal(PEERS["quire"], name, form) for name, form in every)
    assert "not q4_0" in refusal(PEERS["openvino"], "B1", "q4_0")


def test_options_and_variables_reach_the_process() -> None:
    command = script_command(PEERS["llamacpp"], STORE, Path("/m.gguf"), "int8", "B5", 2)
    assert command[0] == "/store/environments/llamacpp/bin/python"
    assert command[-2:] == ["--option", "unified=1"]
    assert "--option" not in script_command(PEERS["llamacpp"], STORE, Path("/m"), "int8", "B3", 2)
    variables = PEERS["vllm"].environment(STORE, 2)
    assert variables["LD_PRELOAD"] == "/store/environments/vllm/lib/libiomp5.so"
    assert (variables["VLLM_CPU_OMP_THREADS_BIND"], variables["OMP_NUM_THREADS"]) == ("0-1", "2")


def test_both_sides_of_a_file_read_the_same_file() -> None:
    for form in FILES:
        paths = [PEERS[name].model(STORE, "tiny", form) for name in ("quire", "llamacpp")]
        assert paths == [Path(f"/store/gguf/tiny-{form}.gguf")] * 2
    tokenizer = STORE.checkpoint("tiny")
    command = script_command(PEERS["quire"], STORE, paths[0], "q8_0", "B1", 2, tokenizer)
    assert command[-2:] == ["--option", "tokenizer=/store/models/tiny"]
    command = server_command(PEERS["quire"], STORE, paths[0], "q8_0", 81, 2, tokenizer)
    assert command[-2:] == ["--tokenizer", "/store/models/tiny"]


def test_servers_are_started_with_the_same_limits() -> None:
    ours = server_command(PEERS["quire"], STORE, Path("/m"), "int8", 81, 2)
    theirs = server_command(PEERS["vllm"], STORE, Path("/m"), "bf16", 81, 2)
    for words in (["--max-model-len", "4096"], ["--max-num-seqs", "64"], ["--port", "81"]):
        for command in (ours, theirs):
            assert command[command.index(words[0]) + 1] == words[1]
    assert ours[-2:] == ["--quantization", "int8"]
    with pytest.raises(ValueError, match="transformers has no server"):
        server_command(PEERS["transformers"], STORE, Path("/m"), "bf16", 81, 2)


def test_the_shapes_are_those_of_the_real_models() -> None:
    def millions(model: str) -> int:
        sizes = [size for _, size in tensors_of(SHAPES[model])]
        return round(sum(size[0] * (size[1] if len(size) > 1 else 1) for size in sizes) / 1e6)

    assert (millions("qwen3-0.6b"), millions("llama-1b")) == (596, 1236)
    experts = [name for name, _ in tensors_of(SHAPES["qwen3-moe"]) if ".experts." in name]
    assert len(experts) == 12 * 32 * 3
    assert config_of(SHAPES["qwen3-moe"])["num_experts_per_tok"] == 4
    assert "num_experts" not in config_of(SHAPES["tiny"])


def test_prompts_fit_every_vocabulary() -> None:
    assert min(shape.num_vocab for shape in SHAPES.values()) > HIGHEST_ID


def test_a_request_over_http_asks_for_an_exact_length() -> None:
    head, _, body = request_bytes(80, Request([1, 2], 64)).partition(b"\r\n\r\n")
    asked = json.loads(body)
    assert f"Content-Length: {len(body)}".encode() in head
    assert (asked["prompt"], asked["max_tokens"], asked["min_tokens"]) == ([1, 2], 64, 64)
    assert asked["ignore_eos"] and asked["stream"]


def test_times_of_a_stream_keep_its_first_and_last_piece() -> None:
    assert even_times(1.0, 3.0, 5) == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert even_times(1.0, 1.0, 1) == [1.0]


def test_processor_time_is_read_without_the_idle_part() -> None:
    assert used_ticks("cpu  10 1 5 900 80 2 3 7 6 0\ncpu0 1 1 1\n") == 10 + 1 + 5 + 2 + 3 + 7
    stat = "42 (a ) b (c)) S 1 77 77 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1"
    assert group_of(stat) == (77, 124)


@pytest.mark.parametrize(("spins_s", "limit_s"), [(1.0, 60.0), (100.0, 1.0)])
def test_an_engine_that_works_by_itself_is_waited_for(spins_s: float, limit_s: float) -> None:
    code = f"import time\nwhile time.process_time() < {spins_s}: pass\ninput()"
    spinning = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        began = time.monotonic()
        wait_for_rest(spinning.pid, limit_s, look_s=0.3)
        used_s = ticks_of_groups([spinning.pid]) / os.sysconf("SC_CLK_TCK")
        assert used_s >= min(spins_s, limit_s / 4) - 0.05
        assert time.monotonic() - began < 60.0
    finally:
        spinning.kill()
        spinning.wait()


def test_names_that_are_not_known_end_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--against", "llamacpp, vllm"]).peers == ["llamacpp", "vllm"]
    for words in (["--against", "quire"], ["--against", "vllm", "--workloads", "B1,B9"]):
        with pytest.raises(SystemExit):
            parse(words)
        assert "is not known" in capsys.readouterr().err


def test_inputs_of_8_bits_are_said_to_quire_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model = tmp_path / "model"
    theirs = script_command(PEERS["llamacpp"], store, model, "int4_a8", "B2", 2)
    assert theirs == script_command(PEERS["llamacpp"], store, model, "int4", "B2", 2)
    assert PEERS["openvino"].model(store, "m", "int8_a8") == store.openvino("m", "int8")
    ours = script_command(PEERS["quire"], store, model, "int4_a8", "B2", 2)
    assert ours[ours.index("--format") + 1] == "int4_a8"
    served = server_command(PEERS["quire"], store, model, "int8_a8", 1, 2)
    assert served[-4:] == ["--activation-bits", "8", "--quantization", "int8"]
