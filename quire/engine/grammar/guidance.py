"""Constraints by llguidance: derivatives and an Earley parser, evaluated as far as an output goes.

Nothing is unfolded ahead, so that compiling is cheap and limits are on work per token.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import any_to_lark
from numpy.typing import NDArray

from quire.engine.grammar.backend import GrammarError, without_ids
from quire.engine.grammar.schema import (
    closed,
    counts_members,
    has_controls,
    read_schema,
    without_idle_keywords,
)
from quire.engine.grammar.schemas.graph import narrowed
from quire.engine.grammar.syntax import check_nesting, check_regex, quoted
from quire.engine.grammar.tags import Lark, tag_grammar
from quire.protocol.request import GrammarSpec

# Between the parts of a document: a few blanks, or a new line with its indentation. More in a row is a
# model that has lost its way.
_WHITESPACE = r"[ \t]{1,4}|\r?\n[ \t]{0,48}"
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
)
_ESCAPES = 'bfnrt"\\'  # with \u a key could be spelled a second way and pass for another

_NAMED = re.compile(r"<[^<>\s]+>")  # a token that a grammar may call by its text
_LIMITS: dict[str, Any] = {
    "max_lexer_states": 20_000,
    "verbose_errors": False,
}


class GuidanceBackend:
    """llguidance over the vocabulary of a tokenizer.json.

    vocab_size     rows of the model's head; ids that the tokenizer lacks are never allowed.
    eos_token_ids  may be empty.
    """

    def __init__(
        self, tokenizer_json: str, vocab_size: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        """Raises GrammarError for a tokenizer that llguidance cannot read."""
        try:
            self._tokenizer = llguidance.LLTokenizer(
                tokenizer_json, n_vocab=vocab_size, eos_token=list(eos_token_ids) or None
            )
        except Exception as error:  # the library raises plain Exception
            raise GrammarError(f"llguidance cannot read this tokenizer: {error}") from error
        self._goes_on = without_ids((vocab_size + 31) // 32, self._tokenizer.eos_tokens)
        added = json.loads(tokenizer_json).get("added_tokens") or []
        self._marks = {
            one["content"]: one["content"]
            if _NAMED.fullmatch(one["content"])
            else f"<[{one['id']}]>"
            for one in added
            if one.get("special") or _NAMED.fullmatch(one["content"])
        }

    def compile(self, spec: GrammarSpec) -> GuidanceCompiled:
        """Raises GrammarError."""
        try:
            grammar = self._grammar_of(spec)
        except RecursionError:
            raise GrammarError(f"the {spec.kind} constraint nests too deep") from None
        limits = llguidance.LLParserLimits(**_LIMITS)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        _raise_if_wrong(matcher)
        return GuidanceCompiled(matcher, self._goes_on, size_bytes=65_536 + 320 * len(spec.text))

    def _grammar_of(self, spec: GrammarSpec) -> str:
        """The constraint in llguidance's own form. Raises GrammarError."""
        make = llguidance.LLMatcher
        if spec.kind in ("json", "json_object"):
            schema = '{"type": "object"}' if spec.kind == "json_object" else spec.text
            return str(make.grammar_from_json_schema(self._json_text(schema, spec)))
        if spec.kind == "regex":
            check_regex(spec.text)
            return str(make.grammar_from_regex(spec.text))
        if spec.kind == "choice":
            choices = json.loads(spec.text)
            # One terminal: thousands of rules would be thousands of items a token.
            one_of = " | ".join(quoted(one) for one in choices)
            return str(make.grammar_from_lark(f"start: CHOICE\nCHOICE: {one_of}"))
        if spec.kind == "grammar":
            return str(make.grammar_from_lark(lark_of(spec.text)))
        lark = Lark(
            marks=self._marks,
            schema=lambda schema: self._json_text(json.dumps(schema), spec),
            regex=check_regex,
            grammar=lark_of,
        )
        return tag_grammar(spec.text, lark)

    def _json_text(self, text: str, spec: GrammarSpec) -> str:
        """A schema as llguidance takes it: as it is where it can follow all of it, else narrowed."""
        schema = read_schema(text)
        if not spec.options.get("additional_properties", True):
            schema = closed(schema)
        plain = _with_options(without_idle_keywords(schema, _FORMATS), spec)
        if not counts_members(schema):
            grammar = llguidance.LLMatcher.grammar_from_json_schema(plain)
            if not llguidance.LLMatcher.validate_grammar(grammar, self._tokenizer):
                return plain
        return _with_options(narrowed(schema, _FORMATS), spec)


