"""What a chat answer says: messages, their log-probabilities, usage, and the pieces of a stream.

Running the request is `server.turns`; HTTP around it is the route.
"""

from __future__ import annotations

from typing import Any

from quire.protocol.message import CallDelta, MessageDelta
from quire.protocol.results import CompletionOutput, Logprob, RequestOutput
from quire.server.call_output import new_calls, whole_calls
from quire.server.completion_output import encode, finite, prompt_logprobs
from quire.server.face import Decoder
from quire.server.schema.chat import ChatRequest
from quire.server.schema.common import Usage, sum_of, usage_of
from quire.server.turns import Piece, Prepared, TurnNews


class ChatLog:
    """The `logprobs` object of one choice, built token by token; `take` gives what is new.

    Bytes are the tokens' own: joined, they are the text with characters that several tokens share.
    """

    def __init__(self, tokenizer: Decoder, num_top: int, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._num_top = num_top
        self._as_ids = as_ids
        self._entries: list[dict[str, Any]] = []

    def add_all(self, piece: CompletionOutput) -> None:
        """The tokens of an output with their positions."""
        for token_id, position in zip(piece.token_ids, piece.logprobs or (), strict=False):
            ranked = sorted(position.items(), key=lambda one: (one[1].rank or 0, one[0]))
            top = ranked if self._num_top == -1 else ranked[: self._num_top]
            entry = self._entry(token_id, position[token_id])
            entry["top_logprobs"] = [self._entry(one, found) for one, found in top]
            self._entries.append(entry)

    def _entry(self, token_id: int, found: Logprob) -> dict[str, Any]:
        text = f"token_id:{token_id}" if self._as_ids else found.decoded_token or ""
        data = list(self._tokenizer.token_bytes(token_id))
        return {"token": text, "logprob": finite(found.logprob), "bytes": data}

    def take(self) -> dict[str, Any]:
        """The object with what was added since the last call."""
        entries, self._entries = self._entries, []
        return {"content": entries}


class ChatChoice:
    """One choice as it grows: what is new in it, until it is taken.

    keeps_ids  whether token ids are shown.
    """

    def __init__(self, log: ChatLog | None, *, keeps_ids: bool) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[CallDelta] = []
        self.num_tokens = 0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.seed: int | None = None
        self.log = log
        self._keeps_ids = keeps_ids
        self._token_ids: list[int] = []

    def add(self, piece: Piece) -> None:
        """Works a piece in."""
        output, delta = piece.output, piece.delta
        self.finish_reason = piece.finish_reason
        self.stop_reason = output.stop_reason
        self.seed = output.seed
        self.num_tokens += len(output.token_ids)
        if delta.content:
            self.content.append(delta.content)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        self.calls += delta.calls
        if self._keeps_ids:
            self._token_ids += output.token_ids
        if self.log is not None:
            self.log.add_all(output)

    def take(self) -> MessageDelta:
        """What came since the last call."""
        found = MessageDelta(
            reasoning="".join(self.reasoning), content="".join(self.content), calls=self.calls
        )
        self.content, self.reasoning, self.calls = [], [], []
        return found

    @property
    def says_text_only(self) -> bool:
        """Whether what is new is text in a choice that goes on and shows nothing else."""
        return not (
            self.finish_reason is not None
            or self.reasoning
            or self.calls
            or self._keeps_ids
            or self.log is not None
        )

    def take_text(self) -> str:
        """The text since the last call."""
        texts = self.content
        text = texts[0] if len(texts) == 1 else "".join(texts)
        texts.clear()
        return text

    def take_ids(self) -> dict[str, Any]:
        """`token_ids` since the last call, where they are shown."""
        ids, self._token_ids = self._token_ids, []
        return {"token_ids": ids} if self._keeps_ids else {}


class ChatAnswer:
    """All choices of one chat request.

    tokenizer  needed where log-probabilities are asked for.
    echo       text that stands before every choice.
    splits     whether reasoning is looked for; where a request hides it, what tokens say is hidden too.
    """

    def __init__(
        self,
        request: ChatRequest,
        prepared: Prepared,
        *,
        role: str,
        echo: str,
        tokenizer: Decoder | None,
        as_ids: bool,
        cached_details: bool,
        splits: bool,
    ) -> None:
        self.role = role
        self.echo = echo
        self.always = not prepared.reads
        self._request = request
        self._prepared = prepared
        self._cached_details = cached_details
        self._splits = splits
        self.old_calls = request.functions is not None
        self._first: RequestOutput | None = None
        hides = splits and not request.include_reasoning
        num_top = -1 if request.logprob_token_ids is not None else request.top_logprobs or 0
        self.with_ids = request.return_token_ids and not hides
        self.choices = [
            ChatChoice(
                ChatLog(tokenizer, num_top, as_ids=as_ids)
                if tokenizer is not None and not hides
                else None,
                keeps_ids=self.with_ids,
            )
            for _ in range(request.n)
        ]

    def add(self, news: TurnNews) -> bool:
        """Works an output in; whether it is the first."""
        first = self._first is None
        if first:
            self._first = news.output
        for piece in news.pieces:
            if self.old_calls and piece.finish_reason == "tool_calls":
                piece.finish_reason = "function_call"
            self.choices[piece.index].add(piece)
        return first

    @property
    def prompt_token_ids(self) -> list[int]:
        """The ids of the prompt, from the first output on."""
        return (self._first.prompt_token_ids or []) if self._first is not None else []

    def usage(self) -> Usage:
        """Tokens so far."""
        completion = sum(choice.num_tokens for choice in self.choices)
        cached = (self._first.num_cached_tokens or 0) if self._first is not None else 0
        details = cached if self._cached_details else None
        reasoning = self._prepared.num_reasoning_tokens if self._splits else None
        return usage_of(len(self.prompt_token_ids), completion, details, reasoning)

    def whole(self) -> dict[str, Any]:
        """`choices`, `usage` and what else a single answer holds beside its head."""
        found: dict[str, Any] = {
            "choices": [self.choice(place, one) for place, one in enumerate(self.choices)],
            "usage": self.usage(),
            "prompt_logprobs": None,
        }
        if self._request.prompt_logprobs is not None and self._first is not None:
            found["prompt_logprobs"] = prompt_logprobs(self._first)
        if self._request.return_token_ids:
            found["prompt_token_ids"] = self.prompt_token_ids
        if self._request.return_prompt_text:
            found["prompt_text"] = self._prepared.prompt_text
        return found

    def choice(self, index: int, choice: ChatChoice) -> dict[str, Any]:
        """One entry of `choices`; what it says is taken out."""
        delta = choice.take()
        text = self.echo + delta.content
        calls = whole_calls(delta.calls, old=self.old_calls)
        message: dict[str, Any] = {
            "role": self.role,
            "content": text if text or not (calls or delta.reasoning) else None,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": delta.reasoning or None,
            "reasoning_content": delta.reasoning
            or None,  # its older name, which clients still read
        }
        return {
            "index": index,
            "message": message | calls,
            "logprobs": choice.log.take() if choice.log is not None else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "seed": choice.seed,
            **choice.take_ids(),
        }


def whole_batch(answers: list[ChatAnswer]) -> dict[str, Any]:
    """What one answer to several conversations holds: their choices in order, and the sum of usages."""
    usages = [one.usage() for one in answers]
    found: dict[str, Any] = {
        "choices": [one.choice(place, one.choices[0]) for place, one in enumerate(answers)],
        "usage": sum_of(usages),
        "prompt_logprobs": None,
    }
    return found


_OPEN = b',"finish_reason":null,"stop_reason":null'
_GOES_ON = b'},"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
"""The end of an event whose choice goes on."""


class ChatChunkWriter:
    """Writes the events of a chat stream; what does not change is encoded once."""

    def __init__(self, request_id: str, created: int, model: str, fingerprint: str | None) -> None:
        head = {"id": request_id, "object": "chat.completion.chunk", "created": created}
        self._head = b"data: " + encode(head | {"model": model})[:-1]
        self._end = b',"system_fingerprint":' + encode(fingerprint) + b"}\n\n"
        self._heads: dict[int, bytes] = {}

    def _text(self, index: int, text: str) -> bytes:
        """`piece` for what most tokens bring, from parts made once."""
        head = self._heads.get(index)
        if head is None:
            head = self._head + b',"choices":[{"index":%d,"delta":{"content":' % index
            self._heads[index] = head
        return head + encode(text) + _GOES_ON

    def first(self, answer: ChatAnswer, usage: Usage | None, *, with_ids: bool) -> bytes:
        """An event for each choice with its role, and one with the echo."""
        ids = answer.prompt_token_ids if with_ids else None
        events = []
        for index in range(len(answer.choices)):
            begin = {"role": answer.role, "content": ""}
            events.append(self._event(index, begin, None, {}, usage, _OPEN, ids=ids))
            if answer.echo:
                text = {"content": answer.echo}
                events.append(self._event(index, text, None, {}, usage, _OPEN))
        return b"".join(events)

    def piece(self, index: int, answer: ChatAnswer, usage: Usage | None) -> bytes:
        """The event with what is new in a choice, which is taken out; nothing where all is held back,
        unless the answer is not split."""
        choice = answer.choices[index]
        if usage is None and choice.content and choice.says_text_only:
            return self._text(index, choice.take_text())
        found = choice.take()
        ended = choice.finish_reason is not None
        if not (found or ended or answer.always):
            return b""
        delta: dict[str, Any] = {}
        if found.reasoning:
            delta["reasoning"] = delta["reasoning_content"] = found.reasoning
        if found.content or answer.always:
            delta["content"] = found.content
        if found.calls:
            delta |= new_calls(found.calls, old=answer.old_calls)
        end = _OPEN
        if ended:
            end = b',"finish_reason":' + encode(choice.finish_reason)
            end += b',"stop_reason":' + encode(choice.stop_reason)
            end += b',"seed":' + encode(choice.seed)
        logprobs = choice.log.take() if choice.log is not None else None
        return self._event(index, delta, logprobs, choice.take_ids(), usage, end, last=ended)

    def _event(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None,
        extra: dict[str, Any],
        usage: Usage | None,
        end: bytes,
        *,
        last: bool = False,
        ids: list[int] | None = None,
    ) -> bytes:
        parts = [self._head, b',"choices":[{"index":%d,"delta":' % index, encode(delta)]
        parts += [b',"logprobs":', encode(logprobs), end]
        if extra:
            parts.append(b"," + encode(extra)[1:-1])
        parts.append(b"}]")
        if usage is not None:
            parts.append(b',"usage":' + encode(usage))
        if ids is not None:
            parts.append(b',"prompt_token_ids":' + encode(ids))
        parts.append(self._end if last else b"}\n\n")
        return b"".join(parts)

    def usage(self, usage: Usage) -> bytes:
        """The event behind the last piece that holds only the usage."""
        return self._head + b',"choices":[],"usage":' + encode(usage) + self._end
