"""Conversations to prompts: the template's text, and its token ids.

Checking messages is `frontend.chat_messages`, running a template `frontend.chat_template`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quire.frontend.chat_messages import CallArguments, joined, plain, read_messages
from quire.frontend.chat_template import (
    ChatTemplate,
    Templates,
    chosen_template,
    find_templates,
)
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.chat import ChatOptions, ChatPrompt
from quire.protocol.checks import refuse
from quire.protocol.errors import InvalidRequestError, ModelLoadError

_NAMED_TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_RESERVED = frozenset(
    {
        "messages", "conversation", "conversations", "tools", "documents", "chat_template",
        "add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation",
        "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
        "tokenizer_kwargs", "sanitize_control_tokens", "add_special_tokens", "raise_exception",
        "strftime_now", "namespace", "dict", "range", "cycler", "joiner", *_NAMED_TOKENS,
    }
)  # fmt: skip
_MAX_KWARGS = 64
_PRIVATE = range(0xE000, 0xF900)  # characters that no text has a meaning for


class ChatRenderer:
    """The chat templates of one model with its tokenizer. Safe to use from several threads."""

    def __init__(
        self, tokenizer: Tokenizer, templates: Templates, *, content_format: str = "auto"
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = templates
        self._format = content_format
        self._compiled: dict[str, ChatTemplate] = {}
        settings = tokenizer.settings
        self._variables = {
            name: token
            for name in _NAMED_TOKENS
            if (token := _token_text(settings.get(name))) is not None
        }
        added = tokenizer.raw.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special} - {""}
        longest_first = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        tokenizer: Tokenizer,
        *,
        chat_template: str | None = None,
        content_format: str = "auto",
    ) -> ChatRenderer:
        """The templates in `folder`, or the one that `chat_template` names: a name, a file, or its text.

        Raises SettingsError for a `chat_template` that is nothing of these, ModelLoadError for one that
        cannot be read. A model without templates is no error until it is asked to chat.
        """
        known = find_templates(Path(folder), tokenizer.settings)
        if chat_template is not None:
            known = {**known, "default": chosen_template(chat_template, known)}
            known.pop("tool_use", None)
        made = cls(tokenizer, known, content_format=content_format)
        if chat_template is not None:
            made._template(known["default"])
        return made

    def template_text(self, tools: bool = False) -> str:
        """The template for a conversation. Raises InvalidRequestError if the model has none."""
        if tools and "tool_use" in self._texts:
            return self._texts["tool_use"]
        if "default" in self._texts:
            return self._texts["default"]
        if self._texts:
            refuse(
                "messages",
                f"the model has several chat templates ({', '.join(sorted(self._texts))}) and no "
                "default one; start with --chat-template NAME",
            )
        refuse(
            "messages",
            "the model has no chat template; start with --chat-template FILE, or send a prompt to "
            "/v1/completions",
        )

    def _template(self, text: str) -> ChatTemplate:
        found = self._compiled.get(text)
        if found is None:
            if len(self._compiled) >= 16:
                self._compiled.clear()
            found = self._compiled[text] = ChatTemplate(text)
        return found

    def render(
        self, messages: Any, options: ChatOptions | None = None, *, limit: int | None = None
    ) -> ChatPrompt:
        """The prompt of a conversation.

        Special tokens that stand in messages or template variables are text, whatever they look like;
        all else has the ids that the tokenizer gives to the template's text.

        limit  most tokens; a text that surely has more is refused before it is tokenised.
        Raises InvalidRequestError with the place of what is wrong.
        """
        options = options or ChatOptions()
        if options.continue_final_message and options.add_generation_prompt:
            refuse(
                "continue_final_message",
                "continue_final_message and add_generation_prompt are both true; the last message is "
                "either continued or answered, set one to false",
            )
        try:
            template = self._template(
                options.chat_template or self.template_text(bool(options.tools))
            )
        except ModelLoadError as error:
            raise InvalidRequestError(str(error), param="messages") from error
        quoted = template.text
        chat = read_messages(
            messages, is_role=lambda role: f"'{role}'" in quoted or f'"{role}"' in quoted
        )
        for message in chat:
            if message["role"] == "developer" and not template.shows_developer:
                message["role"] = "system"  # the template would leave it out, or refuse it
        self._format_content(chat, template, options)
        variables = template.switched(_checked_kwargs(options.template_kwargs))
        given: dict[str, Any] = {
            "messages": chat,
            "tools": plain(options.tools, "tools"),
            "documents": plain(options.documents, "documents"),
            **variables,
        }
        marks = _Marks(quoted, given)
        if self._has_special(given):
            given = marks.mark(given, self._special)
        if options.continue_final_message:
            marks.open_last(given["messages"])
        text = template.render(
            {
                **self._variables,
                "add_generation_prompt": options.add_generation_prompt,
                **given,
            }
        )
        if options.continue_final_message:
            text = marks.cut(text)
        if limit is not None:
            self._tokenizer.refuse_too_long(text, limit)
        ids = self._encode(text, marks, options.add_special_tokens)
        return ChatPrompt(marks.without(text), ids, variables)

    def _format_content(
        self, chat: list[dict[str, Any]], template: ChatTemplate, options: ChatOptions
    ) -> None:
        asked = options.content_format if options.content_format != "auto" else self._format
        for message in chat:
            content = message.get("content")
            if isinstance(content, list):
                if asked == "string" or (asked == "auto" and not template.reads_parts):
                    message["content"] = joined(content)
            elif isinstance(content, str) and asked == "openai":
                message["content"] = [{"type": "text", "text": content}]

    def _has_special(self, given: Any) -> bool:
        """Whether a special token stands in a text, or in the texts of neighbouring parts."""
        return any(self._special.search(text) for text in _texts(given)) or any(
            self._special.search("".join(part["text"] for part in message["content"]))
            for message in given["messages"]
            if isinstance(message.get("content"), list)
        )

    def _encode(self, text: str, marks: _Marks, special_around: bool) -> list[int]:
        pieces = marks.split(text, self._special)
        tokenizer = self._tokenizer
        if len(pieces) == 1:
            return tokenizer.encode(text, special_around)
        newline = tokenizer.encode("\n", False)
        ids = tokenizer.encode(pieces[0][0], False)
        for piece, as_text in pieces[1:]:
            ids += self._inside(piece, newline, as_text)
        if special_around:
            before, after = tokenizer.special_tokens_around
            around = tokenizer.encode("", True)
            ids = around[:before] + ids + around[len(around) - after :]
        return ids

    def _inside(self, piece: str, newline: list[int], as_text: bool) -> list[int]:
        """The ids of a piece that begins no text: behind a newline, which is then taken off."""
        encode = self._as_text if as_text else lambda text: self._tokenizer.encode(text, False)
        ids = encode("\n" + piece)
        ids = ids[len(newline) :] if ids[: len(newline)] == newline else encode(piece)
        if as_text and len(piece) > 1 and self._tokenizer.raw.token_to_id(piece) in ids:
            middle = len(piece) // 2
            return self._inside(piece[:middle], newline, True) + self._inside(
                piece[middle:], newline, True
            )
        return ids

    def _as_text(self, text: str) -> list[int]:
        """The ids of a text in which no added token is looked for."""
        raw = self._tokenizer.raw
        if raw.normalizer is not None:
            text = raw.normalizer.normalize_str(text)
        words = [text]
        if raw.pre_tokenizer is not None:
            words = [word for word, _ in raw.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in raw.model.tokenize(word)]


class _Marks:
    """Characters that stand in none of the texts, put where the rendered text has to be found again."""

    def __init__(self, template: str, given: Any) -> None:
        everything = "".join([template, *_texts(given)])
        free = (chr(code) for code in _PRIVATE if chr(code) not in everything)
        try:
            self._start, self._end, self._open = (next(free) for _ in range(3))
        except (StopIteration, RuntimeError):
            refuse("messages", "the messages use every character of the private use area")
        self._marks = False

    def mark(self, given: Any, special: re.Pattern[str]) -> Any:
        """The same data, each special token in it between a start and an end mark."""
        self._marks = True
        around = f"{self._start}\\g<0>{self._end}"

        def marked(value: Any) -> Any:
            if isinstance(value, str):
                return special.sub(around, value)
            if isinstance(value, CallArguments):
                inside = {name: marked(inner) for name, inner in value.items()}
                return CallArguments(inside, special.sub(around, value.text))
            if isinstance(value, dict):
                return {name: marked(inner) for name, inner in value.items()}
            return [marked(inner) for inner in value] if isinstance(value, list) else value

        found = marked(given)
        for message in found["messages"]:
            content = message.get("content")
            for part in content[1:] if isinstance(content, list) else ():
                part["text"] = self._end + part["text"]  # a token must not come of two parts
        return found

    def split(self, text: str, special: re.Pattern[str]) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is a special token that is meant as text."""
        if not self._marks:
            return [(text, False)]
        start, end = self._start, self._end
        found = re.split(f"{start}({special.pattern}){end}|[{start}{end}]", text)
        # Texts stand at even places; between two of them the token, or None for a mark that lost its pair.
        pieces = [(one, place % 2 == 1) for place, one in enumerate(found) if one]
        return pieces if found[0] else [("", False), *pieces]

    def without(self, text: str) -> str:
        """The text without marks."""
        return text.replace(self._start, "").replace(self._end, "") if self._marks else text

    def open_last(self, chat: list[dict[str, Any]]) -> None:
        """Puts a mark behind the last message. Raises InvalidRequestError if it has no text."""
        last = chat[-1]
        content = last.get("content")
        if isinstance(content, str):
            last["content"] = content + self._open + " "
        elif content:
            content[-1]["text"] += self._open + " "
        else:
            refuse("continue_final_message", "the last message has no content to continue")

    def cut(self, text: str) -> str:
        """The text up to the mark; without the space before it where the template takes space away."""
        place = text.rfind(self._open)
        if place < 0:
            refuse(
                "continue_final_message",
                "the chat template leaves the last message out, so it cannot be continued",
            )
        kept = text[:place]
        return kept if text[place + 1 : place + 2] == " " else kept.rstrip()


def _checked_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if len(kwargs) > _MAX_KWARGS:
        refuse(
            "chat_template_kwargs",
            f"chat_template_kwargs has {len(kwargs)} entries; the limit is {_MAX_KWARGS}",
        )
    for name in kwargs:
        if name in _RESERVED:
            refuse(
                "chat_template_kwargs", f"chat_template_kwargs may not set {name!r}; leave it out"
            )
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            refuse("chat_template_kwargs", "names in chat_template_kwargs must be identifiers")
    found: dict[str, Any] = plain(kwargs, "chat_template_kwargs")
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in the data, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _token_text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
