"""`quire ops`: prints every operation and who carries it out, in general or for one model.

The table's text is `quire.ops.report`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from quire.config.schema import (
    CacheConfig,
    LoadConfig,
    ModelConfig,
    SchedulerConfig,
    Settings,
)
from quire.protocol.errors import QuireError

_SMALL_CACHE_BYTES = 1 << 28


def main(argv: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="quire ops",
        description="Every operation, its providers in the order in which they are asked, and what it "
        "is. With a model: the choices made for it, and every refusal.",
    )
    parser.add_argument("model", nargs="?", help="folder of a checkpoint; its weights are not read")
    parser.add_argument("--dtype", default="auto", help="type of weights and activations")
    parser.add_argument("--quantization", "-q", help="fewer bits made of the weights, as for serve")
    parser.add_argument("--activation-bits", type=int, help="8 or 16, as for serve")
    parser.add_argument("--kv-cache-dtype", default="auto", help="stored form, as for serve")
    arguments = parser.parse_args(list(argv))
    from quire.ops.report import render, render_lines  # torch: a wrong argument should not wait

    if arguments.model is None:
        sys.stdout.write(render() + "\n")
        return 0
    from quire.llm_engine import LLMEngine

    try:
        engine = LLMEngine.from_settings(_settings(arguments))
    except QuireError as error:
        sys.stderr.write(f"quire ops: {error}\n")
        return 2
    sys.stdout.write(render_lines(engine.client.info.providers) + "\n")
    engine.shutdown()
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    """The least engine that makes all choices."""
    return Settings(
        model=ModelConfig(
            model=arguments.model,
            dtype=arguments.dtype,
            quantization=arguments.quantization,
            activation_bits=arguments.activation_bits,
            max_model_len=64,
            skip_tokenizer_init=True,
        ),
        load=LoadConfig(load_format="dummy", use_tqdm_on_load=False),
        cache=CacheConfig(
            kv_cache_memory_bytes=_SMALL_CACHE_BYTES, kv_cache_dtype=arguments.kv_cache_dtype
        ),
        scheduler=SchedulerConfig(max_num_seqs=1),
    )
