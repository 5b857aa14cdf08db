"""`LLM`: generate for many prompts at once, from a Python program.

Streaming to many users at once is `quire.async_llm`; driving step by step `quire.llm_engine`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from quire.beam_search import BeamSearchOutput, search
from quire.config.args import EngineArgs
from quire.config.env import engine_in_own_process
from quire.frontend.calls import (
    Params,
    Progress,
    Work,
    as_iterable,
    check_forms,
    pick,
    progress_bar,
    read_call,
)
from quire.frontend.chat_calls import read_chats
from quire.frontend.inputs import at_place
from quire.frontend.tokenizer import Tokenizer
from quire.llm_engine import LLMEngine
from quire.llm_pooling import PoolingCalls
from quire.metrics.reader import Metric
from quire.metrics.start_log import capacity_lines, set_up_log_of_library
from quire.protocol.chat import ChatOptions
from quire.protocol.errors import EngineDeadError, InvalidRequestError
from quire.protocol.params import BeamSearchParams, SamplingParams
from quire.protocol.results import RequestOutput

logger = logging.getLogger(__name__)

MAX_QUEUED = 2048
"""Requests that are in the engine at once; the others wait as the caller gave them."""


class LLM(PoolingCalls):
    """A model that answers lists of prompts.

    Without a model it is the small demo model of the package. Takes every setting of an engine by name
    (see `EngineArgs`): an unknown name raises TypeError, a value that cannot work SettingsError, a
    checkpoint that cannot be read ModelLoadError. The memory that may be taken and the size of the
    cache go to the log at INFO. The engine runs in this process, or in its own where
    VLLM_ENABLE_V1_MULTIPROCESSING is 1. `generate` may be called from several threads; the calls run
    one after the other.
    """

    def __init__(self, model: str = "", **settings: Any) -> None:
        settings.setdefault("disable_log_stats", True)
        self._start(EngineArgs(model, **settings))

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM:
        """An LLM with these settings."""
        made = cls.__new__(cls)
        made._start(engine_args)
        return made

    def _start(self, engine_args: EngineArgs) -> None:
        set_up_log_of_library()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._enqueued: dict[str, RequestOutput | None] = {}
        self._engine: LLMEngine | None = LLMEngine.from_settings(
            engine_args.to_settings(), own_process=engine_in_own_process()
        )
        for line in capacity_lines(self._engine.client.info):
            logger.info("%s", line)

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
        engine = self.llm_engine
        self.check_awake()
        items, work = read_call(
            prompts,
            sampling_params or engine.inputs.default_params(),
            lora_request=lora_request,
            priority=priority,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )
        with self._lock, progress_bar(use_tqdm, work.count) as progress:
            return self._run(engine, items, work, progress)

    def chat(
        self,
        messages: Any,
        sampling_params: Params = None,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Any = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """The answers to one conversation, a list of messages, or to a list of conversations.

        chat_template         template text in place of the model's own.
        chat_template_kwargs  variables for the template, such as enable_thinking.
        The last message is answered with `add_generation_prompt`, or gone on with where
        `continue_final_message` is set instead. The rest is as in `generate`.
        """
        prompts, how = read_chats(
            self.llm_engine.inputs,
            messages,
            ChatOptions(
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                template_kwargs=chat_template_kwargs or {},
                chat_template=chat_template,
                content_format=chat_template_content_format,
            ),
            tools=tools,
            tokenization_kwargs=tokenization_kwargs,
        )
        return self.generate(
            prompts,
            sampling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            tokenization_kwargs=how,
            mm_processor_kwargs=mm_processor_kwargs,
        )

    def enqueue(
        self,
        prompts: Any,
        sampling_params: Params = None,
        lora_request: Any = None,
        priority: Sequence[int] | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Takes requests as `generate` does, and returns their ids: `request_id` of the outputs to come.

        They are answered by `wait_for_completion`; an engine in this process computes nothing until then
        or until another call needs it. Raises as `generate` does, and then none of them is kept.
        """
        engine = self.llm_engine
        items, work = read_call(
            prompts,
            sampling_params or engine.inputs.default_params(),
            lora_request=lora_request,
            priority=priority,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )
        names: list[str] = []
        added: list[str] = []
        with self._lock, progress_bar(use_tqdm, work.count, "Adding requests") as progress:
            try:
                for place, prompt in enumerate(items):
                    names.append(str(next(self._numbers)))
                    added.append(self._add(engine, names[-1], place, prompt, work))
                    progress.step()
            except BaseException:
                self._abort(engine, added)
                raise
            self._enqueued |= dict.fromkeys(added)
        return names

    def enqueue_chat(
        self,
        messages: Any,
        sampling_params: Params = None,
        lora_request: Any = None,
        priority: Sequence[int] | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Any = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Takes conversations as `chat` does, to be answered by `wait_for_completion`; returns their ids."""
        prompts, how = read_chats(
            self.llm_engine.inputs,
            messages,
            ChatOptions(
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                template_kwargs=chat_template_kwargs or {},
                chat_template=chat_template,
                content_format=chat_template_content_format,
            ),
            tools=tools,
            tokenization_kwargs=tokenization_kwargs,
        )
        return self.enqueue(
            prompts, sampling_params, lora_request, priority, use_tqdm, how, mm_processor_kwargs
        )

    def wait_for_completion(
        self, output_type: Any = None, *, use_tqdm: bool | Callable[..., Any] = True
    ) -> list[RequestOutput]:
        """The answers to all that was enqueued, in that order; [] if nothing was.

        output_type  the class, or a tuple of classes, that the outputs must have. Raises TypeError, and
                     keeps the requests, if it is not that of generation: RequestOutput.
        An exception, KeyboardInterrupt too, ends all of the requests.
        """
        if output_type is not None and not issubclass(RequestOutput, output_type):
            raise TypeError(f"what was enqueued gives RequestOutput, not {output_type}")
        engine = self.llm_engine
        self.check_awake()
        with self._lock, progress_bar(use_tqdm, len(self._enqueued)) as progress:
            for output in self._enqueued.values():
                if output is not None:
                    progress.advance(output)
            try:
                while any(output is None for output in self._enqueued.values()):
                    for request_id, output in engine.step_with_ids():
                        if output.finished and request_id in self._enqueued:
                            self._enqueued[request_id] = output
                            progress.advance(output)
                return [output for output in self._enqueued.values() if output is not None]
            except BaseException:
                self._abort(engine, list(self._enqueued))
                raise
            finally:
                self._enqueued = {}

    def beam_search(
        self,
        prompts: Any,
        params: BeamSearchParams,
        lora_request: Any = None,
        use_tqdm: bool | Callable[..., Any] = False,
        concurrency_limit: int | None = None,
    ) -> list[BeamSearchOutput]:
        """The `params.beam_width` likeliest continuations of each prompt, best first; nothing is drawn.

        concurrency_limit  prompts that are searched at once; None is all of them.
        How it is counted is in `quire.beam_search`. Raises InvalidRequestError with the prompt's place.
        """
        engine = self.llm_engine
        self.check_awake()
        items = list(as_iterable(prompts))
        check_forms(items)
        with self._lock, progress_bar(use_tqdm, len(items)) as progress:
            return search(
                engine,
                items,
                params,
                lora_request=lora_request,
                at_once=concurrency_limit,
                keep=self._keep,
                on_end=progress.step,
            )

    def _run(
        self, engine: LLMEngine, items: Iterator[Any], work: Work, progress: Progress
    ) -> list[RequestOutput]:
        places: dict[str, int] = {}
        answers: dict[int, RequestOutput] = {}
        numbered = enumerate(items)
        try:
            while True:
                for place, prompt in itertools.islice(numbered, MAX_QUEUED - len(places)):
                    name = str(next(self._numbers))
                    places[self._add(engine, name, place, prompt, work)] = place
                if not places:
                    return [answers[place] for place in range(len(answers))]
                for request_id, output in engine.step_with_ids():
                    if output.finished and request_id in places:
                        answers[places.pop(request_id)] = output
                        progress.advance(output)
                    else:
                        self._keep(request_id, output)
        except BaseException:
            self._abort(engine, list(places))
            raise

    def _keep(self, request_id: str, output: RequestOutput) -> None:
        """Takes an output that another call's step has brought."""
        if output.finished and request_id in self._enqueued:
            self._enqueued[request_id] = output

    def _abort(self, engine: LLMEngine, request_ids: list[str]) -> None:
        with contextlib.suppress(EngineDeadError):
            engine.abort_request(request_ids, internal=True)

    def _add(self, engine: LLMEngine, name: str, place: int, prompt: Any, work: Work) -> str:
        try:
            return engine.add_request(
                name,
                prompt,
                pick("sampling_params", work.params, place),
                lora_request=work.lora_request,
                tokenization_kwargs=work.tokenization_kwargs,
                priority=0 if work.priorities is None else pick("priority", work.priorities, place),
            )
        except InvalidRequestError as error:
            raise at_place(error, place) from error

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.llm_engine.get_tokenizer()

    def get_default_sampling_params(self) -> SamplingParams:
        """New params with the sampling values that the model's makers recommend."""
        return self.llm_engine.inputs.default_params()

    def get_metrics(self) -> list[Metric]:
        """All series of the engine as of now. Raises SettingsError unless disable_log_stats=False was given."""
        return self.llm_engine.get_metrics()

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

    def __reduce__(self) -> NoReturn:
        raise TypeError("an LLM cannot be pickled or copied; make one where it is used")
