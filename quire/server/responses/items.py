"""Items of /v1/responses as chat messages: what came in, and what earlier answers gave out.

The wire form around them is `server.schema.responses`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Any

from quire.protocol.errors import NotServedError
from quire.server.schema.sampling import kind_of, refuse
from quire.server.state import new_id

MAX_ITEMS = 16384
"""Items of one request."""
MAX_PARTS = 4096
"""Parts of one item."""
_SEALED = "quire1:"
_TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "reasoning_text": "text",
    "summary_text": "text",
    "refusal": "refusal",
}
_PREFIXES = {
    "message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco",
    "custom_tool_call": "ctc", "custom_tool_call_output": "cto",
    "mcp_call": "mcp", "mcp_list_tools": "mcpl",
}  # fmt: skip


def sealed(reasoning: str) -> str:
    """Reasoning as one opaque text that a client may send back. It is not encrypted."""
    return _SEALED + base64.b64encode(reasoning.encode("utf-8", "surrogatepass")).decode()


def _unsealed(text: Any) -> str:
    """The reasoning in it; empty for what another server sealed."""
    if not isinstance(text, str) or not text.startswith(_SEALED):
        return ""
    try:
        return base64.b64decode(text[len(_SEALED) :], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def input_items(given: str | list[Any]) -> list[dict[str, Any]]:
    """The input as items, each with its type and an id. Raises InvalidRequestError with the place."""
    if isinstance(given, str):
        given = [{"role": "user", "content": [{"type": "input_text", "text": given}]}]
    if len(given) > MAX_ITEMS:
        refuse("input", f"input has {len(given)} items; the limit is {MAX_ITEMS}")
    items = []
    for place, item in enumerate(given):
        path = f"input[{place}]"
        if not isinstance(item, dict):
            refuse(path, f"{path} is {kind_of(item)}; it must be an object")
        kind = item.get("type", "message")
        if not isinstance(kind, str) or kind not in _READERS:
            _refuse_item(kind, path)
        item = {name: value for name, value in item.items() if value is not None}
        item.setdefault("id", f"{_PREFIXES[kind]}_{new_id()}")
        items.append({**item, "type": kind})
        _READERS[kind](items[-1], path)  # what cannot be read is refused before it is kept
    return items


def _refuse_item(kind: Any, path: str) -> None:
    if kind == "item_reference":
        raise NotServedError(
            f"{path} refers to another item; send the item itself, or previous_response_id",
            param=path,
        )
    said = repr(kind[:64]) if isinstance(kind, str) else kind_of(kind)
    refuse(path, f"{path} is of type {said}; the types read here are {', '.join(_READERS)}")


def chat_messages(
    instructions: str | None, items: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The conversation in a chat's form; items of one answer that follow each other are one message."""
    found: list[dict[str, Any]] = []
    if instructions:
        found.append({"role": "system", "content": instructions})
    for place, item in enumerate(items):
        message = _READERS[item["type"]](item, f"input[{place}]")
        result = message.pop("result", None)
        last = found[-1] if found else {}
        if message["role"] == last.get("role") == "assistant":
            _join(last, message)
        elif message["role"] == "system" and [one["role"] for one in found] == ["system"]:
            last["content"] += "\n\n" + message["content"]  # templates take one, at the start
        elif message["role"] != "assistant" or len(message) > 1:
            found.append(message)
        if result is not None:
            found.append(result)
    return found


def _join(message: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds an assistant's items to its message."""
    for name in ("reasoning", "content"):
        if name in more:
            parts = [message.get(name), more[name]]
            message[name] = "".join(one for one in parts if one)
    if "tool_calls" in more:
        message["tool_calls"] = [*message.get("tool_calls", []), *more["tool_calls"]]


def _message(item: dict[str, Any], path: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        refuse(f"{path}.role", f"{path}.role must be user, assistant, system or developer")
    texts = _texts(item.get("content"), f"{path}.content")
    if role == "assistant":
        return {"role": role, "content": "".join(texts)}
    if role != "user":
        return {"role": "system", "content": "\n".join(texts)}
    if len(texts) == 1:
        return {"role": role, "content": texts[0]}
    return {"role": role, "content": [{"type": "text", "text": one} for one in texts]}


def _texts(content: Any, path: str) -> list[str]:
    """The texts of a content or output, at least one."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not content:
        said = "an empty list" if content == [] else kind_of(content)
        refuse(path, f"{path} is {said}; it must be a text or a list of parts")
    if len(content) > MAX_PARTS:
        refuse(path, f"{path} has {len(content)} parts; the limit is {MAX_PARTS}")
    texts = []
    for place, part in enumerate(content):
        where = f"{path}[{place}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_image", "input_file", "input_audio"):
            raise NotServedError(
                f"{where} is of type {kind!r}; images, audio and files are not served by this version, "
                "send text",
                param=where,
            )
        name = _TEXTS.get(kind) if isinstance(kind, str) else None
        if name is None or not isinstance(part.get(name), str):
            refuse(where, f"{where} must be an object such as {{type: input_text, text: ...}}")
        texts.append(part[name])
    return texts


def _call(item: dict[str, Any], path: str) -> dict[str, Any]:
    arguments = item.get("arguments", "{}")
    if not isinstance(arguments, str):
        refuse(
            f"{path}.arguments", f"{path}.arguments is {kind_of(arguments)}; send JSON as a text"
        )
    return _called(item, path, arguments)


def _custom_call(item: dict[str, Any], path: str) -> dict[str, Any]:
    given = item.get("input", "")
    if not isinstance(given, str):
        refuse(f"{path}.input", f"{path}.input is {kind_of(given)}; it must be a text")
    return _called(item, path, json.dumps({"input": given}, ensure_ascii=False))


def _called(item: dict[str, Any], path: str, arguments: str) -> dict[str, Any]:
    if not isinstance(item.get("call_id"), str) or not isinstance(item.get("name"), str):
        refuse(path, f"{path} needs the call_id and the name of the call")
    function = {"name": item["name"], "arguments": arguments}
    call = {"id": item["call_id"], "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [call]}


def _remote_call(item: dict[str, Any], path: str) -> dict[str, Any]:
    """A call that a server carried out; what it gave back is beside it, as `result`."""
    arguments, output = item.get("arguments", "{}"), item.get("output") or item.get("error") or ""
    if not isinstance(arguments, str) or not isinstance(output, (str, dict)):
        refuse(path, f"{path} must have arguments and an output, which are texts")
    message = _called({**item, "call_id": item["id"]}, path, arguments)
    text = output if isinstance(output, str) else json.dumps(output)
    message["result"] = {"role": "tool", "tool_call_id": item["id"], "content": text}
    return message


def _nothing(item: dict[str, Any], path: str) -> dict[str, Any]:
    """An item that says nothing to the model."""
    return {"role": "assistant"}


def _output(item: dict[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(item.get("call_id"), str):
        refuse(f"{path}.call_id", f"{path}.call_id is missing; name the call that this answers")
    text = "\n".join(_texts(item.get("output"), f"{path}.output"))
    return {"role": "tool", "tool_call_id": item["call_id"], "content": text}


def _reasoning(item: dict[str, Any], path: str) -> dict[str, Any]:
    for name in ("content", "summary"):
        if item.get(name):
            return {"role": "assistant", "reasoning": "".join(_texts(item[name], f"{path}.{name}"))}
    text = _unsealed(item.get("encrypted_content"))
    return {"role": "assistant", "reasoning": text} if text else {"role": "assistant"}


_READERS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _output,
    "reasoning": _reasoning,
    "mcp_call": _remote_call,
    "mcp_list_tools": _nothing,
}
