"""Constraints by xgrammar, the alternative to `guidance`: masks are prepared at compile time.

It passes over keywords of JSON schema that it does not know, so what may be used is listed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xgrammar
from numpy.typing import NDArray

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schema import closed, read_schema
from quire.engine.grammar.syntax import check_nesting, check_regex, quoted
from quire.protocol.request import GrammarSpec

_MAX_WHITESPACE = 48
_PLACE = re.compile(r"^\[[0-9:]+\] \S+:[0-9]+: ")  # when and where in its own sources
_KEYWORDS = frozenset((
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems",
    "minItems", "maxItems", "anyOf", "$ref", "$defs", "definitions", "minLength", "maxLength", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "title", "description", "default", "examples", "$schema", "$id", "$comment", "readOnly", "writeOnly",
    "deprecated", "format",
))  # fmt: skip
_INSIDE = ("properties", "$defs", "definitions")


class XGrammarBackend:
    """xgrammar over the vocabulary of a tokenizer.json.

    vocab_size     rows of the model's head.
    eos_token_ids  at least one: xgrammar marks with them where an output may end.
    """

    def __init__(
        self, tokenizer_json: str, vocab_size: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        """Raises GrammarError for a tokenizer that has no vocabulary or no end token."""
        if not eos_token_ids:
            raise GrammarError("xgrammar needs an end token, and this model has none")
        described = json.loads(tokenizer_json)
        self._vocab_size = vocab_size
        info = xgrammar.TokenizerInfo(
            _vocabulary(described, vocab_size),
            _kind(described),
            vocab_size=vocab_size,
            stop_token_ids=list(eos_token_ids),
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile(self, spec: GrammarSpec) -> XGrammarCompiled:
        """Raises GrammarError."""
        try:
            return XGrammarCompiled(self._compile(spec))
        except GrammarError:
            raise
        except RecursionError:
            raise GrammarError(f"the {spec.kind} constraint nests too deep") from None
        except Exception as error:  # the library raises plain RuntimeError and its own kinds
            text = _PLACE.sub("", " ".join(str(error).split()))
            raise GrammarError(f"xgrammar cannot use it: {text[-300:]}") from None

    def _compile(self, spec: GrammarSpec) -> Any:
        compiler = self._compiler
        if spec.kind in ("json", "json_object"):
            schema = '{"type": "object"}' if spec.kind == "json_object" else spec.text
            return self._compile_schema(schema, spec)
        if spec.kind == "regex":
            return compiler.compile_regex(check_regex(spec.text))
        if spec.kind == "choice":
            ways = " | ".join(quoted(one) for one in json.loads(spec.text))
            return compiler.compile_grammar(f"root ::= {ways}")
        if spec.kind == "grammar":
            check_nesting(spec.text, "grammar")
            if "::=" in spec.text:
                return compiler.compile_grammar(spec.text)
            return compiler.compile_lark(spec.text)
        tag = json.loads(spec.text)
        _check_schemas(tag)
        return compiler.compile_structural_tag(_tree_of(tag))

    def _compile_schema(self, text: str, spec: GrammarSpec) -> Any:
        schema = read_schema(text)
        _check_keywords(schema)
        if not spec.options.get("additional_properties", True):
            schema = closed(schema)
        whitespace = spec.options.get("whitespace", True)
        if isinstance(whitespace, str):
            raise GrammarError(
                "whitespace_pattern works with the backend guidance only; leave it out"
            )
        options: dict[str, Any] = {"any_whitespace": False, "separators": (",", ":")}
        if whitespace:
            options = {"any_whitespace": True, "max_whitespace_cnt": _MAX_WHITESPACE}
        return self._compiler.compile_json_schema(json.dumps(schema), strict_mode=False, **options)


class XGrammarCompiled:
    """A compiled grammar."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self.size_bytes = int(compiled.memory_size_bytes)

    def matcher(self) -> XGrammarMatcher:
        return XGrammarMatcher(xgrammar.GrammarMatcher(self._compiled))


