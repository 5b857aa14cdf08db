"""From what a user asks of an output's form to a `GrammarSpec` that was compiled once, on trial.

Compiling itself is `quire.engine.grammar`, in a process that `compile_helper` runs and may kill.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec

from quire.config.constraints import ConstraintOptions
from quire.frontend.compile_helper import CompileHelper, HelperDiedError, HelperSettings
from quire.protocol.checks import refuse
from quire.protocol.errors import InvalidRequestError
from quire.protocol.options import CONSTRAINTS, StructuredOutputsParams
from quire.protocol.request import GrammarSpec

MAX_TEXT = 256 * 1024
"""Characters of a schema, regex or grammar, and of all choices together."""
MAX_CHOICES = 10_000
_NUM_HELPERS = 2  # one constraint that takes all its time does not stop the next
_REMEMBERED = 4096
_FIELD = "structured_outputs"


class StructuredOutputs:
    """Checks constraints for one vocabulary and remembers the outcome. Safe in several threads."""

    def __init__(self, options: ConstraintOptions, settings: HelperSettings) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, str | None] = OrderedDict()
        self._helpers = [CompileHelper(settings) for _ in range(_NUM_HELPERS)]
        self._free = list(self._helpers)
        self._some_free = threading.Semaphore(_NUM_HELPERS)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def enable_in_reasoning(self) -> bool:
        """Whether a constraint holds for the thinking, too."""
        return self._options.enable_in_reasoning

    def spec(self, params: StructuredOutputsParams) -> GrammarSpec:
        """The constraint as the engine takes it. Blocks while it is compiled on trial, if it is new.

        Raises InvalidRequestError for one that is wrong, not supported, or too complex.
        """
        spec = self._spec_of(params)
        key = hashlib.sha256(msgspec.msgpack.encode(spec)).digest()
        with self._lock:
            is_known = key in self._known
            error = self._known.get(key)
            if is_known:
                self._known.move_to_end(key)
        if not is_known:
            error = self._try(spec, key)
        if error is not None:
            refuse(params.origin or _FIELD, f"{_place(params, spec.kind)} cannot be used: {error}")
        return spec

    def spec_later(self, params: StructuredOutputsParams) -> Future[GrammarSpec] | None:
        """Begins what `spec` does in a thread; None if it would not block."""
        spec = self._spec_of(params)
        key = hashlib.sha256(msgspec.msgpack.encode(spec)).digest()
        with self._lock:
            if key in self._known:
                return None
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_NUM_HELPERS, "quire-constraints")
            return self._pool.submit(self.spec, params)

    def close(self) -> None:
        """Ends the helpers."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for helper in self._helpers:
            helper.close()

    def _try(self, spec: GrammarSpec, key: bytes) -> str | None:
        """What is wrong with a constraint; remembered, but for a helper that was lost."""
        with self._some_free:
            with self._lock:
                helper = self._free.pop()
            try:
                error = helper.check(spec)
            except TimeoutError:
                error = "it is too complex: it takes more than 2 s to compile; simplify it"
            except HelperDiedError as death:
                reason = str(death) or (
                    "compiling it ended the process that tried: it is too complex, or the process was "
                    "killed; simplify it or try again"
                )
                return reason
            finally:
                with self._lock:
                    self._free.append(helper)
        with self._lock:
            self._known[key] = error
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return error

    def _spec_of(self, params: StructuredOutputsParams) -> GrammarSpec:
        """The spec, its size checked. Raises InvalidRequestError."""
        if params.backend not in (None, "auto", self._options.backend):
            refuse(
                _FIELD,
                f"{_FIELD}.backend is {str(params.backend)[:40]!r}, but the engine was started with "
                f"{self._options.backend!r}; leave it out or restart with --structured-outputs-config",
            )
        kind = next(kind for kind in CONSTRAINTS if getattr(params, kind) is not None)
        field, place = params.origin or _FIELD, _place(params, kind)
        text = _text_of(kind, getattr(params, kind), (field, place))
        if len(text) > MAX_TEXT:
            refuse(field, f"{place} has {len(text)} characters; the limit is {MAX_TEXT}")
        options: dict[str, bool | str] = {}
        if params.disable_any_whitespace or self._options.disable_any_whitespace:
            options["whitespace"] = False
        elif params.whitespace_pattern is not None:
            options["whitespace"] = params.whitespace_pattern
        if params.disable_additional_properties or self._options.disable_additional_properties:
            options["additional_properties"] = False
        return GrammarSpec(kind=kind, text=text, options=options)


def _place(params: StructuredOutputsParams, kind: str) -> str:
    """What errors call a constraint: where its user has written it."""
    if params.origin in ("", _FIELD):
        return f"{_FIELD}.{kind}"
    return params.origin


def _text_of(kind: str, value: Any, names: tuple[str, str]) -> str:
    """The value of a constraint as the text of a spec.

    names  its field in the request, and its place there. Raises InvalidRequestError.
    """
    field, place = names
    if kind == "json_object":
        return ""
    if kind == "choice":
        if len(value) > MAX_CHOICES:
            refuse(field, f"{place} has {len(value)} strings; the limit is {MAX_CHOICES}")
    elif isinstance(value, str):
        _check_unicode(names, value)
        return value
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{place} cannot be written as JSON: {str(error)[:200]}", param=field
        ) from None
    _check_unicode(names, text)
    return text


def _check_unicode(names: tuple[str, str], text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        field, place = names
        refuse(field, f"{place} has a lone surrogate and is not valid Unicode; remove it")
