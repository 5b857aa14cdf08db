"""Content blocks in Anthropic's form as chat messages, its tools as functions.

The fields around them are `server.schema.messages`; what templates take is checked by the front.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.server.schema.sampling import kind_of, refuse

MAX_MESSAGES = 16384
"""Messages of one request."""
MAX_BLOCKS = 4096
"""Blocks of one message."""
_BILLING = "x-anthropic-billing-header"
"""A block of the system prompt that starts so is for Anthropic's accounts, and differs in every request."""


def chat_messages(messages: list[Any], system: Any) -> list[dict[str, Any]]:
    """The conversation as OpenAI's chat has it. Raises InvalidRequestError with the place."""
    if len(messages) > MAX_MESSAGES:
        refuse("messages", f"messages has {len(messages)} entries; the limit is {MAX_MESSAGES}")
    found: list[dict[str, Any]] = []
    if system is not None:
        text = _system(system)
        if text:
            found.append({"role": "system", "content": text})
    for place, message in enumerate(messages):
        path = f"messages[{place}]"
        if not isinstance(message, dict):
            refuse(path, f"{path} is {kind_of(message)}; it must be an object")
        role = message.get("role")
        make = _ROLES.get(role) if isinstance(role, str) else None
        if make is None:
            refuse(f"{path}.role", f"{path}.role must be user, assistant or system")
        found += make(_blocks(message.get("content"), f"{path}.content"), f"{path}.content")
    return found


def is_prefill(messages: list[dict[str, Any]]) -> bool:
    """Whether the last message is the beginning of the answer, which the model goes on with."""
    last = messages[-1] if messages else {}
    return (
        last.get("role") == "assistant" and bool(last.get("content")) and "tool_calls" not in last
    )


def _system(system: Any) -> str:
    blocks = _blocks(system, "system")
    texts = [_text(block, f"system[{place}]") for place, block in enumerate(blocks)]
    return "\n".join(one for one in texts if not one.startswith(_BILLING))


