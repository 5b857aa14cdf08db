"""The memory ledger beside the memory that all processes really held under a load that fills the cache.

Run as `python -m benchmarks.memory [NAME ...]`: starts `quire serve` for each configuration, sends
prompts that fill its KV cache, samples /proc, and prints ledger, peak and their ratio. A configuration
with a limit runs under RLIMIT_DATA, which the kernel enforces on each of its processes. What the ledger
counts is `engine.ledger`'s.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
PROMPT_TOKENS = 400
MAX_MODEL_LEN = 512


@dataclass(frozen=True)
class Case:
    """One configuration: a random model's config.json, the cache, and a limit or None.

    limit_mib  private writable memory that the kernel lets each process map, touched or not.
    """

    config: dict[str, Any]
    dtype: str
    cache_mib: int | None
    max_num_seqs: int
    limit_mib: int | None = None


def shape(
    kind: str, width: int, layers: int, heads: int, kv_heads: int, head_size: int, vocab: int
) -> dict[str, Any]:
    """A config.json of a family: "llama", "qwen3" or "gemma2"; the feed-forward width is 8/3 of `width`."""
    names = {"llama": "Llama", "qwen3": "Qwen3", "gemma2": "Gemma2"}
    common = {
        "architectures": [f"{names[kind]}ForCausalLM"],
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": -(-width * 8 // 3 // 64) * 64,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_size,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": kind != "llama",
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "dtype": "bfloat16",
    }
    if kind == "gemma2":
        common |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": head_size,
            "sliding_window": 512,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }
        del common["hidden_act"]
    return common


TINY = (128, 2, 4, 2, 32, 512)
SMALL = (768, 12, 12, 4, 64, 32_000)

CASES = {
    "llama-tiny-fp32": Case(shape("llama", *TINY), "float32", 32, 32),
    "qwen3-tiny-bf16": Case(shape("qwen3", *TINY), "bfloat16", 16, 32),
    "gemma2-tiny-fp32": Case(shape("gemma2", *TINY), "float32", 16, 16),
    "llama-0.1B-bf16": Case(shape("llama", *SMALL), "bfloat16", 24, 4),
    "llama-0.1B-fp32": Case(shape("llama", *SMALL), "float32", 48, 4),
    "gemma2-0.2B-bf16": Case(shape("gemma2", 1024, 12, 8, 4, 128, 64_000), "bfloat16", 24, 2),
    "qwen3-0.6B-bf16": Case(shape("qwen3", 1024, 28, 16, 8, 128, 151_936), "bfloat16", 64, 2),
    "llama-0.1B-limit": Case(shape("llama", *SMALL), "float32", None, 8, limit_mib=1100),
}


def held(pids: list[int]) -> int:
    """Bytes of anonymous and shared memory of these processes, shared pages counted once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for name in ("Pss_Anon", "Pss_Shmem"):
            found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    return total


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


