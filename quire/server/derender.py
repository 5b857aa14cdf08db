"""From token ids back to text: answers of /inference/v1/generate as outputs that chats and completions read.

A stream is carried by the client: its state is the ids so far, which are read again with each piece.
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec

from quire.protocol.results import CompletionOutput, Logprob, PositionDict, RequestOutput
from quire.server.face import Decoder
from quire.server.schema.render import Generated, GeneratedChoice
from quire.server.schema.sampling import refuse

_OPEN = "\ufffd"  # what the tokenizer shows for a character that is not whole yet
_NAME = "token_id:"
_WINDOW = 8  # ids that may share a character with the next one, with some to spare


class TextReader:
    """Makes text of ids as the front does: whole characters, and nothing behind a stop string."""

    def __init__(self, tokenizer: Decoder, *, skip_special: bool, keeps_stop: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._keeps_stop = keeps_stop

    def text(self, choice: GeneratedChoice) -> str:
        """The text of all ids; a character that is not whole is left out while the choice runs."""
        text = self._tokenizer.decode(choice.token_ids, skip_special_tokens=self._skip_special)
        if choice.finish_reason is None:
            text = text.rstrip(_OPEN)
        if isinstance(choice.stop_reason, str) and choice.stop_reason in text:
            end = text.index(choice.stop_reason)
            text = text[: end + len(choice.stop_reason) * self._keeps_stop]
        return text

    def logprobs(self, choice: GeneratedChoice) -> list[PositionDict] | None:
        """The positions that `token_output.entries` wrote."""
        if choice.logprobs is None:
            return None
        found = []
        for place, entry in enumerate(choice.logprobs.get("content") or ()):
            before = choice.token_ids[max(0, place - _WINDOW) : place]
            position: PositionDict = {}
            for one in (entry, *(entry.get("top_logprobs") or ())):
                token_id = _id_of(one)
                word = self._word(before, token_id)
                position[token_id] = Logprob(float(one["logprob"]), one.get("rank"), word)
            found.append(position)
            if place == len(choice.token_ids) - 1 and choice.finish_reason is not None:
                last = _id_of(entry)
                position[last].decoded_token = self._word(before, last, is_last=True)
        return found

    def _word(self, before: list[int], token_id: int, *, is_last: bool = False) -> str:
        """What a token adds to the text of the ids before it; nothing while a character is not whole."""
        reader = codecs.getincrementaldecoder("utf-8")("replace")
        reader.decode(b"".join(map(self._tokenizer.token_bytes, before)))
        return reader.decode(self._tokenizer.token_bytes(token_id), final=is_last)


def _id_of(entry: Any) -> int:
    name = entry.get("token") if isinstance(entry, dict) else None
    number = name.removeprefix(_NAME) if isinstance(name, str) else ""
    if not number.isdecimal() or not isinstance(entry.get("logprob"), (int, float)):
        refuse("generate_response", "logprobs must name tokens as token_id:N, each with a logprob")
    return int(number)


def output_of(
    generated: Generated,
    reader: TextReader,
    *,
    prompt_token_ids: list[int],
    known: dict[int, list[int]] | None = None,
) -> RequestOutput:
    """The answer as an output of kind DELTA. `known` are the ids of each choice that came before."""
    outputs = []
    for choice in generated.choices:
        logprobs = reader.logprobs(choice)
        before = (known or {}).get(choice.index, [])
        shown = len(reader.text(GeneratedChoice(token_ids=before))) if before else 0
        whole = msgspec.structs.replace(choice, token_ids=before + choice.token_ids)
        outputs.append(
            CompletionOutput(
                index=choice.index,
                text=reader.text(whole)[shown:],
                token_ids=choice.token_ids,
                cumulative_logprob=_sum_of(choice, logprobs),
                logprobs=logprobs,
                finish_reason=choice.finish_reason,
                stop_reason=choice.stop_reason,
                seed=choice.seed,
            )
        )
    cached = ((generated.usage or {}).get("prompt_tokens_details") or {}).get("cached_tokens")
    return RequestOutput(
        request_id=generated.request_id,
        prompt=None,
        prompt_token_ids=prompt_token_ids,
        prompt_logprobs=None,
        outputs=outputs,
        finished=all(choice.finish_reason is not None for choice in generated.choices),
        num_cached_tokens=cached if isinstance(cached, int) else None,
    )


def _sum_of(choice: GeneratedChoice, logprobs: list[PositionDict] | None) -> float | None:
    if logprobs is None:
        return None
    pairs = zip(choice.token_ids, logprobs, strict=False)
    return sum(position[one].logprob for one, position in pairs if one in position)
