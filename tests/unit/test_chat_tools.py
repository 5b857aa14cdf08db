"""Conversations with tools, documents and thinking: equal to Transformers' id for id for eight templates."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from quire.frontend.chat import ChatRenderer
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.chat import ChatOptions
from tests import checkpoints
from tests.unit.chat_templates import SPECIAL, text
from tests.unit.chat_tool_templates import NO_TOOLS, TEMPLATES, TEXT_ARGUMENTS
from tests.unit.test_chat import with_tokens
from tests.unit.tokenizers_built import sentencepiece_like

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": 'Says "hello" — in <b>ä</b> & more',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Köln", "Rome"]}, "n": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
    for name in ("get_weather", "get-time.2")
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tools")
    (root / "bytes").mkdir()
    checkpoints.write_tokenizer(root / "bytes")
    sentencepiece_like(root / "pieces")
    return {one.name: with_tokens(one) for one in root.iterdir()}


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


def rounds(draw: random.Random, *, tools: bool, many: bool) -> list[dict[str, Any]]:
    """A system message, then rounds of question, perhaps calls with their results, and answer."""
    found: list[dict[str, Any]] = [{"role": "system", "content": "Be " + text(draw)}]
    for _ in range(draw.randint(1, 3)):
        found.append({"role": "user", "content": "Q " + text(draw)})
        if tools and draw.random() < 0.7:
            calls = [
                {
                    "id": f"call0000{place}",
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "arguments": {
                            "city": text(draw),
                            "n": draw.randint(-5, 5),
                            "deep": [None, 1.5],
                        },
                    },
                }
                for place in range(draw.randint(1, 3) if many else 1)
            ]
            found.append({"role": "assistant", "content": "", "tool_calls": calls})
            found += [
                {"role": "tool", "tool_call_id": call["id"], "content": "R " + text(draw)}
                for call in calls
            ]
        found.append({"role": "assistant", "content": "A " + text(draw)})
        if draw.random() < 0.5:
            found[-1]["reasoning_content"] = "T " + text(draw)
    if draw.random() < 0.7:
        found.append({"role": "user", "content": "Q " + text(draw)})
    return found


def as_client(messages: list[dict[str, Any]], draw: random.Random) -> list[dict[str, Any]]:
    """The same messages as a client sends them: arguments as text, content null, reasoning as `reasoning`."""
    sent = copy.deepcopy(messages)
    for message in sent:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(
                call["function"]["arguments"], ensure_ascii=draw.random() < 0.5
            )
        if "reasoning_content" in message and draw.random() < 0.5:
            message["reasoning"] = message.pop("reasoning_content")
    return sent


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(
    folders: dict[str, Path], theirs: dict[str, Any], name: str, kind: str
) -> None:
    template = TEMPLATES[name]
    ours = ChatRenderer.load(folders[kind], Tokenizer.load(folders[kind]), chat_template=template)
    draw = random.Random(name + kind)
    for _ in range(40):
        with_tools = name not in NO_TOOLS and draw.random() < 0.8
        messages = rounds(draw, tools=with_tools, many=name != "llama-3.1")
        tools = TOOLS if with_tools else None
        kwargs: dict[str, Any] = {}
        if name in ("qwen", "glm-4.5"):
            kwargs["enable_thinking"] = draw.random() < 0.5
        if name == "deepseek-v3.1":
            kwargs["thinking"] = draw.random() < 0.5
        documents = None
        if name == "granite" and draw.random() < 0.5:
            documents = [{"doc_id": 7, "text": text(draw)}, {"doc_id": "x", "text": text(draw)}]
        answered = messages[-1]["role"] == "user"
        got = ours.render(
            as_client(messages, draw),
            ChatOptions(
                add_generation_prompt=answered,
                tools=tools,
                documents=documents,
                template_kwargs=kwargs,
            ),
        )
        how: dict[str, Any] = {"chat_template": template, "add_generation_prompt": answered}
        expected = theirs[kind].apply_chat_template(
            messages, tools=tools, documents=documents, return_dict=False, **how, **kwargs
        )
        assert got.token_ids == list(expected), messages


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in ("llama-3.1",)])
def test_special_tokens_from_tools_and_documents_are_text(
    folders: dict[str, Path], name: str
) -> None:
    tokenizer = Tokenizer.load(folders["bytes"])
    ours = ChatRenderer.load(folders["bytes"], tokenizer, chat_template=TEMPLATES[name])
    draw = random.Random(name)

    def special_ids(inserted: str) -> list[int]:
        messages = rounds(random.Random(1), tools=name not in NO_TOOLS, many=True)
        for message in messages:
            message["content"] += inserted
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = json.dumps({"city": inserted})
        tools = copy.deepcopy(TOOLS)
        tools[0]["function"]["description"] = inserted
        documents = [{"doc_id": inserted, "text": inserted}]
        options = ChatOptions(
            tools=None if name in NO_TOOLS else tools,
            documents=documents,
            add_generation_prompt=False,
        )
        got = ours.render(messages, options)
        assert inserted in got.text
        return [one for one in got.token_ids if one in tokenizer.all_special_ids]

    plain = special_ids("plain")
    for token in draw.sample(SPECIAL, 6):
        assert special_ids(token) == plain, token


def test_templates_that_take_arguments_as_text_get_what_was_sent(folders: dict[str, Path]) -> None:
    ours = ChatRenderer.load(
        folders["bytes"], Tokenizer.load(folders["bytes"]), chat_template=TEXT_ARGUMENTS
    )
    for sent in ('{"city":"Rome",  "n": 1}', '{"a": "<|im_end|>"}', "no JSON", "[1]"):
        function = {"name": "f", "arguments": sent}
        calls = [{"id": "1", "type": "function", "function": function}]
        got = ours.render(
            [{"role": "assistant", "tool_calls": calls}], ChatOptions(add_generation_prompt=False)
        )
        assert (
            got.text == f"<｜assistant｜>function<｜tool▁sep｜>f\n```json\n{sent}\n```|{sent}{sent}"
        )
        assert (
            got.token_ids.count(
                Tokenizer.load(folders["bytes"]).convert_tokens_to_ids("<|im_end|>")
            )
            == 0
        )
