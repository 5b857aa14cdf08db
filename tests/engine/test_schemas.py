"""Narrowed schemas: what they still allow, that they allow nothing wrong, and what is refused in which words."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from quire.config.demo import FOLDER
from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.compiler import Compiler
from quire.engine.grammar.schemas.graph import narrowed
from quire.engine.grammar.schemas.languages import Automaton, complement, intersection
from quire.engine.grammar.schemas.patterns import language
from quire.protocol.request import GrammarSpec
from tests.engine.schema_maker import EOS, TOKENIZER, SchemaMaker, walk

VOCAB = 3072
STRING, NUMBER = {"type": "string"}, {"type": "number"}
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler("guidance", Path(FOLDER) / "tokenizer.json", VOCAB, (EOS,))


def spec(schema: Any) -> GrammarSpec:
    return GrammarSpec(kind="json", text=json.dumps(schema))


def allows(compiler: Compiler, schema: Any, value: Any) -> bool:
    """Whether a value can be written under the schema's masks."""
    matcher = compiler.compile(spec(schema)).matcher()
    mask = np.zeros(VOCAB // 32, dtype=np.uint32)
    for token_id in TOKENIZER.encode(json.dumps(value), add_special_tokens=False).ids:
        matcher.fill(mask)
        if not mask[token_id // 32] >> np.uint32(token_id % 32) & 1:
            return False
        matcher.advance([token_id])
    return matcher.may_end


def members(**more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": NUMBER, "b": STRING}, **more}


# (schema, values that must be allowed, values that must not)
KEPT: list[tuple[Any, list[Any], list[Any]]] = [
    ({"oneOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 5}]}, [1, 9], [4]),
    ({"oneOf": [members(required=["a"]), members(required=["b"])]}, [{"a": 1}, {"b": "x"}], [{}, {"a": 1, "b": "x"}]),
    ({"if": {"properties": {"k": {"const": "n"}}}, "then": members(required=["a"]), "else": members(required=["b"]),
      "type": "object", "required": ["k"]},
     [{"k": "n", "a": 1}, {"k": "o", "b": "x"}], [{"k": "n", "b": "x"}]),
    ({"not": {"type": ["object", "array", "string"]}}, [1, None, True], ["x", {}, []]),
    ({"type": "string", "not": {"enum": ["a", "b"]}}, ["c", "ab", ""], ["a", "b"]),
    ({"type": "string", "not": {"pattern": "^x-"}}, ["a", "xa"], ["x-", "x-a"]),
    ({"type": "string", "pattern": "^(?!x-)[a-z-]+$"}, ["a", "xa"], ["x-", "x-a", "1"]),
    (members(additionalProperties=False, **{"not": {"required": ["a", "b"]}}), [{}, {"a": 1}, {"b": "x"}],
     [{"a": 1, "b": "x"}]),
    (members(dependentRequired={"a": ["b"]}), [{"b": "x"}, {"a": 1, "b": "x"}, {"c": 1}], [{"a": 1}]),
    (members(dependencies={"a": {"required": ["b"]}}), [{"b": "x"}, {"a": 1, "b": "x"}], [{"a": 1}]),
    (members(minProperties=1, additionalProperties=False), [{"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}], [{}]),
    (members(maxProperties=1), [{}, {"a": 1}, {"b": "x"}, {"c": 1}], [{"a": 1, "b": "x"}, {"a": 1, "c": 1}]),
    ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}, [{}, {"ab": 1}], [{"A": 1}]),
    ({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": NUMBER}, [{}], [{"c": 1}]),
    ({"type": "object", "propertyNames": {"not": {"pattern": "^(a|b)$"}}}, [{"c": 1}], [{"a": 1}, {"b": 1}]),
    ({"patternProperties": {"^a": NUMBER, "b$": STRING}, "type": "object"}, [{"a": 1}, {"b": "x"}, {"c": []}],
     [{"a": "x"}, {"b": 1}, {"ab": 1}]),
    ({"type": "array", "uniqueItems": True, "items": STRING}, [[], ["a"]], [["a", "a"]]),
    ({"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", "c"]}},
     [[], ["a"], ["c", "a"], ["b", "a", "c"]], [["a", "a"], ["a", "b", "a"]]),
    ({"type": "array", "uniqueItems": True, "items": {"enum": list(range(30))}, "minItems": 3},
     [[0, 10, 20]], [[1, 1, 1]]),
    ({"type": "array", "contains": {"const": 5}, "items": NUMBER}, [[5], [5, 1]], [[], [1]]),
    ({"type": "array", "contains": {"const": 5}, "minContains": 2, "maxContains": 2, "items": NUMBER}, [[5, 5, 1]],
     [[5], [5, 5, 5]]),
    ({"type": "object", "allOf": [{"properties": {"a": NUMBER}}], "properties": {"b": STRING},
      "unevaluatedProperties": False}, [{}, {"a": 1}, {"b": "x", "a": 1}], [{"c": 1}]),
    ({"type": "array", "prefixItems": [NUMBER], "unevaluatedItems": False}, [[], [1]], [[1, 2]]),
    ({"$schema": DRAFT_7, "$ref": "#/definitions/n", "type": "string", "definitions": {"n": NUMBER}, "not": {}},
     [1], ["x"]),
    ({"$ref": "#here", "$defs": {"x": {"$anchor": "here", "not": {"type": "string"}}}}, [1, None], ["x"]),
    ({"$defs": {"tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                         "propertyNames": {"maxLength": 5}, "additionalProperties": False}}, "$ref": "#/$defs/tree"},
     [{}, {"kids": [{"kids": []}, {}]}], [{"kids": [1]}]),
    ({"type": "integer", "not": {"multipleOf": 1}, "enum": [1]}, [], []),
    ({"type": "number", "not": {"type": "integer"}, "minimum": 2}, [2.5], [2, 3]),
    ({"anyOf": [{"$ref": "http://example.org/x"}, {"type": "null"}]}, [None], [1]),
    ({"anyOf": [{"$ref": "#"}, {"type": "integer"}], "not": {"const": 3}}, [1], [3, "x"]),
    (members(unheard=1, minProperties=2), [{"a": 1, "b": "x"}], [{"c": 1, "d": 2}]),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(KEPT)))
def test_what_is_kept_of_a_schema(compiler: Compiler, place: int) -> None:
    schema, able, unable = KEPT[place]
    if not able:
        with pytest.raises(GrammarError, match="no document"):
            compiler.compile(spec(schema))
    for value in able:
        assert allows(compiler, schema, value), value
    for value in unable:
        assert not allows(compiler, schema, value), value


def test_random_outputs_of_random_schemas_are_valid(compiler: Compiler) -> None:
    maker = SchemaMaker(seed=11)
    num_accepted = num_outputs = 0
    for _ in range(90):
        schema = maker.schema()
        try:
            text = json.dumps(narrowed(schema, frozenset()))
            compiled = compiler.compile(GrammarSpec(kind="json", text=text))
        except GrammarError:
            continue
        num_accepted += 1
        for seed in range(4):
            output = walk(compiled, seed)
            if output is not None:
                num_outputs += 1
                checked = jsonschema.Draft202012Validator(schema)
                assert checked.is_valid(json.loads(output)), (output, schema)
    assert num_accepted > 65 and num_outputs > 220


REFUSED = [
    ({"type": "array", "uniqueItems": True, "minItems": 2, "items": STRING}, "uniqueItems"),
    ({"properties": {"a": {"$ref": "other.json"}}, "required": ["a"], "type": "object"}, r"\$ref at #/properties/a"),
    ({"type": "string", "pattern": "^(?<=a)b"}, "pattern"),
    ({"not": {"unevaluatedProperties": False}, "type": "object"}, "unevaluatedProperties at #"),
    ({"allOf": [{"required": 3}], "not": {"type": "string"}}, "required at #/allOf/0"),
    ({"properties": {"a": {"type": "thing"}}, "type": "object", "required": ["a"]}, "thing"),
    ({"type": "object", "minProperties": 3, "maxProperties": 2}, "no document"),
    ({"type": "array", "not": {"minItems": 1}, "contains": {}}, "no document"),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(REFUSED)))
def test_a_refusal_names_the_keyword_and_its_place(compiler: Compiler, place: int) -> None:
    schema, words = REFUSED[place]
    with pytest.raises(GrammarError, match=words):
        compiler.compile(spec(schema))


def test_a_schema_of_many_combinations_is_refused_soon(compiler: Compiler) -> None:
    names = [f"n{place}" for place in range(40)]
    ways = [{"required": [a, b]} for a in names for b in names if a < b]
    pairs = {"allOf": [{"oneOf": ways[place : place + 9]} for place in range(0, 700, 9)]}
    nested = {"properties": dict.fromkeys(names, pairs), "not": {"required": names}}
    try:
        compiler.compile(spec(nested))
    except GrammarError as error:
        assert re.search("too complex|no document", str(error))


PATTERNS = ["^(and|or)$", r"[ ~^:\\]", r"\.\.", r"^\w+:/", "a|^b$", "^x-", "^(?!x-)a", "^(?!.*o$).*$", "^a{2,3}$",
            r"^\d+(?:\.\d+)?$", "b+$", "^[^a-m]"]  # fmt: skip


def test_languages_agree_with_regexes() -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choices("andorxb-.:/12 o", k=rng.randrange(6))) for _ in range(400)]
    for pattern in PATTERNS:
        inside = re.compile(_python(Automaton(language(pattern, wide=False)).regex()))
        outside = re.compile(_python(Automaton(complement(language(pattern, wide=True))).regex()))
        for text in texts:
            found = re.search(pattern, text) is not None
            assert (inside.search(text) is not None) == found, (pattern, text)
            assert (outside.search(text) is not None) != found, (pattern, text)
    both = intersection(language("^a", wide=False), language("b$", wide=False))
    assert not Automaton(both).is_empty()
    assert Automaton(intersection(both, language("^.$", wide=False))).is_empty()


def _python(regex: str) -> str:
    return re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: re.escape(chr(int(found[1], 16))), regex)
