"""What the offline face does with conversations: one or many, each made a prompt of token ids.

Rendering one is `frontend.chat`; running the prompts is `quire.llm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quire.frontend.chat_messages import plain
from quire.frontend.inputs import InputProcessor, at_place
from quire.protocol.chat import ChatOptions
from quire.protocol.checks import refuse
from quire.protocol.errors import InvalidRequestError


def read_chats(
    inputs: InputProcessor,
    messages: Any,
    options: ChatOptions,
    *,
    tools: Any = None,
    tokenization_kwargs: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A prompt with its text for each conversation, and what is left of `tokenization_kwargs`.

    messages  one conversation, which is a list of messages, or a list of conversations.
    tools     definitions in OpenAI's form that the template shows; None for none.
    Raises InvalidRequestError with the place of what is wrong.
    """
    if tools is not None:
        options = replace(options, tools=_checked_tools(tools))
    how = dict(tokenization_kwargs or {})
    if how.pop("add_special_tokens", False):
        options = replace(options, add_special_tokens=True)
    truncates = how.get("truncate_prompt_tokens") is not None
    prompts = []
    conversations = messages if _is_many(messages) else [messages]
    for place, conversation in enumerate(conversations):
        try:
            made = inputs.render_chat(conversation, options, truncates=truncates)
        except InvalidRequestError as error:
            raise at_place(error, place) if _is_many(messages) else error from error
        prompts.append({"prompt": made.text, "prompt_token_ids": made.token_ids})
    return prompts, how


def _checked_tools(tools: Any) -> list[dict[str, Any]] | None:
    found = plain(list(tools) if isinstance(tools, Sequence) else tools, "tools")
    if not isinstance(found, list):
        refuse("tools", "tools must be a list of objects, each with type and function")
    for place, tool in enumerate(found):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            refuse(
                "tools", f"tools[{place}] must be an object with type and a function with a name"
            )
    return found or None


def _is_many(messages: Any) -> bool:
    """Whether these are conversations rather than the messages of one."""
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        return False
    return isinstance(messages[0], Sequence) and not isinstance(messages[0], (str, bytes))
