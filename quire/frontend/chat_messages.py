"""The messages of a conversation, checked and made plain: what a chat template may see.

Rendering them is `frontend.chat`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from quire.protocol.checks import shown
from quire.protocol.errors import InvalidRequestError, NotServedError

MAX_MESSAGES = 16384
"""Messages of one conversation."""
MAX_PARTS = 4096
"""Parts of one message."""
MAX_DEPTH = 64
"""Objects and lists inside each other, in a message or in template variables."""
MAX_VALUES = 100_000
"""Values inside all messages of a conversation, or one set of template variables."""

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_ROLE = re.compile(r"[\w-]{1,32}")
_TEXT_FIELDS = {
    "text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal",
    "thinking": "thinking",
}  # fmt: skip
_MEDIA = frozenset(
    {
        "image", "image_url", "input_image", "image_pil", "image_embeds", "audio", "audio_url",
        "input_audio", "audio_embeds", "video", "video_url", "prompt_embeds", "file", "input_file",
    }
)  # fmt: skip
_REASONING = ("reasoning_content", "thinking", "reasoning")


class CallArguments(dict[str, Any]):
    """Arguments of an earlier call: an object for templates that look into it, its text for the others.

    text  the JSON text that the client sent.
    """

    def __init__(self, values: Mapping[str, Any], text: str) -> None:
        super().__init__(values)
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __add__(self, other: Any) -> str:
        return self.text + str(other)

    def __radd__(self, other: Any) -> str:
        return str(other) + self.text


def refuse_at(path: str, message: str) -> NoReturn:
    """Raises InvalidRequestError about the place `path`, such as messages[3].role."""
    raise InvalidRequestError(f"{path} {message}", param=path)


class _Room:
    """How many values may still come."""

    def __init__(self, whole: str) -> None:
        self._left = MAX_VALUES
        self._whole = whole

    def take(self) -> None:
        """One value. Raises InvalidRequestError about the whole."""
        self._left -= 1
        if self._left < 0:
            refuse_at(self._whole, f"holds more than {MAX_VALUES} values; send less")


def plain(value: Any, path: str, room: _Room | None = None) -> Any:
    """A copy made of dicts, lists, texts, numbers, true, false and None.

    Raises InvalidRequestError about `path` for anything else, and for what is too deep or too much.
    """
    return _copied(value, path, room or _Room(path), 0)


def _copied(one: Any, path: str, room: _Room, depth: int) -> Any:
    room.take()
    if depth > MAX_DEPTH:
        refuse_at(path, f"is nested deeper than {MAX_DEPTH}; send a flatter object")
    if one is None or type(one) in (str, int, float, bool):
        return one
    if isinstance(one, str):
        return str.__str__(one)
    depth += 1
    if isinstance(one, Mapping):
        return {_key(name, path): _copied(inner, path, room, depth) for name, inner in one.items()}
    if isinstance(one, (list, tuple)):
        return [_copied(inner, path, room, depth) for inner in one]
    dump: Callable[..., Any] | None = getattr(one, "model_dump", None)
    if callable(dump):
        return _copied(dump(), path, room, depth)
    refuse_at(path, f"holds {type(one).__name__}; it must be made of objects, lists and texts")


def _key(name: Any, path: str) -> str:
    if not isinstance(name, str):
        refuse_at(path, f"has the key {shown(name)}; keys must be texts")
    return name


def read_messages(
    messages: Any, *, is_role: Callable[[str], bool] = lambda role: False
) -> list[dict[str, Any]]:
    """The messages as a template sees them; content is a text or a list of text parts.

    Keys with None are left out. Reasoning is under the three names that templates know.

    is_role  whether a role beside the usual ones is one that the template knows.
    Raises InvalidRequestError with the place, NotServedError for images, audio and video.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        refuse_at("messages", f"is {_kind(messages)}; it must be a list of messages")
    if not messages:
        refuse_at("messages", "is an empty list; send at least one message")
    if len(messages) > MAX_MESSAGES:
        refuse_at("messages", f"has {len(messages)} entries; the limit is {MAX_MESSAGES}")
    room = _Room("messages")
    return [
        _message(one, f"messages[{place}]", is_role, room) for place, one in enumerate(messages)
    ]


