"""What a conversation is asked to become, and what it became: the words between a face and its callers.

Rendering is `quire.frontend.chat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How messages become a prompt.

    add_generation_prompt   open an answer behind the last message.
    continue_final_message  leave the last message open, so that the model goes on with it.
    template_kwargs         further variables for the template.
    tools                   definitions that the template may show; null for none.
    documents               texts that the template may show, an object each; null for none.
    chat_template           template text in place of the model's own.
    content_format          "string", "openai" (lists of parts) or "auto" (what the template can read).
    add_special_tokens      also put the tokenizer's own special tokens around the whole prompt.
    """

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    content_format: str = "auto"
    add_special_tokens: bool = False


@dataclass(frozen=True)
class ChatPrompt:
    """A rendered conversation: its text, and its token ids, 0 ≤ id < V.

    template_kwargs  the further variables that the template was given.
    """

    text: str
    token_ids: list[int]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
