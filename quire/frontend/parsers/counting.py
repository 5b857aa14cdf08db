"""How many of the ids of an output belong to its reasoning.

Exact where tags are single tokens; elsewhere ids of a piece that has both are shared out by characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quire.frontend.parsers.formats import ThinkFormat
from quire.frontend.tokenizer import Tokenizer


class ReasoningCount:
    """Counts as pieces come; the tags themselves do not count.

    ends  texts that end the reasoning, those of calls included where they do.
    """

    def __init__(
        self,
        think: ThinkFormat | None,
        ends: Iterable[str],
        tokenizer: Tokenizer | None,
        *,
        inside: bool,
    ) -> None:
        self.total = 0
        self._inside = inside
        self._again = think is not None and (think.again or not inside)
        self._keeps_again = think is not None and think.again
        self._starts = single_ids(think.starts if think else (), tokenizer)
        self._ends = single_ids(ends, tokenizer)
        self._by_ids = bool(self._starts and self._ends)

    def add(self, token_ids: Sequence[int], num_reasoning: int, num_characters: int) -> None:
        """Takes a piece: its ids, and how many of its characters were reasoning."""
        if not self._by_ids:
            if num_reasoning >= num_characters:
                self.total += len(token_ids) if num_reasoning else 0
            else:
                self.total += round(len(token_ids) * num_reasoning / num_characters)
            return
        for token_id in token_ids:
            if self._inside:
                if token_id in self._ends:
                    self._inside = False
                elif token_id not in self._starts:
                    self.total += 1
            elif self._again and token_id in self._starts:
                self._inside = True
                self._again = self._keeps_again


def single_ids(texts: Iterable[str], tokenizer: Tokenizer | None) -> frozenset[int]:
    """The ids of those texts that are one token."""
    if tokenizer is None:
        return frozenset()
    found = (tokenizer.convert_tokens_to_ids(text.strip()) for text in texts)
    return frozenset(one for one in found if one is not None)
