"""Outputs in every format, rendered from what they say: what `tests/data/parsers` is made of.

Each renderer writes a message as the family's published chat template does, from parts that are chosen
here, so that what must come out is known without any parser. Run as a script to write the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "parsers"

Call = tuple[str, dict[str, Any]]
Render = Callable[[str, list[Call], str], str]

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": properties},
        },
    }
    for name, properties in {
        "get_weather": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "now": {},
        "write_file": {"path": {"type": "string"}, "text": {"type": "string"}},
        "search": {
            "query": {"type": "string"},
            "options": {"type": "object"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "limit": {"type": "number"},
            "exact": {"type": "boolean"},
            "after": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "page": {"type": ["integer", "null"]},
            "sort": {"enum": ["up", "down"]},
        },
    }.items()
]

CODE = 'def f(x):\n    """Doc: {x!r}"""\n    return [x, "a\\tb", \'c\'] if x < 3 else {"k": x}'

CALLS: dict[str, list[Call]] = {
    "one call": [("get_weather", {"city": "Paris"})],
    "an integer": [("get_weather", {"city": "Rome", "days": 3})],
    "no arguments": [("now", {})],
    "two calls": [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Bergen"})],
    "three calls, one without arguments": [
        ("get_weather", {"city": "Oslo", "days": 1}),
        ("now", {}),
        ("search", {"query": "fjords"}),
    ],
    "nested": [("search", {"query": "q", "options": {"a": [1, {"b": [True, None]}], "c": {}}})],
    "an array": [("search", {"query": "q", "tags": ["x", "y, z", "]"]})],
    "an empty array and object": [("search", {"tags": [], "options": {}})],
    "numbers": [("search", {"query": "q", "limit": -2.5, "page": 12})],
    "a whole number for a number": [("search", {"limit": 10})],
    "true and false": [("search", {"exact": True}), ("search", {"exact": False})],
    "null": [("search", {"query": "q", "page": None, "after": None})],
    "one of several words": [("search", {"sort": "up"})],
    "a string like a number": [("get_weather", {"city": "42"})],
    "a string like JSON": [("write_file", {"path": "a.json", "text": '{"a": [1, 2]}'})],
    "a string like true": [("search", {"query": "true"})],
    "an empty string": [("write_file", {"path": "", "text": "x"})],
    "letters of all kinds": [("search", {"query": "žluťoučký 東京 🦊👩‍👧 \u00a0é"})],
    "code": [("write_file", {"path": "f.py", "text": CODE})],
    "markup": [("write_file", {"path": "i.html", "text": "<p>a &amp; b</p>\n<br/>\n<a href='#'>"})],
    "backslashes": [("write_file", {"path": "C:\\new\\t.txt", "text": "\\d+\\n\\\\"})],
    "brackets in a string": [("search", {"query": "}]) ({[ }} ]]"})],
    "line breaks at the ends": [("write_file", {"path": "n", "text": "\n\nx\n\n"})],
}


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def objects(calls: list[Call], name: str = "name", arguments: str = "arguments") -> list[str]:
    return [dumps({name: tool, arguments: given}) for tool, given in calls]


def each(before: str, after: str, between: str = "\n", **keys: str) -> Render:
    """Every call between tags of its own."""

    def render(content: str, calls: list[Call], trail: str) -> str:
        return content + between.join(before + o + after for o in objects(calls, **keys)) + trail

    return render


def listed(before: str, after: str, **keys: str) -> Render:
    """All calls in one array."""

    def render(content: str, calls: list[Call], trail: str) -> str:
        array = "[" + ", ".join(objects(calls, **keys)) + "]"
        return content + (before + array + after if calls else "") + trail

    return render


def lines(before: str, after: str, between: str = "\n", **keys: str) -> Render:
    """All calls between two tags, one after the other."""

    def render(content: str, calls: list[Call], trail: str) -> str:
        found = between.join(objects(calls, **keys))
        return content + (before + found + after if calls else "") + trail

    return render


def headed(section: tuple[str, str], call: Callable[[int, str, str], str]) -> Render:
    """All calls in a section, each made of its number, its name and JSON."""

    def render(content: str, calls: list[Call], trail: str) -> str:
        made = [call(n, name, dumps(given)) for n, (name, given) in enumerate(calls)]
        return content + (section[0] + "".join(made) + section[1] if calls else "") + trail

    return render


def plain(value: Any) -> str:
    """A value as templates print it where they do not quote: strings bare, the rest as JSON."""
    return value if isinstance(value, str) else dumps(value)


def tagged(
    section: tuple[str, str],
    call: Callable[[str, str], str],
    argument: Callable[[str, Any], str],
) -> Render:
    """All calls in a section, each with its arguments between tags."""

    def render(content: str, calls: list[Call], trail: str) -> str:
        made = [
            call(name, "".join(argument(key, value) for key, value in given.items()))
            for name, given in calls
        ]
        return content + (section[0] + "".join(made) + section[1] if calls else "") + trail

    return render


def python(before: str, after: str, between: str = ", ") -> Render:
    """Calls of Python with keyword arguments."""

    def render(content: str, calls: list[Call], trail: str) -> str:
        made = [
            f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
            for name, given in calls
        ]
        return content + (before + between.join(made) + after if calls else "") + trail

    return render


def bare_keys(value: Any, quote: str) -> str:
    """Gemma's notation."""
    if isinstance(value, str):
        return quote + value + quote
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{bare_keys(v, quote)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(bare_keys(v, quote) for v in value) + "]"
    return dumps(value)


def gemma(before: str, after: str, quote: str) -> Render:
    def render(content: str, calls: list[Call], trail: str) -> str:
        made = [f"{before}call:{name}{bare_keys(given, quote)}{after}" for name, given in calls]
        return content + "".join(made) + trail

    return render


def harmony(content: str, calls: list[Call], trail: str) -> str:
    said = f"<|channel|>final<|message|>{content}<|end|>" if content or not calls else ""
    made = [
        f"<|start|>assistant<|channel|>commentary to=functions.{name} <|constrain|>json"
        f"<|message|>{dumps(given)}<|call|>"
        for name, given in calls
    ]
    last = f"<|start|>assistant<|channel|>final<|message|>{trail}<|return|>" if trail else ""
    return said + "".join(made) + last


def apertus(content: str, calls: list[Call], trail: str) -> str:
    array = dumps([{name: given} for name, given in calls])
    return content + (f"<|tools_prefix|>{array}<|tools_suffix|>" if calls else "") + trail


def xtml(content: str, calls: list[Call], trail: str) -> str:
    kinds = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object",
             list: "array", type(None): "null"}  # fmt: skip
    made = "".join(
        f'<|open|>call tool="{name}" index="{n + 1}"<|sep|>'
        + "".join(
            f'<|open|>argument key="{k}" type="{kinds[type(v)]}"<|sep|>{plain(v)}'
            "<|close|>argument<|sep|>"
            for k, v in given.items()
        )
        + "<|close|>call<|sep|>"
        for n, (name, given) in enumerate(calls)
    )
    said = f"<|open|>response<|sep|>{content}{trail}<|close|>response<|sep|>"
    return said + (f"<|open|>tools<|sep|>{made}<|close|>tools<|sep|>" if calls else "")