def _blocks(content: Any, path: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        refuse(path, f"{path} is {kind_of(content)}; it must be a text or a list of blocks")
    if len(content) > MAX_BLOCKS:
        refuse(path, f"{path} has {len(content)} blocks; the limit is {MAX_BLOCKS}")
    for place, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            refuse(f"{path}[{place}]", f"{path}[{place}] must be an object with a type")
    return content


def _text(block: dict[str, Any], path: str) -> str:
    if block["type"] != "text":
        _refuse_block(block, path, "text")
    if not isinstance(block.get("text"), str):
        refuse(path, f"{path} has no text; send it, or leave the block out")
    return str(block["text"])


def _refuse_block(block: dict[str, Any], path: str, known: str) -> None:
    kind = block["type"][:64]
    if kind in ("image", "document", "search_result", "container_upload"):
        raise NotServedError(
            f"{path} is of type {kind!r}; images and documents are not served by this version, send text",
            param=path,
        )
    refuse(path, f"{path} is of type {kind!r}; the types read here are {known}")


def _user(blocks: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place, block in enumerate(blocks):
        where = f"{path}[{place}]"
        if block["type"] == "tool_result":
            found.append(_tool_result(block, where))
            continue
        if block["type"] not in ("text", "document"):
            _refuse_block(block, where, "text, tool_result and document with a text source")
        text = _document(block, where) if block["type"] == "document" else _text(block, where)
        if found and found[-1]["role"] == "user":
            found[-1]["content"].append({"type": "text", "text": text})
        else:
            found.append({"role": "user", "content": [{"type": "text", "text": text}]})
    if not found:
        refuse(path, f"{path} is an empty list; send at least one block")
    return [_flat(one) for one in found]


def _flat(message: dict[str, Any]) -> dict[str, Any]:
    """A message of one text part has it as its content, as most templates want it."""
    content = message["content"]
    if isinstance(content, list) and len(content) == 1:
        return {**message, "content": content[0]["text"]}
    return message


def _document(block: dict[str, Any], path: str) -> str:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "text":
        data = source.get("data")
        if isinstance(data, str):
            return data
    raise NotServedError(
        f"{path} is a document that is no plain text; send its text in a text block", param=path
    )


def _tool_result(block: dict[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(block.get("tool_use_id"), str):
        refuse(f"{path}.tool_use_id", f"{path}.tool_use_id is missing; name the call it answers")
    given = block.get("content")
    blocks = [] if given is None else _blocks(given, f"{path}.content")
    texts = [_text(one, f"{path}.content[{place}]") for place, one in enumerate(blocks)]
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": "\n".join(texts)}


def _assistant(blocks: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    texts, thoughts, calls = [], [], []
    for place, block in enumerate(blocks):
        where, kind = f"{path}[{place}]", block["type"]
        if kind == "tool_use":
            calls.append(_tool_use(block, where))
        elif kind == "thinking":
            if not isinstance(block.get("thinking"), str):
                refuse(where, f"{where} has no text under thinking; send it, or leave it out")
            thoughts.append(block["thinking"])
        elif kind == "text":
            texts.append(_text(block, where))
        elif kind != "redacted_thinking":
            _refuse_block(block, where, "text, tool_use, thinking and redacted_thinking")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message["reasoning"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _tool_use(block: dict[str, Any], path: str) -> dict[str, Any]:
    name, given = block.get("name"), block.get("input", {})
    if not isinstance(block.get("id"), str) or not isinstance(name, str):
        refuse(path, f"{path} needs the id and the name of the call")
    if not isinstance(given, dict):
        refuse(f"{path}.input", f"{path}.input is {kind_of(given)}; it must be an object")
    arguments = json.dumps(given, ensure_ascii=False)
    function = {"name": name, "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _system_turn(blocks: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    texts = [_text(block, f"{path}[{place}]") for place, block in enumerate(blocks)]
    return [{"role": "system", "content": "\n".join(texts)}]


_ROLES: dict[str, Callable[[list[dict[str, Any]], str], list[dict[str, Any]]]] = {
    "user": _user,
    "assistant": _assistant,
    "system": _system_turn,
}


def function_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools as functions; names and schemas are checked with those of a chat."""
    if tools is None:
        return None
    if not isinstance(tools, list):
        refuse("tools", f"tools is {kind_of(tools)}; it must be a list of tools")
    return [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)] or None


def _tool(tool: Any, path: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        refuse(path, f"{path} is {kind_of(tool)}; it must be an object with name and input_schema")
    kind = tool.get("type", "custom")
    if kind not in ("custom", None):
        raise NotServedError(
            f"{path} is of type {str(kind)[:64]!r}, which Anthropic defines; send a tool with name, "
            "description and input_schema",
            param=path,
        )
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        refuse(f"{path}.input_schema", f"{path}.input_schema is missing; send a JSON schema")
    function = {"name": tool.get("name"), "parameters": {"type": "object", **schema}}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def tool_choice(given: dict[str, Any] | None, *, has_tools: bool) -> tuple[str, str | None, bool]:
    """The choice in a chat's words, the tool it names, and whether several calls may come at once.

    Raises InvalidRequestError.
    """
    if given is None:
        return ("auto" if has_tools else "none"), None, True
    kind = given.get("type")
    choices = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}
    if not isinstance(kind, str) or kind not in choices:
        raise InvalidRequestError(
            "tool_choice.type must be auto, any, tool or none", param="tool_choice.type"
        )
    name = given.get("name")
    if kind == "tool" and (not isinstance(name, str) or not name):
        refuse("tool_choice.name", "tool_choice of type tool needs the name of the tool")
    if kind in ("any", "tool") and not has_tools:
        refuse("tool_choice", f"tool_choice is {kind}, but there are no tools; send tools")
    parallel = given.get("disable_parallel_tool_use") is not True
    return (choices[kind] if has_tools else "none"), (name if kind == "tool" else None), parallel
