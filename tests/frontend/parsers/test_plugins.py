"""Files of users: declared formats, and classes in the manner of vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quire.frontend.parsers import plugins, registry
from quire.frontend.parsers.plugins import (
    ReasoningParserManager,
    ToolParserManager,
    load_plugin,
)
from quire.frontend.parsers.reader import make_reader
from quire.protocol.errors import SettingsError
from quire.protocol.message import ReadOptions
from tests.frontend.parsers.reading import Read, read
from tests.frontend.parsers.shapes import TOOLS


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    known = dict(registry.TOOL_FORMATS), dict(registry.THINK_FORMATS)
    loaded = set(plugins._loaded)
    yield
    for forms, before in zip((registry.TOOL_FORMATS, registry.THINK_FORMATS), known):
        forms.clear()
        forms.update(before)
    plugins._loaded.clear()
    plugins._loaded.update(loaded)


def write(folder: Path, text: str) -> str:
    path = folder / "plugin.py"
    path.write_text(text)
    return str(path)


DECLARED = """
from quire.frontend.parsers.formats import ThinkFormat
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.plugins import register_think_format, register_tool_format

register_tool_format("mine", JsonCalls(tags=("@call ",), ends=(";",)))
register_think_format("mine", ThinkFormat(starts=("((",), ends=("))",)))
"""


def test_a_declared_format_streams(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, DECLARED))
    text = '((why))Hi @call {"name": "f", "arguments": {"a": 1}};'
    for pieces in ([text], list(text)):
        assert read(pieces, tools="mine", reasoning="mine") == Read(
            "why", "Hi", (("f#0", "f", '{"a": 1}'),)
        )


CLASSES = """
import json
from quire.frontend.parsers.classes import (
    ExtractedToolCallInformation, FunctionCall, ReasoningParser, ToolCall, ToolParser,
)
from quire.frontend.parsers.plugins import ReasoningParserManager, ToolParserManager


@ToolParserManager.register_module(["lines", "lines2"])
class LineParser(ToolParser):
    def adjust_request(self, request):
        request.skip_special_tokens = False
        return request

    def extract_tool_calls(self, model_output, request):
        if "boom" in model_output:
            raise RuntimeError("boom")
        names = {tool.function.name for tool in request.tools}
        calls, said = [], []
        for line in model_output.splitlines():
            name, _, city = line.partition(" ")
            if name in names:
                calls.append(ToolCall(function=FunctionCall(name, json.dumps({"city": city}))))
            else:
                said.append(line)
        return ExtractedToolCallInformation(bool(calls), calls, "\\n".join(said))


@ReasoningParserManager.register_module("lines")
class LineThinking(ReasoningParser):
    def __init__(self, tokenizer, *args, **kwargs):
        super().__init__(tokenizer)
        self.off = kwargs["chat_template_kwargs"].get("thinking") is False

    def extract_reasoning(self, model_output, request):
        head, mark, tail = model_output.partition("\\n---\\n")
        return (head, tail) if mark and not self.off else (None, model_output)
"""


def test_classes_see_the_whole_output(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, CLASSES))
    text = "Hm.\n---\nSure.\nget_weather Oslo\nget_weather Rome"
    for pieces in ([text], list(text), [text[:9], text[9:]]):
        found = read(pieces, tools="lines", reasoning="lines", tools_given=TOOLS)
        assert found.reasoning == "Hm." and found.content == "Sure."
        assert [one[1:] for one in found.calls] == [
            ("get_weather", '{"city": "Oslo"}'),
            ("get_weather", '{"city": "Rome"}'),
        ]
    options = ReadOptions(tool_choice="auto", tools=TOOLS)
    assert make_reader(None, "lines2", options, None).needs_special_tokens
    off = read([text], reasoning="lines", template_kwargs={"thinking": False})
    assert off == Read("", text, ())


def test_a_class_and_a_built_in_format_go_together(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, CLASSES))
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    for text in (f"Hm.\n---\n{call}", f"Hm.\n---\na\n{call}"):
        for pieces in ([text], list(text)):
            found = read(pieces, tools="hermes", reasoning="lines")
            assert found.reasoning == "Hm." and [one[1] for one in found.calls] == ["f"]
    text = "<think>Hm.</think>get_weather Oslo"
    found = read(list(text), tools="lines", reasoning="qwen3", tools_given=TOOLS)
    assert found.reasoning == "Hm." and [one[1] for one in found.calls] == ["get_weather"]


def test_an_error_of_a_class_leaves_content(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, CLASSES))
    assert read(list("boom"), tools="lines", tools_given=TOOLS) == Read("", "boom", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers no parser; docs/howto_parser.md"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("syntax error", "failed: SyntaxError"),
    ],
)
def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_plugin(write(tmp_path, text))


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'/nowhere/x\.py' is not a Python file"):
        load_plugin("/nowhere/x.py")
    load_plugin("")


def test_a_file_runs_once(tmp_path: Path) -> None:
    path = write(tmp_path, DECLARED)
    load_plugin(path)
    form = registry.TOOL_FORMATS["mine"]
    load_plugin(path)
    assert registry.TOOL_FORMATS["mine"] is form


def test_managers() -> None:
    from quire.frontend.parsers.classes import ReasoningParser, ToolParser

    class Mine(ToolParser):
        pass

    assert ToolParserManager.register_module(module=Mine) is Mine
    assert ToolParserManager.get_tool_parser("Mine") is Mine
    assert "hermes" in ToolParserManager.list_registered()
    with pytest.raises(KeyError, match="already registered"):
        ToolParserManager.register_module("Mine", force=False)(Mine)
    with pytest.raises(TypeError, match="not a subclass of ReasoningParser"):
        ReasoningParserManager.register_module("Mine")(Mine)
    with pytest.raises(KeyError, match="built-in formats are no classes"):
        ReasoningParserManager.get_reasoning_parser("qwen3")
    ReasoningParserManager.register_lazy_module(
        "lazy", "quire.frontend.parsers.classes", "ReasoningParser"
    )
    assert ReasoningParserManager.get_reasoning_parser("lazy") is ReasoningParser