def _message(given: Any, path: str, is_role: Callable[[str], bool], room: _Room) -> dict[str, Any]:
    if not isinstance(given, Mapping) and not callable(getattr(given, "model_dump", None)):
        refuse_at(path, f"is {_kind(given)}; it must be an object with role and content")
    if isinstance(given, Mapping) and isinstance(given.get("content"), (list, tuple)):
        _refuse_media(given["content"], f"{path}.content")
    message = {name: value for name, value in plain(given, path, room).items() if value is not None}
    if message.get("tool_calls") == []:
        del message["tool_calls"]  # templates ask whether the key is there
    role = message.get("role")
    if not isinstance(role, str):
        refuse_at(f"{path}.role", "is missing or no text; use system, user, assistant or tool")
    if role not in _ROLES and not (_ROLE.fullmatch(role) and is_role(role)):
        refuse_at(
            f"{path}.role", f"is {shown(role)}; it must be one of {', '.join(sorted(_ROLES))}"
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        refuse_at(f"{path}.tool_call_id", "is missing; name the call that this answers")
    if "content" in message:
        message["content"] = _content(message["content"], f"{path}.content")
    elif not (role == "assistant" and any(message.get(one) for one in ("tool_calls", *_REASONING))):
        refuse_at(f"{path}.content", "is missing; send a text or a list of text parts")
    if "tool_calls" in message:
        message["tool_calls"] = _calls(message["tool_calls"], f"{path}.tool_calls")
    return _with_reasoning(message)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    found = next((message[name] for name in _REASONING if name in message), None)
    if found is None:
        return message
    return {**dict.fromkeys(_REASONING, found), **message, "reasoning_content": found}


def _refuse_media(parts: Sequence[Any], path: str) -> None:
    if len(parts) > MAX_PARTS:
        refuse_at(path, f"has {len(parts)} parts; the limit is {MAX_PARTS}")
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(kind, str) and kind in _MEDIA:
            raise NotServedError(
                f"{path}[{place}] is of type {kind!r}; images, audio, video and files are not served "
                "by this version, send text",
                param=f"{path}[{place}]",
            )


def _content(value: Any, path: str) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        refuse_at(path, f"is {_kind(value)}; it must be a text or a list of text parts")
    if not value:
        refuse_at(path, "is an empty list; send a text or at least one part")
    return [_part(one, f"{path}[{place}]") for place, one in enumerate(value)]


def _part(part: Any, path: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        refuse_at(path, f'is {_kind(part)}; it must be an object such as {{"type": "text", ...}}')
    kind = part.get("type")
    name = _TEXT_FIELDS.get(kind) if isinstance(kind, str) else None
    if name is None:
        refuse_at(path, f"has the type {shown(kind)}, which is not known; send type text")
    if not isinstance(part.get(name), str):
        refuse_at(path, f"has no text under {name!r}; send it, or leave the part out")
    if kind == "text":
        return part
    return {"type": "text", "text": part[name]}


def _calls(calls: Any, path: str) -> list[dict[str, Any]]:
    """Calls of an earlier answer; arguments that are the text of a JSON object become the object."""
    if not isinstance(calls, list):
        refuse_at(path, f"is {_kind(calls)}; it must be a list of calls")
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            refuse_at(f"{path}[{place}]", "has no function with a name; send both")
        if isinstance(function.get("arguments"), str):
            function["arguments"] = _arguments(function["arguments"])
    return calls


def _arguments(text: str) -> Any:
    if not text.strip():
        return CallArguments({}, "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return CallArguments(found, text) if isinstance(found, dict) else text


def joined(content: str | list[dict[str, Any]]) -> str:
    """Content as one text, parts on lines of their own."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _kind(value: Any) -> str:
    names = {bool: "true or false", str: "a text", dict: "an object", list: "a list"}
    names |= {type(None): "missing or null", int: "a number", float: "a number"}
    return names.get(type(value), f"of type {type(value).__name__}")
