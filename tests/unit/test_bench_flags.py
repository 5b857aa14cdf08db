"""Every flag of `quire bench`: it shows in a run that is the same but for it, or it is refused with a sentence."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quire.bench import latency, serve_flags, startup, throughput
from quire.bench.arguments import _Always, _Refused
from quire.config.cli import serve_parser
from tests.checkpoints import write_tokenizer
from tests.unit.bench_walk import Seen, Walk
from tests.unit.fake_server import FakeServer, running

Capture = pytest.CaptureFixture[str]
Look = Callable[[Seen], Any]

MAKERS = {"latency": latency, "throughput": throughput, "startup": startup, "serve": serve_flags}
LISTED = [
    line.split()
    for line in Path(__file__).with_name("vllm_bench_flags.txt").read_text().splitlines()
    if line and not line.startswith("#")
]

SERVE = "--base-url {base} --tokenizer {model} --num-prompts 3 --input-len 12 --output-len 4"
SAVED = f"{SERVE} --save-result --result-filename r"
RANDOM = "--base-url {base} --tokenizer {model} --num-prompts 3"
RAMP = f"{SERVE} --ramp-up-start-rps 1000 --ramp-up-end-rps 2000 --ramp-up-strategy linear"
HERE = "{model} --num-prompts 3 --input-len 12 --output-len 4"
SHORT = "{model} --num-prompts 3 --random-input-len 12 --random-output-len 4"
PREFIX = (
    "--dataset-name prefix_repetition --prefix-repetition-prefix-len 8 --prefix-repetition-suffix-len 4 "
    "--prefix-repetition-output-len 4"
)
LINES = "--dataset-name custom --dataset-path {lines} --num-prompts 6 --custom-output-len 5"
BATCH = "{model} --input-len 12 --output-len 4 --batch-size 2 --num-iters 2 --num-iters-warmup 0"
STARTS = "{model} --num-iters-cold 1 --num-iters-warmup 1 --num-iters-warm 1"


def whole_text(seen: Seen) -> str:
    return "".join(seen.files.values())


# Flag: (what both runs have, what one has besides, where to look, what that one shows there).
# Where the last is missing, the two must differ.
DATASET: dict[str, tuple[Any, ...]] = {
    "--dataset-name": ("--prefix-repetition-prefix-len 8 --prefix-repetition-suffix-len 5",
                       "prefix_repetition", lambda s: s.lens[0], 13),
    "--dataset-path": ("--dataset-name custom --num-prompts 3", "{lines}", lambda s: s.code, 0),
    "--num-prompts": ("", "5", lambda s: len(s.samples), 5),
    "--num-warmups": ("", "2", lambda s: len(s.samples), 5),
    "--input-len": ("", "9", lambda s: s.lens[0], 9),
    "--output-len": ("", "5", lambda s: s.made, {5}),
    "--prefix-len": ("", "6", lambda s: s.lens[0], 18),
    "--random-input-len": ("", "9", lambda s: s.lens[0], 9),
    "--random-output-len": ("", "5", lambda s: s.made, {5}),
    "--random-prefix-len": ("", "6", lambda s: s.lens[0], 18),
    "--random-range-ratio": ("--num-prompts 20", "0.5", lambda s: len(set(s.lens)) > 3, True),
    "--random-batch-size": ("", "2", lambda s: (s.code, "has one prompt" in s.err), (2, True)),
    "--sharegpt-output-len": ("--dataset-path {chats}", "7", lambda s: s.made, {7}),
    "--custom-output-len": (LINES, "7", lambda s: s.made, {7}),
    "--prefix-repetition-prefix-len": (PREFIX, "9", lambda s: s.lens[0], 13),
    "--prefix-repetition-suffix-len": (PREFIX, "5", lambda s: s.lens[0], 13),
    "--prefix-repetition-num-prefixes":
        (PREFIX, "1", lambda s: len({tuple(one.ids[:6]) for one in s.samples}), 1),
    "--prefix-repetition-output-len": (PREFIX, "7", lambda s: s.made, {7}),
    "--disable-shuffle": (LINES, None, lambda s: s.lens == sorted(s.lens), True),
    "--no-oversample": (f"{LINES} --num-prompts 9", None, lambda s: len(s.samples), 6),
}  # fmt: skip
OWN_LENS = ("--input-len", "--output-len", "--prefix-len", "--dataset-name", "--dataset-path")

EFFECTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "latency": {
        "--input-len": (BATCH, "9", lambda s: s.lens[0], 9),
        "--output-len": (BATCH, "5", lambda s: s.made, {5}),
        "--batch-size": (BATCH, "3", lambda s: len(s.engine), 6),
        "--n": (BATCH, "2", lambda s: s.engine[0].params.n, 2),
        "--num-iters": (BATCH, "5", lambda s: len(s.engine), 10),
        "--num-iters-warmup": (BATCH, "1", lambda s: len(s.engine), 6),
        "--use-beam-search": (f"{BATCH} --n 3", None, lambda s: s.beams, [3, 3]),
        "--disable-detokenize": (BATCH, None, lambda s: s.engine[0].params.detokenize, False),
        "--profile": (f"{BATCH} --num-iters 5", None, lambda s: (len(s.engine), "Profile: " in s.out),
                      (2, True)),
        "--output-json": (BATCH, "o.json", lambda s: [*s.files], ["o.json"]),
    },
    "throughput": {
        "--backend": (HERE, "hf", lambda s: (len(s.hf), len(s.engine)), (1, 0)),
        "--versus": (HERE, "hf", lambda s: "times the tokens per second" in s.out, True),
        "--rounds": (f"{HERE} --versus hf", "2", lambda s: len(s.hf), 3),
        "--n": (HERE, "2", lambda s: s.engine[0].params.n, 2),
        "--hf-max-batch-size": (f"{HERE} --backend hf", "5", lambda s: s.hf[0]["at_once"], 5),
        "--hf-enable-torch-compile":
            (f"{HERE} --backend hf", None, lambda s: s.hf[0]["compiled"], True),
        "--disable-detokenize": (HERE, None, lambda s: s.engine[0].params.detokenize, False),
        "--disable-tqdm": (HERE, None, lambda s: "%|" in s.err, False),
        "--profile": (HERE, None, lambda s: ("Profile: " in s.out, "Throughput: " in s.out),
                      (True, True)),
        "--output-json": (HERE, "o.json", lambda s: [*s.files], ["o.json"]),
        **{
            name: (f"{HERE if name in OWN_LENS else SHORT} {row[0]}", *row[1:])
            for name, row in DATASET.items()
        },
    },
    "startup": {
        "--num-iters-cold": (STARTS, "2", lambda s: len(s.starts), 4),
        "--num-iters-warmup": (STARTS, "3", lambda s: len(s.starts), 5),
        "--num-iters-warm": (STARTS, "4", lambda s: s.starts, ["cold 600"] + 5 * ["warm 600"]),
        "--timeout": (STARTS, "7", lambda s: {one.split()[1] for one in s.starts}, {"7"}),
        "--output-json": (STARTS, "o.json", lambda s: [*s.files], ["o.json"]),
    },
    "serve": {
        "--backend": (SERVE, "openai-chat", lambda s: s.path, "/v1/chat/completions"),
        "--base-url": ("--tokenizer {model} --num-prompts 1 --port 1", "{base}", lambda s: s.code, 0),
        "--host": ("--tokenizer {model} --num-prompts 1 --port {port}", "localhost",
                   lambda s: s.heads["host"].split(":")[0], "localhost"),
        "--port": ("--tokenizer {model} --num-prompts 1", "{port}", lambda s: len(s.requests), 1),
        "--endpoint": (SERVE, "/other", lambda s: s.path, "/other"),
        "--header": (SERVE, "X-A=b", lambda s: s.heads.get("x-a"), "b"),
        "--api-key": (SERVE, "k", lambda s: s.heads.get("authorization"), "Bearer k"),
        "--insecure": (SERVE, None, lambda s: s.client["verify"], False),
        "--model": (SERVE, "second", lambda s: s.body["model"], "second"),
        "--served-model-name": (SERVE, "other", lambda s: s.body["model"], "other"),
        "--tokenizer": ("--base-url {base} --num-prompts 1", "{model}", lambda s: s.code, 0),
        "--ready-check-timeout-sec": (SERVE, "5", lambda s: len(s.requests), 4),
        "--seed": (SERVE, "7", lambda s: s.texts),
        "--request-rate": (SERVE, "1000", lambda s: s.times[-1] > 0, True),
        "--burstiness": (f"{SERVE} --request-rate 1000", "9", lambda s: s.times),
        "--max-concurrency": (SERVE, "2", lambda s: s.at_once, 2),
        "--ramp-up-strategy": (RAMP, "exponential", lambda s: s.times),
        "--ramp-up-start-rps": (RAMP, "500", lambda s: s.times),
        "--ramp-up-end-rps": (RAMP, "500", lambda s: s.times),
        "--ignore-eos": (SERVE, None, lambda s: s.body.get("ignore_eos"), True),
        "--temperature": (SERVE, "0.5", lambda s: s.body.get("temperature"), 0.5),
        "--top-p": (SERVE, "0.5", lambda s: s.body.get("top_p"), 0.5),
        "--min-p": (SERVE, "0.5", lambda s: s.body.get("min_p"), 0.5),
        "--top-k": (SERVE, "5", lambda s: s.body.get("top_k"), 5),
        "--frequency-penalty": (SERVE, "0.5", lambda s: s.body.get("frequency_penalty"), 0.5),
        "--presence-penalty": (SERVE, "0.5", lambda s: s.body.get("presence_penalty"), 0.5),
        "--repetition-penalty": (SERVE, "1.5", lambda s: s.body.get("repetition_penalty"), 1.5),
        "--logprobs": (SERVE, "2", lambda s: s.body.get("logprobs"), 2),
        "--extra-body": (SERVE, '{"z":1}', lambda s: s.body.get("z"), 1),
        "--chat-template-kwargs": (f"{SERVE} --backend openai-chat", '{"z":1}',
                                   lambda s: s.body.get("chat_template_kwargs"), {"z": 1}),
        "--request-id-prefix": (SERVE, "a-", lambda s: s.heads.get("x-request-id"), "a-0"),
        "--percentile-metrics": (SERVE, "e2el", lambda s: "P99 E2EL" in s.out, True),
        "--metric-percentiles": (SERVE, "42", lambda s: "P42 " in s.out, True),
        "--goodput": (SAVED, "ttft:100000", lambda s: s.result["request_goodput"] is None, False),
        "--save-result": (SERVE, None, lambda s: len(s.files), 1),
        "--save-detailed": (SAVED, None, lambda s: "itls" in s.result, True),
        "--append-result": (SAVED, None, lambda s: whole_text(s).count("\n"), 1),
        "--result-dir": (SAVED, "sub", lambda s: [*s.files], ["sub/r"]),
        "--result-filename": (f"{SERVE} --save-result", "q", lambda s: [*s.files], ["q"]),
        "--metadata": (SAVED, "a=b", lambda s: s.result.get("a"), "b"),
        "--label": (f"{SERVE} --save-result", "mine",
                    lambda s: next(iter(s.files)).startswith("mine-"), True),
        "--disable-tqdm": (SERVE, None, lambda s: "%|" in s.err, False),
        "--profile": (SERVE, None, lambda s: [path for path, *_ in s.requests if "profile" in path],
                      ["/start_profile", "/stop_profile"]),
        **{
            name: (f"{SERVE if name in OWN_LENS else RANDOM} {row[0]}", *row[1:])
            for name, row in DATASET.items()
        },
    },
}  # fmt: skip
for _name in ("--random-prefix-len", "--random-range-ratio"):
    _row = EFFECTS["serve"][_name]
    EFFECTS["serve"][_name] = (f"{_row[0]} --random-input-len 12 --random-output-len 4", *_row[1:])


def own_flags(kind: str) -> dict[str, argparse.Action]:
    """Every spelling of a command's own flags."""
    parser = MAKERS[kind].make()
    return {name: action for action in parser._actions for name in action.option_strings}


