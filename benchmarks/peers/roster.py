"""The engines that can be compared: formats, environment variables, options, and how each is started.

The options are the best of those that were tried for each. Processes are `launch`'s, environments `setup`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.store import Store

SCRIPTS = Path(__file__).parent / "engines"
ROOT = Path(__file__).resolve().parents[2]
SHORT_INPUTS = {"int8_a8": "int8", "int4_a8": "int4"}
"""Formats in which Quire rounds inputs to 8 bits, as llama.cpp does by itself; and what they are to the others."""
FORMATS = ("bf16", "int8", "int4", *SHORT_INPUTS)
"""Formats that every engine makes of the checkpoint in its own way."""
FILES = {kind.lower(): kind for kind in ("Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K")}
"""Kinds of GGUF files, written by llama.cpp and read as they are by those that know them."""
SERVED_NAME = "peer"


@dataclass(frozen=True)
class Peer:
    """One engine.

    options     settings of its script in one workload, where they differ from the script's own.
    refused     workloads that it cannot run, each with the reason.
    variables   environment of its processes; `{environment}` is its folder, `{last}` the last processor.
    """

    name: str
    formats: tuple[str, ...]
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def python(self, store: Store) -> str:
        """The interpreter that runs its script."""
        return sys.executable if self.name == "quire" else str(store.python(self.name))

    def model(self, store: Store, model: str, number_format: str) -> Path:
        """The weights in its own form."""
        number_format = SHORT_INPUTS.get(number_format, number_format)
        if self.name == "llamacpp" or number_format in FILES:
            return store.gguf(model, number_format)
        if self.name == "openvino":
            return store.openvino(model, number_format)
        return store.checkpoint(model)

    def environment(self, store: Store, num_threads: int) -> dict[str, str]:
        """Its environment variables, filled in."""
        filled = {
            key: value.format(environment=store.environment(self.name), last=num_threads - 1)
            for key, value in self.variables.items()
        }
        return filled | {"OMP_NUM_THREADS": str(num_threads)}


NO_SERVER = "no server that takes token ids comes with it"

PEERS = {
    peer.name: peer
    for peer in (
        Peer("quire", (*FORMATS, *FILES), variables={"PYTHONPATH": str(ROOT)}),
        Peer(
            "transformers",
            ("bf16",),
            refused={"B6": NO_SERVER},
            variables={"HF_HUB_OFFLINE": "1"},
        ),
        Peer(
            "llamacpp",
            (*FORMATS, *FILES),
            # one cache buffer lets sequences share their beginning; without sharing it halves the speed
            options={"B5": {"unified": "1"}},
            refused={"B6": NO_SERVER},
        ),
        Peer(
            "openvino",
            FORMATS,
            options={"B5": {"first_alone": "1"}},
            refused={"B6": NO_SERVER},
        ),
        Peer(
            "vllm",
            ("bf16",),
            variables={
                "LD_PRELOAD": "{environment}/lib/libiomp5.so",
                "VLLM_CPU_OMP_THREADS_BIND": "0-{last}",
                "VLLM_CPU_KVCACHE_SPACE": "4",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
            },
        ),
    )
}


def refusal(peer: Peer, workload: str, number_format: str) -> str:
    """Why a peer does not run a workload in a format; empty if it does."""
    if number_format not in peer.formats:
        return f"runs {', '.join(peer.formats)} here, not {number_format}"
    return peer.refused.get(workload, "")


def script_command(
    peer: Peer,
    store: Store,
    model: Path,
    number_format: str,
    workload: str,
    num_threads: int,
    tokenizer: Path | None = None,
) -> list[str]:
    """The command line of its script but for the files of requests and results.

    tokenizer  the folder of the tokenizer of a GGUF file, which has none itself; only Quire wants one.
    """
    if peer.name != "quire":
        number_format = SHORT_INPUTS.get(number_format, number_format)
    command = [peer.python(store), str(SCRIPTS / f"run_{peer.name}.py")]
    command += ["--model", str(model), "--format", number_format, "--threads", str(num_threads)]
    for name, value in peer.options.get(workload, {}).items():
        command += ["--option", f"{name}={value}"]
    if peer.name == "quire" and number_format in FILES:
        command += ["--option", f"tokenizer={tokenizer}"]
    return command


def server_command(
    peer: Peer,
    store: Store,
    model: Path,
    number_format: str,
    port: int,
    num_threads: int,
    tokenizer: Path | None = None,
) -> list[str]:
    """The command line of its server. Raises ValueError for a peer without one."""
    common = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", SERVED_NAME]
    common += ["--dtype", "bfloat16", "--max-model-len", "4096", "--max-num-seqs", "64"]
    if peer.name == "vllm":
        # its console script looks for a package called vllm, which this build is not
        start = [peer.python(store), "-m", "vllm.entrypoints.openai.api_server", "--model"]
        return [*start, str(model), *common, "--distributed-executor-backend", "uni"]
    if peer.name == "quire":
        start = [peer.python(store), "-m", "quire", "serve", str(model), *common]
        start += ["--threads", str(num_threads), "--kv-cache-memory-bytes", str(4 << 30)]
        if number_format in FILES:
            return [*start, "--tokenizer", str(tokenizer)]
        if number_format in SHORT_INPUTS:
            start += ["--activation-bits", "8"]
        scheme = SHORT_INPUTS.get(number_format, number_format)
        return start if scheme == "bf16" else [*start, "--quantization", scheme]
    raise ValueError(f"{peer.name} has no server here")