class XGrammarMatcher:
    """A `Matcher` around xgrammar's. It is never given an end token."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def advance(self, token_ids: list[int]) -> None:
        for token_id in token_ids:
            if not self._matcher.accept_token(token_id):
                raise GrammarError(
                    f"the token {token_id} is not allowed where the constraint stands"
                )

    def rollback(self, count: int) -> None:
        self._matcher.rollback(count)

    def fill(self, mask: NDArray[np.uint32]) -> None:
        mask[:] = np.uint32(0xFFFFFFFF)
        self._matcher.fill_next_token_bitmask(torch.from_numpy(mask.view(np.int32))[None, :], 0)

    @staticmethod
    def fill_all(
        matchers: Sequence[Any], bits: NDArray[np.uint32], rows: Sequence[int], threads: int
    ) -> None:
        for matcher, row in zip(matchers, rows, strict=True):
            matcher.fill(bits[row])

    def settle(self, mask: NDArray[np.uint32]) -> None:
        """Nothing is left to do."""

    @property
    def may_end(self) -> bool:
        return bool(self._matcher.is_completed())


def _vocabulary(described: dict[str, Any], vocab_size: int) -> list[str]:
    """The spelling of each id; empty for ids without one and for special tokens, which are no text."""
    vocab = described.get("model", {}).get("vocab")
    if isinstance(vocab, list):  # pieces with their scores
        vocab = {piece[0]: place for place, piece in enumerate(vocab)}
    if not isinstance(vocab, dict):
        raise GrammarError("xgrammar cannot read this tokenizer: it has no vocabulary")
    spelled = [""] * vocab_size
    for text, place in vocab.items():
        if place < vocab_size:
            spelled[place] = text
    for one in described.get("added_tokens") or []:
        if one["id"] < vocab_size:
            spelled[one["id"]] = "" if one.get("special") else one["content"]
    return spelled


def _kind(described: dict[str, Any]) -> Any:
    if described.get("model", {}).get("byte_fallback"):
        return xgrammar.VocabType.BYTE_FALLBACK
    parts = json.dumps([described.get("pre_tokenizer"), described.get("decoder")])
    return xgrammar.VocabType.BYTE_LEVEL if "ByteLevel" in parts else xgrammar.VocabType.RAW


def _check_keywords(schema: Any) -> None:
    """Raises GrammarError for a keyword that xgrammar would pass over."""
    if isinstance(schema, list):
        for one in schema:
            _check_keywords(one)
    if not isinstance(schema, dict):
        return
    unknown = sorted(set(schema) - _KEYWORDS)
    if unknown:
        raise GrammarError(
            f"xgrammar does not know the keyword {unknown[0][:40]!r}; use guidance for it"
        )
    for key, value in schema.items():
        if key in _INSIDE and isinstance(value, dict):
            for one in value.values():
                _check_keywords(one)
        elif key in ("additionalProperties", "items", "prefixItems", "anyOf"):
            _check_keywords(value)


def _check_schemas(tag: Any) -> None:
    """Checks every schema inside a structural tag. Raises GrammarError."""
    if isinstance(tag, list):
        for one in tag:
            _check_schemas(one)
    elif isinstance(tag, dict):
        for key, value in tag.items():
            if key in ("json_schema", "schema"):
                _check_keywords(read_schema(json.dumps(value)))
            else:
                _check_schemas(value)


def _tree_of(tag: Any) -> str:
    """A structural tag in the newer form."""
    if isinstance(tag, dict) and "format" not in tag:
        tags = [
            {
                "type": "tag",
                "begin": one.get("begin"),
                "content": {"type": "json_schema", "json_schema": one.get("schema", {})},
                "end": one.get("end", ""),
            }
            for one in tag.get("structures") or []
        ]
        tree = {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": tags}
        return json.dumps({"type": "structural_tag", "format": tree})
    return json.dumps(tag)
