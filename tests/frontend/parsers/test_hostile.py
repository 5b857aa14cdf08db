"""Texts made to hurt: nothing is raised, nothing runs, and twice the text takes about twice the time."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import time
from pathlib import Path
from re import Pattern
from types import ModuleType

import pytest

from quire.frontend import parsers
from quire.frontend.parsers.registry import THINK_FORMATS, TOOL_FORMATS
from quire.frontend.parsers.source import Tags
from tests.frontend.parsers.reading import read
from tests.frontend.parsers.shapes import TOOLS

SIZE = 50_000


def units(tags: tuple[str, ...]) -> list[str]:
    """Texts to repeat: tags, halves of them, and what bad patterns choke on."""
    tag = tags[0] if tags else "[{"
    return [
        tag,
        tag[:-1],
        tag[0],
        tag + "{" * 10,
        '{"a":',
        "[",
        "[A(A=",
        "\t,",
        ' "\\',
        f'{tag}{{"name": "f", "arguments": {{"a": "',
        f'{tag}{{"name": "f", "arguments": {{"a": 1}}}}',
        f"{tag}f\n<arg_key>a</arg_key><arg_value>",
        f"{tag}<function=f><parameter=a>\n",
        f'{tag}<invoke name="f"><parameter name="a">',
        f"{tag}call:f{{a:[",
        f"{tag}[f(a='",
        "f(a=[1, ",
        " ",
        "\n",
        "<|channel|>analysis",
        "</",
    ]


def seconds(text: str, cut: int, *, tools: str | None, reasoning: str | None) -> float:
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
    started = time.process_time()
    read(pieces, tools=tools, reasoning=reasoning, tools_given=TOOLS)
    return time.process_time() - started


def check_linear(unit: str, *, tools: str, reasoning: str | None = None) -> None:
    """100 kB of a unit take at most three times as long as 50 kB, and not long."""
    half = unit * (SIZE // len(unit))
    for cut in (50, 10**9):
        for _ in range(4):  # other work on the machine may disturb a measurement
            short = seconds(half, cut, tools=tools, reasoning=reasoning)
            long = seconds(half * 2, cut, tools=tools, reasoning=reasoning)
            if long < 3 * short + 0.02:
                break
        else:
            pytest.fail(f"{unit!r} in pieces of {cut}: {short:.3f} s, twice of it {long:.3f} s")
        assert long < 2.0, unit


DISTINCT = sorted({form: name for name, form in TOOL_FORMATS.items()}.values())


@pytest.mark.parametrize("name", ["hermes", "llama3_json", "pythonic"])
def test_time_is_linear_briefly(name: str) -> None:
    for unit in units(TOOL_FORMATS[name].tags)[::3]:
        check_linear(unit, tools=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
def test_time_is_linear(name: str) -> None:
    for unit in units(TOOL_FORMATS[name].tags):
        check_linear(unit, tools=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({f: n for n, f in THINK_FORMATS.items()}.values()))
def test_time_of_reasoning_is_linear(name: str) -> None:
    form = THINK_FORMATS[name]
    start, end = (*form.starts, "<think>")[0], (*form.ends, "</think>")[0]
    for unit in (start, end, start + end, end[:-1], end[0], "<tool_call>"):
        check_linear(unit, tools="hermes", reasoning=name)


@pytest.mark.parametrize("name", DISTINCT)
def test_deep_nesting(name: str) -> None:
    """Nothing is recursive: 20,000 brackets are read like anything else."""
    for opening in ("{", "[", '{"a":', "[f(a=[", "[f(a={'b':"):
        for tag in ("", *TOOL_FORMATS[name].tags[:1]):
            for head in ("", '{"name": "f", "arguments": ', "f", "call:f", "f<｜tool▁sep｜>"):
                read([tag + head + opening * 20_000], tools=name, tools_given=TOOLS)


def modules() -> list[ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(parsers.__path__, parsers.__name__ + ".")]
    return [importlib.import_module(name) for name in names]


def test_no_pattern_backtracks() -> None:
    """Each regular expression of the parsers, on 100 kB made for the worst of them."""
    found = {
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, Pattern)
    }
    for form in (*TOOL_FORMATS.values(), *THINK_FORMATS.values()):
        tags = Tags((*getattr(form, "tags", ()), *getattr(form, "starts", ()), "</x>"))
        found |= {tags._whole, tags._first}
    assert len(found) > 20
    for unit in ("[A(A=", "\t,", "a", "0", "9.", '"', "\\", "<", "<tool_call", " ", 'a="', "to="):
        text = unit * (100_000 // len(unit))
        for pattern in found:
            for method in (pattern.search, pattern.match, pattern.fullmatch):
                least = 1.0
                for _ in range(3):
                    started = time.process_time()
                    method(text)
                    least = min(least, time.process_time() - started)
                    if least < 0.1:
                        break
                assert least < 0.1, (pattern.pattern, unit)


FORBIDDEN = {"eval", "exec", "compile", "__import__", "literal_eval"}


def test_nothing_is_evaluated() -> None:
    """No call of a function that runs text, in any file of the parsers; files of users are run on purpose."""
    for module in modules():
        path = Path(str(module.__file__))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN, f"{path}:{node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {one.name.partition(".")[0] for one in node.names}
                names.add((getattr(node, "module", "") or "").partition(".")[0])
                assert names.isdisjoint({"ast", "pickle", "marshal", "subprocess", "ctypes"})


VALUES = (
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w').close()",
    "(lambda: open('{path}', 'w'))()",
    "[open('{path}', 'w')]",
    "{{'a': open('{path}', 'w')}}",
)


@pytest.mark.parametrize("name", DISTINCT)
def test_no_code_runs(name: str, tmp_path: Path) -> None:
    """Code in the place of any value, with a type that a careless reader would evaluate."""
    marker = tmp_path / "p"
    tools = [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {
                    "properties": {"x": {"type": kind}, "y": {"type": ["object", "array"]}}
                },
            },
        }
        for kind in ("python", "object", "array", "integer", "tuple")
    ]
    form = TOOL_FORMATS[name]
    bodies = (
        "f(x={0})", "[f(x={0})]", "f(x=[{0}])", '{{"name": "f", "arguments": {{"x": {0}}}}}',
        "<function=f>\n<parameter=x>\n{0}\n</parameter>\n</function>", "call:f{{x:{0}}}",
        "f\n<arg_key>y</arg_key>\n<arg_value>{0}</arg_value>\n</tool_call>",
        '<invoke name="f"><parameter name="x">{0}</parameter></invoke>', "{0}", "f{{{0}}}",
        '<steptml:invoke name="f"><steptml:parameter name="y">{0}</steptml:parameter>',
        '<｜DSML｜invoke name="f"><｜DSML｜parameter name="y" string="false">{0}</｜DSML｜parameter>',
    )  # fmt: skip
    for value in VALUES:
        for body in bodies:
            text = (form.tags or ("",))[0] + body.format(value.format(path=marker))
            whole = read([text], tools=name, tools_given=tools)
            for at in range(1, len(text), 9):
                assert read([text[:at], text[at:]], tools=name, tools_given=tools) == whole
    assert not marker.exists()
