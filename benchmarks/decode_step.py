"""What a step costs: of memory's speed, beside other libraries' products, and outside all arithmetic.

    python -m benchmarks.decode_step limits FOLDER     bytes a second of decode steps, of what can be read meanwhile
    python -m benchmarks.decode_step default FOLDER    the engine with its own products, with torch's and with oneDNN's
    python -m benchmarks.decode_step outside           microseconds of a step of the demo model that no kernel takes

FOLDER is a checkpoint in bfloat16 with a tied head, such as `benchmarks.peers` makes. Everything is taken in turns in
one process; medians.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

from quire import EngineArgs, LLMEngine, SamplingParams
from quire.config.demo import FOLDER as DEMO
from quire.hardware.cpu import read_machine
from quire.ops.cpu.library import native
from quire.ops.cpu.limits import ReadProbe
from quire.ops.linear import LINEAR
from quire.ops.registry import Provider, load_all, register

CONTEXTS = ((1, 128), (32, 512))
"""Sequences, and tokens of each when it is measured."""
FIRST_ID, LAST_ID = 1_000, 2_000  # of random prompts; the demo model has 3,072
PROMPT, TOKENS = 512, 32  # of a round with one kind of product

load_all()


@register
class LinearPlain(Provider):
    """torch's own product of all rows at once, whose order of additions depends on their number."""

    op, name, row_invariant = "linear", "plain", False

    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        return weight.contiguous(), bias

    def run(
        self,
        x: torch.Tensor,
        packed: Any,
        *,
        delta: torch.Tensor | None = None,
        out: torch.Tensor,
    ) -> torch.Tensor:
        assert delta is None
        return out.copy_(self.product(x, *packed))

    def product(self, x: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias)


