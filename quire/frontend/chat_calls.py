"""What the offline face does with conversations: one or many, each made a prompt of token ids.

Rendering one is `frontend.chat`; running the prompts is `quire.llm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.frontend.inputs import InputProcessor, at_place
from quire.protocol.chat import ChatOptions
from quire.protocol.errors import InvalidRequestError, NotServedError


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
    Raises InvalidRequestError with the place of what is wrong, NotServedError for tools.
    """
    if tools:
        raise NotServedError(
            "calling tools is not served by this version; leave tools out", param="tools"
        )
    how = dict(tokenization_kwargs or {})
    if how.pop("add_special_tokens", False):
        options = ChatOptions(**{**vars(options), "add_special_tokens": True})
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


def _is_many(messages: Any) -> bool:
    """Whether these are conversations rather than the messages of one."""
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        return False
    return isinstance(messages[0], Sequence) and not isinstance(messages[0], (str, bytes))
