"""What an `LLM` does with a model that pools: embeddings, classes, scores, rewards for lists of prompts.

The base of `quire.llm.LLM`; what is pooled how is told by `protocol.pooler`.
"""

from __future__ import annotations

import itertools
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from quire.frontend.calls import Progress, as_iterable, check_forms, progress_bar
from quire.frontend.data_prompts import is_data
from quire.frontend.inputs import at_place
from quire.frontend.long_texts import joined, pieces_of
from quire.frontend.prompts import read_prompt
from quire.llm_control import LLMControl
from quire.llm_engine import LLMEngine
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import PoolingParams
from quire.protocol.pooled_results import (
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    Numbers,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
from quire.protocol.pooler import Pooler
from quire.protocol.similarity import cosine, late_interaction, product

Pooled = PoolingRequestOutput[PoolingOutput]
PoolingChoice = PoolingParams | Sequence[PoolingParams] | None
_MAX_QUEUED = 2048


class PoolingCalls(LLMControl):
    """`embed`, `encode`, `classify`, `score` and `reward`, over the engine of an `LLM`."""

    _lock: threading.Lock
    _numbers: Iterator[int]

    @abstractmethod
    def _abort(self, engine: LLMEngine, request_ids: list[str]) -> None:
        """Ends requests."""

    @abstractmethod
    def _keep(self, request_id: str, output: Any) -> None:
        """Takes an output of another call."""

    def encode(
        self,
        prompts: Any,
        pooling_params: PoolingChoice = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        pooling_task: str | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[Pooled]:
        """What the model pools of each prompt, in their order, as tensors.

        pooling_params  one for all, or one for each.
        pooling_task    embed, classify, token_embed or token_classify; None: that of the params, else the
                        model's first.
        Prompts are as in `generate`, or {"data": anything} for the IO processor of a plug-in, whose answer is then
        the `outputs` of the only entry. Raises InvalidRequestError with the place of a prompt that cannot be
        served, and RequestFailedError if the engine fails on one.
        """
        if is_data(prompts):
            return [self._of_data(prompts["data"], pooling_params, pooling_task, use_tqdm)]
        items = list(as_iterable(prompts))
        check_forms(items)
        if lora_request is not None:
            raise NotServedError(
                "LoRA adapters are not served; leave lora_request out", param="lora_request"
            )
        params = _each(pooling_params, len(items), pooling_task)
        how = dict(tokenization_kwargs or {})
        if truncate_prompt_tokens is not None:
            how["truncate_prompt_tokens"] = truncate_prompt_tokens
        engine = self.llm_engine
        self.check_awake()
        with self._lock, progress_bar(use_tqdm, len(items)) as progress:
            return self._pool(engine, items, params, how, progress)

    def _of_data(
        self, data: Any, params: PoolingChoice, task: str | None, use_tqdm: Any
    ) -> PoolingRequestOutput[Any]:
        """What an IO processor answers to data."""
        if params is not None and not isinstance(params, PoolingParams):
            raise TypeError("data takes one PoolingParams, not a list")
        reader = self.llm_engine.inputs.data
        items, merged = reader.prompts(data, params, None)
        found = self.encode(items, merged, use_tqdm=use_tqdm, pooling_task=task)
        answer = reader.result(found, None)
        ids = [one for output in found for one in output.prompt_token_ids]
        cached = sum(output.num_cached_tokens for output in found)
        return PoolingRequestOutput(found[0].request_id, answer, ids, cached, True)

    def embed(
        self,
        prompts: Any,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        pooling_params: PoolingChoice = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """An embedding of each prompt. Raises ValueError for a model that makes none (--convert embed)."""
        found = self.encode(
            prompts,
            pooling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            pooling_task="embed",
            tokenization_kwargs=tokenization_kwargs,
        )
        return [EmbeddingRequestOutput.from_base(one) for one in found]

    def classify(
        self,
        prompts: Any,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        pooling_params: PoolingChoice = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[ClassificationRequestOutput]:
        """A probability for each class of each prompt. Raises ValueError for a model without classes."""
        found = self.encode(
            prompts,
            pooling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            pooling_task="classify",
            tokenization_kwargs=tokenization_kwargs,
        )
        return [ClassificationRequestOutput.from_base(one) for one in found]

    def reward(
        self,
        prompts: Any,
        /,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        pooling_params: PoolingChoice = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Pooled]:
        """The rewards of each prompt: of its tokens or its steps where the model gives them, else of all of it."""
        tasks = self._pooler().tasks
        return self.encode(
            prompts,
            pooling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            pooling_task="classify" if "classify" in tasks else "token_classify",
            tokenization_kwargs=tokenization_kwargs,
        )

    def score(
        self,
        data_1: Any,
        data_2: Any,
        /,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        pooling_params: PoolingParams | None = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ScoringRequestOutput]:
        """How well the texts fit each other, pair by pair; a single first text is compared with all others.

        A model with one class reads both texts together; one that embeds gives the cosine of two embeddings,
        or of their tokens' (late interaction). Raises ValueError for N texts against M others.
        """
        firsts, seconds = pairs_of(_texts(data_1), _texts(data_2))
        if chat_template is not None:
            raise NotServedError(
                "templates for pairs are not served; write both texts into one and use classify",
                param="chat_template",
            )
        pooler = self._pooler()
        how = dict(tokenization_kwargs or {})
        if truncate_prompt_tokens is not None:
            how["truncate_prompt_tokens"] = truncate_prompt_tokens
        options: dict[str, Any] = {
            "use_tqdm": use_tqdm,
            "lora_request": lora_request,
            "tokenization_kwargs": how,
        }
        kind = pooler.score_type
        if kind is None:
            raise InvalidRequestError(
                f"this model has {len(pooler.labels)} classes and compares no texts; a score needs one class, or "
                "a model that embeds"
            )
        if kind == "cross-encoder":
            prompts = [
                {"prompt": one, "prompt_pair": other}
                for one, other in zip(firsts, seconds, strict=True)
            ]
            found = self.encode(prompts, pooling_params, pooling_task="classify", **options)
            return [ScoringRequestOutput.from_base(one) for one in found]
        task = "embed" if kind == "bi-encoder" else "token_embed"
        asked = list(dict.fromkeys([*firsts, *seconds]))
        made = self.encode(asked, pooling_params, pooling_task=task, **options)
        of = dict(zip(asked, made, strict=True))
        return [
            _compared(of[one], of[other], kind, pooler.is_sparse)
            for one, other in zip(firsts, seconds, strict=True)
        ]

    def _pooler(self) -> Pooler:
        pooling = self.llm_engine.inputs.pooling
        pooling.own_params(PoolingParams())  # refuses where nothing is pooled
        assert pooling.pooler is not None
        return pooling.pooler

    def _pool(
        self,
        engine: LLMEngine,
        items: list[Any],
        params: list[PoolingParams],
        how: Mapping[str, Any],
        progress: Progress,
    ) -> list[Pooled]:
        """All prompts, a long one as several requests where the model is set up for that."""
        jobs = self._jobs(engine, items, params, how)
        parts: list[list[Pooled | None]] = [[] for _ in items]
        left = [0] * len(items)
        places: dict[str, tuple[int, int]] = {}
        try:
            while True:
                for place, prompt in itertools.islice(jobs, _MAX_QUEUED - len(places)):
                    number = len(parts[place])
                    parts[place].append(None)
                    left[place] += 1
                    name = self._send(engine, place, prompt, params[place], how)
                    places[name] = place, number
                if not places:
                    return [
                        self._whole(engine, params[place], one) for place, one in enumerate(parts)
                    ]
                for request_id, output in engine.step_with_ids():
                    if request_id not in places:
                        self._keep(request_id, output)
                        continue
                    place, number = places.pop(request_id)
                    parts[place][number] = output.checked()
                    left[place] -= 1
                    if not left[place]:
                        progress.step()
        except BaseException:
            self._abort(engine, list(places))
            raise

    def _jobs(
        self,
        engine: LLMEngine,
        items: list[Any],
        params: list[PoolingParams],
        how: Mapping[str, Any],
    ) -> Iterator[tuple[int, Any]]:
        """(place, prompt) of every request; tokenised here only where a text may be cut into pieces."""
        pooling = engine.inputs.pooling
        pooler = pooling.pooler
        cuts = pooler is not None and pooler.chunked and how.get("truncate_prompt_tokens") is None
        for place, prompt in enumerate(items):
            if not cuts or params[place].task not in (None, "embed"):
                yield place, prompt
                continue
            assert pooler is not None
            try:
                ids = pooling.all_ids(read_prompt(prompt), how)
                pieces = pieces_of(ids, pooler, engine.inputs.max_model_len)
            except InvalidRequestError as error:
                raise at_place(error, place) from error
            for piece in pieces:
                yield place, piece

    def _send(
        self,
        engine: LLMEngine,
        place: int,
        prompt: Any,
        params: PoolingParams,
        how: Mapping[str, Any],
    ) -> str:
        try:
            return engine.add_request(
                str(next(self._numbers)), prompt, params, tokenization_kwargs=how
            )
        except InvalidRequestError as error:
            raise at_place(error, place) from error

    def _whole(
        self, engine: LLMEngine, params: PoolingParams, parts: Iterable[Pooled | None]
    ) -> Pooled:
        found = [part for part in parts if part is not None]
        if len(found) == 1:
            return found[0]
        pooler = engine.inputs.pooling.pooler
        assert pooler is not None
        unit = pooler.use_activation if params.use_activation is None else params.use_activation
        return joined(found[0].request_id, found, unit_length=unit)


def _each(params: PoolingChoice, count: int, task: str | None) -> list[PoolingParams]:
    """One for each prompt, with the task."""
    if params is None or isinstance(params, PoolingParams):
        listed = [params or PoolingParams()] * count
    else:
        listed = list(params)
        if len(listed) != count:
            raise InvalidRequestError(
                f"pooling_params has {len(listed)} entries for {count} prompts; give one for each",
                param="pooling_params",
            )
    for one in listed:
        if not isinstance(one, PoolingParams):
            raise TypeError(f"pooling_params must be PoolingParams, not {type(one).__name__}")
        if task is not None and one.task not in (None, task):
            raise InvalidRequestError(
                f"pooling_params ask for {one.task!r}, but the call is for {task!r}", param="task"
            )
    if task is None:
        return listed
    made = {id(one): msgspec.structs.replace(one, task=task) for one in listed}
    return [made[id(one)] for one in listed]


def _texts(data: Any) -> list[str]:
    """The texts of one side of a score. Raises TypeError for anything else."""
    items = [data] if isinstance(data, str) else list(data)
    for one in items:
        if not isinstance(one, str):
            raise TypeError(f"what is scored must be text, not {type(one).__name__}")
    return items


def pairs_of(firsts: list[str], seconds: list[str]) -> tuple[list[str], list[str]]:
    """Two lists of one length: a single first text stands before each of the second ones.

    Raises InvalidRequestError for an empty side, or N texts against M.
    """
    if not firsts or not seconds:
        raise InvalidRequestError("a score needs at least one text on each side")
    if len(firsts) == 1:
        return firsts * len(seconds), seconds
    if len(firsts) != len(seconds):
        raise InvalidRequestError(
            f"{len(firsts)} texts cannot be scored against {len(seconds)}; give one, or as many on both sides"
        )
    return firsts, seconds


def _compared(first: Pooled, second: Pooled, kind: str, is_sparse: bool) -> ScoringRequestOutput:
    sides: tuple[Numbers, Numbers] = first.outputs.numbers, second.outputs.numbers
    value = (
        (product if is_sparse else cosine)(sides[0].flat(), sides[1].flat())
        if kind == "bi-encoder"
        else late_interaction(*sides)
    )
    return ScoringRequestOutput(
        f"{first.request_id}_{second.request_id}",
        ScoringOutput(value),
        [*first.prompt_token_ids, *second.prompt_token_ids],
        first.num_cached_tokens + second.num_cached_tokens,
        True,
    )