@register
class LinearOneDnn(LinearPlain):
    """oneDNN's product with a weight that it has rearranged for itself."""

    name = "onednn"

    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 16), bias

    def product(self, x: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found


class Loop:
    """An engine in this process whose requests are all of one length."""

    def __init__(self, model: str, rows: int, length: int, **settings: Any) -> None:
        self.engine = LLMEngine.from_engine_args(
            EngineArgs(
                model,
                threads=read_machine().physical_cores,
                max_num_seqs=rows,
                max_model_len=length,
                kv_cache_memory_bytes=(rows * length + 4096) * 160_000,
                skip_tokenizer_init=True,
                enable_prefix_caching=False,
                **settings,
            )
        )
        self._random, self._count = random.Random(1), 0

    def add(self, count: int, prompt: int, tokens: int) -> None:
        """So many requests of `prompt` ids and `tokens` more."""
        params = SamplingParams(
            temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        for _ in range(count):
            ids = [self._random.randrange(FIRST_ID, LAST_ID) for _ in range(prompt)]
            self.engine.add_request(str(self._count), {"prompt_token_ids": ids}, params)
            self._count += 1

    def fill(self, count: int, prompt: int, tokens: int) -> None:
        """`add`, and steps until every one of them has its first token."""
        self.add(count, prompt, tokens)
        started: set[str] = set()
        while len(started) < count:
            started |= {one.request_id for one in self.engine.step() if one.outputs[0].token_ids}

    def step(self) -> float:
        """Seconds of a step."""
        begun = time.perf_counter()
        self.engine.step()
        return time.perf_counter() - begun

    def finish(self) -> float:
        """Seconds until nothing is left to do."""
        begun = time.perf_counter()
        while self.engine.has_unfinished_requests():
            self.engine.step()
        return time.perf_counter() - begun


def limits(model: str, rounds: int) -> None:
    """Weights and cache read in a step, over its time and over what the machine reads meanwhile."""
    config = json.loads((Path(model) / "config.json").read_text())
    if not config.get("tie_word_embeddings"):
        sys.exit(
            f"{model}: its head is not its embedding; what a step reads is not the size of its files"
        )
    weights = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    heads = config.get("num_key_value_heads", config["num_attention_heads"])
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    a_token = config["num_hidden_layers"] * 2 * heads * size * 2
    probe = ReadProbe()
    for rows, context in CONTEXTS:
        loop = Loop(model, rows, context + rounds + 16)
        loop.fill(rows, context, rounds + 8)
        num_bytes = weights + rows * context * a_token
        for _ in range(4):
            loop.step()
        shares, speeds = [], []
        for _ in range(rounds):
            before = probe.run()
            seconds = loop.step()
            read = (before + probe.run()) / 2
            speeds.append(num_bytes / seconds)
            shares.append(speeds[-1] / read)
        loop.engine.shutdown()
        low, middle, high = (statistics.quantiles(shares, n=10)[at] for at in (0, 4, 8))
        print(
            f"{rows:3} sequences of {context:4} tokens: {num_bytes / 1e9:.2f} GB a step at "
            f"{statistics.median(speeds) / 1e9:.1f} GB/s, {middle:.2f} of reading ({low:.2f} to {high:.2f})",
            flush=True,
        )


def default(model: str, rounds: int) -> None:
    """Tokens a second of the engine as it is, over those with other libraries' products."""
    kinds: dict[str, dict[str, str]] = {"default": {}}
    kinds |= {name: {LINEAR.name: name} for name in ("plain", "onednn")}
    for rows, prompt, tokens in ((1, 16, TOKENS), (32, 16, TOKENS), (1, PROMPT, 1)):
        loops = {
            name: Loop(
                model,
                rows,
                prompt + tokens + 16,
                kernel_overrides=overrides,
                fast_math=bool(overrides),
            )
            for name, overrides in kinds.items()
        }
        ratios: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(rounds + 1):
            seconds = {}
            for name, loop in loops.items():
                loop.add(rows, prompt, tokens)
                seconds[name] = loop.finish()
            for name in kinds if turn else ():
                ratios[name].append(seconds[name] / seconds["default"])
        for loop in loops.values():
            loop.engine.shutdown()
        told = ", ".join(
            f"{name} {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
            for name, found in ratios.items()
            if name != "default"
        )
        print(
            f"{rows:3} requests, {prompt} in, {tokens} out: times of its time with {told}",
            flush=True,
        )


@contextmanager
def timed_kernels(into: list[float]) -> Iterator[None]:
    """Adds the seconds of every call of the native library to the last number of a list."""
    kept = native()._run

    def timed(calls: int, count: int, threads: int) -> int:
        begun = time.perf_counter()
        wrong: int = kept(calls, count, threads)
        into[-1] += time.perf_counter() - begun
        return wrong

    with patch.object(native(), "_run", timed):
        yield


def outside(rounds: int) -> None:
    """What is left of a step of the demo model when the kernels' time is taken away."""
    for rows in (1, 64):
        whole, kernels = [], [0.0]
        with timed_kernels(kernels):  # lists of calls keep the function that they were made with
            loop = Loop(str(DEMO), rows, 1024)
            loop.fill(rows, 16, 900)
            for _ in range(50):
                loop.step()
            kernels[:] = [0.0]
            for _ in range(min(rounds * 20, 800)):
                kernels.append(0.0)
                whole.append(loop.step())
            loop.engine.shutdown()
        rest = [1e6 * (a - b) for a, b in zip(whole, kernels[1:], strict=True)]
        print(
            f"{rows:3} sequences: {1e6 * statistics.median(whole):.0f} us a step, "
            f"{statistics.median(rest):.0f} us of it outside the kernels",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("limits", "default", "outside"))
    parser.add_argument("model", nargs="?", help="folder of a checkpoint")
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each; 20")
    given = parser.parse_args()
    if given.what == "outside":
        outside(given.rounds)
    elif given.model is None:
        parser.error(f"{given.what} needs the folder of a checkpoint")
    else:
        (limits if given.what == "limits" else default)(given.model, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
