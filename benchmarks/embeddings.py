"""Embeds texts of mixed lengths with Quire and with sentence-transformers: texts a second, and how alike.

python benchmarks/embeddings.py MODEL [--peer PYTHON] [--texts 1000]

PYTHON is an interpreter that has sentence-transformers; without one only Quire is measured. Each side runs
in a process of its own, one after the other, loads the model first, and embeds all texts three times; the
best time counts. The machine's load is printed, since a busy one measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUNDS = 3
TEXT = (
    "the river runs down from hills to harbour and ships wait there for morning tide a baker rises "
    "before sun she mixes flour water salt yeast lets dough rest when bell of town hall rings twice"
)


def texts_of(count: int) -> list[str]:
    """Texts of 3 to 200 words, most of them short, the same every time."""
    drawn, words = random.Random(0), TEXT.split()
    lengths = [min(200, 3 + int(drawn.expovariate(1 / 40))) for _ in range(count)]
    return [" ".join(drawn.choice(words) for _ in range(length)) for length in lengths]


def ours(model: str, texts: list[str], threads: int) -> tuple[list[float], np.ndarray]:
    """Seconds of each round and the embeddings, in float32."""
    from quire import LLM

    llm = LLM(model, runner="pooling", dtype="float32", threads=threads, use_tqdm_on_load=False)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = llm.embed(texts, use_tqdm=False)
        seconds.append(time.perf_counter() - started)
    return seconds, np.array([one.outputs.embedding for one in found], dtype=np.float32)


def theirs(model: str, texts: list[str], threads: int) -> tuple[list[float], np.ndarray]:
    """The same by sentence-transformers, which sorts texts by length and pads batches of 32."""
    import torch
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

    torch.set_num_threads(threads)
    made = SentenceTransformer(model, device="cpu")
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = made.encode(texts, batch_size=32, normalize_embeddings=True)
        seconds.append(time.perf_counter() - started)
    return seconds, np.asarray(found, dtype=np.float32)


def run_side(
    python: str, side: str, model: str, count: int, threads: int
) -> tuple[float, np.ndarray]:
    """The best round of one side in a process of its own, and its embeddings."""
    with tempfile.TemporaryDirectory() as folder:
        words = [python, __file__, model, "--side", side, "--texts", str(count)]
        words += ["--threads", str(threads), "--out", folder]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        subprocess.run(words, check=True, env=environment)
        seconds = json.loads((Path(folder) / "seconds.json").read_text())
        return min(seconds), np.load(Path(folder) / "embeddings.npy")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--peer", default="", help="interpreter that has sentence-transformers")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        measure = ours if args.side == "ours" else theirs
        seconds, found = measure(args.model, texts_of(args.texts), args.threads)
        (Path(args.out) / "seconds.json").write_text(json.dumps(seconds))
        np.save(Path(args.out) / "embeddings.npy", found)
        return 0
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {args.texts} texts, float32")
    best, found = run_side(sys.executable, "ours", args.model, args.texts, args.threads)
    print(f"quire                  {args.texts / best:8.1f} texts/s  ({best:.2f} s)")
    if args.peer:
        other, wanted = run_side(args.peer, "theirs", args.model, args.texts, args.threads)
        print(f"sentence-transformers  {args.texts / other:8.1f} texts/s  ({other:.2f} s)")
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines = (found * wanted).sum(axis=1) / lengths
        print(f"ratio {other / best:.2f}, least cosine {cosines.min():.7f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
