"""Constraints without a model: what each engine accepts, refuses and keeps, and masks along an output."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from quire.config.demo import FOLDER
from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.compiler import Compiler
from quire.engine.grammar.constraint import Constraint
from quire.engine.grammar.schema import read_schema
from quire.engine.grammar.thinking import Thinking
from quire.frontend.chat_readers import FRAMES
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest, GrammarSpec
from quire.server.schema.calls import free_constraint

VOCAB, EOS = 3072, 2
FILE = Path(FOLDER) / "tokenizer.json"
TOKENIZER = tokenizers.Tokenizer.from_file(str(FILE))
BACKENDS = ["guidance"] + (["xgrammar"] if importlib.util.find_spec("xgrammar") else [])

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CALL = {
    "type": "tag",
    "begin": "<fn=a>",
    "content": {"type": "json_schema", "json_schema": PERSON},
    "end": "</fn>",
}
MARKED = CALL | {"begin": "<tool_call>", "end": "</tool_call>"}
AGE = '{"name": "Mia", "age": 3}'


@pytest.fixture(scope="module")
def compilers() -> dict[str, Compiler]:
    return {name: Compiler(name, FILE, VOCAB, (EOS,)) for name in BACKENDS}


def spec(kind: str, value: Any, **options: bool | str) -> GrammarSpec:
    text = value if isinstance(value, str) else json.dumps(value)
    return GrammarSpec(kind=kind, text=text, options=options)


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def verdict(compiler: Compiler, wanted: GrammarSpec, text: str) -> str:
    """ "ends", "goes on" or "wrong": a text under a constraint, token by token through the masks."""
    matcher = compiler.compile(wanted).matcher()
    mask = np.zeros(VOCAB // 32, dtype=np.uint32)
    for token_id in ids_of(text):
        matcher.fill(mask)
        if not mask[token_id // 32] >> np.uint32(token_id % 32) & 1:
            return "wrong"
        matcher.advance([token_id])
    return "ends" if matcher.may_end else "goes on"


def tag(*parts: dict[str, Any], **more: Any) -> GrammarSpec:
    if "type" in more or parts:
        return spec("structural_tag", {"type": "structural_tag", "format": more or parts[0]})
    raise AssertionError


CASES: list[tuple[GrammarSpec, dict[str, str]]] = [
    (spec("json", PERSON), {AGE: "ends", '{"name": 3': "wrong", AGE[:9]: "goes on", AGE + " ": "wrong"}),
    (spec("json", PERSON, whitespace=False), {'{"name":"Mia","age":3}': "ends", AGE: "wrong"}),
    (spec("json", {"properties": {"a": {}}, "type": "object"}, additional_properties=False),
     {'{"a": 1}': "ends", '{"b"': "wrong"}),
    (spec("json_object", ""), {'{"x": [1, null, "é"]}': "ends", "[1]": "wrong"}),
    (spec("regex", "[0-9]{3}-[a-z]+"), {"123-abc": "ends", "12-": "wrong", "123-": "goes on"}),
    (spec("regex", "a/b|[/]c"), {"a/b": "ends", "/c": "ends"}),
    (spec("choice", ["yes", "no", "no/way", "é😀\n", 'q"\\']),
     {"yes": "ends", "ye": "goes on", "no": "ends", "no/way": "ends", "é😀\n": "ends", 'q"\\': "ends",
      "maybe": "wrong"}),
    (spec("grammar", 'root ::= "a" tail\ntail ::= [0-9]+ | "(" tail ")"'),
     {"a12": "ends", "a((7))": "ends", "a((7)": "goes on", "b": "wrong"}),
    (spec("grammar", 'start: "x" NUM\nNUM: /[0-9]{1,5}/'), {"x12": "ends", "xa": "wrong"}),
    (tag(type="triggered_tags", triggers=["<fn="], tags=[CALL]),
     {f"so <fn=a>{AGE}</fn> yes": "ends", "plain": "ends", "<fn=b>": "wrong", f"<fn=a>{AGE}": "goes on"}),
    (tag(type="triggered_tags", triggers=["<tool_call>"], tags=[MARKED], at_least_one=True, stop_after_first=True),
     {f"<tool_call>{AGE}</tool_call>": "ends", "so": "wrong", f"<tool_call>{AGE}</tool_call>.": "wrong"}),
    (spec("structural_tag",
          {"structures": [{"begin": "<fn=a>", "schema": PERSON, "end": "</fn>"}], "triggers": ["<fn="]}),
     {f"<fn=a>{AGE}</fn>": "ends", '<fn=a>{"age"': "wrong"}),
    (tag(type="sequence", elements=[{"type": "const_string", "value": "I: "}, {"type": "regex", "pattern": "[a-c/]+"}]),
     {"I: a/b": "ends", "I: d": "wrong"}),
    (tag(type="or", elements=[{"type": "const_string", "value": "u"},
                              {"type": "grammar", "grammar": 'root ::= "v" [0-9]'}]),
     {"u": "ends", "v1": "ends", "vv": "wrong"}),
    (tag(type="tags_with_separator", tags=[CALL], separator=", "),
     {"": "ends", f"<fn=a>{AGE}</fn>, <fn=a>{AGE}</fn>": "ends", f"<fn=a>{AGE}</fn>, ": "goes on"}),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", range(len(CASES)))
def test_each_kind_accepts_what_it_describes(
    compilers: dict[str, Compiler], backend: str, place: int
) -> None:
    wanted, texts = CASES[place]
    for text, outcome in texts.items():
        assert verdict(compilers[backend], wanted, text) == outcome, text


STRICT = {"type": "function", "function": {"name": "f", "parameters": PERSON, "strict": True}}


@pytest.mark.parametrize("name", FRAMES)
def test_strict_tools_hold_however_a_model_writes_its_calls(
    compilers: dict[str, Compiler], name: str
) -> None:
    frame = FRAMES[name]
    params = free_constraint([STRICT], frame, None, many=True)
    assert params is not None and params.structural_tag is not None
    wanted = GrammarSpec(
        kind="structural_tag", text=params.structural_tag, options={"whitespace": " ?"}
    )
    head = (
        frame.opening
        + frame.begin.replace("{name}", "f")
        + ("0" + frame.counted) * bool(frame.counted)
    )
    whole = head + AGE + frame.end + frame.closing
    texts = {whole: "ends", "plain text": "ends", "": "ends", head + '{"name": 3': "wrong"}
    if not frame.text:
        texts["so: " + whole] = "ends"
        texts["so: " + head + '{"age"'] = "wrong"
    for text, outcome in texts.items():
        assert verdict(compilers["guidance"], wanted, text) == outcome, text
    loose = {"type": "function", "function": {"name": "f", "parameters": PERSON}}
    assert free_constraint([loose], frame, None, many=True) is None


def test_a_mark_of_any_spelling_is_one_token(tmp_path: Path) -> None:
    described = json.loads(FILE.read_text())
    place = described["added_tokens"][0]["id"]
    vocab = described["model"]["vocab"]
    vocab["[TOOL_CALLS]"] = vocab.pop(described["added_tokens"][0]["content"])
    described["added_tokens"][0]["content"] = "[TOOL_CALLS]"
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    params = free_constraint([STRICT], FRAMES["mistral"], None, many=True)
    assert params is not None and params.structural_tag is not None
    wanted = GrammarSpec(kind="structural_tag", text=params.structural_tag)
    matcher = (
        Compiler("guidance", tmp_path / "tokenizer.json", VOCAB, (EOS,)).compile(wanted).matcher()
    )
    matcher.advance([*ids_of("so: "), place, *ids_of('f[ARGS]{"name"')])
    with pytest.raises(GrammarError):
        matcher.advance(ids_of(": 3"))


def test_free_text_between_tags_may_hold_anything_but_a_wrong_tag(
    compilers: dict[str, Compiler],
) -> None:
    wanted = tag(type="sequence", elements=[
        {"type": "const_string", "value": "Q"}, {"type": "any_text"}, {"type": "const_string", "value": "END"},
        {"type": "optional", "content": {"type": "const_string", "value": "!"}},
        {"type": "repeat", "min": 1, "max": 2, "content": {"type": "const_string", "value": "ab"}},
    ])  # fmt: skip
    expected = {"Qx\ny ENDab": "ends", "QEND!abab": "ends", "QENDx": "wrong", "Qab": "goes on"}
    for text, outcome in expected.items():
        assert verdict(compilers["guidance"], wanted, text) == outcome, text


def test_a_key_has_one_spelling(compilers: dict[str, Compiler]) -> None:
    # Spelled with an escape, the key would pass for an additional one, and its value for anything.
    loose = spec("json", {"type": "object", "properties": {"a": {"type": "integer"}}})
    assert verdict(compilers["guidance"], loose, '{"\\u0061": "x"}') == "wrong"
    assert verdict(compilers["guidance"], loose, '{"b": "x"}') == "ends"
    control = spec("json", {"const": "a\u0001b"})
    assert verdict(compilers["guidance"], control, '"a\\u0001b"') == "ends"


DEEP: Any = {"type": "string"}
for _ in range(70):
    DEEP = {"type": "array", "items": DEEP}

BAD = [
    (spec("json", "{"), "not valid JSON"), (spec("json", "[1]"), "must be a JSON object"),
    (spec("json", "false"), ""), (spec("json", {"enum": []}), ""), (spec("json", {"type": "something"}), "something"),
    (spec("json", {"type": "string", "pattern": "(("}), ""), (spec("json", {"$ref": "http://example.org/x"}), ""),
    (spec("json", {"$ref": "#"}), ""), (spec("json", {"$ref": "#/$defs/none"}), ""),
    (spec("json", {"type": "string", "minLength": 10**9}), "limit"), (spec("json", DEEP), "deeper"),
    (spec("json", {"enum": list(range(100_000))}), "too complex"),
    (spec("json", "[" * 50_000), "deeper"),
    (spec("json", {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}), "never end"),
    (spec("json", {"not": {}}), "no document"), (spec("json", {"type": "array", "maxItems": 10**9}), "limit"),
    (spec("json", {"type": "string", "pattern": "^(a+)+$"}), "too complex"), (spec("regex", "(a+)+$"), "too complex"),
    (spec("regex", "(("), ""), (spec("regex", "a{1,100000}"), "too complex"), (spec("regex", "[^\\s\\S]"), ""),
    (spec("regex", "(" * 30_000 + "a" + ")" * 30_000), "too complex"), (spec("regex", "(?=a)b"), ""),
    (spec("grammar", "root ::= root"), ""), (spec("grammar", "root ::= ("), ""),
    (spec("grammar", "root ::= other"), ""),
    (spec("grammar", "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000), "too complex"), (spec("grammar", "hello"), ""),
    (spec("structural_tag", "{"), "JSON"), (spec("structural_tag", "{}"), "format"),
    (spec("structural_tag", {"format": {"type": "unheard"}}), "unheard"),
    (spec("structural_tag", {"format": {"type": "triggered_tags", "triggers": ["<x"], "tags": [CALL]}}), "no trigger"),
    (spec("structural_tag", {"structures": [{"begin": 3}], "triggers": ["<"]}), ""),
    (spec("structural_tag", {"format": {"type": "or", "elements": []}}), ""),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(BAD)))
def test_what_cannot_be_used_is_refused_soon_and_in_words(
    compilers: dict[str, Compiler], place: int
) -> None:
    wanted, word = BAD[place]
    started = time.process_time()
    with pytest.raises(GrammarError) as caught:
        compilers["guidance"].compile(wanted)
    assert time.process_time() - started < 5.0
    assert word in str(caught.value) and str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif("xgrammar" not in BACKENDS, reason="xgrammar is not installed")
def test_xgrammar_refuses_what_it_would_pass_over(compilers: dict[str, Compiler]) -> None:
    for schema in (
        {"multipleOf": 3},
        {"anyOf": [{"not": {}}]},
        {"properties": {"a": {"uniqueItems": True}}},
    ):
        with pytest.raises(GrammarError, match="use guidance"):
            compilers["xgrammar"].compile(spec("json", schema))
    for bad in (
        spec("regex", "(("),
        spec("grammar", "root ::= root"),
        spec("json", PERSON, whitespace="x"),
    ):
        with pytest.raises(GrammarError):
            compilers["xgrammar"].compile(bad)


def test_bombs_are_harmless_token_by_token(compilers: dict[str, Compiler]) -> None:
    for pattern in ("(ab?)+$", "(a|aa)*b{5000}c", "((a{1,99}){1,99}){1,99}", "(.*a.{99}){9}"):
        matcher = compilers["guidance"].compile(spec("regex", pattern)).matcher()
        mask = np.zeros(VOCAB // 32, dtype=np.uint32)
        started = time.thread_time()
        with contextlib.suppress(GrammarError):  # a limit on work may end it
            for token_id in ids_of("a" * 200):
                matcher.fill(mask)
                matcher.advance([token_id])
        assert time.thread_time() - started < 1.0, pattern


def test_the_cache_stays_under_its_bytes() -> None:
    compiler = Compiler("guidance", FILE, VOCAB, (EOS,), cache_bytes=2 << 20)
    for number in range(200):
        compiler.compile(spec("json", {"type": "object", "properties": {f"k{number}": {}}}))
        assert compiler.size_bytes <= 2 << 20
    first = spec("json", {"type": "object", "properties": {"k0": {}}})
    last = spec("json", {"type": "object", "properties": {"k199": {}}})
    assert compiler.find(first) is None
    assert compiler.find(last) is not None and compiler.compile(last) is compiler.find(last)


def test_a_vocabulary_that_cannot_spell_the_constraint(tmp_path: Path) -> None:
    described = json.loads(FILE.read_text())
    kept = {
        piece: place for piece, place in described["model"]["vocab"].items() if "{" not in piece
    }
    described["model"] |= {"vocab": kept, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    compiler = Compiler("guidance", tmp_path / "tokenizer.json", VOCAB, (EOS,))
    with pytest.raises(GrammarError, match=r"begin|no output"):
        compiler.compile(spec("json_object", ""))


def test_keywords_that_ask_for_nothing(compilers: dict[str, Compiler]) -> None:
    inner = {
        "type": "array",
        "uniqueItems": False,
        "maxItems": 3.0,
        "items": {"type": "string", "format": "iri"},
    }
    names = {"format": inner, "uniqueItems": {"enum": ["iri"]}}
    wanted = spec("json", {"type": "object", "properties": names, "required": list(names)})
    text = '{"format": ["a"], "uniqueItems": "iri"}'
    assert verdict(compilers["guidance"], wanted, text) == "ends"
    assert verdict(compilers["guidance"], wanted, '{"format": [3') == "wrong"


def test_schemas_that_end_and_that_do_not() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/node"}},
        "required": ["next"],
    }
    assert read_schema(json.dumps({"$defs": {"node": node}, "type": "integer"}))
    ways_out: list[dict[str, Any]] = [
        {"anyOf": [node, {"type": "null"}]}, node | {"type": ["object", "null"]},
        {"type": "array", "items": {"$ref": "#/$defs/node"}}, {**node, "required": []},
    ]  # fmt: skip
    for way in ways_out:
        read_schema(json.dumps({"$defs": {"node": way}, "$ref": "#/$defs/node"}))
    for trap in (
        node,
        {"allOf": [node]},
        {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/node"}},
    ):
        with pytest.raises(GrammarError, match="never end"):
            read_schema(json.dumps({"$defs": {"node": trap}, "$ref": "#/$defs/node"}))


# Masks along an output.


def request(
    grammar: GrammarSpec | None = None, *, marks: tuple[Any, Any] = ((), ()),
    eos: tuple[int, ...] = (EOS,), **params: Any,
) -> EngineRequest:  # fmt: skip
    start, end = marks
    return EngineRequest(
        request_id="r", prompt_token_ids=[5], params=SamplingParams(**params), eos_token_ids=eos,
        grammar=grammar, start_of_thinking_ids=start, end_of_thinking_ids=end,
    )  # fmt: skip


def allowed(constraint: Constraint, output: list[int]) -> set[int]:
    mask = np.zeros(VOCAB // 32, dtype=np.uint32)
    constraint.fill(output, mask)
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


@pytest.fixture
def digits(compilers: dict[str, Compiler]) -> Any:
    wanted = spec("regex", "[0-9]{2,3}")
    compiled = compilers["guidance"].compile(wanted)
    return lambda **more: Constraint(request(wanted, **more), compiled.matcher())


def test_end_tokens_come_exactly_where_it_may_end(digits: Any) -> None:
    one, two, three = (
        ids_of("1"),
        ids_of("1") + ids_of("2"),
        ids_of("1") + ids_of("2") + ids_of("3"),
    )
    assert EOS not in allowed(digits(), one)
    assert EOS in allowed(digits(), two) and len(allowed(digits(), two)) > 1
    assert allowed(digits(), three) == {EOS}
    assert EOS not in allowed(digits(ignore_eos=True), two)
    assert allowed(digits(ignore_eos=True), three) == {EOS}
    stop = 900
    assert allowed(digits(stop_token_ids=[stop]), three) == {EOS, stop}
    assert stop not in allowed(digits(stop_token_ids=[stop]), one)
    seven = ids_of("7")[0]
    assert seven not in allowed(digits(stop_token_ids=[seven]), one)
    assert seven in allowed(digits(stop_token_ids=[seven]), two)
    with pytest.raises(GrammarError, match="no token that could end"):
        allowed(digits(eos=()), three)


def test_a_mask_depends_on_the_output_alone(compilers: dict[str, Compiler]) -> None:
    wanted = spec("json", PERSON)
    for backend in BACKENDS:
        compiled = compilers[backend].compile(wanted)
        output = ids_of(AGE)
        walked = Constraint(request(wanted), compiled.matcher())
        masks = [allowed(walked, output[:size]) for size in range(len(output) + 1)]
        rng = random.Random(1)
        jumping = Constraint(request(wanted), compiled.matcher())
        for _ in range(40):  # forth and back, as drafts that are not accepted would
            size = rng.randrange(len(output) + 1)
            assert allowed(jumping, output[:size]) == masks[size]
            fresh = Constraint(request(wanted), compiled.matcher())
            assert allowed(fresh, output[:size]) == masks[size]


def test_the_constraint_starts_behind_the_thinking(compilers: dict[str, Compiler]) -> None:
    start, end = tuple(ids_of("<think>")), tuple(ids_of("</think>"))
    wanted = GrammarSpec(kind="choice", text='["yes"]', starts_after_ids=end)
    compiled = compilers["guidance"].compile(wanted)
    yes = ids_of("yes")

    opened = Constraint(request(wanted, marks=((), end)), compiled.matcher())
    free = set(range(VOCAB))
    assert allowed(opened, []) == free and allowed(opened, ids_of("hm")) == free
    assert yes[0] in allowed(opened, ids_of("hm</think>")) != free
    assert allowed(opened, ids_of("hm</think>") + yes) == {EOS}

    may = Constraint(request(wanted, marks=(start, end)), compiled.matcher())
    assert {start[0], yes[0]} <= allowed(may, []) != free
    assert allowed(may, yes) == {EOS}  # it did not think
    assert allowed(may, ids_of("<think>no")) == free
    assert allowed(may, ids_of("<think>no</think>") + yes) == {EOS}


def test_a_budget_ends_the_thinking() -> None:
    start, end = tuple(ids_of("<think>")), (700, 701, 702)
    bounded = Constraint(request(marks=(start, end), thinking_token_budget=3), None)
    assert len(allowed(bounded, [*start, 9, 9])) == VOCAB
    assert allowed(bounded, [*start, 9, 9, 9]) == {700}
    assert allowed(bounded, [*start, 9, 9, 9, 700]) == {701}
    assert allowed(bounded, [*start, 9, 9, 700, 701]) == {702}
    assert len(allowed(bounded, [*start, 9, 9, 9, *end])) == VOCAB
    assert len(allowed(bounded, [9, 9, 9, 9, 9])) == VOCAB  # no thinking, nothing to end
    none = Constraint(request(marks=((), end), thinking_token_budget=0), None)
    assert allowed(none, []) == {700}


def test_thinking_is_found_however_the_output_grows() -> None:
    output = [1, 9, 7, 7, 8, 7, 8, 9, 4]
    for step in (1, 2, 3, 9):
        thinking = Thinking((1,), (7, 8, 9))
        for size in range(0, len(output) + 1, step):
            assert thinking.over_at(output[:size]) == (8 if size >= 8 else None)
        assert thinking.over_at(output[:5]) is None
    assert Thinking((1, 2), (7,)).over_at([1, 3]) == 0
    assert Thinking((1, 2), (7,)).may_start([1]) == 2
    assert Thinking((), ()).over_at([]) == 0
