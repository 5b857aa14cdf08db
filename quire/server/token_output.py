"""What an answer in token ids says: choices with ids and log-probabilities, no text.

The way back from it to text is `server.derender`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.protocol.results import CompletionOutput, Logprob, PositionDict, RequestOutput
from quire.server.completion_output import finite, prompt_logprobs
from quire.server.schema.common import Usage, num_prompt_tokens, usage_of


def entries(token_ids: Sequence[int], positions: Sequence[PositionDict]) -> list[dict[str, Any]]:
    """One entry for each token, in the form of chat log-probabilities; tokens are named by their ids."""
    found = []
    for token_id, position in zip(token_ids, positions, strict=False):
        ranked = sorted(position.items(), key=lambda one: (one[1].rank or 0, one[0]))
        entry: dict[str, Any] = _entry(token_id, position[token_id])
        entry["top_logprobs"] = [_entry(one, known) for one, known in ranked]
        found.append(entry)
    return found


def _entry(token_id: int, known: Logprob) -> dict[str, Any]:
    return {
        "token": f"token_id:{token_id}",
        "logprob": finite(known.logprob),
        "rank": known.rank,
        "bytes": None,
    }


def choice_news(piece: CompletionOutput, *, with_logprobs: bool) -> dict[str, Any]:
    """What a piece of a choice adds."""
    logprobs = None
    if with_logprobs:
        logprobs = {"content": entries(piece.token_ids, piece.logprobs or ())}
    return {
        "index": piece.index,
        "token_ids": piece.token_ids,
        "logprobs": logprobs,
        "finish_reason": piece.finish_reason,
        "stop_reason": piece.stop_reason,
        "seed": piece.seed,
        "routed_experts": None,
    }


class TokenAnswer:
    """All choices of one request, gathered from its pieces."""

    def __init__(self, n: int, *, with_logprobs: bool, cached_details: bool) -> None:
        self._with_logprobs = with_logprobs
        self._cached_details = cached_details
        self._pieces: list[list[CompletionOutput]] = [[] for _ in range(n)]
        self._first: RequestOutput | None = None

    def add(self, output: RequestOutput) -> list[dict[str, Any]]:
        """Works an output in; what it adds to the choices."""
        if self._first is None:
            self._first = output
        for piece in output.outputs:
            self._pieces[piece.index].append(piece)
        return [choice_news(one, with_logprobs=self._with_logprobs) for one in output.outputs]

    def usage(self) -> Usage:
        """Tokens so far."""
        num_tokens = sum(len(piece.token_ids) for pieces in self._pieces for piece in pieces)
        first = self._first
        prompt = num_prompt_tokens(first) if first is not None else 0
        cached = (first.num_cached_tokens or 0) if first is not None else 0
        return usage_of(prompt, num_tokens, cached if self._cached_details else None)

    def whole(self, *, with_prompt_logprobs: bool) -> dict[str, Any]:
        """`choices`, `usage` and `prompt_logprobs`."""
        choices = []
        for pieces in self._pieces:
            joined = choice_news(pieces[-1], with_logprobs=False)
            joined["token_ids"] = [one for piece in pieces for one in piece.token_ids]
            if self._with_logprobs:
                content = [
                    entry
                    for piece in pieces
                    for entry in entries(piece.token_ids, piece.logprobs or ())
                ]
                joined["logprobs"] = {"content": content}
            choices.append(joined)
        found: dict[str, Any] = {"choices": choices, "usage": self.usage(), "prompt_logprobs": None}
        if with_prompt_logprobs and self._first is not None:
            found["prompt_logprobs"] = prompt_logprobs(self._first)
        return found
