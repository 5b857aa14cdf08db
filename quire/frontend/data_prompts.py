"""Data in the place of prompts: what the IO processor of a plug-in makes of it, and of what was pooled.

The class that plug-ins write is `protocol.io_processors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from quire.config.plugins import PluginConfig, io_processor_class
from quire.config.schema import Settings
from quire.frontend.prompts import read_prompt
from quire.protocol.errors import (
    InvalidRequestError,
    NotServedError,
    QuireError,
    RequestFailedError,
    SettingsError,
)
from quire.protocol.io_processors import IOProcessor
from quire.protocol.params import PoolingParams

_TAKEN = ("prompt", "prompt_token_ids")


def is_data(prompt: Any) -> bool:
    """Whether a prompt is {"data": anything}."""
    return isinstance(prompt, Mapping) and "data" in prompt


class DataPrompts:
    """The IO processor of one model's front; None refuses all data. Safe in several threads if that is."""

    def __init__(self, processor: IOProcessor | None = None) -> None:
        self._processor = processor

    @classmethod
    def from_settings(cls, settings: Settings) -> DataPrompts:
        """With the processor that the settings name. Raises SettingsError if it cannot be made."""
        name = settings.model.io_processor_plugin
        if name is None:
            return cls()
        kind = io_processor_class(name)
        try:
            return cls(kind(PluginConfig.of(settings), None))
        except Exception as error:  # the operator's code may fail in any way
            raise SettingsError(
                f"IO processor {name!r} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def prompts(
        self, data: Any, params: PoolingParams | None, request_id: str | None
    ) -> tuple[list[str | list[int]], PoolingParams]:
        """Prompts, as text or token ids, and their params. Raises InvalidRequestError."""
        processor = self._needed()
        with _reads_data():
            parsed = processor.parse_data(data)
            merged = processor.merge_pooling_params(params)
            found = processor.pre_process(prompt=parsed, request_id=request_id)
        return _listed(found), merged

    async def prompts_async(
        self, data: Any, params: PoolingParams | None, request_id: str | None
    ) -> tuple[list[str | list[int]], PoolingParams]:
        """The same in a server."""
        processor = self._needed()
        with _reads_data():
            parsed = await asyncio.to_thread(processor.parse_data, data)
            merged = processor.merge_pooling_params(params)
            found = await processor.pre_process_async(prompt=parsed, request_id=request_id)
        return _listed(found), merged

    def result(self, outputs: Sequence[Any], request_id: str | None) -> Any:
        """The answer. Raises RequestFailedError if the processor fails."""
        with _answers():
            return self._needed().post_process(model_output=outputs, request_id=request_id)

    async def result_async(self, outputs: Sequence[Any], request_id: str | None) -> Any:
        """The same in a server."""
        with _answers():
            return await self._needed().post_process_async(
                model_output=outputs, request_id=request_id
            )

    def _needed(self) -> IOProcessor:
        if self._processor is None:
            raise NotServedError(
                "data needs an IO processor, and none is installed here; start with --io-processor-plugin NAME, or "
                "send text",
                param="data",
            )
        return self._processor


@contextmanager
def _reads_data() -> Iterator[None]:
    """Refuses the request for what a processor says of its data; other failures are its own."""
    try:
        yield
    except QuireError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequestError(
            f"the IO processor refuses data: {type(error).__name__}: {error}", param="data"
        ) from error
    except Exception as error:
        raise RequestFailedError(
            f"the IO processor failed: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except QuireError:
        raise
    except Exception as error:
        raise RequestFailedError(
            f"the IO processor failed: {type(error).__name__}: {error}"
        ) from error


def _listed(found: Any) -> list[str | list[int]]:
    """One prompt or several as text and token ids. Raises RequestFailedError for what is no prompt."""
    is_ids = isinstance(found, (list, tuple)) and bool(found) and isinstance(found[0], int)
    several = isinstance(found, (list, tuple)) and not is_ids
    try:
        fields = [read_prompt(one) for one in (found if several else [found])]
    except (TypeError, InvalidRequestError) as error:
        raise RequestFailedError(f"the IO processor made no prompt: {error}") from error
    if not fields:
        raise RequestFailedError("the IO processor made no prompts of the data")
    made: list[str | list[int]] = []
    for one in fields:
        text, ids = one.get("prompt"), one.get("prompt_token_ids")
        others = [key for key, value in one.items() if value and key not in _TAKEN]
        if not (text or ids) or others:
            what = f"one with {others[0]}" if others else "an empty one"
            raise RequestFailedError(
                f"the IO processor may make prompts of text or token ids alone, not {what}"
            )
        made.append(list(ids) if ids else str(text))
    return made
