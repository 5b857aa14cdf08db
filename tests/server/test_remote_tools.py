"""Tools of MCP servers in /v1/responses: listed, called once each, and what the model says to the result."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from quire.protocol.errors import SettingsError
from quire.server.responses.remote import ToolServers
from tests.server.saying import Saying, talk
from tests.server.test_responses import TOOL, ask, said, stream, without_ids

CALLED: list[str] = []


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A real server of tools, of the official package."""
    server = MCPServer("echo")

    @server.tool()
    def echo(text: str) -> str:
        """Says it again"""
        CALLED.append(text)
        return "echo: " + text

    @server.tool()
    def breaks() -> str:
        """Fails"""
        raise ValueError("it broke")

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(server.streamable_http_app(), log_level="warning")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([bound],), daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{bound.getsockname()[1]}"
        running.should_exit = True
        thread.join(10)


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


MCP: dict[str, Any] = {"type": "mcp", "server_label": "tools", "require_approval": "never"}


def test_a_tool_is_called_once_and_the_model_goes_on(address: str) -> None:
    async def test(server: Saying) -> None:
        CALLED.clear()
        server.client.texts = [call("echo", '{"text": "hi"}'), "It said hi."]
        found = await said(server, tools=[MCP])
        assert CALLED == ["hi"]
        item, message = found["output"]
        assert (item["type"], item["status"], item["server_label"]) == (
            "mcp_call", "completed", "tools",
        )  # fmt: skip
        assert (item["arguments"], item["output"]) == ('{"text": "hi"}', "echo: hi")
        assert message["content"][0]["text"] == "It said hi."
        assert "echo: hi" in server.client.prompts[-1] and "breaks" in server.client.prompts[0]
        usage = found["usage"]
        per_turn = usage["input_tokens_details"]["input_tokens_per_turn"]
        assert len(per_turn) == 2 and sum(per_turn) == usage["input_tokens"]
        server.client.texts = [call("echo", '{"text": "hi"}'), "It said hi."]
        events = await stream(server, tools=[MCP])
        assert without_ids(events[-1]["response"]["output"]) == without_ids(found["output"])
        kinds = [event["type"] for event in events]
        order = [
            "response.mcp_call.in_progress", "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done", "response.mcp_call.completed",
            "response.output_item.done", "response.output_text.delta", "response.completed",
        ]  # fmt: skip
        places = [kinds.index(kind) for kind in order]
        assert places == sorted(places)
        await said(server, previous_response_id=found["id"], input="Again?")
        assert "echo: hi" in server.client.prompts[-1]

    talk(test, tool_server=[f"tools={address}"])


def test_what_goes_wrong_is_told_to_the_model(address: str) -> None:
    async def test(server: Saying) -> None:
        server.client.texts = [call("breaks", "{}"), call("echo", '{"text": 5}'), "I give up."]
        found = await said(server, tools=[MCP])
        assert [item["type"] for item in found["output"]] == ["mcp_call", "mcp_call", "message"]
        assert found["output"][0]["status"] == "failed" and found["output"][0]["error"]
        assert found["status"] == "completed"

    talk(test, tool_server=[f"tools={address}"])


def test_calls_are_bounded_and_the_clients_own_end_the_response(address: str) -> None:
    async def test(server: Saying) -> None:
        CALLED.clear()
        server.client.texts = [call("echo", '{"text": "a"}')] * 2 + ["Done."]
        found = await said(server, tools=[MCP], max_tool_calls=1)
        assert CALLED == ["a"]
        assert [item["status"] for item in found["output"]] == ["completed", "failed", "completed"]
        server.client.texts = [call("echo", '{"text": "a"}')] * 9
        found = await said(server, tools=[MCP], max_tool_calls=0)
        assert [item["status"] for item in found["output"]] == ["failed", "failed"]
        assert CALLED == ["a"] and len(server.client.texts) == 7, (
            "it is told once, and then stopped"
        )
        both = call("echo", '{"text": "b"}') + "\n" + call("get_weather", '{"city": "Rome"}')
        server.client.texts = [both]
        found = await said(server, tools=[MCP, TOOL])
        assert [item["type"] for item in found["output"]] == ["mcp_call", "function_call"]
        assert CALLED == ["a", "b"]
        server.client.texts = [call("echo", '{"text": "c"}'), "Done."]
        found = await said(server, tools=[{**MCP, "allowed_tools": ["echo"]}])
        assert "breaks" not in server.client.prompts[-1] and CALLED[-1] == "c"

    talk(test, tool_server=[f"tools={address}"])


def test_the_limit_of_tokens_is_that_of_all_turns(address: str) -> None:
    async def test(server: Saying) -> None:
        said_first = call("echo", '{"text": "a"}')
        num = len(server.client.tokenizer.encode(said_first, False)) + 1  # and the one that ends it
        server.client.texts = [said_first, "One, two, three, four."]
        found = await said(server, tools=[MCP], max_output_tokens=num + 3)
        assert found["status"] == "incomplete" and found["usage"]["output_tokens"] == num + 3
        server.client.texts = [said_first, "Never said."]
        found = await said(server, tools=[MCP], max_output_tokens=num)
        assert found["status"] == "incomplete" and len(found["output"]) == 1
        assert found["output"][0]["output"] == "echo: a"

    talk(test, tool_server=[f"tools={address}"])


def test_a_demanded_call_is_demanded_once(address: str) -> None:
    async def test(server: Saying) -> None:
        server.client.texts = [call("echo", '{"text": "a"}'), "Done."]
        found = await said(server, tools=[MCP], tool_choice="required")
        assert [item["type"] for item in found["output"]] == ["mcp_call", "message"]
        assert server.client.grammars[-2] is not None and server.client.grammars[-1] is None

    talk(test, tool_server=[f"tools={address}"])


def test_only_named_servers_are_called(address: str) -> None:
    async def test(server: Saying) -> None:
        for changed in (
            {"server_label": "others"},
            {"server_url": "http://169.254.169.254/"},
            {"require_approval": "always"},
            {"allowed_tools": 5},
        ):
            answer = await ask(server, tools=[{**MCP, **changed}])
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == f"tools[0].{next(iter(changed))}"
        answer = await ask(server, tools=[{**MCP, "server_label": "gone"}])
        assert answer.status_code == 424 and answer.json()["error"]["param"] == "tools[0]"

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"gone=127.0.0.1:{unused.getsockname()[1]}"
        talk(test, tool_server=[f"tools={address}", gone])


@pytest.mark.parametrize("wrong", ["demo", "x=", "label=demo"])
def test_wrong_addresses_end_the_start(wrong: str) -> None:
    with pytest.raises(SettingsError, match="tool-server"):
        ToolServers([wrong])
