"""Outputs with reasoning, rendered from what they say: what `tests/data/parsers/reasoning` is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

FORMS: dict[str, tuple[str, str, bool, bool]] = {
    "deepseek_r1": ("<think>", "</think>", True, False),
    "step3": ("<think>", "</think>", True, False),
    "step3p5": ("<think>", "</think>", True, False),
    "olmo3": ("<think>", "</think>", True, False),
    "nemotron_v3": ("<think>", "</think>", True, False),
    "ernie45": ("<think>", "</think>", True, False),
    "seed_oss": ("<seed:think>", "</seed:think>", True, False),
    "minimax_m2": ("<think>", "</think>", True, True),
    "minimax_m3": ("<mm:think>", "</mm:think>", True, True),
    "glm45": ("<think>", "</think>", True, True),
    "glm47": ("<think>", "</think>", True, True),
    "ling3": ("<think>", "</think>", True, True),
    "holo2": ("<think>", "</think>", True, True),
    "poolside": ("<think>", "</think>", True, True),
    "kimi_k2": ("<think>", "</think>", True, True),
    "kimi_k3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>", True, False),
    "qwen3": ("<think>", "</think>", False, False),
    "mimo": ("<think>", "</think>", False, False),
    "mistral": ("[THINK]", "[/THINK]", False, True),
    "hunyuan_a13b": ("<think>\n", "\n</think>", False, False),
    "hy_v3": ("<think>", "</think>", False, False),
    "granite": ("Here is my thought process:", "Here is my response:", False, False),
    "gemma4": ("<|channel>thought\n", "<channel|>", False, True),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>", False, True),
    "inkling": ("<|content_thinking|>", "<|end_message|>", False, True),
}
"""What stands around the reasoning, whether an output begins inside it, whether it may come back."""

SWITCHED = {
    "nemotron_v3": "enable_thinking", "qwen3": "enable_thinking", "glm45": "thinking",
    "kimi_k2": "thinking", "holo2": "thinking", "ling3": "enable_thinking",
}  # fmt: skip
ENDED_BY_CALLS = {"qwen3", "mimo", "glm47", "ling3", "kimi_k2"}


def entry(
    note: str, text: str, reasoning: str, content: str, *, calls: Any = (), **more: Any
) -> Entry:
    return {
        "note": note, "text": text, "reasoning": reasoning, "content": content,
        "calls": [{"name": name, "arguments": given} for name, given in calls], **more,
    }  # fmt: skip


def entries(name: str) -> list[Entry]:
    """The outputs of one format, with what they say."""
    start, end, inside, again = FORMS[name]
    half_start, half_end = start[: len(start) // 2], end[:-1]
    call = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    made: Any = [("f", {"a": 1})]
    found = [
        entry("both", f"{start}Because.{end}Yes.", "Because.", "Yes."),
        entry("several lines", f"{start}One.\n\nTwo.{end}\n\nA.\nB.", "One.\n\nTwo.", "\n\nA.\nB."),
        entry("nothing said", f"{start}Because.{end}", "Because.", ""),
        entry("cut in the reasoning", f"{start}Because", "Because", ""),
        entry("cut in the end tag", f"{start}Because{half_end}", "Because" + half_end, ""),
        entry("empty reasoning", f"{start}{end}Yes.", "", "Yes."),
        entry("letters of all kinds", f"{start}東京 🦊{end}žluť 👩‍👧", "東京 🦊", "žluť 👩‍👧"),
        entry("markup", f"{start}a < b </b> <i>{end}<p>x</p> [1]", "a < b </b> <i>", "<p>x</p> [1]"),
        entry("half an end tag inside", f"{start}a {half_end} b{end}c", f"a {half_end} b", "c"),
        entry("the tag begins twice", f"{start}{end[0]}{end[0]}{end}c", end[0] * 2, "c"),
        entry("half a start tag in the content", f"{start}a{end}b {half_start}", "a",
              f"b {half_start}"),
        entry("JSON", f'{start}{{"a": 1}}{end}{{"b": [2]}}', '{"a": 1}', '{"b": [2]}'),
        entry("code", f"{start}x{end}```python\nif a < b: pass\n```", "x",
              "```python\nif a < b: pass\n```"),
        entry("nothing", "", "", ""),
        entry("space before the start", f"\n{start}a{end}b", "a", "b"),
        entry("only a start", start, "", ""),
        entry("a long one", f"{start}{'why ' * 100}{end}{'so ' * 100}", "why " * 100, "so " * 100),
        entry("a call behind", f"{start}a{end}\n{call}", "a", "", calls=made, tools="hermes"),
        entry("text and calls behind", f"{start}a{end}b\n{call}\n{call}", "a", "b",
              calls=made * 2, tools="hermes"),
    ]  # fmt: skip
    if inside:
        found += [
            entry("opened by the prompt", f"a{end}b", "a", "b"),
            entry("all of it reasoning", "Just this.", "Just this.", ""),
            entry("closed at once", f"{end}b", "", "b"),
        ]
    else:
        found += [
            entry("no reasoning", "Just this.", "", "Just this."),
            entry("half a start tag", half_start, "", half_start),
            entry("a call and no reasoning", call, "", "", calls=made, tools="hermes"),
        ]
    if again:
        text = f"{start}a{end}b{start}c{end}d"
        found.append(entry("twice", text, "ac", "bd"))
    elif name not in ("inkling",):
        text = f"{start}a{end}b{start}c"
        found.append(entry("a start tag in the content", text, "a", f"b{start}c"))
    if name in SWITCHED:
        off = {SWITCHED[name]: False}
        found.append(entry("turned off", "a b", "", "a b", template_kwargs=off))
        on = {SWITCHED[name]: True}
        found.append(entry("turned on", f"{start}a{end}b", "a", "b", template_kwargs=on))
    if name in ENDED_BY_CALLS:
        found.append(
            entry("ended by a call", f"{start}a {call}", "a ", "", calls=made, tools="hermes")
        )
    return found


def others() -> dict[str, list[Entry]]:
    """Formats that are not made of two tags, and what is particular to some that are."""
    final = "<|start|>assistant<|channel|>final<|message|>"
    think = "<|channel|>analysis<|message|>"
    to_f = "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
    harmony = [
        entry("both", f"{think}Because.<|end|>{final}Yes.<|return|>", "Because.", "Yes."),
        entry("without the last token", f"{think}Because.<|end|>{final}Yes.", "Because.", "Yes."),
        entry("cut in the reasoning", f"{think}Because", "Because", ""),
        entry("cut in the header", f"{think}a<|end|><|start|>assis", "a", "<|start|>assis"),
        entry("no reasoning", "<|channel|>final<|message|>Yes.", "", "Yes."),
        entry("no header", "Yes.", "", "Yes."),
        entry("twice", f"{think}a<|end|><|start|>assistant{think}b<|end|>{final}c", "ab", "c"),
        entry("a preamble", f"{think}a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
              f"{final}c", "a", "bc"),
        entry("markup", f"{think}<b> < |<|end|>{final}<i>", "<b> < |", "<i>"),
        entry("letters of all kinds", f"{think}東🦊<|end|>{final}é", "東🦊", "é"),
        entry("empty", f"{think}<|end|>{final}", "", ""),
        entry("nothing", "", "", ""),
        entry("half a tag", "<|chan", "", "<|chan"),
        entry("half an end", f"{think}a<|en", "a<|en", ""),
        entry("a call", f'{think}a<|end|>{to_f}{{"x": 1}}<|call|>', "a", "",
              calls=[("f", {"x": 1})], tools="openai"),
        entry("two calls", f'{to_f}{{"x": 1}}<|call|>{to_f}{{}}<|call|>', "", "",
              calls=[("f", {"x": 1}), ("f", {})], tools="openai"),
        entry("a call without tools", f'{to_f}{{"x": 1}}<|call|>', "", '{"x": 1}'),
        entry("a built-in tool", "<|channel|>analysis to=python code<|message|>1+1<|call|>", "", "",
              calls=[("python", "1+1")], tools="openai"),
        entry("said and called", f'{final}b<|end|>{to_f}{{}}<|call|>', "", "b",
              calls=[("f", {})], tools="openai"),
        entry("a header without end", "<|channel|>" + "x" * 600, "", "<|channel|>" + "x" * 600),
    ]  # fmt: skip
    plain = ["", "a", "a b", "<think>", "</think>", "<think>a</think>b", "a</think>b", "<think>a",
             "\n", " <think> ", "a < b", "<", "</", "<thin", "東京 🦊", "{}", "[THINK]x[/THINK]",
             "a\n\nb", "<b>x</b>", "x" * 300]  # fmt: skip
    return {
        "openai_gptoss": harmony,
        "identity": [entry("as it is", text, "", text) for text in plain],
        "deepseek_v3": [entry("off", text, "", text) for text in plain]
        + [
            entry(one["note"], one["text"], one["reasoning"], one["content"],
                  template_kwargs={switch: True})
            for one in entries("deepseek_r1")
            if not one["calls"]
            for switch in ("thinking", "enable_thinking")
        ],
        "minimax_m2_append_think": [
            entry("all of it", text, "", "<think>" + text) for text in plain
        ],
    }  # fmt: skip


PARTICULAR: dict[str, list[Entry]] = {
    "ernie45": [
        entry("a frame", "a</think>\n\n<response>\nb\n</response>\n", "a", "\n\nb\n"),
    ],
    "hunyuan_a13b": [
        entry("a frame", "<think>\na\n</think>\n<answer>\nb\n</answer>", "a", "b"),
        entry("cut in the frame", "<think>\na\n</think>\n<answer>\nb", "a", "b"),
    ],
    "granite": [
        entry("contracted", "Here's my thought process: a Here's my response: b", " a ", " b"),
    ],
    "cohere": [
        entry("a frame", "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>",
              "a", "b"),
        entry("an action", '<|START_THINKING|>a<|END_THINKING|><|START_ACTION|>[{"tool_call_id": "0", '
              '"tool_name": "f", "parameters": {"x": 1}}]<|END_ACTION|>', "a", "",
              calls=[("f", {"x": 1})], tools="cohere"),
    ],
    "kimi_k3": [
        entry("a frame", "a<|close|>think<|sep|><|open|>response<|sep|>b<|close|>response<|sep|>"
              "<|close|>message<|sep|>", "a", "b"),
    ],
    "inkling": [
        entry("blocks", "<|content_thinking|>a<|end_message|><|message_model|><|content_text|>b"
              "<|end_message|>", "a", "b", tools="inkling"),
    ],
}  # fmt: skip


def write_thinking(folder: Path) -> None:
    """Writes a file for each format into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rendered = {name: entries(name) + PARTICULAR.get(name, []) for name in FORMS}
    for name, found in {**rendered, **others()}.items():
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found)
        (folder / f"{name}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
