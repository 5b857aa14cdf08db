"""The wire form of /v1/chat/completions: every field a request may have, and checks that need no model.

Fields shared with /v1/completions are `server.schema.sampling`; messages are checked where they are rendered.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from quire.protocol.chat import ChatOptions
from quire.protocol.errors import NotServedError
from quire.server.schema.sampling import (
    SamplingFields,
    check_sampling,
    kind_of,
    refuse,
    refuse_not_served,
    short,
)


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
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None


MAX_TOOLS = 128
"""Tools of one request."""
_TOOL_NAME = re.compile(r"[\w.-]{1,64}")
_TOOLS = "calling tools is not served by this version; leave {} out"
_NOT_SERVED = {
    "functions": _TOOLS.format("functions"),
    "function_call": _TOOLS.format("function_call"),
    "documents": "documents for the chat template are not served; put them into a message",
    "chat_template": "a chat template in a request is not read; start with --chat-template",
    "mm_processor_kwargs": "images, audio and video are not served; leave mm_processor_kwargs out",
    "media_io_kwargs": "images, audio and video are not served; leave media_io_kwargs out",
    "audio": "audio is not served; leave audio out",
}


def check_chat(request: ChatRequest, *, max_choices: int, max_logprobs: int) -> None:
    """Refuses what is not served and combinations that make no sense. Raises InvalidRequestError."""
    refuse_not_served(request, _NOT_SERVED)
    if request.tool_choice is not None and request.tool_choice != "none":
        raise NotServedError(_TOOLS.format("tool_choice"), param="tool_choice")
    if request.tools is not None:
        _check_tools(request.tools, is_shown=request.tool_choice == "none")
    if any(one != "text" for one in request.modalities or ()):
        raise NotServedError("only text is served; leave modalities out", param="modalities")
    check_sampling(request, max_choices=max_choices)
    _check_logprobs(request, max_logprobs)
    tokens = request.max_completion_tokens
    if tokens is not None and request.max_tokens not in (None, tokens):
        refuse(
            "max_tokens",
            f"max_tokens is {short(request.max_tokens or 0)} and max_completion_tokens is "
            f"{short(tokens)}; send one of them",
        )
    if request.messages is None:
        refuse("messages", "messages is missing; send a list of messages")


def _check_tools(tools: Any, *, is_shown: bool) -> None:
    """Tools may be shown to the model, which then answers in text; calling them is not served."""
    if not isinstance(tools, list) or not tools:
        refuse("tools", f"tools is {kind_of(tools)}; it must be a list with at least one entry")
    if not is_shown:
        raise NotServedError(
            'calling tools is not served by this version; leave tools out, or set tool_choice to "none" '
            "to have them shown to the model",
            param="tools",
        )
    if len(tools) > MAX_TOOLS:
        refuse("tools", f"tools has {len(tools)} entries; the limit is {MAX_TOOLS}")
    names = set()
    for place, tool in enumerate(tools):
        path = f"tools[{place}]"
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            refuse(path, f"{path} must be an object with type function, and the function")
        name = function.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            refuse(
                f"{path}.function.name",
                f"{path} needs a name of 1 to 64 letters, digits, _, - or .",
            )
        if name in names:
            refuse(f"{path}.function.name", f"{path} has the name {name!r}, as another tool has")
        if not isinstance(function.get("parameters", {}), dict):
            refuse(f"{path}.function.parameters", f"{path} has parameters that are not an object")
        names.add(name)


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


def check_tokenize(request: TokenizeRequest) -> None:
    """Refuses what is not served, and both forms at once. Raises InvalidRequestError."""
    if request.tools is not None:
        _check_tools(request.tools, is_shown=True)
    for name in ("chat_template", "mm_processor_kwargs", "media_io_kwargs"):
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
