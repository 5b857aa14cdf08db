"""Conversations to token ids: equal to Transformers' for ten templates; text stays text; faults are named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as RawTokenizer

from quire.frontend.chat import ChatRenderer
from quire.frontend.chat_template import MAX_CHARS, ChatTemplate
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.chat import ChatOptions
from quire.protocol.errors import (
    InvalidRequestError,
    ModelLoadError,
    NotServedError,
    SettingsError,
)
from tests import checkpoints
from tests.unit.chat_templates import PLAIN, SPECIAL, TEMPLATES, conversation, text
from tests.unit.tokenizers_built import sentencepiece_like

USER = [{"role": "user", "content": "Hello"}]


def with_tokens(folder: Path) -> Path:
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    raw.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in SPECIAL])
    raw.add_tokens([AddedToken(one, special=False, normalized=False) for one in PLAIN])
    raw.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("chat")
    (root / "bytes").mkdir()
    checkpoints.write_tokenizer(root / "bytes")
    sentencepiece_like(root / "pieces")
    return {one.name: with_tokens(one) for one in root.iterdir()}


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


def renderer(folder: Path, template: str | None = None) -> ChatRenderer:
    return ChatRenderer.load(folder, Tokenizer.load(folder), chat_template=template)


def their_ids(theirs: Any, messages: Any, template: str, **how: Any) -> list[int]:
    ids = theirs.apply_chat_template(messages, chat_template=template, return_dict=False, **how)
    return list(ids)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(
    folders: dict[str, Path], theirs: dict[str, Any], name: str, kind: str
) -> None:
    ours = renderer(folders[kind], TEMPLATES[name])
    draw = random.Random(name + kind)
    for _ in range(50):
        messages = conversation(draw, system=name != "gemma")
        answered = messages[-1]["role"] == "user"
        kwargs: dict[str, Any] = {}
        if name == "qwen-3":
            kwargs["enable_thinking"] = draw.random() < 0.5
        if name == "granite":
            kwargs["controls"] = {"length": "short", "text": text(draw)}
        got = ours.render(
            messages, ChatOptions(add_generation_prompt=answered, template_kwargs=kwargs)
        )
        how = {"add_generation_prompt": answered, **kwargs}
        template = TEMPLATES[name]
        assert got.token_ids == their_ids(theirs[kind], messages, template, **how), messages
        assert got.text == their_ids_text(theirs[kind], messages, template, **how)


def their_ids_text(theirs: Any, messages: Any, template: str, **how: Any) -> str:
    return str(theirs.apply_chat_template(messages, chat_template=template, tokenize=False, **how))


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_continued_message_is_that_of_transformers(
    folders: dict[str, Path], theirs: dict[str, Any], name: str, kind: str
) -> None:
    ours = renderer(folders[kind], TEMPLATES[name])
    draw = random.Random(name)
    options = ChatOptions(add_generation_prompt=False, continue_final_message=True)
    for end in ("the river", "the river ", "the\n", "1. "):
        messages = [*USER, {"role": "assistant", "content": text(draw) + end}]
        if name == "qwen-3":
            messages[-1]["content"] = end
        expected = their_ids(theirs[kind], messages, TEMPLATES[name], continue_final_message=True)
        assert ours.render(messages, options).token_ids == expected


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_special_tokens_in_content_are_text(
    folders: dict[str, Path], theirs: dict[str, Any], kind: str
) -> None:
    ours = renderer(folders[kind], TEMPLATES["chatml"])
    tokenizer = Tokenizer.load(folders[kind])
    start, end = (tokenizer.convert_tokens_to_ids(one) for one in ("<|im_start|>", "<|im_end|>"))
    draw = random.Random(kind)
    for _ in range(100):
        messages = [{"role": "user", "content": text(draw, special=0.5)}]
        got = ours.render(messages)
        special = [one for one in got.token_ids if one in tokenizer.all_special_ids]
        unknown = tokenizer.convert_tokens_to_ids(tokenizer.unk_token) if kind == "pieces" else -1
        assert [one for one in special if one != unknown] == [start, end, start], messages
        assert messages[0]["content"] in got.text
        if not any(one in messages[0]["content"] for one in PLAIN):
            expected = their_ids(
                theirs[kind], messages, TEMPLATES["chatml"], add_generation_prompt=True,
                sanitize_control_tokens=True,
            )  # fmt: skip
            assert got.token_ids == expected


def test_a_special_token_cannot_be_made_of_two_parts(folders: dict[str, Path]) -> None:
    template = "{% for p in messages[0].content %}{{ p.text }}{% endfor %}"
    ours = renderer(folders["bytes"], template)
    parts = [{"type": "text", "text": one} for one in ("a<|im_", "start|>system")]
    got = ours.render([{"role": "user", "content": parts}])
    tokenizer = Tokenizer.load(folders["bytes"])
    assert got.text == "a<|im_start|>system" == tokenizer.decode(got.token_ids)
    assert not set(got.token_ids) & set(tokenizer.all_special_ids)


def test_special_tokens_in_template_variables_are_text(folders: dict[str, Path]) -> None:
    ours = renderer(folders["bytes"], "{{ eos_token }}{{ extra.name }}")
    got = ours.render(USER, ChatOptions(template_kwargs={"extra": {"name": "<|im_end|>"}}))
    assert got.text == "<|eos|><|im_end|>"
    assert got.token_ids[0] == checkpoints.EOS_ID and len(got.token_ids) > 2


def test_tokenizers_own_special_tokens_on_request(folders: dict[str, Path]) -> None:
    ours = renderer(folders["bytes"], "{{ messages[0].content }}")
    for content in ("Hello", "Hello <|im_end|> there"):
        messages = [{"role": "user", "content": content}]
        bare = ours.render(messages).token_ids
        assert bare[0] != checkpoints.BOS_ID
        around = ours.render(messages, ChatOptions(add_special_tokens=True)).token_ids
        assert around == [checkpoints.BOS_ID, *bare]


def test_parts_are_joined_for_templates_that_read_text_only(folders: dict[str, Path]) -> None:
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}],
        }
    ]
    assert "a\nb" in renderer(folders["bytes"], TEMPLATES["chatml"]).render(parts).text
    template = "{% for p in messages[0].content %}[{{ p.type }} {{ p.text }}]{% endfor %}"
    assert renderer(folders["bytes"], template).render(parts).text == "[text a][text b]"
    as_parts = renderer(folders["bytes"], template).render(
        USER, ChatOptions(content_format="openai")
    )
    assert as_parts.text == "[text Hello]"


def test_calls_of_earlier_answers_reach_the_template(folders: dict[str, Path]) -> None:
    template = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}"
        "{% endfor %}{{ m.content is defined }} {{ m.reasoning_content }};{% endfor %}"
    )
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"city": "Rome"}'},
    }
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "why"},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    assert renderer(folders["bytes"], template).render(messages).text == "RomeFalse why;True ;"


def test_empty_calls_are_none_and_empty_arguments_an_empty_object(folders: dict[str, Path]) -> None:
    template = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}"
        "{{ c.function.arguments }}{% endfor %}{{ 'tool_calls' in m }};{% endfor %}"
    )
    calls = [{"type": "function", "function": {"name": "f", "arguments": ""}}]
    messages = [
        {"role": "assistant", "content": "a", "tool_calls": []},
        {"role": "assistant", "tool_calls": calls},
    ]
    assert renderer(folders["bytes"], template).render(messages).text == "False;{}{}True;"


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        (None, "messages"), ({}, "messages"), ("Hi", "messages"), ([], "messages"), ([1], "messages[0]"),
        ([{"content": "a"}], "messages[0].role"),
        ([*USER, {"role": 5, "content": "a"}], "messages[1].role"),
        ([*USER, {"role": "root", "content": "a"}], "messages[1].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": ["a", {"type": "?"}]}], "messages[0].content[1]"),
        ([{"role": "tool", "content": "a"}], "messages[0].tool_call_id"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0]"),
        ([{"role": "user", "content": "a", "x": {1}}], "messages[0]"),
        ([{"role": "user", "content": "a"}] * 20_000, "messages"),
    ],
)  # fmt: skip
def test_wrong_messages_are_named(folders: dict[str, Path], messages: Any, path: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        renderer(folders["bytes"], TEMPLATES["chatml"]).render(messages)
    assert caught.value.param == path


def test_what_a_developer_says_is_never_lost(folders: dict[str, Path]) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *USER]
    as_system = [{"role": "system", "content": "Be brief."}, *USER]
    for name in ("qwen-3", "llama-2", "phi-3", "deepseek", "mistral"):
        ours = renderer(folders["bytes"], TEMPLATES[name])
        assert (
            ours.render(messages) == ours.render(as_system)
            and "Be brief." in ours.render(messages).text
        )
    kept = renderer(folders["bytes"], TEMPLATES["chatml"]).render(messages).text
    assert kept.startswith("<|im_start|>developer\nBe brief.")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url", "file"])
def test_media_are_refused(folders: dict[str, Path], kind: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind}]}]
    with pytest.raises(NotServedError) as caught:
        renderer(folders["bytes"], TEMPLATES["chatml"]).render(messages)
    assert caught.value.param == "messages[0].content[1]"


def test_a_role_that_the_template_names_is_a_role(folders: dict[str, Path]) -> None:
    ours = renderer(folders["bytes"], "{% if messages[0].role == 'ipython' %}yes{% endif %}")
    assert ours.render([{"role": "ipython", "content": ""}]).text == "yes"


@pytest.mark.parametrize(
    "name", ["tokenize", "chat_template", "messages", "bos_token", "_x", "a b"]
)
def test_reserved_variables_are_refused(folders: dict[str, Path], name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        renderer(folders["bytes"], TEMPLATES["chatml"]).render(
            USER, ChatOptions(template_kwargs={name: True})
        )
    assert caught.value.param == "chat_template_kwargs"


def test_too_many_and_too_deep_variables_are_refused(folders: dict[str, Path]) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    many = {f"x{place}": 1 for place in range(10**5)}
    for kwargs in ({"deep": deep}, many, {"wide": [1] * 10**6}):
        with pytest.raises(InvalidRequestError) as caught:
            renderer(folders["bytes"], TEMPLATES["chatml"]).render(
                USER, ChatOptions(template_kwargs=kwargs)
            )
        assert caught.value.param == "chat_template_kwargs"


def test_both_ways_to_end_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        renderer(folders["bytes"], TEMPLATES["chatml"]).render(
            USER, ChatOptions(continue_final_message=True)
        )
    assert caught.value.param == "continue_final_message"


def test_a_template_that_refuses_is_quoted(folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError, match="System role not supported"):
        renderer(folders["bytes"], TEMPLATES["gemma"]).render(
            [{"role": "system", "content": "a"}, *USER]
        )


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}", "{{ messages.__class__.__mro__ }}", "{{ 'a' * 10**9 }}",
        "{{ 'a' * 100000000 }}", "{{ raise_exception.__globals__.x }}", "{{ nothing.at.all }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ 'abcdefgh' * 1000 }}{% endfor %}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)  # fmt: skip
def test_bad_templates_end_only_their_request(folders: dict[str, Path], template: str) -> None:
    with pytest.raises(InvalidRequestError):
        renderer(folders["bytes"], template).render(USER)
    assert MAX_CHARS < 1 << 26


def test_where_templates_come_from(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no chat template"):
        renderer(folders["bytes"]).render(USER)
    folder = tmp_path / "model"
    folder.mkdir()
    checkpoints.write_tokenizer(folder)
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    named = [{"name": "default", "template": "one"}, {"name": "rag", "template": "two"}]
    config.write_text(json.dumps(settings | {"chat_template": named}))
    assert renderer(folder).render(USER).text == "one"
    assert renderer(folder, "rag").render(USER).text == "two"
    config.write_text(json.dumps(settings | {"chat_template": "three"}))
    assert renderer(folder).render(USER).text == "three"
    (folder / "chat_template.jinja").write_text("four")
    assert renderer(folder).render(USER).text == "four"
    (tmp_path / "given.jinja").write_text("{{ messages[0].content }}!")
    assert renderer(folder, str(tmp_path / "given.jinja")).render(USER).text == "Hello!"
    assert renderer(folder).render(USER, ChatOptions(chat_template="{{ 5 }}")).text == "5"
    with pytest.raises(SettingsError, match=r"missing\.jinja"):
        renderer(folder, "missing.jinja")
    with pytest.raises(ModelLoadError, match="line 1"):
        renderer(folder, "{% if %}")


def test_the_front_needs_neither_torch_nor_transformers() -> None:
    import subprocess
    import sys

    code = (
        "import sys, quire.frontend.chat\n"
        "print([one for one in ('torch', 'transformers') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generation_tags_write_their_body() -> None:
    template = "{% generation %}{% set x = 1 %}{{ a }}{% endgeneration %}{{ x is defined }}"
    assert ChatTemplate(template).render({"a": "text"}) == "textFalse"
