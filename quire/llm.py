"""`LLM`: generate for many prompts at once, from a Python program.

Streaming to many users at once is `quire.async_llm`; driving step by step `quire.llm_engine`.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from quire.config.args import EngineArgs
from quire.config.env import engine_in_own_process
from quire.frontend.inputs import at_place
from quire.frontend.prompts import read_prompt
from quire.frontend.tokenizer import Tokenizer
from quire.llm_engine import LLMEngine
from quire.protocol.errors import EngineDeadError, InvalidRequestError, NotServedError
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput

logger = logging.getLogger(__name__)

MAX_QUEUED = 2048
"""Requests that are in the engine at once; the others wait as the caller gave them."""

Params = SamplingParams | Sequence[SamplingParams] | None


@dataclass(frozen=True)
class _Work:
    """What one call of `generate` has to do, as far as the prompts have been read."""

    params: SamplingParams | list[SamplingParams]
    priorities: list[int] | None
    lora_request: Any
    tokenization_kwargs: Mapping[str, Any] | None


class LLM:
    """A model that answers lists of prompts.

    Takes every setting of an engine by name (see `EngineArgs`): an unknown name raises TypeError, a
    value that cannot work SettingsError, a checkpoint that cannot be read ModelLoadError. The engine
    runs in this process, or in its own where VLLM_ENABLE_V1_MULTIPROCESSING is 1. `generate` may be
    called from several threads; the calls run one after the other.
    """

    def __init__(self, model: str, **settings: Any) -> None:
        settings.setdefault("disable_log_stats", True)
        self._start(EngineArgs(model, **settings))

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM:
        """An LLM with these settings."""
        made = cls.__new__(cls)
        made._start(engine_args)
        return made

    def _start(self, engine_args: EngineArgs) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._engine: LLMEngine | None = LLMEngine.from_settings(
            engine_args.to_settings(), own_process=engine_in_own_process()
        )

    @property
    def llm_engine(self) -> LLMEngine:
        """The engine under this face. Raises EngineDeadError after `close`, RuntimeError after a fork."""
        engine: LLMEngine | None = getattr(self, "_engine", None)
        if engine is None:
            raise EngineDeadError("this LLM is closed; make a new one")
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this LLM was made in another process; make a new one after the fork"
            )
        return engine

    def generate(
        self,
        prompts: Any,
        sampling_params: Params = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        priority: Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """The answers, in the order of the prompts.

        prompts          one prompt or an iterable of them: text, token ids, or a dictionary with either.
                         A list of integers is one prompt.
        sampling_params  one for all, or one for each; None takes the model's recommended values.
        use_tqdm         a progress bar; or what to call in place of `tqdm.tqdm`.
        priority         one integer for each prompt, lower first; needs scheduling_policy="priority".

        A request that the engine fails on has finish_reason "error" and its sentence in `error`. Raises
        InvalidRequestError with the place of the prompt for one that cannot be served, and none is
        answered. An exception, KeyboardInterrupt too, ends all requests of the call.
        """
        if mm_processor_kwargs:
            raise NotServedError(
                "images, audio and video are not served", param="mm_processor_kwargs"
            )
        engine = self.llm_engine
        items = _as_iterable(prompts)
        count = len(items) if isinstance(items, Sequence) else None
        if count is not None:
            _check_forms(items)
        work = _Work(
            _final_only(sampling_params or engine.inputs.default_params(), count),
            _one_each("priority", priority, count),
            lora_request,
            tokenization_kwargs,
        )
        with self._lock, _progress(use_tqdm, count) as progress:
            return self._run(engine, iter(items), work, progress)

    def _run(
        self, engine: LLMEngine, items: Iterator[Any], work: _Work, progress: _Progress
    ) -> list[RequestOutput]:
        places: dict[str, int] = {}
        answers: dict[int, RequestOutput] = {}
        numbered = enumerate(items)
        try:
            while True:
                for place, prompt in itertools.islice(numbered, MAX_QUEUED - len(places)):
                    places[self._add(engine, place, prompt, work)] = place
                if not places:
                    return [answers[place] for place in range(len(answers))]
                for request_id, output in engine.step_with_ids():
                    if output.finished:
                        answers[places.pop(request_id)] = output
                        progress.advance(output)
        except BaseException:
            with contextlib.suppress(EngineDeadError):
                engine.abort_request(list(places), internal=True)
            raise

    def _add(self, engine: LLMEngine, place: int, prompt: Any, work: _Work) -> str:
        try:
            return engine.add_request(
                str(next(self._numbers)),
                prompt,
                _pick("sampling_params", work.params, place),
                lora_request=work.lora_request,
                tokenization_kwargs=work.tokenization_kwargs,
                priority=0
                if work.priorities is None
                else _pick("priority", work.priorities, place),
            )
        except InvalidRequestError as error:
            raise at_place(error, place) from error

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.llm_engine.get_tokenizer()

    def get_default_sampling_params(self) -> SamplingParams:
        """New params with the sampling values that the model's makers recommend."""
        return self.llm_engine.inputs.default_params()

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets all cached prefixes. False, and nothing forgotten, while a request uses blocks."""
        return self.llm_engine.reset_prefix_cache(reset_running_requests, reset_connector)

    def close(self) -> None:
        """Ends the engine and gives its memory back; may be called twice."""
        engine: LLMEngine | None = getattr(self, "_engine", None)
        self._engine = None
        if engine is not None and os.getpid() == self._pid:
            engine.shutdown()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an LLM cannot be pickled or copied; make one where it is used")


class _Progress:
    """Counts answers on a progress bar, with input and output tokens per second; or does nothing."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._prompt_tokens = 0
        self._output_tokens = 0

    def advance(self, output: RequestOutput) -> None:
        """Takes one finished answer into account."""
        if self._bar is None:
            return
        self._prompt_tokens += len(output.prompt_token_ids or ())
        self._output_tokens += sum(len(choice.token_ids) for choice in output.outputs)
        elapsed = self._bar.format_dict["elapsed"] if hasattr(self._bar, "format_dict") else 0.0
        if elapsed > 0:
            self._bar.postfix = (
                f"input: {self._prompt_tokens / elapsed:.2f} toks/s, "
                f"output: {self._output_tokens / elapsed:.2f} toks/s"
            )
        self._bar.update(1)