def minimax_m3(content: str, calls: list[Call], trail: str) -> str:
    mark = "]<]minimax[>["

    def element(key: str, value: Any) -> str:
        inside = plain(value)
        if isinstance(value, dict) and value:
            inside = "".join(element(k, v) for k, v in value.items())
        if isinstance(value, list) and value:
            inside = "".join(element("item", v) for v in value)
        return f"{mark}<{key}>{inside}{mark}</{key}>"

    made = "".join(
        f'{mark}<invoke name="{name}">{"".join(element(k, v) for k, v in given.items())}'
        f"{mark}</invoke>\n"
        for name, given in calls
    )
    return content + (f"{mark}<tool_call>\n{made}{mark}</tool_call>" if calls else "") + trail


_QWEN = tagged(
    ("", ""),
    lambda name, inside: f"<tool_call>\n<function={name}>\n{inside}</function>\n</tool_call>",
    lambda key, value: f"<parameter={key}>\n{plain(value)}\n</parameter>\n",
)
_DSML_CALL = lambda name, inside: (  # noqa: E731
    f'<｜DSML｜invoke name="{name}">\n{inside}</｜DSML｜invoke>\n'
)
_DSML_ARGUMENT = lambda key, value: (  # noqa: E731
    f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">'
    f"{plain(value)}</｜DSML｜parameter>\n"
)
_GLM_PAIR = lambda key, value: (  # noqa: E731
    f"<arg_key>{key}</arg_key>\n<arg_value>{plain(value)}</arg_value>\n"
)
_V3 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>\n"

