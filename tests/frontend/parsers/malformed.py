"""Outputs that break their format, with what must be left of them.

Each is (text, content, calls, what it is); a call's arguments are text where they stay broken.
"""

from __future__ import annotations

from typing import Any

Shape = tuple[str, str, list[tuple[str, Any]], str]

MALFORMED: dict[str, list[Shape]] = {}

F: list[tuple[str, Any]] = [("f", {"a": 1})]


def json_between(tag: str, end: str, arguments: str = "arguments") -> list[Shape]:
    """Of formats with an object behind a tag."""
    good = f'{tag}{{"name": "f", "{arguments}": {{"a": 1}}}}{end}'
    return [
        (tag, tag, [], "nothing behind the tag"),
        (tag[:-1], tag[:-1], [], "half a tag"),
        (f"{tag}garbage", f"{tag}garbage", [], "no JSON"),
        (f"{tag}{{bad}}{end}", f"{tag}{{bad}}", [], "no key") if not end else
        (f"{tag}{{bad}} x", f"{tag}{{bad}} x", [], "no key"),
        (f'{tag}{{"name": "f"', f'{tag}{{"name": "f"', [], "cut behind the name"),
        (f'{tag}{{"name": "', f'{tag}{{"name": "', [], "cut in the name"),
        (f'{tag}{{"name": 5, "{arguments}": {{}}}}', f'{tag}{{"name": 5, "{arguments}": {{}}}}', [],
         "the name is a number"),
        (f'{tag}{{"name": "f", "{arguments}": {{"a": [1, "x', "",
         [("f", '{"a": [1, "x')], "cut in the arguments"),
        (f'{tag}{{"name": "f", "{arguments}": [1]}} x', f'{tag}{{"name": "f", "{arguments}": [1]}} x',
         [], "the arguments are an array"),
        (f'{tag}{{"{arguments}": {{"a": 1}}, "name": "f"}}{end}', "", F, "arguments before the name"),
        (f'{tag}{{"id": "x", "name": "f", "{arguments}": {{"a": 1}}, "z": [{{}}]}}{end}', "", F,
         "other keys"),
        (f'{tag}{{"name": "f", "{arguments}": "{{\\"a\\": 1}}"}}{end}', "", F,
         "arguments in a string"),
        (f'{tag}{{"name": "f", "{arguments}": null}}{end}', "", [("f", {})], "null for arguments"),
        (f'{tag}\n\n {{ "name" : "f" , "{arguments}" :\n{{ "a" : 1 }} }} {end}', "", F, "much space"),
        (f"so {tag}x {good}", f"so {tag}x", F, "a broken one before a good one"),
    ]  # fmt: skip


for _name, _tag, _end, _key in (
    ("hermes", "<tool_call>", "</tool_call>", "arguments"),
    ("granite4", "<tool_call>", "</tool_call>", "arguments"),
    ("ernie45", "<tool_call>", "</tool_call>", "arguments"),
    ("longcat", "<longcat_tool_call>", "</longcat_tool_call>", "arguments"),
    ("internlm", "<|action_start|><|plugin|>", "<|action_end|>", "parameters"),
    ("granite-20b-fc", "<function_call>", "", "arguments"),
    ("gigachat3", "<|function_call|>", "", "arguments"),
    ("minimax", "<tool_calls>", "</tool_calls>", "arguments"),
    ("jamba", "<tool_calls>", "</tool_calls>", "arguments"),
    ("hunyuan_a13b", "<tool_calls>", "</tool_calls>", "arguments"),
    ("granite", "<|tool_call|>", "", "arguments"),
    ("phi4_mini_json", "functools", "", "arguments"),
    ("inkling", "<|content_invoke_tool_json|>", "<|end_message|>", "args"),
    ("cohere", "<|START_ACTION|>", "<|END_ACTION|>", "parameters"),
    ("mistral", "[TOOL_CALLS]", "", "arguments"),
    ("xlam", "<tool_call>", "</tool_call>", "arguments"),
):
    MALFORMED[_name] = json_between(_tag, _end, _key)