class Sampler:
    """Looks at a process and its children every 50 ms; `peak_bytes` is the most that they held.

    first_bytes  the most that the process itself held.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self.first_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self.peak_bytes = max(self.peak_bytes, held(family(self._pid)))
                self.first_bytes = max(self.first_bytes, held([self._pid]))
            except OSError:
                return

    def stop(self) -> Sampler:
        self._stop.set()
        self._thread.join()
        return self


def prompts(capacity_tokens: int, vocab: int) -> list[list[int]]:
    """Different prompts that together overflow the cache a little."""
    count = capacity_tokens // PROMPT_TOKENS + 2
    return [
        [
            2 + (number * 7919 + place * (number + 31)) % (vocab - 2)
            for place in range(PROMPT_TOKENS)
        ]
        for number in range(count)
    ]


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    """A folder that `--load-format dummy` can serve."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(made_up_tokenizer(config["vocab_size"])))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def made_up_tokenizer(size: int) -> dict[str, Any]:
    """A byte-level BPE of `size` tokens, every one a shorter one and a letter: as large as a real one."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    words, merges = list(letters), []
    for word in words:
        room = size - len(words)
        if room <= 0:
            break
        merges += [[word, letter] for letter in letters[:room]]
        words += [word + letter for letter in letters[:room]]
    part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {word: number for number, word in enumerate(words)}
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": part,
        "post_processor": None,
        "decoder": part,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


def num_output(case: Case) -> int:
    """Tokens of each answer: so many that prompts, one a step, come to run all at once."""
    return min(MAX_MODEL_LEN - PROMPT_TOKENS, max(8, case.max_num_seqs * 3 // 2))


def arguments(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = {
        "load_format": "dummy",
        "dtype": case.dtype,
        "max_model_len": MAX_MODEL_LEN,
        "max_num_seqs": case.max_num_seqs,
        "max_num_batched_tokens": 512,
        "threads": 1,
    }
    if case.cache_mib is not None:
        found["kv_cache_memory_bytes"] = case.cache_mib * MIB
    return found


def run_server(folder: Path, case: Case) -> tuple[list[str], Sampler]:
    """(ledger lines, what was held) of `quire serve` under the load, and under the limit if there is one."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments(case).items()]
    command = [sys.executable, "-m", "quire", "serve", str(folder), "--port=0", *flags]
    command.append("--max-queue-wait=0")  # the load waits as long as it must
    if case.limit_mib is not None:
        command = ["prlimit", f"--data={case.limit_mib * MIB}", *command]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    sampler = Sampler(process.pid)
    try:
        log: list[str] = []
        for line in process.stdout:
            log.append(line.rstrip())
            if "ready: serving" in line:
                break
        text = "\n".join(log)
        url = re.search(r"listening on (http\S+)", text)
        tokens = re.search(r"KV cache size: ([\d,]+) tokens", text)
        if url is None or tokens is None:
            raise RuntimeError(text)
        threading.Thread(target=process.stdout.read, daemon=True).start()
        load_over_http(
            url[1], prompts(int(tokens[1].replace(",", "")), case.config["vocab_size"]), case
        )
        return [line.partition("memory: ")[2] for line in log if "memory: " in line], sampler.stop()
    finally:
        process.terminate()
        process.wait(30)


def load_over_http(url: str, ids: list[list[int]], case: Case) -> None:
    """All prompts, as many at once as may run, each with tokens and their logprobs."""
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]

    def ask(prompt: list[int]) -> None:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": num_output(case),
            "temperature": 1.0,
            "logprobs": 2,
            "ignore_eos": True,
            "prompt_logprobs": 1 if prompt is ids[0] else None,
        }
        request = urllib.request.Request(
            f"{url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            answer.read()

    with concurrent.futures.ThreadPoolExecutor(min(case.max_num_seqs, 256)) as pool:
        list(pool.map(ask, ids))


def total_of(lines: list[str]) -> float:
    """GiB of the ledger's total."""
    return next(float(line.split()[1]) for line in lines if line.startswith("total "))


def measure(name: str, folder: Path, report: Callable[[str], None]) -> float:
    """Runs one case; the ratio of peak to ledger."""
    case = CASES[name]
    started = time.monotonic()
    write_model(folder, case.config)
    lines, sampler = run_server(folder, case)
    total = total_of(lines)
    for line in lines:
        report(f"    {line}")
    peak = sampler.peak_bytes / 2**30
    ratio = peak / total
    took = time.monotonic() - started
    first = sampler.first_bytes / 2**30
    report(
        f"{name:<20} ledger {total:.3f} GiB, peak {peak:.3f} GiB (first process {first:.3f}), "
        f"{ratio:.1%}, {took:.0f} s"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; none is all")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quire-memory-") as root:
        ratios = {
            name: measure(name, Path(root) / name, lambda line: print(line, flush=True))
            for name in given.names or CASES
        }
    print(f"least {min(ratios.values()):.1%}, most {max(ratios.values()):.1%} of the ledger")


if __name__ == "__main__":
    main()
