"""A checkpoint in the form that each engine reads, made on first use by the tools of its own environment.

The checkpoints themselves are `checkpoints`'.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.peers.checkpoints import ensure_checkpoint
from benchmarks.peers.roster import FILES, SCRIPTS, SHORT_INPUTS, Peer
from benchmarks.peers.store import Store

OPENVINO_FORMATS = {"bf16": "fp16", "int8": "int8", "int4": "int4"}
"""16 bits are held as float16 on disk and computed in bfloat16."""


def run_tool(command: list[str], target: Path, log: Path) -> None:
    """Runs a tool that makes `target`, at low priority. Raises RuntimeError with the end of its output if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    print("making", target, "...", flush=True)
    with log.open("w") as file:
        done = subprocess.run(["nice", "-n", "19", *command], stdout=file, stderr=file)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed; the end of {log}:\n{log.read_text()[-1000:]}")


def ensure_model(peer: Peer, store: Store, model: str, number_format: str) -> Path:
    """Where a peer finds the model, made if it is not there. Raises RuntimeError if it cannot be made."""
    source = ensure_checkpoint(store.checkpoint(model), model)
    number_format = SHORT_INPUTS.get(number_format, number_format)
    target = peer.model(store, model, number_format)
    log = store.log(f"convert-{peer.name}-{model}-{number_format}")
    python = store.python(peer.name)
    if number_format in FILES:
        return ensure_file(store, model, number_format)
    if peer.name == "llamacpp" and not target.exists():
        words = ["--model", str(source), "--format", number_format, "--out", str(target)]
        run_tool([str(python), str(SCRIPTS / "write_gguf.py"), *words], target, log)
    if peer.name == "openvino" and not target.exists():
        unfinished = target.with_name(target.name + ".part")
        words = ["export", "openvino", "--model", str(source)]
        words += ["--task", "text-generation-with-past"]
        words += ["--weight-format", OPENVINO_FORMATS[number_format], str(unfinished)]
        run_tool([str(python.with_name("optimum-cli")), *words], target, log)
        unfinished.rename(target)
    return target


def ensure_file(store: Store, model: str, number_format: str) -> Path:
    """A GGUF file of the model of one of `FILES`, by llama.cpp's quantizer. Raises RuntimeError if it fails."""
    target, plain = store.gguf(model, number_format), store.gguf(model, "bf16")
    source = ensure_checkpoint(store.checkpoint(model), model)
    python, log = str(store.python("llamacpp")), store.log(f"convert-{model}-{number_format}")
    if target.exists():
        return target
    if not plain.exists():
        words = ["--model", str(source), "--format", "bf16", "--out", str(plain)]
        run_tool([python, str(SCRIPTS / "write_gguf.py"), *words], plain, log)
    words = [str(plain), str(target), FILES[number_format]]
    run_tool([python, str(SCRIPTS / "quantize_gguf.py"), *words], target, log)
    return target