class GuidanceCompiled:
    """A matcher that is only copied. goes_on: a mask of all ids but those that llguidance takes for ends."""

    def __init__(self, matcher: Any, goes_on: NDArray[np.uint32], *, size_bytes: int) -> None:
        self._matcher = matcher
        self._goes_on = goes_on
        self.size_bytes = size_bytes

    def matcher(self) -> GuidanceMatcher:
        return GuidanceMatcher(self._matcher.deep_copy(), self._goes_on)


@functools.cache
def _executor(threads: int) -> Any:
    return llguidance.LLExecutor(threads)


class GuidanceMatcher:
    """A `Matcher` around an LLMatcher."""

    def __init__(self, matcher: Any, goes_on: NDArray[np.uint32]) -> None:
        self._matcher = matcher
        self._goes_on = goes_on

    def advance(self, token_ids: list[int]) -> None:
        if not self._matcher.consume_tokens(token_ids):
            _raise_if_wrong(self._matcher)

    def rollback(self, count: int) -> None:
        if not self._matcher.rollback(count):
            _raise_if_wrong(self._matcher)

    def fill(self, mask: NDArray[np.uint32]) -> None:
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self.settle(mask)

    @staticmethod
    def fill_all(
        matchers: Sequence[Any], bits: NDArray[np.uint32], rows: Sequence[int], threads: int
    ) -> None:
        inner = [(matcher._matcher, row) for matcher, row in zip(matchers, rows, strict=True)]
        _executor(threads).unsafe_compute_mask_ptr(
            inner, bits.ctypes.data, bits.strides[0], len(bits)
        )

    def settle(self, mask: NDArray[np.uint32]) -> None:
        """Makes a mask of the library's own what `fill` promises."""
        # A constraint that nothing can follow any more counts as an error only where it is not complete.
        if not self._matcher.is_accepting():
            _raise_if_wrong(self._matcher)
        # It allows its end tokens also where it is at a loss; may_end is what counts.
        mask &= self._goes_on

    @property
    def may_end(self) -> bool:
        return bool(self._matcher.is_accepting())


def _raise_if_wrong(matcher: Any) -> None:
    if matcher.is_error():
        raise GrammarError(_sentence(matcher.get_error()))


def _sentence(text: str) -> str:
    """llguidance's report as one line for the user."""
    text = " ".join(text.split("<state>")[0].replace("<non-verbose/>", "").split())
    if text.startswith(("NoExtension", "InternalError")) or not text:
        return "it allows no output"
    if any(
        word in text
        for word in ("too big", "too complex", "too many", "TooComplex", "Current row has")
    ):
        return f"it is too complex; simplify it ({text[:200]})"
    return text[:300]


def _with_options(schema: Any, spec: GrammarSpec) -> str:
    """The text of a schema with the options of the spec in it."""
    options: dict[str, Any] = {}
    whitespace = spec.options.get("whitespace", True)
    if whitespace is False:
        options["whitespace_flexible"] = False
    else:
        options["whitespace_pattern"] = whitespace if isinstance(whitespace, str) else _WHITESPACE
    if not has_controls(schema):
        options["json_allowed_escapes"] = _ESCAPES
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    return json.dumps(schema | {"x-guidance": options})


def lark_of(text: str) -> str:
    """A grammar in EBNF or Lark, as Lark. Raises GrammarError."""
    check_nesting(text, "grammar")
    try:
        return str(any_to_lark(text))
    except Exception as error:  # the converter raises ValueError, its own kind, and IndexError
        raise GrammarError(f"the grammar cannot be read: {str(error)[:200]}") from None