def flags_by(kind: str, *actions: type) -> list[str]:
    """The first spelling of the flags that have, or without actions have none, of these actions."""
    special = (_Always, _Refused)
    return [
        action.option_strings[0]
        for action in dict.fromkeys(own_flags(kind).values())
        if (isinstance(action, actions) if actions else not isinstance(action, special))
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and two data sets."""
    made = tmp_path_factory.mktemp("model")
    write_tokenizer(made)
    texts = [" ".join("abcdef"[:count]) for count in range(1, 7)]
    lines = [json.dumps({"prompt": "x" * count}) for count in range(1, 7)]
    (made / "lines.jsonl").write_text("\n".join(lines) + "\n")
    talks = [[{"from": "human", "value": t * 4}, {"from": "gpt", "value": t * 5}] for t in texts]
    (made / "chats.json").write_text(json.dumps([{"conversations": talk} for talk in talks]))
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with running(root="/nowhere", models=["fake-model", "second"]) as made:
        yield made


@pytest.fixture
def walk(model: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Walk:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return Walk(monkeypatch, server, model)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_table_has_every_flag_that_is_taken(kind: str) -> None:
    assert set(EFFECTS[kind]) == set(flags_by(kind))


@pytest.mark.parametrize(
    ("kind", "flag"), [(kind, flag) for kind in EFFECTS for flag in EFFECTS[kind]]
)
def test_each_flag_acts(kind: str, flag: str, walk: Walk, tmp_path: Path, capsys: Capture) -> None:
    words, value, look, *expected = EFFECTS[kind][flag]
    runs = []
    for name, more in (("without", []), ("with", [flag] if value is None else [flag, value])):
        (tmp_path / name).mkdir()
        runs.append(walk.run(kind, [*words.split(), *more], tmp_path / name, capsys))
    without, given = runs
    shown = look(given)
    assert not expected or shown == expected[0], f"{given.err}\n{given.out}"
    assert without.code >= 0 and shown != look(without), "the flag makes no difference"


@pytest.mark.parametrize(
    ("kind", "flag"), [(kind, flag) for kind in MAKERS for flag in flags_by(kind, _Refused)]
)
def test_each_refused_flag_says_why(
    kind: str, flag: str, walk: Walk, tmp_path: Path, capsys: Capture
) -> None:
    seen = walk.run(kind, ["{model}", flag, "1"], tmp_path, capsys)
    assert seen.code == 2 and not seen.requests and not seen.engine
    _, _, sentence = seen.err.splitlines()[0].partition(f"{flag} is not served: ")
    assert len(sentence.split()) >= 3, seen.err


@pytest.mark.parametrize(
    ("kind", "flag"), [(kind, flag) for kind in MAKERS for flag in flags_by(kind, _Always)]
)
def test_what_is_always_done_cannot_be_switched_off(
    kind: str, flag: str, walk: Walk, tmp_path: Path, capsys: Capture
) -> None:
    words = (SERVE if kind == "serve" else HERE).split()
    assert walk.run(kind, [*words, flag], tmp_path, capsys).code == 0
    refused = walk.run(kind, [*words, f"--no-{flag[2:]}"], tmp_path, capsys)
    assert refused.code == 2 and f"--no-{flag[2:]} is not served: " in refused.err


@pytest.mark.parametrize(("kind", "flag"), LISTED)
def test_every_flag_of_vllm_bench_is_known(kind: str, flag: str) -> None:
    engine = {name for one in serve_parser()._actions for name in one.option_strings}
    known = set(own_flags(kind)) | (set() if kind == "serve" else engine)
    assert flag in known
