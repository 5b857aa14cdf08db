"""The parts of an `EngineRequest` that bound its output: grammar, and the marks around its thinking.

Checking a grammar is `frontend.structured`; how reasoning looks is `frontend.parsers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from quire.config.constraints import read_constraint_options
from quire.config.schema import Settings
from quire.frontend.compile_helper import HelperSettings
from quire.frontend.parsers.formats import ThinkFormat
from quire.frontend.parsers.plugins import load_plugin
from quire.frontend.parsers.prompts import ends_inside
from quire.frontend.parsers.registry import think_format
from quire.frontend.structured import StructuredOutputs
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.checks import refuse
from quire.protocol.params import SamplingParams


class ConstraintReader:
    """Makes those parts for one model. Safe in several threads.

    structured  None without a tokenizer, or its file: then constraints are refused.
    think       how the model thinks; None where no reasoning parser was named.
    """

    def __init__(
        self,
        structured: StructuredOutputs | None = None,
        think: ThinkFormat | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._structured = structured
        self._think = think if tokenizer is not None else None
        self._tokenizer = tokenizer

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        folder: str | Path,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
    ) -> ConstraintReader:
        """For an engine as it was started; `folder` holds its tokenizer.json. Raises SettingsError."""
        name = settings.parsers.reasoning_parser
        if tokenizer is None:
            return cls()
        load_plugin(settings.parsers.reasoning_parser_plugin)
        think = think_format(name) if name else None
        if not tokenizer.has_file:
            return cls(None, think, tokenizer)
        options = read_constraint_options(settings.grammar)
        helper = HelperSettings(
            options.backend, str(Path(folder) / "tokenizer.json"), vocab_size, eos_token_ids
        )
        return cls(StructuredOutputs(options, helper), think, tokenizer)

    def check_later(self, params: Any) -> Future[Any] | None:
        """Begins the check of a constraint in a thread; None if `fields` would not block for it."""
        wanted = getattr(params, "structured_outputs", None)
        if wanted is None or self._structured is None:
            return None
        return self._structured.spec_later(wanted)

    def fields(self, params: SamplingParams, prompt_ids: Sequence[int]) -> dict[str, Any]:
        """Fields of the EngineRequest. Takes the constraint out of `params`, which travel beside it.

        Raises InvalidRequestError for what cannot be followed.
        """
        wanted, budget = params.structured_outputs, params.thinking_token_budget
        if wanted is None and budget is None:
            return {}
        if budget is not None and self._think is None:
            refuse(
                "thinking_token_budget",
                "thinking_token_budget needs to know how the model thinks; start with --reasoning-parser "
                "NAME, or leave it out",
            )
        start_ids, end_ids, is_inside = self._marks(prompt_ids)
        found: dict[str, Any] = {"start_of_thinking_ids": start_ids, "end_of_thinking_ids": end_ids}
        if wanted is not None:
            if self._structured is None:
                why = "a tokenizer, but skip_tokenizer_init is set"
                if self._tokenizer is not None:
                    why = "a tokenizer.json; the tokenizer of this server is a plug-in's class"
                refuse("structured_outputs", f"structured_outputs need {why}")
            spec = self._structured.spec(wanted)
            may_begin = self._think is not None and self._think.thinks
            waits = is_inside or (params.separates_thinking and may_begin)
            if waits and not self._structured.enable_in_reasoning:
                spec = replace(spec, starts_after_ids=end_ids)
            found["grammar"] = spec
            params.structured_outputs = None
        return found

    def _marks(self, prompt_ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """What begins and what ends the thinking in the output, and whether the prompt shows that it has
        begun. No end: there is none. No begin: the output begins inside it."""
        think, tokenizer = self._think, self._tokenizer
        if think is None or tokenizer is None or not think.ends:
            return (), (), False
        inside = ends_inside(think, prompt_ids, tokenizer)
        if inside is False:
            return (), (), False
        starts, ends = (
            tuple(tokenizer.encode(texts[0].strip(), add_special_tokens=False)) if texts else ()
            for texts in (think.starts, think.ends)
        )
        begun = inside or (think.inside and not think.may_skip)
        return (() if begun else starts), ends, bool(inside)