MALFORMED["hermes"] += [
    ('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', "", F, "a brace is missing"),
    ('<tool_call>{"name": "f", "arguments": {"a": </tool_call> so',
     " so", [("f", '{"a": ')], "arguments cut by the end tag"),
    ('<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>',
     "", [("f", {"a": "</tool_call>"})], "the end tag in a string"),
    ('<tool_call>{"name": "f", "arguments": {"a": 1}, junk}</tool_call>',
     ", junk}</tool_call>", F, "junk behind the arguments"),
    ('<tool_call>[{"name": "f", "arguments": {"a": 1}}]</tool_call>', "", F, "in an array"),
    ('<tool_call>{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}</tool_call>',
     "", F, "as OpenAI writes it"),
    ("<tool_call></tool_call>", "<tool_call></tool_call>", [], "empty"),
]  # fmt: skip
MALFORMED["jamba"] += [
    ('<tool_calls>[{"name": "f", "arguments": {"a": 1}}, {"x": 2}]</tool_calls>',
     ', {"x": 2}]</tool_calls>', F, "the second is none"),
    ('<tool_calls>[{"name": "f", "arguments": {"a": 1}}', "", F, "the array is not closed"),
    ("<tool_calls>[]</tool_calls>", "<tool_calls>[]</tool_calls>", [], "an empty array"),
]  # fmt: skip
for _name in ("granite", "phi4_mini_json"):
    _tag = "<|tool_call|>" if _name == "granite" else "functools"
    MALFORMED[_name] += [
        (f"{_tag}[]", f"{_tag}[]", [], "an empty array"),
        (f"{_tag}[1, 2]", f"{_tag}[1, 2]", [], "an array of numbers"),
    ]
MALFORMED["mistral"] += [
    ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]', "",
     [*F, ("g", {})], "the array of version 3"),
    ('[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g{}', "", [*F, ("g", {})], "names without a mark"),
    ('[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}', "", F, "with an id"),
    ("[TOOL_CALLS]f[ARGS]", "[TOOL_CALLS]f[ARGS]", [], "cut behind the mark"),
    ("[TOOL_CALLS]two words{}", "[TOOL_CALLS]two words{}", [], "no name"),
    ("[TOOL_CALLS]f[ARGS]{bad}", "[TOOL_CALLS]f[ARGS]{bad}", [], "no arguments"),
    ('[TOOL_CALLS]f[ARGS]{"a": 1', "", [("f", '{"a": 1')], "cut in the arguments"),
]  # fmt: skip
MALFORMED["xlam"] += [
    ('```json\n[{"name": "f", "arguments": {"a": 1}}]\n```', "", F, "a code block"),
    ('```json\n{"x": 1}\n```', '```json\n{"x": 1}\n```', [], "a code block of other JSON"),
    ("[1, 2, 3]", "[1, 2, 3]", [], "an array of numbers"),
    ('[{"name": "Bob"}]', '[{"name": "Bob"}]', [], "an array of people"),
]  # fmt: skip
_LLAMA: list[Shape] = [
    ('{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', [], "JSON that is no call"),
    ('{"a": 1}', '{"a": 1}', [], "other JSON"),
    ("{not json}", "{not json}", [], "no JSON"),
    ("{", "{", [], "a brace"),
    ('{"name": "f", "parameters": {"a": 1', "", [("f", '{"a": 1')], "cut in the arguments"),
    ('{"name": "f", "parameters": {"a": 1}', "", F, "the last brace is missing"),
    ('{"name": "f", "param', '{"name": "f", "param', [], "cut in a key"),
    ('{"type": "function", "name": "f", "parameters": {"a": 1}}', "", F, "with a type"),
    ('<|python_tag|>{"name": "f", "parameters": {"a": 1}}', "", F, "behind the token"),
    ("<|python_tag|>print(1)", "<|python_tag|>print(1)", [], "code behind the token"),
    ('{"name": "f", "parameters": {"a": 1}} and so', " and so", F, "text behind"),
    ('So: {"name": "f", "parameters": {}}', 'So: {"name": "f", "parameters": {}}', [],
     "text before"),
    (' \n{"name": "f", "parameters": {"a": 1}}', "", F, "space before"),
]  # fmt: skip
MALFORMED["llama3_json"] = MALFORMED["llama4_json"] = _LLAMA


