"""Tools of MCP servers that the operator named with --tool-server: listed, and called for the model.

Needs the package `mcp` (pip install "quire[mcp]"). The turns between calls are `server.responses.run`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quire.protocol.errors import SettingsError
from quire.server.errors import HttpError
from quire.server.schema.sampling import refuse

logger = logging.getLogger(__name__)

TIMEOUT_S = 60.0
"""Seconds that a server gets to answer."""
MAX_RESULT = 65536
"""Characters of a result that the model is shown; the rest is cut."""


@dataclass(frozen=True, kw_only=True)
class RemoteTool:
    """A tool of a server; `schema` is that of its arguments."""

    label: str
    url: str
    name: str
    description: str
    schema: dict[str, Any]

    def function(self) -> dict[str, Any]:
        """The tool as a chat has it."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class CallResult:
    """What a tool gave back; `is_error` where it, or its server, failed."""

    text: str
    is_error: bool


class ToolServers:
    """The servers of --tool-server, each `[LABEL=]ADDRESS` with a host and port, or a URL.

    Raises SettingsError where the package is missing, or for an address that is none.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._urls = dict(_labelled(one) for one in addresses)
        if self._urls and importlib.util.find_spec("mcp") is None:
            raise SettingsError('--tool-server needs the package mcp: pip install "quire[mcp]"')

    async def tools_of(self, tools: list[Any]) -> dict[int, list[RemoteTool]]:
        """The tools of the servers that the entries of type mcp name, by place. Raises HttpError."""
        found = {}
        for place, tool in enumerate(tools):
            if isinstance(tool, dict) and tool.get("type") == "mcp":
                found[place] = await self._tools(tool, f"tools[{place}]")
        return found

    async def _tools(self, tool: dict[str, Any], path: str) -> list[RemoteTool]:
        label, url = tool.get("server_label"), tool.get("server_url")
        if not isinstance(label, str) or label not in self._urls:
            known = ", ".join(self._urls) or "none; start with --tool-server LABEL=HOST:PORT"
            refuse(f"{path}.server_label", f"{path}.server_label names no server here: {known}")
        if url is not None and url != self._urls[label]:
            refuse(
                f"{path}.server_url",
                f"{path}.server_url is not called: servers are those of --tool-server; leave it out",
            )
        if tool.get("require_approval", "never") != "never":
            refuse(
                f"{path}.require_approval",
                f"{path}.require_approval must be never: calls are not held back here",
            )
        allowed = _allowed(tool.get("allowed_tools"), path)
        try:
            found = await self._listed(label)
        except Exception as error:
            logger.warning("the tool server %s cannot be read: %r", label, error)
            raise HttpError(
                424,
                f"the tool server {label!r} gave no list of its tools; try again later",
                type="FailedDependencyError",
                param=path,
            ) from None
        return [one for one in found if allowed is None or one.name in allowed]

    async def _listed(self, label: str) -> list[RemoteTool]:
        from mcp import Client

        url = self._urls[label]
        async with asyncio.timeout(TIMEOUT_S), Client(url) as client:
            listed = await client.list_tools()
        return [
            RemoteTool(
                label=label,
                url=url,
                name=one.name,
                description=one.description or "",
                schema=dict(one.input_schema),
            )
            for one in listed.tools
        ]

    async def call(self, tool: RemoteTool, arguments: str) -> CallResult:
        """Calls a tool with the arguments that the model wrote. Never raises for what goes wrong there."""
        from mcp import Client

        try:
            given = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return CallResult("the arguments are not valid JSON", True)
        if not isinstance(given, dict):
            return CallResult("the arguments are no object", True)
        try:
            async with asyncio.timeout(TIMEOUT_S), Client(tool.url) as client:
                answer = await client.call_tool(tool.name, given)
        except Exception as error:
            logger.warning("the tool %s of %s failed: %r", tool.name, tool.label, error)
            return CallResult("the tool could not be called", True)
        texts = [str(getattr(part, "text", "")) for part in answer.content]
        return CallResult("\n".join(texts)[:MAX_RESULT], bool(answer.is_error))


def _labelled(address: str) -> tuple[str, str]:
    """The label and the URL of one server; without a label it is the address."""
    label, equals, rest = address.partition("=")
    if not equals or "/" in label:
        label, rest = address, address
    if not rest or rest == "demo":
        raise SettingsError(
            f"--tool-server {address} is no address; give [LABEL=]HOST:PORT of an MCP server, or its URL"
        )
    return label, rest if "://" in rest else f"http://{rest}/mcp"


def _allowed(given: Any, path: str) -> list[str] | None:
    """The names that a request lets the model call; None for all."""
    names = given.get("tool_names") if isinstance(given, dict) else given
    if names is not None and not isinstance(names, list):
        refuse(f"{path}.allowed_tools", f"{path}.allowed_tools must be a list of names")
    return names
