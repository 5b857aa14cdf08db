"""An `LLM` under measurement: made from a command's flags, and asked for exact numbers of tokens.

What is asked, and what is made of the times, is each command's own.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from quire.bench.arguments import Words
from quire.bench.datasets import Sample
from quire.config import env
from quire.config.schema import Settings
from quire.hardware.cpu import read_machine
from quire.llm import LLM
from quire.models.loading.hub import with_local_folders
from quire.protocol.errors import RequestFailedError, SettingsError
from quire.protocol.params import BeamSearchParams, SamplingParams
from quire.protocol.results import RequestOutput


def set_up(words: Words) -> None:
    """The log on standard error, and a line for each flag without effect."""
    logging.basicConfig(
        level=env.log_level().upper(),
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every look at a server
    for note in words.notes:
        print(note, file=sys.stderr)


def open_llm(words: Words) -> closing[LLM]:
    """The model, closed at the end of a `with`. Raises QuireError if it cannot be loaded."""
    return closing(LLM.from_engine_args(words.engine))


@contextmanager
def profiled(llm: LLM, is_wanted: bool) -> Iterator[None]:
    """Traces the engine inside the block as --profiler-config says, and prints where the trace is.

    Raises SettingsError if none is configured.
    """
    if not is_wanted:
        yield
        return
    try:
        llm.start_profile()
    except ValueError as error:
        raise SettingsError(f"--profile: {error}") from None
    yield
    try:
        print(f"Profile: {llm.stop_profile() or 'no step was traced'}")
    except ValueError:  # only of a profile that is over
        print("Profile: ended by itself, as --profiler-config says; it is in torch_profiler_dir")


def exactly(
    sample: Sample, *, n: int = 1, detokenize: bool = True, greedy: bool = False
) -> SamplingParams:
    """Params that make a sample's number of tokens, whatever comes."""
    return SamplingParams(
        n=n,
        temperature=0.0 if greedy else 1.0,
        max_tokens=sample.output_len,
        ignore_eos=True,
        detokenize=detokenize,
    )


def check_fit(llm: LLM, samples: Sequence[Sample]) -> None:
    """Raises SettingsError for a sample that the context cannot hold: its answer would be cut short."""
    limit = llm.llm_engine.client.info.max_model_len
    for sample in samples:
        if len(sample.ids) + sample.output_len > limit:
            raise SettingsError(
                f"a prompt of {len(sample.ids)} and an answer of {sample.output_len} tokens do not fit into "
                f"the context of {limit}; give shorter lengths, or a larger --max-model-len"
            )


def timed(
    llm: LLM, samples: Sequence[Sample], params: list[SamplingParams], *, bar: bool = False
) -> tuple[float, list[RequestOutput]]:
    """Seconds that the answers took, and the answers. Raises RequestFailedError if one failed."""
    prompts: list[Any] = [{"prompt_token_ids": sample.ids} for sample in samples]
    start = time.perf_counter()
    answers = llm.generate(prompts, params, use_tqdm=bar)
    elapsed_s = time.perf_counter() - start
    for answer in answers:
        if answer.error is not None:
            raise RequestFailedError(f"a request of the measurement failed: {answer.error}")
    return elapsed_s, answers


def timed_beams(llm: LLM, samples: Sequence[Sample], width: int) -> float:
    """Seconds of a beam search over samples of one output length."""
    params = BeamSearchParams(
        beam_width=width, max_tokens=samples[0].output_len, ignore_eos=True, temperature=0.0
    )
    start = time.perf_counter()
    llm.beam_search([{"prompt_token_ids": sample.ids} for sample in samples], params)
    return time.perf_counter() - start


def local_settings(words: Words) -> Settings:
    """The engine's settings, with folders in the places of hub names. Raises QuireError."""
    return with_local_folders(words.engine.to_settings())


def num_threads(settings: Settings) -> int:
    """The arithmetic threads that these settings lead to on this machine's processor."""
    return settings.parallel.threads or read_machine().physical_cores


def about(words: Words) -> dict[str, Any]:
    """What a result must say of the machine and settings to be compared with another."""
    settings = words.engine.to_settings()
    machine = read_machine()
    return {
        "model": settings.model.model,
        "dtype": settings.model.dtype,
        "threads": num_threads(settings),
        "cpu": machine.cpu_name,
        "isa": machine.isa,
        "gpus": [str(gpu) for gpu in machine.gpus],
    }