def tagged(
    section: str, call: str, name_end: str, argument: str, key_end: str, value_end: str,
    call_end: str, end: str,
) -> list[Shape]:  # fmt: skip
    """Of formats with arguments between tags."""
    good = f"{section}{call}f{name_end}{argument}a{key_end}1{value_end}{call_end}{end}"
    a_is_text: list[tuple[str, Any]] = [("f", {"a": "1"})]
    broken = f"{section}{call}f{name_end}{argument}a{key_end}"
    return [
        (good, "", a_is_text, "a tool that nobody declared: text is text"),
        (f"so {section}{call}x y {good}", f"so {section}{call}x y", a_is_text,
         "a broken one before a good one"),
        (f"{section}{call}", f"{section}{call}", [], "cut before the name"),
        (f"{section}{call}f", f"{section}{call}f", [], "cut in the name"),
        (f"{section}{call}f{name_end}{argument}a", f"{section}{call}f{name_end}{argument}a", [],
         "cut in a key"),
        (f"{broken}x", "", [("f", '{"a": "x')], "cut in a value"),
        (f"{broken}x{value_end}", "", [("f", '{"a": "x"')], "cut behind a value"),
        (f"{broken}x{value_end}junk", "junk", [("f", {"a": "x"})], "junk behind a value"),
        (f"{broken}__import__('os').system('touch p'){value_end}{call_end}{end}", "",
         [("f", {"a": "__import__('os').system('touch p')"})], "code for a value"),
        (f"{broken}x{value_end[:-1]}{value_end}{call_end}{end}", "",
         [("f", {"a": "x" + value_end[:-1]})], "half an end tag in a value"),
        (f"a {section[:-2]} b", f"a {section[:-2]} b", [], "half a tag"),
        (f"{section}{call}get_weather{name_end}{argument}days{key_end}many{value_end}{call_end}{end}",
         "", [("get_weather", {"days": "many"})], "a word for a number"),
        (f"{section}{call}search{name_end}{argument}options{key_end}{{'a': True, 'b': None}}{value_end}"
         f"{call_end}{end}", "", [("search", {"options": {"a": True, "b": None}})],
         "a literal of Python for an object"),
        (f"{section}{call}search{name_end}{argument}options{key_end}{{a{value_end}{call_end}{end}",
         "", [("search", {"options": "{a"})], "a broken object"),
        (f"{section}{call}search{name_end}{argument}exact{key_end}True{value_end}{argument}limit{key_end}"
         f".5{value_end}{argument}page{key_end}007{value_end}{call_end}{end}", "",
         [("search", {"exact": True, "limit": 0.5, "page": 7})], "loose spelling"),
        (f"{section}{call}search{name_end}{argument}limit{key_end}{'9' * 5000}{value_end}{call_end}{end}",
         "", [("search", {"limit": "9" * 5000})], "a number of 5,000 digits"),
        (f"{section}{call}search{name_end}{argument}limit{key_end}NaN{value_end}{call_end}{end}",
         "", [("search", {"limit": "NaN"})], "not a number"),
    ]  # fmt: skip


_QWEN: list[Shape] = [
    *tagged("<tool_call>", "<function=", ">", "<parameter=", ">", "</parameter>", "</function>",
            "</tool_call>"),
    ("<function=f>\n<parameter=a>\nx\n</parameter>\n</function>", "", [("f", {"a": "x"})],
     "without the outer tag"),
    ("<tool_call>\n<function=f>\n<parameter=a>\nx\n<parameter=b>\ny\n</function>\n</tool_call>", "",
     [("f", {"a": "x", "b": "y"})], "values that are not closed"),
    ("<tool_call>\nhello\n</tool_call>", "<tool_call>\nhello\n</tool_call>", [], "no function"),
    ("<tool_call>\n<function=f>\n</function>", "", [("f", {})], "not closed"),
    ("<tool_call>\n<function=f>\n</tool_call>", "", [("f", {})], "the function is not closed"),
    ("<tool_call>\n<function=f>\nwhat?\n</tool_call>",
     "<tool_call>\n<function=f>\nwhat?\n</tool_call>", [], "text for a parameter"),
]  # fmt: skip
for _name in ("qwen3_coder", "qwen3_xml", "step3p5", "mimo", "nemotron_v3"):
    MALFORMED[_name] = _QWEN
