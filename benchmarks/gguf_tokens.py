"""Compares greedy tokens of GGUF files here and in llama.cpp: the same files, the same token ids.

Files of further kinds are made by llama.cpp's own quantizer of the first one. llama.cpp runs in the
environment that `benchmarks.peers` sets up; without it nothing is compared.

    python -m benchmarks.gguf_tokens --file model-f32.gguf --kinds Q8_0,Q4_0,Q4_K_M,Q6_K
    python -m benchmarks.gguf_tokens --random --tokenizer FOLDER --files a.gguf b.gguf

The second form is for the checkpoints of `benchmarks.peers`: prompts of random ids. Where answers part it says how
far apart our two logits are. Random weights make likely tokens that are nearly equal, which any rounding
exchanges; `qwen3-0.6b-chained` is made so that the likeliest token is one:

    python -m benchmarks.gguf_tokens --chained Q4_0,Q4_K_M,Q8_0
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.conversion import ensure_file
from benchmarks.peers.roster import SCRIPTS
from benchmarks.peers.store import Store
from benchmarks.peers.workloads import HIGHEST_ID, LOWEST_ID
from quire import LLM, SamplingParams

PEER = Path("~/.cache/quire-peers/environments/llamacpp/bin/python").expanduser()
NUM_TOKENS = 64
NUM_LOGPROBS = 20
CHAINED = "qwen3-0.6b-chained"
CACHE_BYTES = 1 << 30

GENERATE = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, n_threads=2, verbose=False, logits_all=False)
found = []
for ids in json.loads(sys.stdin.read()):
    made = []
    for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0, reset=True):
        made.append(int(token))
        if len(made) == int(sys.argv[2]) or token == model.token_eos() and not int(sys.argv[3]):
            break
    found.append(made)
print(json.dumps(found))
"""

QUESTIONS = (
    *("What is the capital of France?", "Count from one to ten.", "Hello, who are you?"),
    *("What is 12 plus 7?", "Name three colours.", "What is the capital of Japan?"),
    *("Write a short story.", "What is a cat?", "Say hello.", "What is the largest ocean?"),
    *("Which month comes after May?", "What do bees make?", "Is the sun a star?", "List fruits."),
    *("What is the opposite of hot?", "How many days has a week?", "Who wrote Hamlet?"),
    *("What is the capital of Italy?", "What colour is the sky?", "Tell me a joke."),
)


def made(source: Path, kind: str, folder: Path) -> Path:
    """The file in another kind. Raises CalledProcessError if llama.cpp refuses."""
    target = folder / f"{source.stem}-{kind}.gguf"
    script = str(SCRIPTS / "quantize_gguf.py")
    command = [str(PEER), script, str(source), str(target), kind]
    subprocess.run(command, check=True, capture_output=True)
    return target


def prompts(llm: LLM, is_random: bool) -> list[list[int]]:
    """Token ids of the questions, or random ones for a model that has learned nothing."""
    if is_random:
        draw = random.Random("gguf-tokens")
        return [
            [draw.randint(LOWEST_ID, HIGHEST_ID) for _ in range(draw.randint(16, 96))]
            for _ in QUESTIONS
        ]
    tokenizer = llm.get_tokenizer()
    text = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [tokenizer.encode(text.format(question)) for question in QUESTIONS]


def gap(logprobs: Any, ours: int, theirs: int) -> float | None:
    """How much likelier our token was to us than theirs, in nats; None if theirs was not among the likeliest."""
    if theirs not in logprobs:
        return None
    return round(float(logprobs[ours].logprob - logprobs[theirs].logprob), 4)


def margins(logprobs: Any) -> list[float]:
    """How much likelier each token of an answer was to us than the next one, in nats."""
    best = (sorted((one.logprob for one in place.values()), reverse=True) for place in logprobs)
    return [float(first - second) for first, second, *_ in best]


def compare(path: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """How many prompts have the same tokens, and where the others part; least margin and quartiles of all.

    --beyond-the-end goes on where an answer ends: what comes then is nearly random, and any rounding
    changes it. Random weights know no end.
    """
    llm = LLM(
        model=str(path),
        tokenizer=flags.tokenizer,
        max_model_len=1024,
        dtype=flags.dtype,
        kv_cache_memory_bytes=CACHE_BYTES,
        use_tqdm_on_load=False,
    )
    ids, beyond = prompts(llm, flags.random), flags.beyond_the_end or flags.random
    params = SamplingParams(
        temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=beyond, logprobs=NUM_LOGPROBS
    )
    outputs = llm.generate([{"prompt_token_ids": one} for one in ids], params, use_tqdm=False)
    done = subprocess.run(
        [str(PEER), "-c", GENERATE, str(path), str(NUM_TOKENS), str(int(beyond))],
        input=json.dumps(ids), capture_output=True, text=True, check=True,
    )  # fmt: skip
    theirs = json.loads(done.stdout.splitlines()[-1])
    parting: list[int | None] = []
    gaps: list[float | None] = []
    sure: list[float] = []
    for output, other in zip((one.outputs[0] for one in outputs), theirs, strict=True):
        pairs = list(zip(output.token_ids, other, strict=False))
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        parting.append(place)
        sure += margins(output.logprobs)
        if place is not None and output.logprobs is not None:
            gaps.append(gap(output.logprobs[place], *pairs[place]))
    return {
        "file": path.name,
        "dtype": flags.dtype,
        "same": sum(place is None for place in parting),
        "of": len(ids),
        "parting": parting,
        "gaps": gaps,
        "margins": [round(part, 3) for part in (min(sure), *statistics.quantiles(sure, n=4))],
        "tokens": sum(len(output.outputs[0].token_ids) for output in outputs),
    }


def main() -> None:
    """Prints one line of JSON for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="a GGUF file of floats")
    parser.add_argument("--kinds", default="Q8_0,Q4_0,Q4_K_M,Q6_K", help="made of --file")
    parser.add_argument("--files", nargs="*", default=(), type=Path, help="files as they are")
    parser.add_argument("--chained", help="kinds of the chained checkpoint, made on first use")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokenizer", help="its folder, for files without one")
    parser.add_argument("--random", action="store_true", help="prompts of random ids")
    parser.add_argument("--beyond-the-end", action="store_true", help="ignore the end of answers")
    flags = parser.parse_args()
    if not flags.file and not flags.files and not flags.chained:
        parser.error("give --file, --files or --chained")
    if not PEER.is_file():
        sys.exit("llama.cpp is not set up: python -m benchmarks.peers setup")
    if flags.chained:
        store = Store.at("~/.cache/quire-peers")
        flags.random, flags.tokenizer = True, str(store.checkpoint(CHAINED))
        kinds = flags.chained.lower().split(",")
        flags.files = [ensure_file(store, CHAINED, kind) for kind in kinds]
    for path in (*([flags.file] if flags.file else ()), *flags.files):
        print(json.dumps(compare(path, flags)), flush=True)
    if not flags.file:
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in flags.kinds.split(","):
            print(json.dumps(compare(made(flags.file, kind, Path(folder)), flags)), flush=True)


if __name__ == "__main__":
    main()
