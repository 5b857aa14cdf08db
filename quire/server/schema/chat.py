"""The wire form of /v1/chat/completions: every field a request may have, and checks that need no model.

Fields shared with /v1/completions are `server.schema.sampling`; messages are checked where they are rendered.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quire.protocol.chat import ChatOptions
from quire.protocol.errors import NotServedError
from quire.server.schema.functions import names_of_functions, use_tools
from quire.server.schema.sampling import (
    SamplingFields,
    check_sampling,
    kind_of,
    refuse,
    refuse_not_served,
    short,
)
from quire.server.schema.tools import check_tools, narrowed, read_choice


class ChatRequest(SamplingFields, kw_only=True):
    """A request as sent; null fields are left out before. `messages` is checked where it is rendered."""

    messages: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    include_reasoning: bool = True
    echo: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    documents: Any = None
    chat_template: str | None = None
    chat_template_kwargs: Any = None
    return_prompt_text: bool = False
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None


_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_NOT_SERVED = {
    "mm_processor_kwargs": "images, audio and video are not served; leave mm_processor_kwargs out",
    "media_io_kwargs": "images, audio and video are not served; leave media_io_kwargs out",
    "audio": "audio is not served; leave audio out",
}


def check_chat(
    request: ChatRequest, *, max_choices: int, max_logprobs: int, trusts_templates: bool = False
) -> None:
    """Refuses what is not served and combinations that make no sense. Raises InvalidRequestError.

    Tools in the older form, and a choice that allows some of them, are rewritten: `request.tools` and a
    plain choice are all there is afterwards.
    """
    refuse_not_served(request, _NOT_SERVED)
    use_tools(request)
    with names_of_functions(request):
        if request.tools is not None:
            check_tools(request.tools)
        request.tools, request.tool_choice = narrowed(request.tools, request.tool_choice)
        read_choice(request.tool_choice, request.tools)
    if any(one != "text" for one in request.modalities or ()):
        raise NotServedError("only text is served; leave modalities out", param="modalities")
    check_sampling(request, max_choices=max_choices)
    _check_logprobs(request, max_logprobs)
    _check_template(request.chat_template, trusted=trusts_templates)
    effort = request.reasoning_effort
    if effort is not None and effort not in _EFFORTS:
        refuse(
            "reasoning_effort",
            f"reasoning_effort is {effort[:40]!r}; it must be one of {', '.join(_EFFORTS)}",
        )
    tokens = request.max_completion_tokens
    if tokens is not None and request.max_tokens not in (None, tokens):
        refuse(
            "max_tokens",
            f"max_tokens is {short(request.max_tokens or 0)} and max_completion_tokens is "
            f"{short(tokens)}; send one of them",
        )
    if request.messages is None:
        refuse("messages", "messages is missing; send a list of messages")


def check_batch(request: ChatRequest, *, most: int) -> None:
    """What a batch of conversations may not ask for. Raises InvalidRequestError."""
    messages = request.messages
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], list):
        refuse("messages", "messages must be a list of conversations, each a list of messages")
    if len(messages) > most:
        refuse("messages", f"messages has {len(messages)} conversations; the limit is {most}")
    for name, is_set in (
        ("stream", request.stream),
        ("tools", request.tools is not None),
        ("n", request.n != 1),
        ("prompt_logprobs", request.prompt_logprobs is not None),
    ):
        if is_set:
            refuse(name, f"{name} cannot be used with a batch of conversations; leave it out")


def _check_template(text: str | None, *, trusted: bool) -> None:
    if text is not None and not trusted:
        raise NotServedError(
            "a chat template in a request is not read; leave chat_template out, or start the server "
            "with --trust-request-chat-template",
            param="chat_template",
        )


def _check_logprobs(request: ChatRequest, most: int) -> None:
    wanted = request.top_logprobs
    if wanted is None:
        return
    if not request.logprobs and wanted != 0:
        refuse("top_logprobs", "top_logprobs needs logprobs; set logprobs to true or leave it out")
    if most != -1 and not 0 <= wanted <= most:
        refuse(
            "top_logprobs",
            f"top_logprobs is {short(wanted)}; it must be between 0 and {most} "
            "(start with --max-logprobs to raise it)",
        )


def chat_options(
    request: ChatRequest | TokenizeRequest,
    defaults: dict[str, Any] | None = None,
    *,
    shows_tools: bool = True,
) -> ChatOptions:
    """How the request's messages become a prompt; `defaults` are template variables below its own."""
    documents = getattr(request, "documents", None)
    if documents is not None and not (
        isinstance(documents, list) and all(isinstance(one, dict) for one in documents)
    ):
        refuse("documents", f"documents is {kind_of(documents)}; it must be a list of objects")
    own = request.chat_template_kwargs
    if own is not None and not isinstance(own, dict):
        refuse(
            "chat_template_kwargs", f"chat_template_kwargs is {kind_of(own)}; it must be an object"
        )
    variables = {**(defaults or {}), **(own or {})}
    effort = getattr(request, "reasoning_effort", None)
    if effort is not None:
        variables.setdefault("reasoning_effort", effort)
    return ChatOptions(
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        template_kwargs=variables,
        tools=request.tools if shows_tools else None,
        documents=documents,
        chat_template=request.chat_template,
        add_special_tokens=bool(request.add_special_tokens),
    )


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """A request to /tokenize: either `prompt` or `messages`; add_special_tokens is true for a prompt."""

    model: str | None = None
    prompt: Any = None
    messages: Any = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: Any = None
    tools: Any = None
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    return_token_strs: bool = False


def check_tokenize(request: TokenizeRequest, *, trusts_templates: bool = False) -> None:
    """Refuses what is not served, and both forms at once. Raises InvalidRequestError."""
    if request.tools is not None:
        check_tools(request.tools)
    _check_template(request.chat_template, trusted=trusts_templates)
    for name in ("mm_processor_kwargs", "media_io_kwargs"):
        if getattr(request, name):
            raise NotServedError(_NOT_SERVED[name], param=name)
    if request.messages is None and not isinstance(request.prompt, str):
        refuse("prompt", f"prompt is {kind_of(request.prompt)}; send a text, or messages")
    if request.messages is not None and request.prompt is not None:
        refuse("prompt", "prompt and messages are both given; send one of them")


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """A request to /detokenize."""

    model: str | None = None
    tokens: Any = None