MALFORMED["seed_oss"] = tagged(
    "<seed:tool_call>", "<function=", ">", "<parameter=", ">", "</parameter>", "</function>",
    "</seed:tool_call>",
)  # fmt: skip
for _name in ("glm45", "glm47", "ling3", "poolside"):
    MALFORMED[_name] = [
        *tagged("<tool_call>", "", "\n", "<arg_key>", "</arg_key><arg_value>", "</arg_value>", "",
                "</tool_call>"),
        ("<tool_call></tool_call>", "<tool_call></tool_call>", [], "empty"),
        ("<tool_call>f<arg_key>a</arg_key>x</tool_call>",
         "<tool_call>f<arg_key>a</arg_key>x</tool_call>", [], "no value"),
        ("<tool_call>f</tool_call><tool_call>g</tool_call>", "", [("f", {}), ("g", {})],
         "without arguments"),
    ]  # fmt: skip
MALFORMED["hy_v3"] = tagged(
    "<tool_calls>", "<tool_call>", "<tool_sep>", "<arg_key>", "</arg_key><arg_value>",
    "</arg_value>", "</tool_call>", "</tool_calls>",
)  # fmt: skip
MALFORMED["minimax_m2"] = tagged(
    "<minimax:tool_call>", "<invoke name=", ">", "<parameter name=", ">", "</parameter>",
    "</invoke>", "</minimax:tool_call>",
)  # fmt: skip
MALFORMED["minicpm5"] = tagged(
    "<function name=", "", ">", "<param name=", ">", "</param>", "</function>", "",
)  # fmt: skip
MALFORMED["step3"] = tagged(
    "<｜tool_calls_begin｜>", "<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=", ">",
    "<steptml:parameter name=", ">", "</steptml:parameter>", "</steptml:invoke>",
    "<｜tool_calls_end｜>",
)  # fmt: skip
for _name, _section in (("deepseek_v32", "function_calls"), ("deepseek_v4", "tool_calls")):
    MALFORMED[_name] = tagged(
        f"<｜DSML｜{_section}>", '<｜DSML｜invoke name="', '">', '<｜DSML｜parameter name="', '">',
        "</｜DSML｜parameter>", "</｜DSML｜invoke>", f"</｜DSML｜{_section}>",
    )  # fmt: skip
_OPEN, _CLOSE, _SEP = "<|open|>", "<|close|>", "<|sep|>"
MALFORMED["kimi_k3"] = [
    (f"{_OPEN}tools{_SEP}", f"{_OPEN}tools{_SEP}", [], "nothing inside"),
    (f"{_OPEN}tools{_SEP}{_OPEN}call tool=\"f\"", f"{_OPEN}tools{_SEP}{_OPEN}call tool=\"f\"", [],
     "cut in a tag"),
    (f'{_OPEN}tools{_SEP}{_OPEN}call x="f"{_SEP}', f'{_OPEN}tools{_SEP}{_OPEN}call x="f"{_SEP}', [],
     "no name"),
    (f'{_OPEN}tools{_SEP}{_OPEN}call tool="a&quot;b&amp;c"{_SEP}{_CLOSE}call{_SEP}{_CLOSE}tools{_SEP}',
     "", [('a"b&c', {})], "a name with escapes"),
    (f'{_OPEN}tools{_SEP}{_OPEN}call tool="f"{_SEP}{_OPEN}argument key="a" type="number"{_SEP}x'
     f"{_CLOSE}argument{_SEP}{_CLOSE}call{_SEP}", "", [("f", {"a": "x"})], "a word for a number"),
]  # fmt: skip

_V31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
for _name, _head in (
    ("deepseek_v3", "function<｜tool▁sep｜>f\n```json\n"),
    ("deepseek_v31", "f<｜tool▁sep｜>"),
):
    MALFORMED[_name] = [
        (_V31, _V31, [], "nothing inside"),
        (f"{_V31}{_head}", f"{_V31}{_head}", [], "cut behind the header"),
        (f"{_V31}{_head}{{bad}}", f"{_V31}{_head}{{bad}}", [], "no arguments"),
        (f'{_V31}{_head}{{"a": [', "", [("f", '{"a": [')], "cut in the arguments"),
        (f'{_V31}{_head}{{"a": 1}}', "", F, "not closed"),
        (f'<｜tool▁call▁begin｜>{_head}{{"a": 1}}<｜tool▁call▁end｜>', "", F, "without the section"),
        (f'{_V31}{_head}{{"a": 1}}<｜tool▁call▁end｜>\nHm', "\nHm", F, "the section is not closed"),
        (f"{_V31}{'x' * 600}{{}}", f"{_V31}{'x' * 600}{{}}", [], "a header without end"),
    ]  # fmt: skip
_KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>"
MALFORMED["kimi_k2"] = [
    (_KIMI, _KIMI, [], "nothing inside"),
    (f"{_KIMI}functions.f<|tool_call_argument_begin|>{{}}",
     f"{_KIMI}functions.f<|tool_call_argument_begin|>{{}}", [], "no number"),
    (f'{_KIMI}functions.f:0<|tool_call_argument_begin|>{{"a": ', "", [("f", '{"a": ')],
     "cut in the arguments"),
    (f'{_KIMI}f:0 <|tool_call_argument_begin|> {{"a": 1}}<|tool_call_end|>', "", F,
     "without the word functions"),
    (f"{_KIMI}functions.f:0<|tool_call_argument_begin|><|tool_call_end|>", "", [("f", {})],
     "no arguments"),
    (f"{_KIMI}functions.a.b:7<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
     "<|tool_calls_section_end|>", "", [("a.b", {})], "a name with a dot"),
]  # fmt: skip


def pythonic(before: str, after: str) -> list[Shape]:
    """Of calls of Python."""

    def kept(inside: str, note: str) -> Shape:
        text = before + inside + after
        return text, text, [], note

    return [
        kept("f(__import__('os').system('touch p'))", "code for an argument"),
        kept("f(a=__import__('os').system('touch p'))", "a call for a value"),
        kept("f(a=open('p', 'w'))", "a call with arguments for a value"),
        kept("f(a=1+1)", "an operator"),
        kept("f(a=[x for x in y])", "a comprehension"),
        kept("f(a=b)", "a name for a value"),
        kept("f(a=lambda: 0)", "a function for a value"),
        kept("f(1)", "a value without a name"),
        kept("f(**{'a': 1})", "two stars"),
        kept("1f(a=1)", "no name"),
        kept("f(a=f'{x}')", "a string with code in it"),
        (before + "f(a=1, b='x", before + "f(a=1, b='x", [], "cut in a string"),
        (before + "f(a=1", before + "f(a=1", [], "cut in a call"),
        (before + "f(a=1), g(", ", g(", F, "cut in the second"),
        (before + "f(a='\\x41\\u00e9\\n\\\\', b=r'\\n', c='''x\" y''')" + after, "",
         [("f", {"a": "Aé\n\\", "b": "\\n", "c": 'x" y'})], "strings of all kinds"),
        (before + "f(a=(1, 2,), b={'x': {1: None}}, c=-1_000, d=1.5e3, e=true)" + after, "",
         [("f", {"a": [1, 2], "b": {"x": {"1": None}}, "c": -1000, "d": 1500.0, "e": True})],
         "literals of all kinds"),
        (before + " a.b ( a = 1 ) " + after, before + " a.b ( a = 1 ) " + after, [],
         "space before the bracket"),
    ]  # fmt: skip


MALFORMED["pythonic"] = [
    *pythonic("[", "]"),
    ("[link](http://a)", "[link](http://a)", [], "a link"),
    ("[1, 2]", "[1, 2]", [], "a list"),
    ("[]", "[]", [], "an empty list"),
    ("[", "[", [], "a bracket"),
]
MALFORMED["llama4_pythonic"] = [
    *pythonic("<|python_start|>[", "]<|python_end|>"),
    ("[f(a=1)]", "", F, "without the token"),
]
MALFORMED["lfm2"] = pythonic("<|tool_call_start|>[", "]<|tool_call_end|>")
MALFORMED["olmo3"] = pythonic("<function_calls>\n", "\n</function_calls>")
for _name, _before, _after, _quote in (
    ("functiongemma", "<start_function_call>", "<end_function_call>", "<escape>"),
    ("gemma4", "<|tool_call>", "<tool_call|>", '<|"|>'),
):
    MALFORMED[_name] = [
        (_before, _before, [], "nothing inside"),
        (f"{_before}call:f", f"{_before}call:f", [], "cut in the name"),
        (f"{_before}call:f{{a:", f"{_before}call:f{{a:", [], "cut before a value"),
        (f"{_before}call:f{{a:{_quote}x", f"{_before}call:f{{a:{_quote}x", [], "cut in a string"),
        (f"{_before}call:f{{a:1}}", "", F, "not closed"),
        (f"{_before}f{{a:1}}", f"{_before}f{{a:1}}", [], "without the word"),
        (f"{_before}call:f{{a:bare words,b:1}}{_after}", "",
         [("f", {"a": "bare words", "b": 1})], "a string without quotes"),
        (f"{_before}call:f{{a:{_quote}}},{{{_quote}}}{_after}", "", [("f", {"a": "},{"})],
         "brackets in a string"),
        (f"{_before}call:f{{a}}{_after}", f"{_before}call:f{{a}}{_after}", [], "a key without a value"),
        (f"{_before}call:f{{a:__import__('os')}}{_after}", "", [("f", {"a": "__import__('os')"})],
         "code is a string"),
    ]  # fmt: skip