RENDERERS: dict[str, Render] = {
    "hermes": each("<tool_call>\n", "\n</tool_call>"),
    "granite4": each("<tool_call>\n", "\n</tool_call>"),
    "ernie45": each("<tool_call>\n", "\n</tool_call>\n"),
    "longcat": each("<longcat_tool_call>", "</longcat_tool_call>", ""),
    "llama3_json": lines("", "", "; ", arguments="parameters"),
    "llama4_json": lines("", "", ";", arguments="parameters"),
    "granite": listed("<|tool_call|>", ""),
    "granite-20b-fc": each("<function_call> ", "\n", ""),
    "internlm": each("<|action_start|><|plugin|>", "<|action_end|>", arguments="parameters"),
    "jamba": listed("<tool_calls>", "</tool_calls>"),
    "hunyuan_a13b": listed("<tool_calls>", "</tool_calls>"),
    "minimax": lines("<tool_calls>\n", "\n</tool_calls>"),
    "phi4_mini_json": listed("functools", ""),
    "xlam": listed("", ""),
    "gigachat3": each("<|message_sep|>\n\nfunction call<|role_sep|>\n", "", ""),
    "cohere": listed(
        "<|START_ACTION|>", "<|END_ACTION|>", name="tool_name", arguments="parameters"
    ),
    "inkling": each(
        "<|message_model|><|content_invoke_tool_json|>", "<|end_message|>", "", arguments="args"
    ),
    "mistral": headed(("", ""), lambda _, name, given: f"[TOOL_CALLS]{name}[ARGS]{given}"),
    "deepseek_v3": headed(
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"), lambda _, n, g: _V3.format(n, g)
    ),
    "deepseek_v31": headed(
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        lambda _, n, g: f"<｜tool▁call▁begin｜>{n}<｜tool▁sep｜>{g}<｜tool▁call▁end｜>",
    ),
    "kimi_k2": headed(
        ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        lambda i, n, g: (
            f"<|tool_call_begin|>functions.{n}:{i}<|tool_call_argument_begin|>{g}<|tool_call_end|>"
        ),
    ),
    "kimi_k3": xtml,
    "qwen3_coder": _QWEN,
    "qwen3_xml": _QWEN,
    "step3p5": _QWEN,
    "mimo": _QWEN,
    "nemotron_v3": _QWEN,
    "seed_oss": tagged(
        ("", ""),
        lambda n, i: f"<seed:tool_call>\n<function={n}>\n{i}</function>\n</seed:tool_call>",
        lambda key, value: f"<parameter={key}>\n{plain(value)}\n</parameter>\n",
    ),
    "glm45": tagged(("", ""), lambda n, i: f"\n<tool_call>{n}\n{i}</tool_call>", _GLM_PAIR),
    "glm47": tagged(
        ("", ""),
        lambda n, i: f"<tool_call>{n}{i}</tool_call>",
        lambda k, v: f"<arg_key>{k}</arg_key><arg_value>{plain(v)}</arg_value>",
    ),
    "ling3": tagged(("", ""), lambda n, i: f"<tool_call>{n}\n{i}</tool_call>", _GLM_PAIR),
    "poolside": tagged(("", ""), lambda n, i: f"<tool_call>{n}\n{i}</tool_call>", _GLM_PAIR),
    "hy_v3": tagged(
        ("<tool_calls>\n", "</tool_calls>"),
        lambda n, i: f"<tool_call>{n}<tool_sep>\n{i}</tool_call>\n",
        _GLM_PAIR,
    ),
    "minimax_m2": tagged(
        ("<minimax:tool_call>\n", "</minimax:tool_call>"),
        lambda n, i: f'<invoke name="{n}">\n{i}</invoke>\n',
        lambda k, v: f'<parameter name="{k}">{plain(v)}</parameter>\n',
    ),
    "minicpm5": tagged(
        ("", ""),
        lambda n, i: f'<function name="{n}">{i}</function>',
        lambda k, v: f'<param name="{k}">{plain(v)}</param>',
    ),
    "step3": tagged(
        ("<｜tool_calls_begin｜>\n", "<｜tool_calls_end｜>"),
        lambda n, i: (
            f'<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="{n}">\n{i}'
            "</steptml:invoke><｜tool_call_end｜>\n"
        ),
        lambda k, v: f'<steptml:parameter name="{k}">{plain(v)}</steptml:parameter>\n',
    ),
    "deepseek_v32": tagged(
        ("<｜DSML｜function_calls>\n", "</｜DSML｜function_calls>"), _DSML_CALL, _DSML_ARGUMENT
    ),
    "deepseek_v4": tagged(
        ("<｜DSML｜tool_calls>\n", "</｜DSML｜tool_calls>"), _DSML_CALL, _DSML_ARGUMENT
    ),
    "pythonic": python("[", "]"),
    "llama4_pythonic": python("<|python_start|>[", "]<|python_end|>"),
    "lfm2": python("<|tool_call_start|>[", "]<|tool_call_end|>"),
    "olmo3": python("<function_calls>\n", "\n</function_calls>", "\n"),
    "functiongemma": gemma("<start_function_call>", "<end_function_call>", "<escape>"),
    "gemma4": gemma("<|tool_call>", "<tool_call|>", '<|"|>'),
    "minimax_m3": minimax_m3,
    "openai": harmony,
    "apertus": apertus,
}

