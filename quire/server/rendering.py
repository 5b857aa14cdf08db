"""Requests of clients as requests in token ids, and answers in token ids as answers for clients.

HTTP around it is `routes.render`; the forms are `server.schema.inference` and `server.schema.render`.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from quire.protocol.chat import ChatPrompt
from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.server.body import convert
from quire.server.chat_output import ChatAnswer, ChatChunkWriter
from quire.server.chat_turn import answer_of, turn_of
from quire.server.completion_output import Answer, ChunkWriter
from quire.server.completion_params import sampling_params, tokenization_kwargs
from quire.server.derender import TextReader, output_of
from quire.server.face import Face
from quire.server.generation import Job
from quire.server.schema.chat import ChatRequest, check_chat
from quire.server.schema.completions import CompletionRequest, check, read_prompts
from quire.server.schema.inference import params_to_wire
from quire.server.schema.render import Generated, GeneratedChoice
from quire.server.schema.sampling import refuse
from quire.server.state import ServerState
from quire.server.turns import Prepared, Turn, prepare


class Seen(msgspec.Struct, kw_only=True):
    """What a client carries between two pieces of a stream: the ids of each choice so far."""

    token_ids: dict[int, list[int]] = {}


def _own_ids(request_id: str, place: int, many: bool) -> str:
    return f"{request_id}-{place}" if many else request_id


async def rendered_chat(
    state: ServerState, llm: Face, request: ChatRequest, request_id: str
) -> dict[str, Any]:
    """The request in token ids that a checked chat request stands for. Raises InvalidRequestError."""
    prepared = await _prepared(state, llm, request, request_id)
    return _wire(request, prepared.job, request_id, prepared.params)


async def _prepared(
    state: ServerState, llm: Face, request: ChatRequest, request_id: str
) -> Prepared:
    turn = turn_of(
        state, llm, request, request.messages, request_id=request_id, priority=request.priority
    )
    return await prepare(state, llm, turn)


async def rendered_completion(
    state: ServerState, llm: Face, request: CompletionRequest, request_id: str
) -> list[dict[str, Any]]:
    """One request in token ids for each prompt. Raises InvalidRequestError."""
    params = sampling_params(request, llm.default_sampling_values())
    found = []
    prompts = read_prompts(request.prompt, max_prompts=state.config.max_num_prompts)
    for place, prompt in enumerate(prompts):
        name = _own_ids(request_id, place, len(prompts) > 1)
        job = Job(
            prompt=await _ids_of(llm, request, prompt, params),
            params=params,
            request_id=name,
            max_tokens_given=request.max_tokens is not None,
        )
        found.append(_wire(request, job, name, params))
    return found


async def _ids_of(
    llm: Face, request: CompletionRequest, prompt: str | list[int], params: SamplingParams
) -> list[int]:
    how = tokenization_kwargs(request)
    if not request.add_special_tokens:
        how["add_special_tokens"] = False
    return await llm.render_prompt(prompt, how or None, params.max_tokens)


def _wire(
    request: ChatRequest | CompletionRequest, job: Job, request_id: str, params: SamplingParams
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "request_id": request_id,
        "model": request.model,
        "token_ids": job.prompt,
        "sampling_params": params_to_wire(params),
        "stream": request.stream,
        "stream_options": request.stream_options,
        "cache_salt": request.cache_salt,
        "priority": request.priority,
    }
    return {name: value for name, value in found.items() if value is not None}


class ChatBack:
    """Answers in token ids as answers to one chat request; without the request, as plain text."""

    def __init__(
        self, state: ServerState, llm: Face, request: ChatRequest, prepared: Prepared, model: str
    ) -> None:
        self._state = state
        self._llm = llm
        self._request = request
        self._prepared = prepared
        self._model = model

    @classmethod
    async def open(
        cls,
        state: ServerState,
        llm: Face,
        body: dict[str, Any] | None,
        generated: Generated,
        *,
        model: str,
        num_prompt: int,
    ) -> ChatBack:
        """Reads the chat request, if there is one. Raises InvalidRequestError."""
        if body is None:
            n = max((choice.index for choice in generated.choices), default=0) + 1
            messages: list[Any] = [{"role": "user", "content": ""}]
            request = ChatRequest(messages=messages, n=n)
            params = SamplingParams(n=n, output_kind=RequestOutputKind.DELTA)
            turn = Turn(messages=messages, params=params, request_id="")
            job = Job(prompt=[], params=params, request_id="", max_tokens_given=False)
            prompt = ChatPrompt(text="", token_ids=[0] * num_prompt, template_kwargs={})
            return cls(state, llm, request, Prepared(turn, job, prompt, None), model)
        request, _ = convert(body, ChatRequest, strict=False)
        check_chat(
            request,
            max_choices=state.config.max_num_choices,
            max_logprobs=state.settings.model.max_logprobs,
            trusts_templates=state.config.trust_request_chat_template,
        )
        prepared = await _prepared(state, llm, request, generated.request_id)
        return cls(state, llm, request, prepared, model)

    async def _reader(self) -> TextReader:
        params = self._prepared.params
        return TextReader(
            await self._llm.get_tokenizer(),
            skip_special=params.skip_special_tokens,
            keeps_stop=params.include_stop_str_in_output,
        )

    async def _answer(self) -> ChatAnswer:
        messages = self._request.messages
        return await answer_of(self._state, self._llm, self._request, self._prepared, messages)

    async def whole(self, generated: Generated) -> dict[str, Any]:
        """The chat completion."""
        _check_width(generated, self._request.n)
        answer = await self._answer()
        ids = self._prepared.prompt_token_ids
        output = output_of(generated, await self._reader(), prompt_token_ids=ids)
        answer.add(self._prepared.take(output))
        return {
            **_head("chatcmpl-", "chat.completion", generated, self._model),
            **answer.whole(),
            "system_fingerprint": self._state.fingerprint(),
        }

    async def piece(self, generated: Generated, seen: Seen) -> dict[str, Any] | None:
        """The chunk that this piece adds; None where all of it is held back."""
        _check_width(generated, self._request.n)
        answer, reader = await self._answer(), await self._reader()
        ids = self._prepared.prompt_token_ids
        for old in _before(generated, seen):
            answer.add(self._prepared.take(output_of(old, reader, prompt_token_ids=ids)))
            for choice in answer.choices:
                choice.take()
        output = output_of(generated, reader, prompt_token_ids=ids, known=seen.token_ids)
        news = self._prepared.take(output)
        answer.add(news)
        head = _head("chatcmpl-", "chat.completion.chunk", generated, self._model)
        writer = ChatChunkWriter(head["id"], head["created"], self._model, None)
        events = [writer.piece(piece.index, answer, None) for piece in news.pieces]
        chunks = [msgspec.json.decode(one.removeprefix(b"data: ")) for one in events if one]
        if not chunks:
            return None
        chunk: dict[str, Any] = chunks[0]
        chunk["choices"] = [one["choices"][0] for one in chunks]
        for one in chunk["choices"]:
            if one["index"] not in seen.token_ids:
                one["delta"] = {"role": answer.role} | one["delta"]
        return chunk


class CompletionBack:
    """Answers in token ids as answers to one completions request; without the request, as plain text."""

    def __init__(
        self,
        state: ServerState,
        llm: Face,
        body: dict[str, Any] | None,
        generated: list[Generated],
        *,
        model: str,
        num_prompt: int,
    ) -> None:
        """Raises InvalidRequestError."""
        self._state = state
        self._llm = llm
        self._model = model
        self._generated = generated
        self._num_prompt = num_prompt
        self._has_request = body is not None
        if body is None:
            indices = [choice.index for one in generated for choice in one.choices]
            self._request = CompletionRequest(prompt="", n=max(indices, default=0) + 1)
            return
        self._request, _ = convert(body, CompletionRequest, strict=False)
        check(self._request, max_choices=state.config.max_num_choices)

    async def _prompts(self) -> list[list[int]]:
        if not self._has_request:
            return [[0] * self._num_prompt for _ in self._generated]
        request = self._request
        params = sampling_params(request, self._llm.default_sampling_values())
        prompts = read_prompts(request.prompt, max_prompts=self._state.config.max_num_prompts)
        if len(prompts) != len(self._generated):
            refuse(
                "generate_responses",
                f"there are {len(self._generated)} answers for {len(prompts)} prompts; send one for each",
            )
        return [await _ids_of(self._llm, request, one, params) for one in prompts]

    async def _parts(self) -> tuple[Answer, TextReader, list[list[int]]]:
        tokenizer, request = await self._llm.get_tokenizer(), self._request
        answer = Answer(
            request,
            len(self._generated),
            tokenizer=tokenizer,
            as_ids=bool(request.return_tokens_as_token_ids),
            cached_details=self._state.config.enable_prompt_tokens_details,
        )
        reader = TextReader(
            tokenizer,
            skip_special=request.skip_special_tokens,
            keeps_stop=request.include_stop_str_in_output,
        )
        for one in self._generated:
            _check_width(one, request.best_of or request.n)
        return answer, reader, await self._prompts()

    async def whole(self) -> dict[str, Any]:
        """The completion."""
        answer, reader, prompts = await self._parts()
        for place, one in enumerate(self._generated):
            answer.add(place, output_of(one, reader, prompt_token_ids=prompts[place]))
        return {
            **_head("cmpl-", "text_completion", self._generated[0], self._model),
            "choices": answer.choices(),
            "usage": answer.usage(),
            "system_fingerprint": self._state.fingerprint(),
        }

    async def piece(self, seen: Seen) -> dict[str, Any]:
        """The chunk that the piece of one prompt adds."""
        answer, reader, prompts = await self._parts()
        piece, ids = self._generated[0], prompts[0]
        head = _head("cmpl-", "text_completion", piece, self._model)
        writer = ChunkWriter(head["id"], head["created"], self._model, None)
        for old in _before(piece, seen):
            for index, choice, _ in answer.add(0, output_of(old, reader, prompt_token_ids=ids)):
                writer.piece(index, choice)
        output = output_of(piece, reader, prompt_token_ids=ids, known=seen.token_ids)
        events = [writer.piece(index, choice) for index, choice, _ in answer.add(0, output)]
        chunks = [msgspec.json.decode(one.removeprefix(b"data: ")) for one in events]
        return head | {"choices": [one["choices"][0] for one in chunks]}


def _head(prefix: str, kind: str, generated: Generated, model: str) -> dict[str, Any]:
    name = generated.request_id[:256]
    return {
        "id": name if name.startswith(prefix) else prefix + name,
        "object": kind,
        "created": generated.created or int(time.time()),
        "model": model,
    }


def _check_width(generated: Generated, n: int) -> None:
    if any(choice.index >= n for choice in generated.choices):
        refuse("generate_response", f"there is a choice of an index beyond n, which is {n}")


def _before(generated: Generated, seen: Seen) -> list[Generated]:
    """The choices of a piece as they were before it, each as a piece of its own."""
    indices = [choice.index for choice in generated.choices if choice.index in seen.token_ids]
    return [
        Generated(choices=[GeneratedChoice(index=index, token_ids=seen.token_ids[index])])
        for index in indices
    ]


def next_seen(generated: Generated, seen: Seen) -> dict[str, Any]:
    """What the client carries to the next piece."""
    ids = {index: list(known) for index, known in seen.token_ids.items()}
    for choice in generated.choices:
        ids[choice.index] = ids.get(choice.index, []) + choice.token_ids
    return {"token_ids": {str(index): known for index, known in ids.items()}}


def read_seen(value: Any, *, vocab_size: int) -> Seen:
    """What a client carried. Raises InvalidRequestError."""
    if value is None:
        return Seen()
    try:
        seen = msgspec.convert(value, Seen, strict=False)
    except msgspec.ValidationError as error:
        message = str(error).replace("`", "")
        raise InvalidRequestError(f"stream_state: {message}", param="stream_state") from None
    for ids in seen.token_ids.values():
        if any(not 0 <= one < vocab_size for one in ids):
            refuse("stream_state", "stream_state has a token id that the model does not have")
    return seen
