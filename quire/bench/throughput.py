"""`quire bench throughput`: how many requests and tokens a second, all requests given at once.

Latency of one batch is `bench.latency`; a server under arrivals is `bench.serve`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quire.bench import offline
from quire.bench.arguments import Words, add_always, add_switch, make_parser, read, refuse, whole
from quire.bench.dataset_flags import add_dataset_flags, choose, read_source
from quire.bench.datasets import Sample
from quire.bench.report import table, write_json
from quire.config.cli import Parser
from quire.frontend.tokenizer import Tokenizer
from quire.llm import LLM

_REFUSED = {
    "--async-engine": "the engine loop is the same; measure a server with quire bench serve",
    "--lora-path --lora-assignment --lora-modules": "adapters are not served",
}


@dataclass(frozen=True)
class Run:
    """One pass over all requests. Tokens of prompts and of answers, all choices counted."""

    elapsed_s: float
    num_requests: int
    num_prompt_tokens: int
    num_output_tokens: int

    @property
    def requests_per_second(self) -> float:
        return self.num_requests / self.elapsed_s

    @property
    def tokens_per_second(self) -> float:
        return (self.num_prompt_tokens + self.num_output_tokens) / self.elapsed_s

    @property
    def output_tokens_per_second(self) -> float:
        return self.num_output_tokens / self.elapsed_s

    def as_json(self) -> dict[str, Any]:
        """The keys of the result file."""
        return {
            "elapsed_time": self.elapsed_s,
            "num_requests": self.num_requests,
            "total_num_tokens": self.num_prompt_tokens + self.num_output_tokens,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_output_tokens": self.num_output_tokens,
            "requests_per_second": self.requests_per_second,
            "tokens_per_second": self.tokens_per_second,
            "output_tokens_per_second": self.output_tokens_per_second,
        }

    def sentences(self) -> str:
        """The three lines of the report."""
        return (
            f"Throughput: {self.requests_per_second:.2f} requests/s, "
            f"{self.tokens_per_second:.2f} total tokens/s, "
            f"{self.output_tokens_per_second:.2f} output tokens/s\n"
            f"Total num prompt tokens:  {self.num_prompt_tokens}\n"
            f"Total num output tokens:  {self.num_output_tokens}"
        )


def make() -> Parser:
    """The parser."""
    parser = make_parser(
        "throughput", "Requests and tokens a second of a model, all requests given at once."
    )
    parser.add_argument(
        "--backend",
        choices=("quire", "vllm", "hf"),
        default="quire",
        help="who runs the model: quire (vllm is the same word), or hf for Transformers",
    )
    parser.add_argument(
        "--versus", choices=("hf",), help="run Quire and Transformers in turns and print the ratio"
    )
    parser.add_argument(
        "--rounds", type=whole(1), default=3, help="turns of --versus; the median counts"
    )
    parser.add_argument("--n", type=whole(1), default=1, help="choices of each request")
    parser.add_argument(
        "--hf-max-batch-size", type=whole(1), default=16, help="batch of Transformers; default: 16"
    )
    add_switch(parser, "--hf-enable-torch-compile", "compile the model of Transformers")
    add_switch(parser, "--disable-detokenize", "make ids only, no text")
    add_always(
        parser, "--prequeue-requests", "all requests are always in the queue before the first step"
    )
    add_switch(parser, "--disable-tqdm", "no progress bar")
    add_switch(parser, "--profile", "trace the measurement, as --profiler-config says")
    parser.add_argument("--output-json", metavar="FILE", help="write the result there")
    refuse(parser, _REFUSED)
    add_dataset_flags(parser, num_prompts=1000)
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures; returns the exit code. Raises QuireError."""
    parser = make()
    words = read(parser, argv)
    flags = words.flags
    if flags.n > 1 and (flags.backend == "hf" or flags.versus):
        parser.error("--n above 1 cannot be measured with Transformers; leave it out")
    if flags.profile and (flags.backend == "hf" or flags.versus):
        parser.error("--profile traces Quire alone; leave it out with Transformers")
    offline.set_up(words)
    settings = offline.local_settings(words)
    source = read_source(settings.model.model, settings.model.tokenizer, as_text=False)
    samples = choose(flags, source, settings.model.seed or 0)
    if flags.versus:
        return _versus(words, samples, source.tokenizer)
    if flags.backend == "hf":
        run, more = _hf(words, samples, source.tokenizer)
    else:
        run, more = _quire(words, samples), {}
    print(run.sentences())
    backend = "hf" if flags.backend == "hf" else "quire"
    _write(words, {"backend": backend, **run.as_json(), **more})
    return 0


def _write(words: Words, result: dict[str, Any]) -> None:
    if words.flags.output_json:
        write_json(words.flags.output_json, result | {"about": offline.about(words)})