ONLY_AT_THE_START = {"llama3_json", "llama4_json", "pythonic", "xlam"}
"""Formats whose calls are the whole message."""

NOT_AFTER = ONLY_AT_THE_START | {"granite-20b-fc", "gigachat3"}
"""Formats after whose calls nothing is said."""


def shape(text: str, content: str, calls: list[Any], note: str) -> dict[str, Any]:
    """One entry of a file. A call's arguments are an object, or the text of a broken one."""
    made = [{"name": name, "arguments": given} for name, given in calls]
    return {"note": note, "text": text, "content": content, "calls": made}


def well_formed(name: str) -> list[dict[str, Any]]:
    """What the template of a format gives for every message here."""
    render = RENDERERS[name]
    found = [shape(render("", c, ""), "", c, note) for note, c in CALLS.items()]
    hello = "Hello, what a day. 1 < 2 and a[0] = {x}"
    found.append(shape(render(hello, [], ""), hello, [], "no call"))
    one = CALLS["one call"]
    if name not in ONLY_AT_THE_START:
        found.append(shape(render("Let me look.\n", one, ""), "Let me look.", one, "text before"))
    if name not in NOT_AFTER:
        found.append(shape(render("", one, "Done."), "Done.", one, "text behind"))
    return found


def main() -> None:
    from tests.frontend.parsers.malformed import MALFORMED
    from tests.frontend.parsers.thinking import write_thinking

    (DATA / "tools").mkdir(parents=True, exist_ok=True)
    for name in RENDERERS:
        found = well_formed(name) + [shape(*entry) for entry in MALFORMED.get(name, [])]
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found)
        (DATA / "tools" / f"{name}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    write_thinking(DATA / "reasoning")


if __name__ == "__main__":
    main()
