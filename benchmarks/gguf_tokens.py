"""Compares greedy tokens of GGUF files here and in llama.cpp: the same files, the same token ids.

Files of further kinds are made by llama.cpp's own quantizer of the first one. llama.cpp runs in the
environment that `benchmarks.peers` sets up; without it nothing is compared.

    python -m benchmarks.gguf_tokens --file model-f32.gguf --kinds Q8_0,Q4_0,Q4_K_M,Q6_K
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from quire import LLM, SamplingParams

PEER = Path("~/.cache/quire-peers/environments/llamacpp/bin/python").expanduser()
NUM_TOKENS = 64

QUANTIZE = """
import ctypes, json, sys
import llama_cpp
source, target, kind = sys.argv[1:4]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind)
params.nthread = 2
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""

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
    command = [str(PEER), "-c", QUANTIZE, str(source), str(target), kind]
    subprocess.run(command, check=True, capture_output=True)
    return target


def prompts(llm: LLM) -> list[list[int]]:
    """Token ids of the questions, or of any ids where the file has no chat template."""
    tokenizer = llm.get_tokenizer()
    text = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [tokenizer.encode(text.format(question)) for question in QUESTIONS]


def compare(path: Path, dtype: str, beyond: bool) -> dict[str, Any]:
    """How many prompts have the same tokens, and where the others part.

    beyond  go on where an answer ends: what comes then is nearly random, and any rounding changes it.
    """
    llm = LLM(model=str(path), max_model_len=1024, dtype=dtype, use_tqdm_on_load=False)
    ids = prompts(llm)
    params = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=beyond)
    outputs = llm.generate([{"prompt_token_ids": one} for one in ids], params, use_tqdm=False)
    ours = [list(output.outputs[0].token_ids) for output in outputs]
    done = subprocess.run(
        [str(PEER), "-c", GENERATE, str(path), str(NUM_TOKENS), str(int(beyond))],
        input=json.dumps(ids), capture_output=True, text=True, check=True,
    )  # fmt: skip
    theirs = json.loads(done.stdout.splitlines()[-1])
    parting = [
        next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), None)
        for a, b in zip(ours, theirs, strict=True)
    ]
    same = sum(place is None for place in parting)
    return {
        "file": path.name,
        "dtype": dtype,
        "same": same,
        "of": len(ids),
        "parting": parting,
        "tokens": sum(map(len, ours)),
    }


def main() -> None:
    """Prints one line of JSON for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", required=True, type=Path, help="a GGUF file of floats")
    parser.add_argument("--kinds", default="Q8_0,Q4_0,Q4_K_M,Q6_K")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--beyond-the-end", action="store_true", help="ignore the end of answers")
    flags = parser.parse_args()
    if not PEER.is_file():
        sys.exit("llama.cpp is not set up: python -m benchmarks.peers setup")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(flags.file, flags.dtype, flags.beyond_the_end)), flush=True)
        for kind in flags.kinds.split(","):
            path = made(flags.file, kind, Path(folder))
            print(json.dumps(compare(path, flags.dtype, flags.beyond_the_end)), flush=True)


if __name__ == "__main__":
    main()