def _quire(words: Words, samples: list[Sample]) -> Run:
    with offline.open_llm(words) as llm:
        offline.check_fit(llm, samples)
        if words.flags.num_warmups:
            _quire_once(llm, words, samples[: words.flags.num_warmups], bar=False)
            llm.reset_prefix_cache()
        with offline.profiled(llm, words.flags.profile):
            return _quire_once(llm, words, samples, bar=not words.flags.disable_tqdm)


def _quire_once(
    llm: LLM, words: Words, samples: list[Sample], *, bar: bool, greedy: bool = False
) -> Run:
    flags = words.flags
    detokenize = not flags.disable_detokenize and not words.engine.skip_tokenizer_init
    params = [
        offline.exactly(sample, n=flags.n, detokenize=detokenize, greedy=greedy)
        for sample in samples
    ]
    elapsed_s, answers = offline.timed(llm, samples, params, bar=bar)
    made = sum(len(choice.token_ids) for answer in answers for choice in answer.outputs)
    return Run(elapsed_s, len(samples), sum(len(sample.ids) for sample in samples), made)


def _hf(
    words: Words, samples: list[Sample], tokenizer: Tokenizer | None
) -> tuple[Run, dict[str, Any]]:
    model = _hf_model(words)
    if words.flags.num_warmups:
        model.run(samples[: words.flags.num_warmups], words.flags.hf_max_batch_size)
    run = _hf_once(model, words, samples, tokenizer)
    return run, {"hf_max_batch_size": words.flags.hf_max_batch_size, "hf_dtype": model.dtype}


def _hf_model(words: Words) -> Any:
    from quire.bench.hf import HfModel

    settings = offline.local_settings(words)
    compiled = words.flags.hf_enable_torch_compile
    return HfModel(settings, offline.num_threads(settings), compiled=compiled)


def _hf_once(model: Any, words: Words, samples: list[Sample], tokenizer: Tokenizer | None) -> Run:
    elapsed_s, made = model.run(samples, words.flags.hf_max_batch_size)
    start = time.perf_counter()
    if tokenizer is not None and not words.flags.disable_detokenize:
        for ids in made:
            tokenizer.decode(ids)
    elapsed_s += time.perf_counter() - start
    prompt_tokens = sum(len(sample.ids) for sample in samples)
    return Run(elapsed_s, len(samples), prompt_tokens, sum(len(ids) for ids in made))


def _versus(words: Words, samples: list[Sample], tokenizer: Tokenizer | None) -> int:
    """Rounds of both, one after the other, so that a change of the machine's load meets both."""
    flags = words.flags
    quire_runs, hf_runs = [], []
    rows: list[list[Any]] = [
        ["round", "quire s", "hf s", "quire output tok/s", "hf output tok/s", "ratio"]
    ]
    model = _hf_model(words)
    warm = samples[: max(1, flags.num_warmups)]
    with offline.open_llm(words) as llm:
        offline.check_fit(llm, samples)
        _quire_once(llm, words, warm, bar=False, greedy=True)
        model.run(warm, flags.hf_max_batch_size)
        for place in range(flags.rounds):
            llm.reset_prefix_cache()  # the same prompts again, which Transformers also starts anew
            ours = _quire_once(llm, words, samples, bar=False, greedy=True)
            theirs = _hf_once(model, words, samples, tokenizer)
            quire_runs.append(ours)
            hf_runs.append(theirs)
            rows.append(_row(str(place + 1), ours, theirs))
    ours, theirs = _middle(quire_runs), _middle(hf_runs)
    rows.append(_row("median", ours, theirs))
    ratio = ours.output_tokens_per_second / theirs.output_tokens_per_second
    print(table(rows))
    print(f"\nQuire: {ours.sentences()}")
    print(f"Transformers: {theirs.sentences()}")
    print(f"Quire makes {ratio:.2f} times the tokens per second of Transformers")
    _write(
        words,
        {
            "versus": "hf",
            "ratio": ratio,
            "quire": ours.as_json(),
            "hf": theirs.as_json(),
            "rounds": [[a.elapsed_s, b.elapsed_s] for a, b in zip(quire_runs, hf_runs)],
            "hf_max_batch_size": flags.hf_max_batch_size,
            "hf_dtype": model.dtype,
        },
    )
    return 0


def _row(name: str, ours: Run, theirs: Run) -> list[Any]:
    a, b = ours.output_tokens_per_second, theirs.output_tokens_per_second
    return [name, ours.elapsed_s, theirs.elapsed_s, a, b, a / b]


def _middle(runs: list[Run]) -> Run:
    """The run of median time; of an even number, the slower of the two in the middle."""
    middle_s = statistics.median_high([run.elapsed_s for run in runs])
    return next(run for run in runs if run.elapsed_s == middle_s)
