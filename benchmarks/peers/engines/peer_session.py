"""The command line, the timing and the result file that every engine's script shares; standard library only.

A script makes an `Engine` and calls `main`. Which requests are asked, and when, is the caller's business.

Request file: {"workload": name, "warmup": [request], "passes": [[request]]}, each request
{"prompt": [token ids], "num_output": n}. Result file: {"engine", "version", "settings", "load_s", "warm_s",
"peak_rss_mib", "passes": [{"wall_s", "requests": [{"num_prompt", "num_output", "token_ids", "times_s"}]}]}, times
in seconds from the beginning of their pass.

With --step the script prints `ready` and waits for a line on standard input before each pass, and
prints `done N` after it. Whatever the engine itself prints goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Request:
    """A prompt of token ids, and the exact number of tokens to make."""

    prompt: list[int]
    num_output: int


@dataclass
class Answer:
    """Ids made for one request, and the clock (`time.perf_counter`) at which each was there."""

    token_ids: list[int] = field(default_factory=list)
    clocks_s: list[float] = field(default_factory=list)

    def add(self, token_ids: list[int], clock_s: float) -> None:
        """More ids that came at one moment."""
        self.token_ids += token_ids
        self.clocks_s += [clock_s] * len(token_ids)


@dataclass(frozen=True)
class Setup:
    """What the engine must be ready for.

    model        folder or file in the engine's own form.
    options      free settings of one engine, from --option NAME=VALUE.
    max_seqs     requests that run at once.
    max_len      tokens of the longest request, prompt and answer.
    """

    model: str
    number_format: str
    num_threads: int
    max_seqs: int
    max_len: int
    options: dict[str, str]

    def option(self, name: str, default: str) -> str:
        """A free setting, or the default."""
        return self.options.get(name, default)

    def is_on(self, name: str) -> bool:
        """Whether a free setting is 1."""
        return self.options.get(name, "0") == "1"


class Engine(Protocol):
    """A loaded model."""

    name: str
    version: str
    settings: dict[str, Any]

    def generate(self, requests: list[Request]) -> list[Answer]:
        """Answers in the order of the requests: greedy, of exact length, ends of text ignored."""
        ...


def read_requests(content: list[dict[str, Any]]) -> list[Request]:
    """Requests of a file's list."""
    return [Request(list(one["prompt"]), int(one["num_output"])) for one in content]


def run_pass(engine: Engine, requests: list[Request]) -> dict[str, Any]:
    """One timed pass. Raises RuntimeError if an answer has another length than asked."""
    start = time.perf_counter()
    answers = engine.generate(requests)
    wall_s = time.perf_counter() - start
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if len(answer.token_ids) != request.num_output:
            raise RuntimeError(
                f"request {number}: {len(answer.token_ids)} tokens, asked {request.num_output}"
            )
    return {
        "wall_s": wall_s,
        "requests": [
            {
                "num_prompt": len(request.prompt),
                "num_output": len(answer.token_ids),
                "token_ids": answer.token_ids,
                "times_s": [clock - start for clock in answer.clocks_s],
            }
            for request, answer in zip(requests, answers, strict=True)
        ],
    }


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line of every script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder or file in the engine's own form")
    parser.add_argument("--format", required=True, help="bf16, int8 or int4: how weights are held")
    parser.add_argument("--requests", required=True, type=Path, help="the request file")
    parser.add_argument("--result", required=True, type=Path, help="the file to write")
    parser.add_argument("--threads", type=int, default=2, help="arithmetic threads; 2")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--step", action="store_true", help="wait for a line before each pass")
    return parser.parse_args(words)


def private_output() -> Any:
    """A writer to the present standard output, which then leads to standard error."""
    writer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return writer


def peak_rss_mib() -> float:
    """The most memory that this process held at once, mapped files included; 0 where Linux does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main(make: Callable[[Setup], Engine]) -> None:
    """Loads the engine, warms it up, runs the passes, writes the result, ends the process.

    The process ends without the engine's own cleaning up.
    """
    flags, writer = parse(), private_output()
    content = json.loads(flags.requests.read_text())
    passes = [read_requests(one) for one in content["passes"]]
    everything = [one for requests in passes for one in requests]
    setup = Setup(
        flags.model,
        flags.format,
        flags.threads,
        max(len(requests) for requests in passes),
        max(len(one.prompt) + one.num_output for one in everything),
        dict(word.partition("=")[::2] for word in flags.option),
    )
    start = time.perf_counter()
    engine = make(setup)
    loaded = time.perf_counter()
    run_pass(engine, read_requests(content["warmup"]))
    result: dict[str, Any] = {
        "engine": engine.name,
        "version": engine.version,
        "settings": engine.settings,
        "workload": content["workload"],
        "load_s": loaded - start,
        "warm_s": time.perf_counter() - loaded,
        "passes": [],
    }
    print("ready", file=writer)
    for number, requests in enumerate(passes):
        if flags.step and not sys.stdin.readline():
            break
        result["passes"].append(run_pass(engine, requests))
        result["peak_rss_mib"] = peak_rss_mib()
        flags.result.parent.mkdir(parents=True, exist_ok=True)
        flags.result.write_text(json.dumps(result))
        print(f"done {number}", file=writer)
    writer.flush()
    sys.stderr.flush()
    # engines with threads of their own may wait for ever when the interpreter ends in order
    os._exit(0)
