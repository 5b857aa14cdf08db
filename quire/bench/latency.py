"""`quire bench latency`: how long one batch takes from start to end, again and again.

Many requests at once are `bench.throughput`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from quire.bench import offline
from quire.bench.arguments import add_switch, make_parser, read, whole
from quire.bench.dataset_flags import read_source
from quire.bench.datasets import Sample
from quire.bench.report import percentiles, write_json
from quire.config.cli import Parser
from quire.llm import LLM
from quire.protocol.params import SamplingParams

RANKS = (10, 25, 50, 75, 90, 99)


def make() -> Parser:
    """The parser."""
    parser = make_parser(
        "latency", "Seconds of one batch of random prompts. Prefix caching is off unless asked for."
    )
    parser.add_argument("--input-len", type=whole(1), default=32, help="tokens of a prompt; 32")
    parser.add_argument("--output-len", type=whole(1), default=128, help="tokens of an answer; 128")
    parser.add_argument("--batch-size", type=whole(1), default=8, help="requests of the batch; 8")
    parser.add_argument("--n", type=whole(1), default=1, help="choices of each request; 1")
    parser.add_argument(
        "--num-iters-warmup", type=whole(0), default=10, help="runs before, not counted; 10"
    )
    parser.add_argument("--num-iters", type=whole(1), default=30, help="runs that count; 30")
    add_switch(parser, "--use-beam-search", "beams of width --n in place of sampling")
    add_switch(parser, "--disable-detokenize", "make ids only, no text")
    add_switch(parser, "--profile", "trace one run, as --profiler-config says, and measure nothing")
    parser.add_argument("--output-json", metavar="FILE", help="write the result there")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures; returns the exit code. Raises QuireError."""
    words = read(make(), argv)
    flags = words.flags
    offline.set_up(words)
    if words.engine.enable_prefix_caching is None:
        words.engine.enable_prefix_caching = False
    settings = offline.local_settings(words)
    source = read_source(settings.model.model, settings.model.tokenizer, as_text=False)
    rng = random.Random(settings.model.seed or 0)
    ids = source.ordinary_ids()
    samples = [
        Sample(rng.choices(ids, k=flags.input_len), None, flags.output_len)
        for _ in range(flags.batch_size)
    ]
    detokenize = not flags.disable_detokenize and source.tokenizer is not None
    detokenize = detokenize and not settings.model.skip_tokenizer_init
    params = [offline.exactly(sample, n=flags.n, detokenize=detokenize) for sample in samples]
    with offline.open_llm(words) as llm:
        offline.check_fit(llm, samples)
        once: Callable[[], float]
        if flags.use_beam_search:
            once = partial(offline.timed_beams, llm, samples, flags.n)
        else:
            once = partial(_seconds, llm, samples, params)
        for _ in range(flags.num_iters_warmup):
            once()
        if flags.profile:
            with offline.profiled(llm, True):
                once()
            return 0
        latencies = [once() for _ in range(flags.num_iters)]
    average = sum(latencies) / len(latencies)
    found = percentiles(latencies, RANKS)
    print(f"Avg latency: {average:.4f} seconds")
    for rank, value in found.items():
        print(f"{rank}% percentile latency: {value:.4f} seconds")
    if flags.output_json:
        result = {"avg_latency": average, "latencies": latencies, "percentiles": found}
        write_json(flags.output_json, result | {"about": offline.about(words)})
    return 0


def _seconds(llm: LLM, samples: Sequence[Sample], params: list[SamplingParams]) -> float:
    return offline.timed(llm, samples, params)[0]
