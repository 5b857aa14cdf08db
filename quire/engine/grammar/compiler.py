"""Compiles constraints for one vocabulary, and keeps what was compiled within a limit of bytes.

In the engine it serves sequences; in `helper` it is the trial that a constraint must pass first.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

import msgspec
import numpy as np

from quire.engine.grammar.backend import Backend, Compiled, GrammarError
from quire.models.loading.tokenizer_files import tokenizer_file
from quire.protocol.errors import ModelLoadError
from quire.protocol.request import GrammarSpec

CACHE_BYTES = 64 << 20


class Compiler:
    """One grammar engine and its compiled constraints. Safe in several threads.

    file            a tokenizer.json, or where it would be: then the older files beside it; read at the first use.
    vocab_size      rows of the model's head.
    eos_token_ids   may be empty.
    """

    def __init__(
        self,
        backend: str,
        file: str | Path,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._name = backend
        self._file = Path(file)
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._limit = cache_bytes
        self._lock = threading.Lock()
        self._backend: Backend | None = None
        self._known: OrderedDict[bytes, Compiled] = OrderedDict()
        self.size_bytes = 0

    def find(self, spec: GrammarSpec) -> Compiled | None:
        """What was compiled before, if it is still here."""
        key = digest_of(spec)
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def compile(self, spec: GrammarSpec) -> Compiled:
        """A constraint whose first mask allows something.

        Raises GrammarError for one that is wrong, not supported, too complex, or that this
        vocabulary cannot spell.
        """
        found = self.find(spec)
        if found is not None:
            return found
        made = self.load().compile(spec)
        self._check_begin(made)
        with self._lock:
            before = self._known.pop(digest_of(spec), None)
            self.size_bytes += made.size_bytes - (before.size_bytes if before else 0)
            self._known[digest_of(spec)] = made
            while self.size_bytes > self._limit:
                self.size_bytes -= self._known.popitem(last=False)[1].size_bytes
        return made

    def load(self) -> Backend:
        """The engine, its tokenizer read. Raises GrammarError."""
        with self._lock:
            if self._backend is None:
                self._backend = self._make()
            return self._backend

    def _make(self) -> Backend:
        try:
            path = self._file if self._file.is_file() else tokenizer_file(self._file.parent)
            text = path.read_text(encoding="utf-8")
        except (OSError, ModelLoadError) as error:
            raise GrammarError(f"the tokenizer cannot be read: {error}") from None
        if self._name == "xgrammar":
            from quire.engine.grammar.xgrammar import XGrammarBackend  # loads torch

            return XGrammarBackend(text, self._vocab_size, self._eos_token_ids)
        from quire.engine.grammar.guidance import GuidanceBackend  # 20 ms of a start

        return GuidanceBackend(text, self._vocab_size, self._eos_token_ids)

    def _check_begin(self, made: Compiled) -> None:
        matcher = made.matcher()
        mask = np.zeros((self._vocab_size + 31) // 32, dtype=np.uint32)
        matcher.fill(mask)
        ids = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        if len(ids):
            try:
                matcher.advance([int(ids[0])])  # what llguidance offers at a loss it does not take
                return
            except GrammarError:
                pass
        elif matcher.may_end:
            return
        raise GrammarError("no token of this model can begin an output that the constraint allows")


def digest_of(spec: GrammarSpec) -> bytes:
    """What names a constraint, wherever in the output it starts."""
    parts = (spec.kind, spec.text, sorted(spec.options.items()))
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()