MALFORMED["openai"] = [
    ("plain text", "plain text", [], "no header"),
    ("<|channel|>final<|message|>Hi", "Hi", [], "cut in the content"),
    ("<|channel|>commentary<|message|>Let me see.<|end|>", "Let me see.", [], "a preamble"),
    ("<|channel|>commentary to=functions.f<|message|>{\"a\": 1", "", [("f", '{"a": 1')],
     "cut in the arguments"),
    ("<|channel|>commentary to=f code<|message|>{\"a\": 1}<|call|>", "", F, "without a name space"),
    ("<|start|>assistant to=functions.f<|channel|>commentary<|message|>{\"a\": 1}<|call|>", "", F,
     "the recipient before the channel"),
    ("<|start|>assistant<|message|>Hi<|end|>", "Hi", [], "no channel"),
    ("<|channel|>final", "<|channel|>final", [], "cut in the header"),
    ("<|channel|>x<|channel|>final<|message|>Hi", "<|channel|>xHi", [], "a broken one before"),
    (f"<|channel|>{'x' * 600}", f"<|channel|>{'x' * 600}", [], "a header without end"),
    ("<|channel|>final<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>",
     "AB", [], "two messages"),
]  # fmt: skip
MALFORMED["apertus"] = [
    ("<|tools_prefix|>", "<|tools_prefix|>", [], "nothing behind"),
    ("<|tools_prefix|>[]", "<|tools_prefix|>[]", [], "an empty array"),
    ('<|tools_prefix|>[{"f": 1}]', '<|tools_prefix|>[{"f": 1}]', [], "no arguments"),
    ('<|tools_prefix|>[{"f": {"a": ', "", [("f", '{"a": ')], "cut in the arguments"),
    ('<|tools_prefix|>[{"f": {"a": 1}}', "", F, "not closed"),
    ('<|tools_prefix|>[{"f": {"a": 1}}, {"g": 1}]<|tools_suffix|>',
     ', {"g": 1}]<|tools_suffix|>', F, "the second is none"),
    ('<|tools_prefix|>[{"f": {"a": 1}}, {}]<|tools_suffix|>', ", {}]<|tools_suffix|>", F,
     "the second is empty"),
]  # fmt: skip
_M3 = "]<]minimax[>["
_F3 = f'{_M3}<tool_call>{_M3}<invoke name="f">'
MALFORMED["minimax_m3"] = [
    (_F3, _F3, [], "cut in a call"),
    (f"{_M3}<tool_call>x", f"{_M3}<tool_call>x", [], "no call"),
    (f"{_F3}{_M3}<a>1", f"{_F3}{_M3}<a>1", [], "cut in the first value"),
    (f"{_F3}{_M3}<a>1{_M3}</a>{_M3}<b>2", f"{_M3}<b>2", [("f", '{"a": "1"')], "cut in the second"),
    (f"{_F3}{_M3}<a>1{_M3}</b>", f"{_F3}{_M3}<a>1{_M3}</b>", [], "another end tag"),
    (f"{_F3}{_M3}<a>1{_M3}</a>junk", "junk", [("f", {"a": "1"})], "junk behind a value"),
    (f"{_F3}{_M3}</invoke>", "", [("f", {})], "not closed"),
]
