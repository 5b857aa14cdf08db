"""Where special tokens stand in a text, told from text that only looks like them.

A model that is asked to repeat `<|call|>` writes it with ordinary tokens; only the special token itself is
a mark of the format. Formats whose tags are ordinary text cannot tell these apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.frontend.detokenizer import detokenizer_of
from quire.frontend.tokenizer import Tokenizer

_CONTEXT = 256  # ids of the prompt that the first piece of text may depend on


class SpecialPlaces:
    """Follows an output by its ids, in text that shows special tokens.

    As soon as the fed text is not what the ids decode to, as it is where no ids are given, nothing is
    known and every tag counts.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._texts = dict(
            zip(
                tokenizer.all_special_ids,
                tokenizer.convert_ids_to_tokens(tokenizer.all_special_ids),
            )
        )
        self._detokenizer = detokenizer_of(
            tokenizer.raw, prompt_ids=list(prompt_ids[-_CONTEXT:]), skip_special_tokens=False
        )
        self._length = 0
        self._expected = ""
        self._starts: set[int] = set()
        self._guarded: dict[str, bool] = {}
        self._knows = True

    def add(self, text: str, token_ids: Sequence[int]) -> None:
        """Takes the next piece of output. Its text may lag behind its ids."""
        if not self._knows:
            return
        pieces = [self._expected]
        for token_id in token_ids:
            piece = self._detokenizer.append([token_id])
            pieces.append(piece)
            self._length += len(piece)
            if token_id in self._texts:
                self._starts.add(self._length - len(self._texts[token_id]))
        expected = "".join(pieces)
        self._knows = expected.startswith(text)
        self._expected = expected[len(text) :]

    def is_real(self, tag: str, at: int) -> bool:
        """Whether a tag that stands at the character `at` of the output is one."""
        if not self._knows or at in self._starts:
            return True
        guarded = self._guarded.get(tag)
        if guarded is None:
            guarded = self._guarded[tag] = tag.startswith(tuple(self._texts.values()))
        return not guarded
