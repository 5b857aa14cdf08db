"""What a chat answer says: messages, their log-probabilities, usage, and the pieces of a stream.

Running the request is `server.generation`; HTTP around it is the route.
"""

from __future__ import annotations

from typing import Any

from quire.protocol.results import CompletionOutput, Logprob, RequestOutput
from quire.server.completion_output import encode, finite, prompt_logprobs
from quire.server.face import Decoder
from quire.server.schema.chat import ChatRequest
from quire.server.schema.common import Usage, usage_of


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
    """One choice as it grows."""

    def __init__(self, log: ChatLog | None, echo: str) -> None:
        self.texts = [echo] if echo else []
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.seed: int | None = None
        self.log = log

    def add(self, piece: CompletionOutput) -> None:
        """Works a piece of the output in."""
        self.finish_reason = piece.finish_reason
        self.stop_reason = piece.stop_reason
        self.seed = piece.seed
        self.texts.append(piece.text)
        self.token_ids += piece.token_ids
        if self.log is not None:
            self.log.add_all(piece)

    def take_text(self) -> str:
        """The text since the last call."""
        text = "".join(self.texts)
        self.texts.clear()
        return text


class ChatAnswer:
    """All choices of one chat request.

    tokenizer  needed where log-probabilities are asked for.
    echo       text that stands before every choice.
    """

    def __init__(
        self,
        request: ChatRequest,
        *,
        role: str,
        echo: str,
        tokenizer: Decoder | None,
        as_ids: bool,
        cached_details: bool,
    ) -> None:
        self.role = role
        self.echo = echo
        self._request = request
        self._cached_details = cached_details
        self._first: RequestOutput | None = None
        self.choices = [
            ChatChoice(
                ChatLog(tokenizer, request.top_logprobs or 0, as_ids=as_ids)
                if tokenizer is not None
                else None,
                echo,
            )
            for _ in range(request.n)
        ]

    def add(self, output: RequestOutput) -> bool:
        """Works an output in; whether it is the first."""
        first = self._first is None
        if first:
            self._first = output
        for piece in output.outputs:
            self.choices[piece.index].add(piece)
        return first

    @property
    def prompt_token_ids(self) -> list[int]:
        """The ids of the prompt, from the first output on."""
        return (self._first.prompt_token_ids or []) if self._first is not None else []

    def usage(self) -> Usage:
        """Tokens so far."""
        completion = sum(len(choice.token_ids) for choice in self.choices)
        cached = (self._first.num_cached_tokens or 0) if self._first is not None else 0
        details = cached if self._cached_details else None
        return usage_of(len(self.prompt_token_ids), completion, details)

    def whole(self) -> dict[str, Any]:
        """`choices`, `usage` and what else a single answer holds beside its head."""
        found: dict[str, Any] = {
            "choices": [self._choice(place, one) for place, one in enumerate(self.choices)],
            "usage": self.usage(),
            "prompt_logprobs": None,
        }
        if self._request.prompt_logprobs is not None and self._first is not None:
            found["prompt_logprobs"] = prompt_logprobs(self._first)
        if self._request.return_token_ids:
            found["prompt_token_ids"] = self.prompt_token_ids
        return found

    def _choice(self, index: int, choice: ChatChoice) -> dict[str, Any]:
        message = {
            "role": self.role,
            "content": choice.take_text(),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        found = {
            "index": index,
            "message": message,
            "logprobs": choice.log.take() if choice.log is not None else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "seed": choice.seed,
        }
        if self._request.return_token_ids:
            found["token_ids"] = choice.token_ids
        return found


class ChatChunkWriter:
    """Writes the events of a chat stream; what does not change is encoded once."""

    def __init__(self, request_id: str, created: int, model: str, fingerprint: str | None) -> None:
        head = {"id": request_id, "object": "chat.completion.chunk", "created": created}
        self._head = b"data: " + encode(head | {"model": model})[:-1]
        self._end = b',"system_fingerprint":' + encode(fingerprint) + b"}\n\n"

    def first(self, answer: ChatAnswer, usage: Usage | None, *, with_ids: bool) -> bytes:
        """An event for each choice with its role, and one with the echo."""
        ids = answer.prompt_token_ids if with_ids else None
        events = []
        for index, choice in enumerate(answer.choices):
            begin = {"role": answer.role, "content": ""}
            events.append(self._event(index, begin, None, {}, usage, self._none(), ids=ids))
            if answer.echo:
                choice.texts.remove(answer.echo)
                text = {"content": answer.echo}
                events.append(self._event(index, text, None, {}, usage, self._none()))
        return b"".join(events)

    def piece(
        self, index: int, choice: ChatChoice, extra: dict[str, Any], usage: Usage | None
    ) -> bytes:
        """The event with what is new in a choice, whose texts are taken out."""
        logprobs = choice.log.take() if choice.log is not None else None
        end = self._none()
        if choice.finish_reason is not None:
            end = b',"finish_reason":' + encode(choice.finish_reason)
            end += b',"stop_reason":' + encode(choice.stop_reason)
            end += b',"seed":' + encode(choice.seed)
        return self._event(
            index,
            {"content": choice.take_text()},
            logprobs,
            extra,
            usage,
            end,
            last=choice.finish_reason is not None,
        )

    @staticmethod
    def _none() -> bytes:
        return b',"finish_reason":null,"stop_reason":null'

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
