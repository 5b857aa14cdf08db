"""Trains the demo model on generated conversations, on the processor, with checkpoints to resume from.

Each of the processes has one thread and its own examples, and gradients are averaged once a step:
threads that wait for each other inside every operation cost far more on a machine that others use.
Making the shipped folder is in `export`, the examination in `evaluate`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from tools.demo_model.generate import examples
from tools.demo_model.model import Model, Shape
from tools.demo_model.tokenizer import encode


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    folder       checkpoint.pt is written here, and resumed from.
    steps        the run ends here; the last `decay_steps` lower the learning rate to zero.
    rows, length  tokens of one process in one step.
    """

    folder: Path
    tokenizer: Path
    steps: int
    decay_steps: int
    rows: int = 4
    length: int = 256
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    processes: int = 2
    seed: int = 7
    save_every_s: float = 120.0
    run_id: int = 0


@dataclass(frozen=True)
class Batch:
    """ids [B, T]; mask [B, 1, T, T]; chosen: flat positions before a learned token; targets."""

    ids: Tensor
    mask: Tensor
    chosen: Tensor
    targets: Tensor


def batches(tokenizer: Tokenizer, seed: int, rows: int, length: int) -> Iterator[Batch]:
    """Examples packed into rows; none sees another, none is cut."""
    source = examples(seed, held_out=False)
    waiting: list[tuple[list[int], list[bool]]] = []
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    while True:
        ids = torch.zeros(rows, length, dtype=torch.long)
        owner = torch.zeros(rows, length, dtype=torch.long)
        learned = torch.zeros(rows, length, dtype=torch.bool)
        for row in range(rows):
            start = number = 0
            while True:
                while len(waiting) < 24:
                    encoded = encode(tokenizer, next(source))
                    if len(encoded[0]) <= length:
                        waiting.append(encoded)
                fitting = [w for w in waiting if len(w[0]) <= length - start]
                if not fitting:
                    break
                waiting.remove(fitting[0])
                end, number = start + len(fitting[0][0]), number + 1
                ids[row, start:end] = torch.tensor(fitting[0][0])
                learned[row, start:end] = torch.tensor(fitting[0][1])
                learned[row, start] = False
                owner[row, start:end] = number
                start = end
        mask = (owner[:, :, None] == owner[:, None, :]) & causal
        chosen = learned[:, 1:].nonzero()
        flat = chosen[:, 0] * length + chosen[:, 1]
        yield Batch(ids, mask[:, None], flat, ids.flatten()[flat + 1])


def learning_rate(settings: Settings, step: int) -> float:
    """Linear warm-up, a plateau, then half a cosine down to zero."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    left = min(1.0, (settings.steps - step) / settings.decay_steps)
    return settings.learning_rate * warm * (0.5 - 0.5 * math.cos(math.pi * left))


def _average_gradients(parameters: list[Tensor], processes: int) -> None:
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    if processes > 1:
        dist.all_reduce(flat)
    flat /= processes
    flat *= torch.clamp(1.0 / (flat.norm() + 1e-6), max=1.0)
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()


def run(rank: int, settings: Settings) -> None:
    """One process of a training run."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    if settings.processes > 1:
        store = dist.FileStore(
            str(settings.folder / f"store-{settings.run_id}"), settings.processes
        )
        dist.init_process_group("gloo", store=store, rank=rank, world_size=settings.processes)
    torch.manual_seed(settings.seed)
    tokenizer = Tokenizer.from_file(str(settings.tokenizer / "tokenizer.json"))
    model = Model(Shape(vocab_size=tokenizer.get_vocab_size()))
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() == 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
    step = tokens = 0
    seconds = 0.0
    path = settings.folder / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, tokens, seconds = saved["step"], saved["tokens"], saved["seconds"]
    source = batches(
        tokenizer,
        settings.seed * 1_000_003 + step * settings.processes + rank,
        settings.rows,
        settings.length,
    )
    losses: list[float] = []
    last_saved = time.monotonic()
    begun = last_saved - seconds
    while step < settings.steps:
        batch = next(source)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        loss = F.cross_entropy(model(batch.ids, batch.mask, batch.chosen), batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(parameters, settings.processes)
        optimizer.step()
        step += 1
        tokens += settings.rows * settings.length * settings.processes
        losses.append(loss.item())
        if rank:
            continue
        now = time.monotonic()
        if step % 25 == 0:
            mean = sum(losses[-25:]) / len(losses[-25:])
            line = {"step": step, "loss": round(mean, 4), "tokens": tokens, "s": round(now - begun)}
            print(json.dumps(line), flush=True)
        if step == settings.steps or now - last_saved > settings.save_every_s:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                     "step": step, "tokens": tokens, "seconds": now - begun}  # fmt: skip
            torch.save(state, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
            last_saved = now


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("folder", type=Path, help="where checkpoints go")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--decay-steps", type=int, default=1200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(**vars(args), run_id=time.time_ns())
    if settings.processes == 1:
        run(0, settings)
        return
    others = [
        mp.get_context("fork").Process(target=run, args=(rank, settings), daemon=True)
        for rank in range(1, settings.processes)
    ]
    for process in others:
        process.start()
    run(0, settings)


if __name__ == "__main__":
    main()
