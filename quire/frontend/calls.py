"""What the offline face does around a call: prompts as a list, params one for each, a progress bar.

Reading one prompt is `frontend.prompts`; running the requests is `quire.llm`.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from quire.frontend.inputs import at_place
from quire.frontend.prompts import read_pair, read_prompt
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput

Params = SamplingParams | Sequence[SamplingParams] | None


@dataclass(frozen=True)
class Work:
    """What is asked for the prompts of one call, whose number `count` is if it is known."""

    count: int | None
    params: SamplingParams | list[SamplingParams]
    priorities: list[int] | None
    lora_request: Any
    tokenization_kwargs: Mapping[str, Any] | None


def read_call(
    prompts: Any,
    params: SamplingParams | Sequence[SamplingParams],
    *,
    lora_request: Any,
    priority: Sequence[int] | None,
    tokenization_kwargs: Mapping[str, Any] | None,
    mm_processor_kwargs: Mapping[str, Any] | None,
) -> tuple[Iterator[Any], Work]:
    """The prompts of a call one by one, and what is asked for them.

    Raises InvalidRequestError or TypeError for a list of a wrong form before any of it is run.
    """
    if mm_processor_kwargs:
        raise NotServedError("images, audio and video are not served", param="mm_processor_kwargs")
    items = as_iterable(prompts)
    count = len(items) if isinstance(items, Sequence) else None
    if count is not None:
        check_forms(items)
    return iter(items), Work(
        count,
        final_only(params, count),
        one_each("priority", priority, count),
        lora_request,
        tokenization_kwargs,
    )


class Progress:
    """Counts answers on a progress bar, with input and output tokens per second; or does nothing."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._prompt_tokens = 0
        self._output_tokens = 0

    def step(self) -> None:
        """One more is done, whatever it was."""
        if self._bar is not None:
            self._bar.update(1)

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
def progress_bar(
    use_tqdm: bool | Callable[..., Any], total: int | None, title: str = "Processed prompts"
) -> Iterator[Progress]:
    """A bar for one call, closed at its end; `use_tqdm` is what to make it with, or False for none."""
    if not use_tqdm:
        yield Progress(None)
        return
    make = use_tqdm if callable(use_tqdm) else importlib.import_module("tqdm").tqdm
    bar = make(total=total, desc=title, dynamic_ncols=True)
    try:
        yield Progress(bar)
    finally:
        bar.close()


def as_iterable(prompts: Any) -> Iterable[Any]:
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


def check_forms(items: Iterable[Any]) -> None:
    """Refuses a prompt of a wrong form before any other of the list is run."""
    for place, prompt in enumerate(items):
        try:
            first, second = read_pair(prompt)
            halves = [
                read_prompt(half) for half in ((first,) if second is None else (first, second))
            ]
        except InvalidRequestError as error:
            raise at_place(error, place) from error
        except TypeError as error:
            raise TypeError(f"prompt {place}: {error}") from error
        if any(
            one.get("prompt_token_ids") is not None and not len(one["prompt_token_ids"])
            for one in halves
        ):
            raise at_place(InvalidRequestError("the prompt is empty", param="prompt"), place)


def one_each(name: str, values: Any, count: int | None) -> Any:
    """The values as a list. Raises InvalidRequestError if there is not one for each prompt."""
    if values is None:
        return None
    values = list(values)
    if count is not None and len(values) != count:
        raise InvalidRequestError(
            f"{name} has {len(values)} entries for {count} prompts; give one for each", param=name
        )
    return values


def final_only(params: Any, count: int | None) -> SamplingParams | list[SamplingParams]:
    """Copies of the params that ask for one output at the end."""
    if not isinstance(params, SamplingParams):
        if isinstance(params, str) or not isinstance(params, Sequence):
            raise TypeError(
                f"sampling_params must be SamplingParams or a list, not {type(params).__name__}"
            )
        return [_final_only_one(one) for one in one_each("sampling_params", params, count)]
    return _final_only_one(params)


def _final_only_one(params: Any) -> SamplingParams:
    if not isinstance(params, SamplingParams):
        raise TypeError(f"sampling_params must be SamplingParams, not {type(params).__name__}")
    return msgspec.structs.replace(params, output_kind=RequestOutputKind.FINAL_ONLY)


def pick(name: str, values: Any, place: int) -> Any:
    """The value for the prompt at `place`: its own, or the one for all."""
    if isinstance(values, SamplingParams):
        return values
    if place >= len(values):
        raise InvalidRequestError(
            f"{name} has {len(values)} entries, but there are more prompts", param=name
        )
    return values[place]
