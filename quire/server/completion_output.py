"""What a completions answer says: choices, their log-probabilities, usage, and the pieces of a stream.

Running the request is `server.generation`; HTTP around it is the route.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from quire.protocol.results import CompletionOutput, Logprob, RequestOutput
from quire.server.face import Decoder
from quire.server.schema.common import Usage, num_prompt_tokens, usage_of
from quire.server.schema.completions import CompletionRequest

_LOWEST = -9999.0
"""What JSON says for minus infinity."""

_GOES_ON = b',"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'

encode = msgspec.json.Encoder().encode


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if logprob > _LOWEST else _LOWEST


class LogprobLog:
    """The `logprobs` object of one choice, built token by token; `text_offset` runs through its text."""

    def __init__(self, *, as_ids: bool) -> None:
        self._as_ids = as_ids
        self._offset = 0
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._top: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def add(
        self, token_id: int, text: str, position: dict[int, Logprob] | None, *, shown: bool = True
    ) -> None:
        """One token; `position` None for the first of a prompt, which has no log-probability.

        shown  whether its text is in the choice's text: a start token of the tokenizer's is not.
        """
        self._tokens.append(self._name(token_id, text))
        self._offsets.append(self._offset)
        if shown:
            self._offset += len(text)
        if position is None:
            self._logprobs.append(None)
            self._top.append(None)
            return
        self._logprobs.append(finite(position[token_id].logprob))
        top: dict[str, float] = {}
        for one, found in position.items():
            name = self._name(one, found.decoded_token or "")
            top[name] = max(finite(found.logprob), top.get(name, _LOWEST))
        self._top.append(top)

    def add_all(self, token_ids: Sequence[int], positions: Sequence[dict[int, Logprob]]) -> None:
        """Tokens of an output with their positions."""
        for token_id, position in zip(token_ids, positions, strict=False):
            self.add(token_id, position[token_id].decoded_token or "", position)

    def _name(self, token_id: int, text: str) -> str:
        return f"token_id:{token_id}" if self._as_ids else text

    def take(self) -> dict[str, Any]:
        """The object with what was added since the last call."""
        found = {
            "tokens": self._tokens,
            "token_logprobs": self._logprobs,
            "top_logprobs": self._top,
            "text_offset": self._offsets,
        }
        self._clear()
        return found


class Echo:
    """The prompt as an echo shows it.

    pieces  (id, text, position) of each token, where log-probabilities are asked for.
    """

    def __init__(self, output: RequestOutput, tokenizer: Decoder | None, *, logprobs: bool) -> None:
        ids = output.prompt_token_ids or []
        self.text = output.prompt
        if self.text is None:
            assert tokenizer is not None
            self.text = tokenizer.decode(ids)
        self.pieces: list[tuple[int, str, dict[int, Logprob] | None]] = []
        if not logprobs or not ids:
            return
        assert tokenizer is not None
        positions = output.prompt_logprobs or [None]
        for token_id, position in zip(ids, positions, strict=False):
            text = tokenizer.decode([token_id]) if position is None else None
            if text is None and position is not None:
                text = position[token_id].decoded_token
            self.pieces.append((token_id, text or "", position))


class Choice:
    """One choice as it grows; `take` gives what is new, `whole` everything."""

    def __init__(self, index: int, request: CompletionRequest, *, as_ids: bool) -> None:
        self.index = index
        self.texts: list[str] = []
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.seed: int | None = None
        self.cumulative_logprob: float | None = None
        self.log = LogprobLog(as_ids=as_ids) if request.logprobs is not None else None
        self._empty = request.max_tokens == 0

    def echo(self, echo: Echo) -> None:
        """Puts the prompt in front."""
        self.texts.append(echo.text or "")
        if self.log is not None:
            at_start = echo.text or ""
            for place, (token_id, text, position) in enumerate(echo.pieces):
                shown = place > 0 or at_start.startswith(text)
                self.log.add(token_id, text, position, shown=shown)

    def add(self, piece: CompletionOutput) -> None:
        """Works a piece of the output in."""
        self.finish_reason = piece.finish_reason
        self.stop_reason = piece.stop_reason
        self.seed = piece.seed
        if self._empty:
            if piece.finish_reason is not None:
                self.finish_reason, self.stop_reason = "length", None
            return
        self.texts.append(piece.text)
        self.token_ids += piece.token_ids
        self.cumulative_logprob = piece.cumulative_logprob
        if self.log is not None and piece.logprobs:
            self.log.add_all(piece.token_ids, piece.logprobs)

    def mean_logprob(self) -> float:
        """The mean log-probability of its tokens, by which the best of several is chosen."""
        return (self.cumulative_logprob or 0.0) / max(1, len(self.token_ids))

    def whole(self, index: int, extra: dict[str, Any]) -> dict[str, Any]:
        """The choice of a single answer."""
        return {
            "index": index,
            "text": "".join(self.texts),
            "logprobs": self.log.take() if self.log is not None else None,
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
            "seed": self.seed,
            **extra,
        }


class Answer:
    """All choices of one request over its prompts; a stream is written piece by piece from it."""

    def __init__(
        self,
        request: CompletionRequest,
        num_prompts: int,
        *,
        tokenizer: Decoder | None,
        as_ids: bool,
        cached_details: bool,
    ) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._cached_details = cached_details
        self._width = request.best_of or request.n
        self._choices = [
            [Choice(index, request, as_ids=as_ids) for index in range(self._width)]
            for _ in range(num_prompts)
        ]
        self._first: list[RequestOutput | None] = [None] * num_prompts
        self._cached: list[int] = [0] * num_prompts

    def add(self, place: int, output: RequestOutput) -> list[tuple[int, Choice, bool]]:
        """Works an output in; (index in the answer, choice, whether this is its first) for each in it."""
        first = self._first[place] is None
        choices = self._choices[place]
        if first:
            self._first[place] = output
            self._cached[place] = output.num_cached_tokens or 0
            if self._request.echo:
                wants = self._request.logprobs is not None
                echo = Echo(output, self._tokenizer, logprobs=wants)
                for choice in choices:
                    choice.echo(echo)
        found = []
        for piece in output.outputs:
            choice = choices[piece.index]
            choice.add(piece)
            found.append((place * self._width + piece.index, choice, first))
        return found

    def usage(self) -> Usage:
        """Tokens so far."""
        prompt = sum(num_prompt_tokens(one) for one in self._first if one is not None)
        completion = sum(len(choice.token_ids) for row in self._choices for choice in row)
        return usage_of(prompt, completion, sum(self._cached) if self._cached_details else None)

    def choices(self) -> list[dict[str, Any]]:
        """The choices of a single answer, by prompt; of `best_of` only the n best."""
        found: list[dict[str, Any]] = []
        for place, row in enumerate(self._choices):
            kept = row
            if self._width > self._request.n:
                kept = sorted(row, key=lambda choice: -choice.mean_logprob())[: self._request.n]
            for choice in kept:
                found.append(choice.whole(len(found), self._extra(place, choice)))
        return found

    def _extra(self, place: int, choice: Choice) -> dict[str, Any]:
        output = self._first[place]
        extra: dict[str, Any] = {}
        if self._request.return_token_ids:
            extra["token_ids"] = choice.token_ids
            extra["prompt_token_ids"] = output.prompt_token_ids if output is not None else None
        if self._request.prompt_logprobs is not None:
            extra["prompt_logprobs"] = prompt_logprobs(output) if output is not None else None
        return extra

    def prompt_token_ids(self, place: int) -> list[int]:
        """The ids of a prompt whose first output has come."""
        output = self._first[place]
        return (output.prompt_token_ids or []) if output is not None else []

    @property
    def width(self) -> int:
        """Choices of each prompt."""
        return self._width


def prompt_logprobs(output: RequestOutput) -> list[dict[str, Any] | None]:
    """`prompt_logprobs` of a choice: null, then id -> logprob, rank, decoded_token for each token."""
    return [
        None
        if position is None
        else {
            str(token_id): {
                "logprob": finite(one.logprob),
                "rank": one.rank,
                "decoded_token": one.decoded_token,
            }
            for token_id, one in position.items()
        }
        for position in output.prompt_logprobs or []
    ]


class ChunkWriter:
    """Writes the events of a completions stream; what does not change is encoded once."""

    def __init__(self, request_id: str, created: int, model: str, fingerprint: str | None) -> None:
        head = {"id": request_id, "object": "text_completion", "created": created, "model": model}
        self._head = b"data: " + encode(head)[:-1]
        self._end = b',"system_fingerprint":' + encode(fingerprint) + b"}\n\n"
        self._heads: dict[int, bytes] = {}

    def _text(self, index: int, choice: Choice) -> bytes:
        """`piece` for what most tokens bring: text, in a choice that goes on and shows nothing else."""
        texts = choice.texts
        text = texts[0] if len(texts) == 1 else "".join(texts)
        texts.clear()
        head = self._heads.get(index)
        if head is None:
            head = self._heads[index] = self._head + b',"choices":[{"index":%d,"text":' % index
        return head + encode(text) + _GOES_ON

    def piece(
        self,
        index: int,
        choice: Choice,
        extra: dict[str, Any] | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """The event with what is new in a choice, whose texts are taken out."""
        if choice.finish_reason is None and choice.log is None and not extra and usage is None:
            return self._text(index, choice)
        text = "".join(choice.texts)
        choice.texts.clear()
        parts = [
            self._head,
            b',"choices":[{"index":%d,"text":' % index,
            encode(text),
            b',"logprobs":',
            encode(choice.log.take()) if choice.log is not None else b"null",
        ]
        if choice.finish_reason is None:
            parts.append(b',"finish_reason":null,"stop_reason":null')
        else:
            parts += [b',"finish_reason":', encode(choice.finish_reason)]
            parts += [b',"stop_reason":', encode(choice.stop_reason)]
            parts.append(b',"seed":' + encode(choice.seed))
        if extra:
            parts.append(b"," + encode(extra)[1:-1])
        parts.append(b"}]")
        if usage is not None:
            parts.append(b',"usage":' + encode(usage))
        parts.append(self._end if choice.finish_reason is not None else b"}\n\n")
        return b"".join(parts)

    def usage(self, usage: Usage) -> bytes:
        """The event behind the last piece that holds only the usage."""
        return self._head + b',"choices":[],"usage":' + encode(usage) + self._end