@contextlib.contextmanager
def _progress(use_tqdm: bool | Callable[..., Any], total: int | None) -> Iterator[_Progress]:
    if not use_tqdm:
        yield _Progress(None)
        return
    make = use_tqdm if callable(use_tqdm) else importlib.import_module("tqdm").tqdm
    bar = make(total=total, desc="Processed prompts", dynamic_ncols=True)
    try:
        yield _Progress(bar)
    finally:
        bar.close()


def _as_iterable(prompts: Any) -> Iterable[Any]:
    """The prompts of a call: a single one becomes a list of one."""
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if isinstance(prompts, (list, tuple)):
        is_ids = (
            len(prompts) > 0 and isinstance(prompts[0], int) and not isinstance(prompts[0], bool)
        )
        return [prompts] if is_ids else prompts
    if isinstance(prompts, Iterable) and not isinstance(prompts, (bytes, bytearray)):
        return prompts
    raise TypeError(
        f"prompts must be a prompt or an iterable of prompts, not {type(prompts).__name__}; a prompt is "
        "a string, a list of token ids or a dictionary"
    )


def _check_forms(items: Iterable[Any]) -> None:
    """Refuses a prompt of a wrong form before any other of the list is run."""
    for place, prompt in enumerate(items):
        try:
            fields = read_prompt(prompt)
        except InvalidRequestError as error:
            raise at_place(error, place) from error
        except TypeError as error:
            raise TypeError(f"prompt {place}: {error}") from error
        if fields.get("prompt_token_ids") is not None and not len(fields["prompt_token_ids"]):
            raise at_place(InvalidRequestError("the prompt is empty", param="prompt"), place)


def _one_each(name: str, values: Any, count: int | None) -> Any:
    """The values as a list. Raises InvalidRequestError if there is not one for each prompt."""
    if values is None:
        return None
    values = list(values)
    if count is not None and len(values) != count:
        raise InvalidRequestError(
            f"{name} has {len(values)} entries for {count} prompts; give one for each", param=name
        )
    return values


def _final_only(params: Any, count: int | None) -> SamplingParams | list[SamplingParams]:
    """Copies of the params that ask for one output at the end."""
    if not isinstance(params, SamplingParams):
        if isinstance(params, str) or not isinstance(params, Sequence):
            raise TypeError(
                f"sampling_params must be SamplingParams or a list, not {type(params).__name__}"
            )
        return [_final_only_one(one) for one in _one_each("sampling_params", params, count)]
    return _final_only_one(params)


def _final_only_one(params: Any) -> SamplingParams:
    if not isinstance(params, SamplingParams):
        raise TypeError(f"sampling_params must be SamplingParams, not {type(params).__name__}")
    return msgspec.structs.replace(params, output_kind=RequestOutputKind.FINAL_ONLY)


def _pick(name: str, values: Any, place: int) -> Any:
    """The value for the prompt at `place`: its own, or the one for all."""
    if isinstance(values, SamplingParams):
        return values
    if place >= len(values):
        raise InvalidRequestError(
            f"{name} has {len(values)} entries, but there are more prompts", param=name
        )
    return values[place]
